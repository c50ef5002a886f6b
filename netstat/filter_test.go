package netstat

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func networks(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func newFilter(tb testing.TB, config FilterConfig) *Filter {
	tb.Helper()
	f, err := NewFilter(config)
	require.NoError(tb, err)
	return f
}

// filterCases are filters of every kind, with the names of the filterSockets that they match.
var filterCases = []struct {
	name   string
	config FilterConfig
	want   []string
}{
	{"nothing", FilterConfig{}, []string{"web", "mapped", "v6", "local", "local6", "listen", "unix"}},
	{"local ports", FilterConfig{LocalPorts: []PortRange{{80, 80}, {5000, 5001}}}, []string{"web", "v6", "listen", "unix"}},
	{"not local ports", FilterConfig{ExcludeLocalPorts: []PortRange{{0, 79}, {81, 65535}}}, []string{"web", "listen", "unix"}},
	{"remote ports", FilterConfig{RemotePorts: []PortRange{{443, 444}}}, []string{"mapped", "v6", "listen", "unix"}},
	{"not remote ports", FilterConfig{ExcludeRemotePorts: []PortRange{{443, 443}}}, []string{"web", "v6", "local", "local6", "listen", "unix"}},
	{"both", FilterConfig{RemotePorts: []PortRange{{400, 500}}, ExcludeRemotePorts: []PortRange{{444, 444}}}, []string{"mapped", "listen", "unix"}},
	{"network", FilterConfig{Remote: networks("10.0.0.0/8")}, []string{"web", "mapped", "listen", "unix"}},
	{"address", FilterConfig{Remote: networks("10.0.0.2/32", "2001:db8::2/128")}, []string{"web", "v6", "listen", "unix"}},
	{"not network", FilterConfig{ExcludeRemote: networks("10.0.0.2/31", "2001:db8::/32")}, []string{"local", "local6", "listen", "unix"}},
	{"all of IPv4", FilterConfig{Remote: networks("0.0.0.0/0")}, []string{"web", "mapped", "local", "listen", "unix"}},
	{"all of IPv6", FilterConfig{Remote: networks("::/0")}, []string{"v6", "local6", "listen", "unix"}},
	{"not all of IPv6", FilterConfig{ExcludeRemote: networks("::/0")}, []string{"web", "mapped", "local", "listen", "unix"}},
	{"no loopback", FilterConfig{ExcludeLoopback: true}, []string{"web", "mapped", "v6", "listen", "unix"}},
	{"everything", FilterConfig{
		LocalPorts: []PortRange{{1, 65535}}, ExcludeLocalPorts: []PortRange{{80, 80}},
		RemotePorts: []PortRange{{443, 444}}, ExcludeRemotePorts: []PortRange{{444, 444}},
		Remote: networks("10.0.0.0/8", "::/0"), ExcludeRemote: networks("10.0.0.2/32"), ExcludeLoopback: true,
	}, []string{"mapped", "unix"}},
}

func filterSockets() map[string]*Socket {
	connection := func(local, remote string) *Socket {
		return &Socket{
			Transport: TransportTCP, State: TCPEstablished,
			Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote),
		}
	}
	return map[string]*Socket{
		"web":    connection("10.0.0.1:80", "10.0.0.2:40000"),
		"mapped": connection("[::ffff:10.0.0.1]:4000", "[::ffff:10.0.0.3]:443"),
		"v6":     connection("[2001:db8::1]:5001", "[2001:db8::2]:444"),
		"local":  connection("127.0.0.1:6000", "127.1.2.3:6001"),
		"local6": connection("[::1]:6000", "[::1]:6001"),
		"listen": connection("0.0.0.0:80", "0.0.0.0:0"),
		"unix":   {Transport: TransportUnix, State: TCPEstablished},
	}
}

func TestFilterMatch(t *testing.T) {
	for _, test := range filterCases {
		t.Run(test.name, func(t *testing.T) {
			f := newFilter(t, test.config)
			var got []string
			for name, socket := range filterSockets() {
				if f.Match(socket) {
					got = append(got, name)
				}
			}
			require.ElementsMatch(t, test.want, got)
			require.Equal(t, len(test.config.LocalPorts)+len(test.config.ExcludeLocalPorts)+len(test.config.RemotePorts)+
				len(test.config.ExcludeRemotePorts)+len(test.config.Remote)+len(test.config.ExcludeRemote) == 0 && !test.config.ExcludeLoopback,
				f.IsEmpty())
		})
	}
}

// A filter that is too long for the kernel is applied by the scanner only.
func TestFilterTooLongForTheKernel(t *testing.T) {
	var config FilterConfig
	for port := range uint16(5000) {
		config.LocalPorts = append(config.LocalPorts, PortRange{2 * port, 2 * port})
	}
	require.Nil(t, newFilter(t, config).bytecode())
	config.LocalPorts = config.LocalPorts[:3000]
	require.NotEmpty(t, newFilter(t, config).bytecode())
}

func TestNewFilterErrors(t *testing.T) {
	const want = `; want a network like "10.0.0.0/8" or "2001:db8::/32"`
	good := netip.MustParsePrefix("10.0.0.0/8")
	backwards := []PortRange{{1, 1}, {100, 80}}
	for _, test := range []struct {
		name   string
		config FilterConfig
		want   string
	}{
		{"local ports", FilterConfig{LocalPorts: backwards}, "filter: LocalPorts[1]: port range 100-80 ends before it begins"},
		{"not local ports", FilterConfig{ExcludeLocalPorts: backwards},
			"filter: ExcludeLocalPorts[1]: port range 100-80 ends before it begins"},
		{"remote ports", FilterConfig{RemotePorts: backwards}, "filter: RemotePorts[1]: port range 100-80 ends before it begins"},
		{"not remote ports", FilterConfig{ExcludeRemotePorts: []PortRange{{1, 0}}},
			"filter: ExcludeRemotePorts[0]: port range 1-0 ends before it begins"},
		{"zero network", FilterConfig{Remote: []netip.Prefix{good, {}}},
			"filter: Remote[1]: the zero netip.Prefix is not a network" + want},
		{"zero network to leave out", FilterConfig{ExcludeRemote: []netip.Prefix{{}}},
			"filter: ExcludeRemote[0]: the zero netip.Prefix is not a network" + want},
		{"IPv4 with a length of IPv6", FilterConfig{Remote: []netip.Prefix{netip.PrefixFrom(good.Addr(), 33)}},
			"filter: Remote[0]: network 10.0.0.0 has an invalid length" + want},
		{"length below zero", FilterConfig{Remote: []netip.Prefix{netip.PrefixFrom(netip.IPv6Unspecified(), -1)}},
			"filter: Remote[0]: network :: has an invalid length" + want},
		{"length without an address", FilterConfig{Remote: []netip.Prefix{netip.PrefixFrom(netip.Addr{}, 8)}},
			"filter: Remote[0]: the zero netip.Prefix is not a network" + want},
		{"IPv4-mapped", FilterConfig{ExcludeRemote: networks("::ffff:10.0.0.0/104")},
			"filter: ExcludeRemote[0]: the network ::ffff:10.0.0.0/104 is IPv4-mapped" + want},
		{"IPv4-mapped and shorter than that", FilterConfig{Remote: networks("::ffff:0.0.0.0/80")},
			"filter: Remote[0]: the network ::ffff:0.0.0.0/80 is IPv4-mapped" + want},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := NewFilter(test.config)
			require.EqualError(t, err, test.want)
			require.Nil(t, f)
		})
	}
}

// The zone of an address in the configuration is ignored, and an address matches whatever its zone.
func TestFilterWithZone(t *testing.T) {
	network := netip.PrefixFrom(netip.MustParseAddr("fe80::1%eth0"), 64)
	for _, remote := range []string{"[fe80::2]:80", "[fe80::2%eth0]:80", "[fe80::2%eth1]:80"} {
		socket := &Socket{Transport: TransportTCP, Local: netip.MustParseAddrPort("[fe80::1]:90"), Remote: netip.MustParseAddrPort(remote)}
		require.True(t, newFilter(t, FilterConfig{Remote: []netip.Prefix{network}}).Match(socket), remote)
		require.False(t, newFilter(t, FilterConfig{ExcludeRemote: []netip.Prefix{network}}).Match(socket), remote)
	}
}

func TestNilFilterMatchesAll(t *testing.T) {
	for _, f := range []*Filter{nil, {}} {
		require.True(t, f.IsEmpty())
		require.Nil(t, f.bytecode())
		for name, socket := range filterSockets() {
			require.True(t, f.Match(socket), name)
		}
	}
}

// A filter copies the lists of its configuration.
func TestFilterKeepsItsConfig(t *testing.T) {
	ports := []PortRange{{1, 100}, {300, 400}}
	more := []PortRange{{1, 1}, {2, 2}}
	hosts, others := networks("10.0.0.0/8"), networks("10.1.0.0/16")
	f := newFilter(t, FilterConfig{
		LocalPorts: ports, ExcludeLocalPorts: more, RemotePorts: more, ExcludeRemotePorts: ports, Remote: hosts, ExcludeRemote: others,
	})
	before := f.bytecode()
	ports[0], more[1] = PortRange{7, 6}, PortRange{9, 8}
	hosts[0], others[0] = netip.Prefix{}, netip.Prefix{}
	require.Equal(t, before, f.bytecode())
}

// NotLoopback excludes a connection with a loopback address at either end.
func TestFilterNotLoopback(t *testing.T) {
	f := newFilter(t, FilterConfig{ExcludeLoopback: true})
	for _, test := range []struct {
		local, remote string
		want          bool
	}{
		{"10.0.0.1:80", "10.0.0.2:40000", true},
		{"127.0.0.1:80", "10.0.0.2:40000", false},
		{"10.0.0.1:80", "127.255.255.255:40000", false},
		{"[::ffff:127.0.0.1]:80", "[::ffff:10.0.0.2]:40000", false},
		{"[::ffff:10.0.0.1]:80", "[::ffff:127.0.0.1]:40000", false},
		{"[::1]:80", "[2001:db8::1]:40000", false},
		{"[2001:db8::1]:80", "[::1]:40000", false},
		{"127.0.0.1:80", "0.0.0.0:0", false},
		{"0.0.0.0:80", "0.0.0.0:0", true},
	} {
		socket := &Socket{Transport: TransportTCP, Local: netip.MustParseAddrPort(test.local), Remote: netip.MustParseAddrPort(test.remote)}
		require.Equal(t, test.want, f.Match(socket), "%s %s", test.local, test.remote)
	}
}

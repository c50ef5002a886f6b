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

// filterCases are filters of every kind, and the sockets of filterSockets that they want.
var filterCases = []struct {
	name   string
	config FilterConfig
	want   []string
}{
	{"nothing", FilterConfig{}, []string{"web", "mapped", "v6", "local", "local6", "listen", "unix"}},
	{"local ports", FilterConfig{LocalPorts: []PortRange{{80, 80}, {5000, 5001}}}, []string{"web", "v6", "listen", "unix"}},
	{"not local ports", FilterConfig{NotLocalPorts: []PortRange{{0, 79}, {81, 65535}}}, []string{"web", "listen", "unix"}},
	{"remote ports", FilterConfig{RemotePorts: []PortRange{{443, 444}}}, []string{"mapped", "v6", "listen", "unix"}},
	{"not remote ports", FilterConfig{NotRemotePorts: []PortRange{{443, 443}}}, []string{"web", "v6", "local", "local6", "listen", "unix"}},
	{"both", FilterConfig{RemotePorts: []PortRange{{400, 500}}, NotRemotePorts: []PortRange{{444, 444}}}, []string{"mapped", "listen", "unix"}},
	{"network", FilterConfig{Remote: networks("10.0.0.0/8")}, []string{"web", "mapped", "listen", "unix"}},
	{"address", FilterConfig{Remote: networks("10.0.0.2/32", "2001:db8::2/128")}, []string{"web", "v6", "listen", "unix"}},
	{"not network", FilterConfig{NotRemote: networks("10.0.0.2/31", "2001:db8::/32")}, []string{"local", "local6", "listen", "unix"}},
	{"all of IPv4", FilterConfig{Remote: networks("0.0.0.0/0")}, []string{"web", "mapped", "local", "listen", "unix"}},
	{"all of IPv6", FilterConfig{Remote: networks("::/0")}, []string{"v6", "local6", "listen", "unix"}},
	{"not all of IPv6", FilterConfig{NotRemote: networks("::/0")}, []string{"web", "mapped", "local", "listen", "unix"}},
	{"no loopback", FilterConfig{NotLoopback: true}, []string{"web", "mapped", "v6", "listen", "unix"}},
	{"everything", FilterConfig{
		LocalPorts: []PortRange{{1, 65535}}, NotLocalPorts: []PortRange{{80, 80}},
		RemotePorts: []PortRange{{443, 444}}, NotRemotePorts: []PortRange{{444, 444}},
		Remote: networks("10.0.0.0/8", "::/0"), NotRemote: networks("10.0.0.2/32"), NotLoopback: true,
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

func TestFilterWants(t *testing.T) {
	for _, test := range filterCases {
		t.Run(test.name, func(t *testing.T) {
			f := NewFilter(test.config)
			var got []string
			for name, socket := range filterSockets() {
				if f.Wants(socket) {
					got = append(got, name)
				}
			}
			require.ElementsMatch(t, test.want, got)
			require.Equal(t, len(test.config.LocalPorts)+len(test.config.NotLocalPorts)+len(test.config.RemotePorts)+
				len(test.config.NotRemotePorts)+len(test.config.Remote)+len(test.config.NotRemote) == 0 && !test.config.NotLoopback,
				f.IsEmpty())
		})
	}
}

// TestFilterTooLongForTheKernel: such a filter is not given to it.
func TestFilterTooLongForTheKernel(t *testing.T) {
	var config FilterConfig
	for port := range uint16(5000) {
		config.LocalPorts = append(config.LocalPorts, PortRange{2 * port, 2 * port})
	}
	require.Nil(t, NewFilter(config).bytecode())
	config.LocalPorts = config.LocalPorts[:3000]
	require.NotEmpty(t, NewFilter(config).bytecode())
}

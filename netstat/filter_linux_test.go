package netstat

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// For every filter the kernel returns the same connections as Match, in all states.
func TestFilterInTheKernel(t *testing.T) {
	testnet.Isolate(t, func() {
		var ports []uint16
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			for _, socket := range testnet.States(t, network).Sockets {
				ports = append(ports, socket.Local.Port())
			}
		}
		addAddresses(t, "10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", "2001:db8::2", "fd00::1")
		for _, pair := range [][2]string{
			{"10.0.0.2", "10.0.0.1:80"},
			{"::ffff:10.0.0.1", "[::ffff:10.0.0.3]:443"},
			{"2001:db8::1", "[2001:db8::2]:444"},
			{"2001:db8::2", "[2001:db8::1]:5001"},
			{"fd00::1", "[2001:db8::1]:4000"},
			{"127.0.0.1", "10.0.0.1:4001"}, // loopback at one end
			{"10.0.0.1", "127.0.0.1:4001"},
			{"::ffff:127.0.0.1", "[::ffff:10.0.0.1]:4002"},
			{"::ffff:10.0.0.1", "[::ffff:127.0.0.1]:4002"},
			{"::1", "[2001:db8::1]:4003"},
			{"2001:db8::1", "[::1]:4003"},
		} {
			connectBetween(t, netip.MustParseAddr(pair[0]), netip.MustParseAddrPort(pair[1]))
		}
		some, more := ports[len(ports)/3], ports[len(ports)/2]
		configs := map[string]FilterConfig{
			"port":        {LocalPorts: []PortRange{{some, some}}},
			"ports":       {LocalPorts: []PortRange{{some, some}, {more, more}, {1, 32768}}, ExcludeLocalPorts: []PortRange{{more, more}}},
			"remote port": {RemotePorts: []PortRange{{some, some}, {more, 65535}}},
			"loopback":    {Remote: networks("127.0.0.1/32", "::1/128")},
			"mapped":      {ExcludeRemote: networks("::/0")},
			"long":        {LocalPorts: manyRanges(2900)},
			"too long":    {LocalPorts: manyRanges(5000)},
			"host bits":   {Remote: networks("10.0.0.1/31", "2001:db8::2/64")},
			"every bit":   {ExcludeRemote: networks("10.0.0.3/32", "2001:db8::2/127")},
			"half":        {Remote: networks("0.0.0.0/1", "2000::/3"), ExcludeRemote: networks("127.0.0.0/8")},
			"around IPv4": {Remote: networks("::/8", "2001:db8::1/128"), ExcludeRemote: networks("::/127")},
			"all ports":   {LocalPorts: []PortRange{{0, 65535}}, ExcludeRemotePorts: []PortRange{{0, 443}}},
		}
		for i, test := range filterCases {
			configs[fmt.Sprintf("%d %s", i, test.name)] = test.config
		}
		everything := func(*Socket) bool { return true }
		all := scanConnections(t, ScannerConfig{}, everything)
		for name, config := range configs {
			filter := newFilter(t, config)
			want := scanConnections(t, ScannerConfig{}, filter.Match)
			require.NotEmpty(t, want, name)
			require.Equal(t, filter.IsEmpty(), len(want) == len(all), name)
			require.ElementsMatch(t, want, scanConnections(t, ScannerConfig{TCPFilter: filter}, everything), name)
			procfs := ScannerConfig{TCPFilter: filter, Source: SourceProcfs}
			require.Len(t, scanConnections(t, procfs, everything), len(want), name)
		}
	})
}

// addAddresses adds addresses to lo, and waits for their routes: the kernel adds those of IPv6 later.
func addAddresses(t *testing.T, addresses ...string) {
	t.Helper()
	testnet.Require(t, "ip")
	for _, text := range addresses {
		addr := netip.MustParseAddr(text)
		args := []string{"addr", "add", netip.PrefixFrom(addr, addr.BitLen()).String(), "dev", "lo"}
		if addr.Is6() {
			args = append(args, "nodad") // otherwise it is tentative for a second
		}
		out, err := exec.Command("ip", args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	for _, text := range addresses {
		require.Eventually(t, func() bool {
			out, err := exec.Command("ip", "route", "get", text).CombinedOutput()
			return err == nil && bytes.HasPrefix(out, []byte("local "))
		}, 10*time.Second, time.Millisecond, "no route to %s", text)
	}
}

// connectBetween opens a connection between these addresses.
func connectBetween(t *testing.T, from netip.Addr, to netip.AddrPort) {
	t.Helper()
	network := map[bool]string{true: "tcp4", false: "tcp6"}[from.Is4()]
	if from.Is4In6() {
		network = "tcp4in6"
	}
	p := testnet.Start(t, testnet.Process{Name: "between"})
	listener := p.Listen(network, to, 1)
	p.ConnectFrom(from, to, 1)
	p.Accept(listener, 1)
	p.Close(listener) // the next connection may use its port
}

func manyRanges(n uint16) []PortRange {
	var ranges []PortRange
	for i := range n {
		ranges = append(ranges, PortRange{30000 + 3*i, 30001 + 3*i})
	}
	return ranges
}

// scanConnections returns the connections that match, and requires that listeners are always returned.
func scanConnections(t *testing.T, config ScannerConfig, wants func(*Socket) bool) []string {
	t.Helper()
	config.OwnerMethod, config.Transports = OwnersOff, []Transport{TransportTCP}
	scanner, err := NewScanner(config)
	require.NoError(t, err)
	defer scanner.Close()
	var found []string
	listening := 0
	for socket, err := range scanner.Sockets(t.Context()) {
		require.NoError(t, err)
		if socket.State == TCPListen {
			listening++
		} else if wants(socket) {
			found = append(found, fmt.Sprint(socket.State, socket.Local, socket.Remote, socket.Cookie))
		}
	}
	require.Equal(t, 12, listening)
	return found
}

// BenchmarkFilter compares filters in the kernel and in the scanner, for one matching connection among many.
func BenchmarkFilter(b *testing.B) {
	testnet.Isolate(b, func() {
		testnet.ConnectedPairs(b, 2, 5000)
		filter := newFilter(b, FilterConfig{LocalPorts: []PortRange{{1, 1}}})
		for name, config := range map[string]ScannerConfig{
			"kernel": {TCPFilter: filter},
			"here":   {},
		} {
			b.Run(name, func(b *testing.B) {
				config.OwnerMethod, config.TCPInfo, config.Transports = OwnersOff, true, []Transport{TransportTCP}
				scanner, err := NewScanner(config)
				require.NoError(b, err)
				defer scanner.Close()
				b.ReportAllocs()
				for b.Loop() {
					for socket, err := range scanner.Sockets(b.Context()) {
						require.NoError(b, err)
						_ = filter.Match(socket)
					}
				}
			})
		}
	})
}

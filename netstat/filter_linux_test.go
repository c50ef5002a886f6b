package netstat

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// TestFilterInTheKernel: for every filter the kernel chooses the connections that Wants does, in all states.
func TestFilterInTheKernel(t *testing.T) {
	testnet.Isolate(t, func() {
		var ports []uint16
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			for _, socket := range testnet.States(t, network).Sockets {
				ports = append(ports, socket.Local.Port())
			}
		}
		some, more := ports[len(ports)/3], ports[len(ports)/2]
		configs := map[string]FilterConfig{
			"port":        {LocalPorts: []PortRange{{some, some}}},
			"ports":       {LocalPorts: []PortRange{{some, some}, {more, more}, {1, 32768}}, NotLocalPorts: []PortRange{{more, more}}},
			"remote port": {RemotePorts: []PortRange{{some, some}, {more, 65535}}},
			"loopback":    {Remote: networks("127.0.0.1/32", "::1/128")},
			"mapped":      {NotRemote: networks("::/0")},
			"long":        {LocalPorts: manyRanges(2900)},
			"too long":    {LocalPorts: manyRanges(5000)},
		}
		for i, test := range filterCases {
			configs[fmt.Sprintf("%d %s", i, test.name)] = test.config
		}
		for name, config := range configs {
			filter := NewFilter(config)
			want := scanConnections(t, ScannerConfig{}, filter.Wants)
			all := func(*Socket) bool { return true }
			require.ElementsMatch(t, want, scanConnections(t, ScannerConfig{Connections: filter}, all), name)
			procfs := ScannerConfig{Connections: filter, Source: SourceProcfs}
			require.Len(t, scanConnections(t, procfs, all), len(want), name)
		}
	})
}

func manyRanges(n uint16) []PortRange {
	var ranges []PortRange
	for i := range n {
		ranges = append(ranges, PortRange{30000 + 3*i, 30001 + 3*i})
	}
	return ranges
}

// scanConnections returns the connections that are wanted, and checks that what listens is there in any case.
func scanConnections(t *testing.T, config ScannerConfig, wants func(*Socket) bool) []string {
	t.Helper()
	config.Owners, config.Transports = OwnersNone, []Transport{TransportTCP}
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

// BenchmarkFilter shows what it saves to let the kernel filter: one connection of many is wanted.
func BenchmarkFilter(b *testing.B) {
	testnet.Isolate(b, func() {
		testnet.Crowd(b, 2, 5000)
		filter := NewFilter(FilterConfig{LocalPorts: []PortRange{{1, 1}}})
		for name, config := range map[string]ScannerConfig{
			"kernel": {Connections: filter},
			"here":   {},
		} {
			b.Run(name, func(b *testing.B) {
				config.Owners, config.TCPInfo, config.Transports = OwnersNone, true, []Transport{TransportTCP}
				scanner, err := NewScanner(config)
				require.NoError(b, err)
				defer scanner.Close()
				b.ReportAllocs()
				for b.Loop() {
					for socket, err := range scanner.Sockets(b.Context()) {
						require.NoError(b, err)
						_ = filter.Wants(socket)
					}
				}
			})
		}
	})
}

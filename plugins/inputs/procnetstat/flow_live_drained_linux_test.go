package procnetstat

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Many connections whose listeners have closed make no series that were not there before, and count for their listeners.
func TestManyDrainedConnections(t *testing.T) {
	testnet.Isolate(t, func() { drainMany(t, 2, 10, 100) })
}

// TestSlowManyDrainedConnections is TestManyDrainedConnections with 100,000 connections of 1,000 listeners.
func TestSlowManyDrainedConnections(t *testing.T) {
	testnet.SkipUnlessSlow(t)
	testnet.Isolate(t, func() { drainMany(t, 10, 100, 100) })
}

// drainMany starts pairs of a server and a client, opens connections to the listeners of each server, and closes the listeners. It
// checks what each source says of the listeners with two gathers before and two after.
func drainMany(t *testing.T, pairs, listeners, connections int) {
	t.Helper()
	any4 := netip.MustParseAddrPort("0.0.0.0:0")
	var servers []*testnet.Proc
	var open [][]testnet.Socket
	var ports []uint16
	for range pairs {
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		servers = append(servers, server)
		var listening []testnet.Socket
		for range listeners {
			listener := server.Listen("tcp4", any4, connections)
			client.Connect(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listener.Local.Port()), connections)
			server.Accept(listener, connections)
			listening = append(listening, listener)
			ports = append(ports, listener.Local.Port())
		}
		open = append(open, listening)
	}
	established := int64(pairs * listeners * connections)
	measurements := []string{"procnetstat", "procnetstat_process", "procnetstat_listener", "procnetstat_cgroup", "procnetstat_remote"}
	series := map[string][]string{} // by source and measurement
	check := func(listening bool) func(gathered, string) {
		return func(g gathered, source string) {
			for _, measurement := range measurements {
				found := slices.Sorted(maps.Keys(g.all(measurement)))
				key := source + " " + measurement
				if series[key] == nil {
					series[key] = found
				}
				require.Len(g, found, len(series[key]), key)
				require.Equal(g, series[key], found, key)
			}
			of := g.all("procnetstat_listener", "protocol=tcp", "process_name=server")
			require.Len(g, of, len(ports))
			for tags, fields := range of {
				require.Equal(g, int64(connections), fields["tcp_established"], tags)
				require.Equal(g, listening, fields["tcp_listen"] == 1, tags)
			}
			require.Len(g, g.all("procnetstat_remote"), len(ports))
			require.Equal(g, established, g.sum("procnetstat_remote")["tcp_established"])
			require.Equal(g, established, g.one("procnetstat_process", "process_name=server")["tcp_established"])
			g.requireNoneTwice("tcp_established")
		}
	}
	v := startViews(t, "netlink", "procfs")
	for i := range 2 {
		v.check(t, fmt.Sprintf("listening %d", i), check(true))
	}
	for i, server := range servers {
		server.Close(open[i]...)
	}
	for i := range 2 {
		v.check(t, fmt.Sprintf("drained %d", i), check(false))
	}
}

//go:build linux

package procnetstat

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// connected returns a connected socket of the transport.
func connected(transport netstat.Transport, remote string) *netstat.Socket {
	peer := netip.MustParseAddrPort(remote)
	local := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 40000)
	return &netstat.Socket{Transport: transport, State: netstat.TCPEstablished, Local: local, Remote: peer}
}

// Sockets count together if protocol, network, port and process are the same, whichever comes first.
func TestRemoteSeries(t *testing.T) {
	const tcp, udp = netstat.TransportTCP, netstat.TransportUDP
	unconnected := connected(tcp, "0.0.0.0:0")
	unconnected.State = netstat.TCPClose
	disconnected := connected(udp, "198.51.100.1:443")
	disconnected.State = netstat.TCPClose
	sockets := []*netstat.Socket{
		connected(tcp, "198.51.100.1:443"),
		connected(tcp, "198.51.100.2:443"),
		connected(tcp, "[::ffff:198.51.100.3]:443"),
		connected(tcp, "[::ffff:203.0.113.1]:443"),
		connected(tcp, "198.51.100.1:80"),
		connected(udp, "198.51.100.1:443"),
		connected(tcp, "[2001:db8::1]:443"),
		connected(tcp, "[2001:db8:ffff::1]:443"),
		connected(tcp, "[2001:db9::1]:443"),
		unconnected, disconnected,
		connected(netstat.TransportRaw, "198.51.100.1:1"),
	}
	want := map[string]int64{
		"tcp 198.51.100.0/24 443": 3, "tcp 203.0.113.0/24 443": 1, "tcp 198.51.100.0/24 80": 1, "udp 198.51.100.0/24 443": 1,
		"tcp 2001:db8::/32 443": 2, "tcp 2001:db9::/32 443": 1,
	}
	for _, withOwners := range []bool{false, true} {
		owners := []*owner{{name: "a"}, {name: "b"}}
		m := newRemoteMeasurement(withOwners, 24, 32, seriesOptions{maxSeries: 100, log: testutil.Logger{Quiet: true}})
		m.enter(&scope{})
		all := map[string]int64{}
		for key, n := range want {
			if withOwners {
				all[key+" a"], all[key+" b"] = n, n
			} else {
				all[key] = n
			}
		}
		number := uint64(0)
		for round := range 3 {
			for i := range sockets {
				number++
				s := sockets[i]
				if round == 1 {
					s = sockets[len(sockets)-1-i]
				}
				o := &observation{Socket: s, number: number}
				if withOwners {
					o.owners = owners
				}
				m.observe(o)
			}
			got := map[string]int64{}
			for key, s := range m.series.byKey {
				got[strings.ReplaceAll(key, separator, " ")] = s.stats.sockets
				s.reset()
			}
			require.Equal(t, all, got)
			require.Len(t, m.byKey, len(all), "tag values are made once for each series")
		}
	}
}

// A peer in one namespace is not the same peer in another.
func TestRemoteSeriesOfNamespaces(t *testing.T) {
	m := newRemoteMeasurement(false, 32, 128, seriesOptions{maxSeries: 100, netNS: true, log: testutil.Logger{Quiet: true}})
	for number, tag := range []string{"self", "blue"} {
		m.enter(&scope{tag: tag})
		m.observe(&observation{Socket: connected(netstat.TransportTCP, "198.51.100.1:443"), number: uint64(number + 1)})
	}
	require.Len(t, m.series.byKey, 2)
	for _, s := range m.series.byKey {
		require.EqualValues(t, 1, s.stats.sockets)
	}
}

//go:build linux

package procnetstat

import (
	"net/netip"
	"strings"
	"testing"
	"time"

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
		m := newRemoteMeasurement(withOwners, 24, 32, nobodyAt, seriesOptions{details: everyDetail, maxSeries: 100, log: testutil.Logger{Quiet: true}})
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
	m := newRemoteMeasurement(false, 32, 128, nobodyAt, seriesOptions{details: everyDetail, maxSeries: 100, netNS: true, log: testutil.Logger{Quiet: true}})
	for number, tag := range []string{"self", "blue"} {
		m.enter(&scope{tag: tag})
		m.observe(&observation{Socket: connected(netstat.TransportTCP, "198.51.100.1:443"), number: uint64(number + 1)})
	}
	require.Len(t, m.series.byKey, 2)
	for _, s := range m.series.byKey {
		require.EqualValues(t, 1, s.stats.sockets)
	}
}

// nobodyAt knows of no listener.
func nobodyAt(uint64, netstat.Transport, netip.AddrPort) string { return "" }

// Link-local addresses on two links are two peers; the networks of a prefix have no zone.
func TestRemoteSeriesOfLinks(t *testing.T) {
	on := func(device uint32, remote string) *observation {
		s := connected(netstat.TransportTCP, remote)
		s.Interface = device
		return &observation{Socket: s, number: uint64(device)}
	}
	for prefix, want := range map[int]map[string]int64{
		128: {"tcp fe80::1%eth0 443": 1, "tcp fe80::1%eth1 443": 1, "tcp 2001:db8::1 443": 1},
		64:  {"tcp fe80::/64 443": 2, "tcp 2001:db8::/64 443": 1},
	} {
		m := newRemoteMeasurement(false, 32, prefix, nobodyAt, seriesOptions{details: everyDetail, maxSeries: 100})
		m.enter(&scope{})
		m.observe(on(1, "[fe80::1%eth0]:443"))
		m.observe(on(2, "[fe80::1%eth1]:443"))
		m.observe(on(3, "[2001:db8::1]:443"))
		got := map[string]int64{}
		for key, s := range m.series.byKey {
			got[strings.ReplaceAll(key, separator, " ")] = s.stats.sockets
		}
		require.Equal(t, want, got)
	}
}

// The tag remote_process_name stays while no process is known to listen there; with another process the series is another
// one, whose counters go on where they were.
func TestRemoteProcess(t *testing.T) {
	name := ""
	at := func(namespace uint64, transport netstat.Transport, remote netip.AddrPort) string {
		require.Equal(t, own.ID, namespace)
		require.Equal(t, netstat.TransportTCP, transport)
		require.Equal(t, netip.MustParseAddrPort("198.51.100.1:443"), remote)
		return name
	}
	m := newRemoteMeasurement(false, 32, 128, at, seriesOptions{details: everyDetail, maxSeries: 100})
	in := &scope{namespace: &own, read: tcpOnly, tcpFields: ^netstat.Field(0)}
	for i, test := range []struct {
		name, tag string
		acked     int64
	}{
		{"", "", 0}, {"", "", 10}, {"postgres", "postgres", 0}, {"", "postgres", 10}, {"postgres", "postgres", 15},
		{"pgbouncer", "pgbouncer", 0}, {"postgres", "postgres", 20},
	} {
		name = test.name
		m.enter(in)
		m.observe(&observation{
			Socket: connected(netstat.TransportTCP, "198.51.100.1:443"), number: uint64(i + 1), delta: traffic{countBytesAcked: 5},
		})
		acc := &testutil.Accumulator{}
		m.emit(emission{acc: acc, now: time.Unix(int64(1000+i), 0), scopes: &scopes{protocols: tcpOnly, all: []*scope{in}}})
		for tags, fields := range (gathered{t, acc.GetTelegrafMetrics()}).all("procnetstat_remote") {
			if _, tag, _ := strings.Cut(tags, tagRemoteProcessName+"="); tag == test.tag {
				require.Equal(t, int64(1), fields["tcp_established"])
				require.Equal(t, test.acked, fields["tcp_bytes_acked"])
			} else {
				require.Equal(t, "pgbouncer", tag)
				require.Zero(t, fields["tcp_established"])
				require.Equal(t, int64(5), fields["tcp_bytes_acked"], "what it did in its only gather")
			}
		}
	}
}

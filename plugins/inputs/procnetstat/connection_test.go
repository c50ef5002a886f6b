//go:build linux

package procnetstat

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// Each gather has its own sockets, those that have been closed left out, and counts those beyond the limit.
func TestConnectionsOfGather(t *testing.T) {
	m := newConnectionMeasurement([]string{"src_port"}, nil, seriesOptions{details: everyDetail, maxSeries: 2, netNS: true, log: testutil.Logger{Quiet: true}})
	in := &scope{tag: "blue", read: tcpUDP}
	for gather := range 3 {
		m.enter(in)
		m.observe(&observation{Socket: closed(1, 5)})
		for i := range 2 + gather {
			s := connected(netstat.TransportTCP, "198.51.100.1:443")
			s.Local = netip.AddrPortFrom(s.Local.Addr(), uint16(40000+i))
			s.NetNS = 4026531833
			m.observe(&observation{Socket: s})
		}
		acc := &testutil.Accumulator{}
		m.emit(emission{acc: acc, scopes: &scopes{protocols: tcpUDP, all: []*scope{in}}})
		require.Equal(t, gather, m.folded())
		metrics := acc.GetTelegrafMetrics()
		require.Len(t, metrics, 2)
		for i, metric := range metrics {
			require.Equal(t, map[string]string{tagNetNS: "blue", "src_port": strconv.Itoa(40000 + i)}, metric.Tags())
			inode, _ := metric.GetField("netns_inode")
			require.Equal(t, int64(4026531833), inode)
			state, _ := metric.GetField("state")
			require.Equal(t, "established", state)
		}
	}
}

// Sockets that share all chosen tags have more of them, so that a database keeps each. What even these do not tell apart is omitted.
func TestConnectionsThatShareTags(t *testing.T) {
	m := newConnectionMeasurement([]string{"protocol", "src_port"}, nil,
		seriesOptions{details: everyDetail, maxSeries: 10, log: testutil.Logger{Quiet: true}})
	in := &scope{read: tcpUDP}
	m.enter(in)
	const remote = "198.51.100.1:443"
	alone, first, second, twice := connected(netstat.TransportUDP, remote), connected(netstat.TransportTCP, remote),
		connected(netstat.TransportTCP, remote), connected(netstat.TransportTCP, "198.51.100.2:443")
	first.Inode, second.Inode = 7, 8
	for _, s := range []*netstat.Socket{alone, first, second, twice, twice} {
		m.observe(&observation{Socket: s})
	}
	acc := &testutil.Accumulator{}
	m.emit(emission{acc: acc, scopes: &scopes{protocols: tcpUDP, all: []*scope{in}}})
	require.Equal(t, 1, m.folded())
	shared := func(dest, inode string) map[string]string {
		tags := map[string]string{"protocol": "tcp", "src": "192.0.2.1", "src_port": "40000", "dest": dest, "dest_port": "443"}
		if inode != "" {
			tags["inode"] = inode
		}
		return tags
	}
	var got []map[string]string
	for _, metric := range acc.GetTelegrafMetrics() {
		got = append(got, metric.Tags())
		for name := range metric.Tags() {
			require.False(t, metric.HasField(name), name)
		}
	}
	require.Equal(t, []map[string]string{
		{"protocol": "udp", "src_port": "40000"}, shared("198.51.100.1", "7"), shared("198.51.100.1", "8"), shared("198.51.100.2", ""),
	}, got)
}

// A listening socket has no round-trip time or window, and a connection without a sample no round-trip time.
func TestConnectionFieldsWithoutValue(t *testing.T) {
	s := connected(netstat.TransportTCP, "198.51.100.1:443")
	s.Set(netstat.FieldTCPInfo)
	row := connection{socket: *s}
	require.NotContains(t, row.fields(), "rtt_us")
	require.NotContains(t, row.fields(), "inode")
	require.Contains(t, row.fields(), "cwnd")
	row.socket.TCP.RTT = 5
	require.Equal(t, int64(5), row.fields()["rtt_us"])
	row.socket.State = netstat.TCPListen
	require.NotContains(t, row.fields(), "rtt_us")
	require.NotContains(t, row.fields(), "cwnd")
}

// Sockets of a protocol that could not be read whole are left out.
func TestConnectionsOfProtocolThatFailed(t *testing.T) {
	m := newConnectionMeasurement([]string{"protocol"}, nil, seriesOptions{details: everyDetail, maxSeries: 10, log: testutil.Logger{Quiet: true}})
	in := &scope{read: udpOnly}
	m.enter(in)
	m.observe(&observation{Socket: connected(netstat.TransportTCP, "198.51.100.1:443")})
	m.observe(&observation{Socket: connected(netstat.TransportUDP, "198.51.100.1:443")})
	acc := &testutil.Accumulator{}
	m.emit(emission{acc: acc, scopes: &scopes{protocols: tcpUDP, all: []*scope{in}}})
	metrics := acc.GetTelegrafMetrics()
	require.Len(t, metrics, 1)
	require.Equal(t, map[string]string{"protocol": "udp"}, metrics[0].Tags())
}

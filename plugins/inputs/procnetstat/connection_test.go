//go:build linux

package procnetstat

import (
	"testing"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// Each gather has its own sockets, those that have been closed left out, and counts those beyond the limit.
func TestConnectionsOfGather(t *testing.T) {
	m := newConnectionMeasurement(nil, nil, seriesOptions{details: everyDetail, maxSeries: 2, netNS: true, log: testutil.Logger{Quiet: true}})
	in := &scope{tag: "blue", read: tcpUDP}
	for gather := range 3 {
		m.enter(in)
		m.observe(&observation{Socket: closed(1, 5)})
		for range 2 + gather {
			s := connected(netstat.TransportTCP, "198.51.100.1:443")
			s.NetNS = 4026531833
			m.observe(&observation{Socket: s})
		}
		acc := &testutil.Accumulator{}
		m.emit(emission{acc: acc, scopes: &scopes{protocols: tcpUDP, all: []*scope{in}}})
		require.Equal(t, gather, m.folded())
		metrics := acc.GetTelegrafMetrics()
		require.Len(t, metrics, 2)
		for _, metric := range metrics {
			require.Equal(t, map[string]string{tagNetNS: "blue"}, metric.Tags())
			require.False(t, metric.HasField(tagNetNS), "it is a tag")
			state, _ := metric.GetField("state")
			require.Equal(t, "established", state)
		}
	}
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

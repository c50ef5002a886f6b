//go:build linux

package procnetstat

import (
	"net/netip"
	"testing"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// The accept queue of a gather is that of its listening sockets, not of the gathers before.
func TestAcceptQueueOfGather(t *testing.T) {
	m := newListenerMeasurement(false, seriesOptions{details: everyDetail, maxSeries: 10})
	in := &scope{namespace: &own, read: tcpOnly}
	l := &listener{endpoint: endpoint{transport: netstat.TransportTCP, addr: netip.IPv4Unspecified(), port: 80}}
	s := socket(80, 1, 0)
	s.AcceptQueue, s.AcceptQueueLimit = 3, 5
	s.Set(netstat.FieldAcceptQueue | netstat.FieldAcceptQueueLimit)
	for range 3 {
		m.enter(in)
		m.observe(&observation{Socket: s, number: 1, listener: l, wanted: true})
		acc := &testutil.Accumulator{}
		m.emit(emission{acc: acc, scopes: &scopes{protocols: tcpOnly, all: []*scope{in}}})
		of := (gathered{t, acc.GetTelegrafMetrics()}).one("procnetstat_listener")
		require.EqualValues(t, 3, of["accept_queue"])
		require.EqualValues(t, 5, of["accept_queue_limit"])
		require.EqualValues(t, 60, of["accept_queue_used_percent"])
	}
}

// A series that sums up others has the accept queue fields that any of them has.
func TestMergedAcceptQueues(t *testing.T) {
	limit, drops := netstat.FieldAcceptQueueLimit, netstat.FieldDrops
	for _, queue := range []acceptQueue{
		{}, {waiting: 1}, {limit: 2}, {has: limit}, {has: drops}, {waiting: 3, limit: 4, usedPercent: 75, has: limit | drops},
	} {
		var sum acceptQueue
		sum.merge(&queue)
		require.Equal(t, queue, sum)
		sum.merge(&acceptQueue{})
		require.Equal(t, queue, sum)
		sum.merge(&queue)
		require.Equal(t, acceptQueue{2 * queue.waiting, 2 * queue.limit, queue.usedPercent, queue.has}, sum)
	}
}

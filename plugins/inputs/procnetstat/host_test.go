//go:build linux

package procnetstat

import (
	"fmt"
	"testing"
	"time"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// The counters of a network namespace that is not read for a while continue; after an hour they restart at 0, and nothing
// of it is kept.
func TestHostTotalsMemory(t *testing.T) {
	m := newHostMeasurement(true, seriesOptions{details: everyDetail, netNS: true})
	blue := &netstat.Namespace{ID: 2, Name: "blue", Inode: 2}
	now := time.Unix(1000, 0)
	gather := func(after time.Duration, namespaces ...*netstat.Namespace) (received int64) {
		now = now.Add(after)
		all := &scopes{protocols: tcpOnly}
		all.begin()
		for _, namespace := range namespaces {
			m.enter(all.get(namespace))
			m.observe(&observation{Socket: sent(1, 0), number: 1, delta: of(1)})
		}
		acc := &testutil.Accumulator{}
		m.emit(emission{acc: acc, now: now, scopes: all})
		return (gathered{t, acc.GetTelegrafMetrics()}).sum("procnetstat", "netns=blue")["tcp_bytes_received"]
	}
	require.Zero(t, gather(0, &own, blue))
	require.Equal(t, int64(2), gather(interval, &own), "it is emitted once more, for what it did in its first gather")
	require.Zero(t, gather(0, &own))
	require.Equal(t, int64(4), gather(counterMemory-interval, &own, blue))
	gather(counterMemory, &own)
	require.Contains(t, m.totals, "blue")
	gather(1, &own)
	require.NotContains(t, m.totals, "blue")
	require.Contains(t, m.totals, "self")
	require.Zero(t, gather(interval, &own, blue))
	require.Equal(t, int64(4), gather(interval, &own, blue))
}

// Of namespaces that come and go no more is kept than a thousand, the last.
func TestHostTotalsAreBounded(t *testing.T) {
	m := newHostMeasurement(false, seriesOptions{details: everyDetail, netNS: true})
	now := time.Unix(1000, 0)
	const perGather = 300
	for gather := range 5 {
		now = now.Add(interval)
		all := &scopes{protocols: tcpOnly}
		all.begin()
		for n := range perGather {
			id := uint64(gather*perGather + n)
			m.enter(all.get(&netstat.Namespace{ID: id, Name: fmt.Sprint("blue", gather, "-", n), Inode: uint64(1 + n)}))
		}
		m.emit(emission{acc: &testutil.Accumulator{}, now: now, scopes: all})
		require.Len(t, m.totals, min((gather+1)*perGather, maxIdleNetNS+perGather))
	}
	require.NotContains(t, m.totals, "blue0-0")
	require.Contains(t, m.totals, "blue2-7")
	require.Contains(t, m.totals, "blue4-7")
}

//go:build linux

package procnetstat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// The counters of a network namespace that is not read for a while continue; after an hour they restart at 0, and nothing
// of it is kept.
func TestHostTotalsMemory(t *testing.T) {
	m := newHostMeasurement(true, false, seriesOptions{details: everyDetail, netNS: true})
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
	m := newHostMeasurement(false, false, seriesOptions{details: everyDetail, netNS: true})
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

// closed_events_lost begins with 0 in each series of procnetstat_gather, and loses nothing when source or owners change.
func TestEventsLostBySeries(t *testing.T) {
	m := newGatherMeasurement()
	gather := func(source netstat.Source, lost int) map[string]int64 {
		acc := &testutil.Accumulator{}
		m.emit(emission{acc: acc}, gatherReport{scan: netstat.ScanStats{Source: source, ClosedLost: lost}, closedEvents: true})
		values := map[string]int64{}
		for tags, fields := range (gathered{t, acc.GetTelegrafMetrics()}).all("procnetstat_gather") {
			_, source, _ := strings.Cut(tags, "source=")
			values[source] = fields["closed_events_lost"]
		}
		return values
	}
	const netlink, mixed = netstat.SourceNetlink, netstat.SourceMixed
	require.Equal(t, map[string]int64{"netlink": 0}, gather(netlink, 3))
	require.Equal(t, map[string]int64{"netlink": 5}, gather(netlink, 2))
	require.Equal(t, map[string]int64{"mixed": 0}, gather(mixed, 7))
	require.Equal(t, map[string]int64{"netlink": 6, "mixed": 7}, gather(netlink, 1))
	require.Equal(t, map[string]int64{"netlink": 6}, gather(netlink, 0))
}

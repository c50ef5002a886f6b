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

// countersOf returns counters of a kernel without IPv6.
func countersOf(resets, noPorts uint64) *netstat.Counters {
	return &netstat.Counters{TCPEstabResets: &resets, UDPNoPorts: &noPorts}
}

// Growth counts from the first gather of a namespace, or from 0 if the namespace is new itself, and never goes back.
func TestHostBaseline(t *testing.T) {
	const resets, noPorts = 3, 5 // in hostCounters
	require.Equal(t, "tcp_estab_resets", hostCounters[resets].name)
	require.Equal(t, "udp_no_ports", hostCounters[noPorts].name)
	require.LessOrEqual(t, len(hostCounters), maxHostCounters)

	for isNew, first := range map[bool]int64{false: 0, true: 7} {
		b := newHostBaseline(isNew)
		delta, present := b.advance(countersOf(7, 0))
		require.Equal(t, hostCounts{resets: first}, delta)
		require.Equal(t, [maxHostCounters]bool{resets: true, noPorts: true}, present)

		delta, _ = b.advance(countersOf(9, 1))
		require.Equal(t, hostCounts{resets: 2, noPorts: 1}, delta)

		delta, present = b.advance(&netstat.Counters{})
		require.Equal(t, hostCounts{}, delta, "not readable")
		require.Equal(t, [maxHostCounters]bool{}, present)

		delta, _ = b.advance(countersOf(4, 3))
		require.Equal(t, hostCounts{noPorts: 2}, delta, "one went back")
		delta, _ = b.advance(countersOf(5, 3))
		require.Equal(t, hostCounts{resets: 1}, delta)

		both := countersOf(5, 4)
		both.UDP6NoPorts = new(uint64(10))
		delta, _ = b.advance(both)
		require.Equal(t, hostCounts{noPorts: map[bool]int64{false: 1, true: 11}[isNew]}, delta, "IPv6")
		both.UDPNoPorts, both.UDP6NoPorts = new(uint64(5)), new(uint64(13))
		delta, _ = b.advance(both)
		require.Equal(t, hostCounts{noPorts: 4}, delta)
	}
}

// Whatever a copy of a proc file system counts, the sum does not go back.
func TestHostCountsSaturate(t *testing.T) {
	b := newHostBaseline(true)
	var kernel counters[hostCounts]
	for range 2 {
		for _, n := range []uint64{1<<63 - 1, 0, 1<<63 - 1, 1 << 63, 1<<64 - 1, 3} {
			c := countersOf(n, n)
			c.UDP6NoPorts = c.UDPNoPorts
			delta, _ := b.advance(c)
			kernel.grow(delta)
			for i := range kernel.total {
				before := kernel.total[i]
				require.GreaterOrEqual(t, kernel.emit(i), before)
			}
		}
	}
	require.Equal(t, hostCounts{3: 1<<63 - 1, 5: 1<<63 - 1}, kernel.total)
}

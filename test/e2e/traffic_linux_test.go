package e2e

import (
	"maps"
	"slices"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// The counters grow by exactly the bytes and segments that ss shows, in an interval without retransmissions: some connections of
// the load retransmit.
func TestTraffic(t *testing.T) {
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		p := startPipeline(t, program, pluginConfig("netlink"), lastMeasurement)
		p.retransmits = noneRetransmits
		empty := p.measure()
		p.telegraf.pauseFor(func() { startLoad(t) }) // see requireFollowsLoad
		m := p.measure()
		requireMatchesSS(t, "netlink", m)
		requireTraffic(t, "netlink", p, empty, m)
		for name, value := range counterGrowth("netlink", empty.before, m.after)[hostSeries] {
			if value == 0 && !slices.Contains(hostCounters, name) {
				t.Errorf("%s is 0, so the test did not check it", name)
			}
		}
		p.end()
	})
}

// requireTraffic checks that the counters grew between two measurements as those of ss did. A socket that retransmits may have
// done so between ss and the gather: then the growth must lie between those of ss before and after the gather. A socket that
// ended before the second measurement must have sent and received nothing since the first.
func requireTraffic(t *testing.T, source string, p *pipeline, from, to measurement) {
	t.Helper()
	least, most := counterGrowth(source, from.after, to.before), counterGrowth(source, from.before, to.after)
	for _, series := range slices.Sorted(maps.Keys(least)) {
		for _, name := range counters(source, series) {
			after, found := to.stored[series][name]
			got := after - p.telegraf.valueAt(from.gathers[0], series, name)
			if !found || got < least[series][name] || got > most[series][name] {
				t.Errorf("%s has %s=%d (present: %t), which grew by %d, want %d to %d",
					series, name, after, found, got, least[series][name], most[series][name])
			}
		}
	}
}

// counterGrowth returns the growth of the counters of each series between two snapshots.
func counterGrowth(source string, from, to snapshot) gather {
	before := map[uint64]fields{}
	for _, r := range from.sockets {
		before[r.Cookie] = r.counters
	}
	grown := gather{}
	to.each(source, func(r socket, series []string) {
		for _, name := range series {
			f := grown.of(name)
			for _, counter := range counters(source, name) {
				f[counter] += r.counters[counter]
				if r.counters != nil {
					f[counter] -= before[r.Cookie][counter]
				}
			}
		}
	})
	for _, name := range hostCounters {
		grown.of(hostSeries)[name] = to.kernel[name] - from.kernel[name]
	}
	return grown
}

// valueAt returns the last value of a field at or before a time, or 0 if there is none.
func (tg *telegraf) valueAt(at int64, series, field string) int64 {
	tg.t.Helper()
	var last, value int64
	for time, g := range tg.seen {
		if v, found := g[series][field]; found && time <= at && time > last {
			last, value = time, v
		}
	}
	return value
}

// requireCounters checks that every counter begins with 0 and never decreases.
func requireCounters(t *testing.T, all metrics) {
	t.Helper()
	ofClosed := []string{"tcp_opened", "tcp_closed", "closed_events_lost"} // with closed_connections
	reached := gather{}
	for _, at := range slices.Sorted(maps.Keys(all)) {
		for series, f := range all[at] {
			for _, name := range slices.Concat(counters("netlink", series), ofClosed) {
				value, found := f[name]
				if !found {
					continue
				}
				last, isOld := reached.of(series)[name]
				if !isOld && value != 0 {
					t.Errorf("at %d, the new series %s has %s=%d, want 0", at, series, name, value)
				} else if value < last {
					t.Errorf("at %d, %s has %s=%d after %d", at, series, name, value, last)
				}
				reached.of(series)[name] = max(value, last)
			}
		}
	}
}

//go:build linux

package procnetstat

import (
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// gatherMeasurement is procnetstat_gather: statistics of the gather itself.
type gatherMeasurement struct {
	lost map[gatherTags]*counterTotals[eventsLost, *eventsLost]
}

// gatherTags are the tags of a series.
type gatherTags struct {
	source netstat.Source
	owners netstat.OwnerMethod
}

func (t gatherTags) tags() map[string]string {
	return map[string]string{"source": t.source.String(), "owners": t.owners.String()}
}

// eventsLost is a number of lost events of closed connections.
type eventsLost int64

func (e *eventsLost) add(o *eventsLost) { *e += *o }

// gatherReport is what a gather has to report.
type gatherReport struct {
	duration     time.Duration
	scan         netstat.ScanStats
	unattributed int
	folded       int
	closedEvents bool // the kernel reports closed connections in some namespace
}

func newGatherMeasurement() *gatherMeasurement {
	return &gatherMeasurement{map[gatherTags]*counterTotals[eventsLost, *eventsLost]{}}
}

func (m *gatherMeasurement) emit(out emission, r gatherReport) {
	series := gatherTags{r.scan.Source, r.scan.OwnerMethod}
	out.gauges("procnetstat_gather", map[string]any{
		"duration_ns":   r.duration.Nanoseconds(),
		"sockets":       int64(r.scan.Sockets),
		"processes":     int64(r.scan.Processes),
		"unattributed":  int64(r.unattributed),
		"denied":        int64(r.scan.Denied),
		"folded_series": int64(r.folded),
		"interrupted":   int64(r.scan.Interrupted),
	}, series.tags())
	if r.closedEvents && m.lost[series] == nil {
		m.lost[series] = &counterTotals[eventsLost, *eventsLost]{}
	}
	for tags, lost := range m.lost {
		isCurrent := tags == series
		if !isCurrent && !lost.isPending() {
			continue
		}
		var growth eventsLost
		if isCurrent {
			growth = eventsLost(r.scan.ClosedLost)
		}
		lost.grow(&growth)
		out.acc.AddCounter("procnetstat_gather", map[string]any{"closed_events_lost": int64(lost.total)}, tags.tags(), out.now)
	}
}

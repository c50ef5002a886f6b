//go:build linux

package procnetstat

import (
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

var gatherSchema = measurementSchema{
	name: "procnetstat_gather", option: measureGather, about: "How the gather itself went", noGroup: true,
	tags: []tag{
		{"source", "Source of the sockets: `netlink`, `procfs`, or `mixed` if it differs by table"},
		{"owners", "Way in which the processes were found: `bpf`, `procfs` or `none`"},
	},
	fields: []field{
		{name: "duration_ns", unit: "nanoseconds", about: "Time that it took"},
		{
			name: "sockets", unit: unitSockets,
			about: "Sockets read; without the host measurement, TCP connections that the filters of ports and addresses exclude are not",
		},
		{name: "processes", unit: "processes", about: "Processes that hold a socket of any kind"},
		{name: "unattributed", unit: unitSockets, about: "Sockets of which no process is known"},
		{name: "denied", unit: "processes", about: "Processes whose descriptors cannot be read"},
		{
			name: "folded_series", unit: "series",
			about: "Series that were summed in series tagged `other`, and connections that were omitted",
		},
		{name: "interrupted", unit: "tables", about: "Tables that changed while they were read, as the kernel reports"},
		{
			name: "closed_events_lost", unit: "events", isCounter: true, needs: needsClosedEvents,
			about: "Closed connections whose events were lost, as the receive buffer was full",
		},
		{
			name: "connects_seen", unit: "0 or 1",
			about: "1 if attempts to connect are recorded, so that the fields that need BPF are emitted",
		},
		{
			name: "connects_lost", unit: unitConnections, isCounter: true, needs: needsConnects,
			about: "Attempts to connect, and connections that were reset or timed out, that are not known in full, as a buffer was full",
		},
	},
}

// gatherMeasurement is procnetstat_gather: statistics of the gather itself.
type gatherMeasurement struct {
	lost map[gatherTags]*counters[eventsLost]
}

// gatherTags are the tags of a series.
type gatherTags struct {
	source netstat.Source
	owners netstat.OwnerMethod
}

func (t gatherTags) tags() map[string]string {
	return map[string]string{"source": t.source.String(), "owners": t.owners.String()}
}

// eventsLost are numbers of lost events: of closed connections, and of attempts to connect.
type eventsLost [2]int64

// gatherReport is what a gather has to report.
type gatherReport struct {
	duration     time.Duration
	scan         netstat.ScanStats
	unattributed int
	attemptsLost int
	folded       int
	closedEvents bool // the kernel reports closed connections in some namespace
}

func boolToInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func newGatherMeasurement() *gatherMeasurement {
	return &gatherMeasurement{map[gatherTags]*counters[eventsLost]{}}
}

func (m *gatherMeasurement) emit(out emission, r gatherReport) {
	series := gatherTags{r.scan.Source, r.scan.OwnerMethod}
	out.gauges(gatherSchema.name, map[string]any{
		"duration_ns":   r.duration.Nanoseconds(),
		"sockets":       int64(r.scan.Sockets),
		"processes":     int64(r.scan.Processes),
		"unattributed":  int64(r.unattributed),
		"denied":        int64(r.scan.Denied),
		"folded_series": int64(r.folded),
		"interrupted":   int64(r.scan.Interrupted),
		"connects_seen": boolToInt(r.scan.Initiators),
	}, series.tags())
	if r.closedEvents && m.lost[series] == nil {
		m.lost[series] = &counters[eventsLost]{}
	}
	for tags, lost := range m.lost {
		isCurrent := tags == series
		if isCurrent {
			lost.grow(eventsLost{int64(r.scan.ClosedLost), int64(r.attemptsLost)})
		}
		if isCurrent || lost.owes {
			lost.owes = false
			fields := map[string]any{"closed_events_lost": lost.emit(0)}
			if r.scan.Initiators {
				fields["connects_lost"] = lost.emit(1)
			}
			out.acc.AddCounter(gatherSchema.name, fields, tags.tags(), out.now)
		}
	}
}

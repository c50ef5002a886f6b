//go:build linux

package procnetstat

import (
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// gatherReport is procnetstat_gather: statistics of the gather itself.
type gatherReport struct {
	duration     time.Duration
	scan         netstat.ScanStats
	unattributed int
	folded       int
	closedLost   int64 // since the plugin started
	closedEvents bool  // the kernel reports closed connections in some namespace
}

func (r *gatherReport) emit(out emission) {
	tags := map[string]string{
		"source": r.scan.Source.String(),
		"owners": r.scan.OwnerMethod.String(),
	}
	out.gauges("procnetstat_gather", map[string]any{
		"duration_ns":   r.duration.Nanoseconds(),
		"sockets":       int64(r.scan.Sockets),
		"processes":     int64(r.scan.Processes),
		"unattributed":  int64(r.unattributed),
		"denied":        int64(r.scan.Denied),
		"folded_series": int64(r.folded),
		"interrupted":   int64(r.scan.Interrupted),
	}, tags)
	if r.closedEvents {
		out.acc.AddCounter("procnetstat_gather", map[string]any{"closed_events_lost": r.closedLost}, tags, out.now)
	}
}

//go:build linux

package procnetstat

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/influxdata/telegraf"

	"github.com/procnetstat/procnetstat/netstat"
	"github.com/procnetstat/procnetstat/plugins/inputs/procnetstat/internal/quantile"
)

// Tag values that stand for no name of a process, user or cgroup. tagValue escapes names that are the same.
const (
	// unattributed stands for an unknown process or cgroup.
	unattributed = "unattributed"
	// other stands for the sum of the series beyond maxSeries.
	other = "other"
	// unknown stands for a user that could not be read.
	unknown = "unknown"
)

// series is one series of a measurement.
type series struct {
	tags  map[string]string
	key   string
	scope *scope // in the last pass that used it; nil: several
	stats stats
	counters[traffic]
	stalls counters[stallCounts]
	// lastCounted is the number of the last counted socket: a socket is counted once, even if several processes hold it.
	lastCounted uint64
	lastEmitted time.Time
	isRemoved   bool // from its set

	processes     int64       // of procnetstat_process
	accept        acceptQueue // of procnetstat_listener
	acceptCounted uint64      // like lastCounted, for accept
	hadDrops      bool        // a listening socket with the field drops was in it

	transport netstat.Transport // of procnetstat_remote
	peer      netip.AddrPort    // of procnetstat_remote: the other end; not valid: several
	successor *series           // of procnetstat_remote: the one with tagRemoteProcessName, which has the sockets of this one
}

// count counts the socket, unless it is already counted.
func (s *series) count(o *observation) {
	if s.lastCounted != o.number {
		s.lastCounted = o.number
		s.stats.add(o)
	}
}

// isActive reports whether the pass has counted a socket.
func (s *series) isActive() bool { return s.stats.sockets > 0 || s.stats.delta != (traffic{}) }

// mustEmit reports whether the series belongs to this gather.
func (s *series) mustEmit() bool { return s.isActive() || s.owesCounters() }

// owesCounters reports whether a counter must be emitted, even without sockets.
func (s *series) owesCounters() bool { return s.owes || s.stalls.owes }

// growCounters adds the increases of the pass to the counters, which are emitted next.
func (s *series) growCounters() {
	s.grow(s.stats.delta)
	s.stalls.grow(s.stats.stalls)
	s.owes, s.stalls.owes = false, false
}

// reset prepares the series for the next pass. It keeps the counters.
func (s *series) reset() {
	s.stats.reset()
	s.lastCounted, s.processes, s.accept, s.acceptCounted = 0, 0, acceptQueue{}, 0
}

// merge adds the statistics of the pass of another series.
func (s *series) merge(o *series) {
	s.stats.merge(&o.stats)
	s.processes += o.processes
	s.accept.merge(&o.accept)
	s.hadDrops = s.hadDrops || o.hadDrops
}

// seriesOptions apply to the series of all measurements.
type seriesOptions struct {
	details   detail
	maxSeries int  // per measurement and gather
	netNS     bool // add the tag netns
	log       telegraf.Logger
}

// seriesSet holds the series of one measurement. Callers can cache a pointer to a series, within a scope or until it isRemoved.
type seriesSet struct {
	name     string   // of the measurement
	tagNames []string // of all series of the measurement
	fields   []groupField
	options  seriesOptions
	scope    *scope // of the sockets that are being counted
	byKey    map[string]*series
	other    *series
	folded   int // number of series that the last pass summed in other
	warnOnce sync.Once
}

// newSeriesSet returns an empty set for the measurement. others are the tag values of the sum of the series beyond maxSeries.
func newSeriesSet(m *measurementSchema, tagNames, others []string, options seriesOptions) *seriesSet {
	if options.netNS {
		tagNames = append([]string{tagNetNS}, tagNames...)
		others = append([]string{other}, others...)
	}
	set := &seriesSet{
		name: m.name, tagNames: tagNames, fields: m.groupFields(options.details), options: options, byKey: map[string]*series{},
	}
	set.other = &series{key: strings.Join(others, separator)}
	return set
}

// repeatTagValue returns n times the value.
func repeatTagValue(value string, n int) []string { return slices.Repeat([]string{value}, n) }

// separator separates the tag values in a key; tag values never contain it.
const separator = "\x00"

// get returns the series with the tag values (in the order of tagNames) in the current scope.
func (set *seriesSet) get(values []string) *series {
	key := strings.Join(values, separator)
	if set.options.netNS {
		key = set.scope.tag + separator + key
	}
	s := set.getByKey(key)
	s.scope = set.scope
	return s
}

func (set *seriesSet) getByKey(key string) *series {
	s := set.byKey[key]
	if s == nil {
		s = &series{key: key}
		set.byKey[key] = s
	}
	return s
}

// group emits a series of the set.
func (set *seriesSet) group(out emission, s *series, gauges, counters map[string]any) {
	out.group(set.name, set.fields, s, gauges, counters)
}

func (set *seriesSet) remove(s *series) {
	s.isRemoved = true
	delete(set.byKey, s.key)
}

// tags returns the tags of a series, without those that have an empty value. They are built when the series is first emitted: if
// there are many series, most never are.
func (set *seriesSet) tags(s *series) map[string]string {
	if s.tags == nil {
		s.tags = make(map[string]string, len(set.tagNames))
		for i, value := range strings.Split(s.key, separator) {
			if value != "" {
				s.tags[set.tagNames[i]] = value
			}
		}
	}
	return s.tags
}

const (
	// counterMemory is how long a series without sockets is remembered, so that its counters continue when it returns.
	counterMemory = time.Hour
	// maxIdleSeries bounds the series without sockets; beyond it those that have been idle the longest are removed.
	maxIdleSeries = 20000
)

// emit calls each with every series of the pass, but at most maxSeries: the busiest, and the sum of the rest. The counters of a
// series that is folded in the gather after its first one count in that sum.
func (set *seriesSet) emit(now time.Time, each func(*series)) {
	active := make([]*series, 0, len(set.byKey))
	var idle []*series
	for _, s := range set.byKey {
		switch {
		case s.mustEmit():
			active = append(active, s)
		case s.successor != nil && !s.successor.isRemoved: // remembers the name of the remote process
		case s.isZero() && s.stalls.isZero() || now.Sub(s.lastEmitted) > counterMemory:
			set.remove(s)
		default:
			s.stats.rtts, s.stats.closedRTTs, s.stats.connectTimes = quantile.Times{}, quantile.Times{}, quantile.Times{} // free their memory
			idle = append(idle, s)
		}
	}
	set.forget(idle)
	slices.SortFunc(active, func(a, b *series) int {
		return cmp.Or(cmp.Compare(b.stats.sockets, a.stats.sockets), cmp.Compare(a.key, b.key))
	})
	set.folded = 0
	switch limit := set.options.maxSeries; {
	case len(active) > limit || len(active) == limit && set.other.mustEmit():
		set.fold(active[limit-1:])
		active = append(active[:limit-1], set.other)
	case set.other.mustEmit():
		active = append(active, set.other)
	}
	for _, s := range active {
		s.lastEmitted, s.tags = now, set.tags(s)
		s.growCounters()
		each(s)
		s.reset()
	}
}

// forget removes the series beyond maxIdleSeries that have been idle the longest.
func (set *seriesSet) forget(idle []*series) {
	if len(idle) <= maxIdleSeries {
		return
	}
	slices.SortFunc(idle, func(a, b *series) int { return a.lastEmitted.Compare(b.lastEmitted) })
	for _, s := range idle[:len(idle)-maxIdleSeries] {
		set.remove(s)
	}
}

// fold adds the series of the pass to set.other, whose counters increase by what theirs would have.
func (set *seriesSet) fold(rest []*series) {
	set.folded = len(rest)
	for _, s := range rest {
		s.stats.delta.add(&s.pending)
		s.stats.stalls.add(&s.stalls.pending)
		s.pending, s.owes = traffic{}, false
		s.stalls.pending, s.stalls.owes = stallCounts{}, false
		set.other.merge(s)
		s.reset()
	}
	set.warnOnce.Do(func() {
		set.options.log.Warnf("Measurement %s has %d series, more than max_series = %d: emitting the busiest; "+
			"the rest are summed in one series with the tag value %q",
			set.name, set.options.maxSeries-1+len(rest), set.options.maxSeries, other)
	})
}

// maxTagValue bounds a tag value, in bytes: command lines can be long.
const maxTagValue = 256

// tagValue makes a tag value from a name of the kernel or of a process, which can contain any bytes. It escapes what is not
// printable, and the backslash, which the line protocol does not allow at the end of a tag value. Of a name that is one of the
// values above it escapes the first character, so that no two series can have the same tags.
func tagValue(name string) string {
	switch name {
	case "":
		return "(empty)" // Telegraf drops tags with an empty value
	case unattributed, other, unknown:
		return escapeFirst(name)
	}
	if len(name) <= maxTagValue && !strings.ContainsFunc(name, needsEscape) {
		return name
	}
	const ellipsis = "…"
	var value []byte
	fits := 0 // the length of value up to which an ellipsis fits
	for len(name) > 0 {
		r, size := utf8.DecodeRuneInString(name)
		switch {
		case !needsEscape(r):
			value = utf8.AppendRune(value, r)
		case size == 1:
			value = fmt.Appendf(value, `\x%02x`, name[0])
		default:
			value = fmt.Appendf(value, `\U%08x`, r)
		}
		if len(value) > maxTagValue {
			return string(value[:fits]) + ellipsis
		}
		if len(value) <= maxTagValue-len(ellipsis) {
			fits = len(value)
		}
		name = name[size:]
	}
	return string(value)
}

func escapeFirst(name string) string { return fmt.Sprintf(`\x%02x%s`, name[0], name[1:]) }

func needsEscape(r rune) bool {
	return r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r)
}

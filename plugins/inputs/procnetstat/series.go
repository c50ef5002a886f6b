//go:build linux

package procnetstat

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/influxdata/telegraf"
)

// other stands for the tag values of the series that were summed up.
const other = "other"

// series is one series of a measurement.
type series struct {
	tags  map[string]string
	key   string
	scope *scope // of the pass that it was in use in last; nil: several
	stats stats
	total traffic // since the plugin started
	// counted is the number of the last socket that was counted: a socket counts once, however many processes hold it.
	lastCounted uint64
	lastEmitted time.Time // when it was emitted last

	processes int64       // of procnetstat_process
	accept    acceptQueue // of procnetstat_listener
}

// count counts the socket, if it has not been yet.
func (s *series) count(o *observation) {
	if s.lastCounted != o.number {
		s.lastCounted = o.number
		s.stats.add(o)
	}
}

// reset makes the series ready for the next pass. Its counters stay.
func (s *series) reset() {
	s.stats.reset()
	s.lastCounted, s.processes, s.accept = 0, 0, acceptQueue{}
}

// merge adds what a pass has found out about the other series.
func (s *series) merge(o *series) {
	s.stats.merge(&o.stats)
	s.processes += o.processes
	s.accept.merge(&o.accept)
}

// seriesOptions are for the series of all measurements.
type seriesOptions struct {
	maxSeries int  // of a measurement in one gather
	netNS     bool // they have the tag netns
	log       telegraf.Logger
}

// seriesSet holds the series of one measurement. Each stays the same as long as it is in use, so that whoever has found
// the series of a process or listener can keep it.
type seriesSet struct {
	measurement string
	tagNames    []string // of all series of the measurement
	options     seriesOptions
	scope       *scope // of the sockets that are counted now
	byKey       map[string]*series
	other       *series
	folded      int // series that the last pass summed up in other
	warnOnce    sync.Once
}

// newSeriesSet returns an empty set; others are the tag values of the series that stands for those beyond the limit.
func newSeriesSet(measurement string, tagNames, others []string, options seriesOptions) *seriesSet {
	if options.netNS {
		tagNames = append([]string{tagNetNS}, tagNames...)
		others = append([]string{other}, others...)
	}
	set := &seriesSet{measurement: measurement, tagNames: tagNames, options: options, byKey: map[string]*series{}}
	set.other = &series{key: strings.Join(others, separator)}
	return set
}

// repeat returns n times the value, for the tags of a series that stands for what is not told apart.
func repeatTagValue(value string, n int) []string { return slices.Repeat([]string{value}, n) }

// separator is between the tag values in a key; no tag value has it.
const separator = "\x00"

// get returns the series with the tag values, which go with tagNames, in the present scope.
func (set *seriesSet) get(values []string) *series {
	key := strings.Join(values, separator)
	if set.options.netNS {
		key = set.scope.tag + separator + key
	}
	s := set.byKey[key]
	if s == nil {
		s = &series{key: key}
		set.byKey[key] = s
	}
	s.scope = set.scope
	return s
}

// tags returns the tags of a series; one with an empty value is left out. They are made when they are first emitted: of many
// series most never are.
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
	// counterMemory is how long a series without sockets is remembered, so that its counters go on where they were.
	counterMemory = time.Hour
	// mostRemembered bounds the series without sockets; beyond it those that have been so for longest are forgotten.
	maxIdleSeries = 20000
)

// emit calls each with every series of the pass, at most as many as are allowed: the busiest, and one that is the sum of
// the rest.
func (set *seriesSet) emit(now time.Time, each func(*series)) {
	busy := make([]*series, 0, len(set.byKey))
	var idle []*series
	for key, s := range set.byKey {
		switch {
		case s.stats.sockets > 0 || s.stats.delta.closed > 0:
			busy = append(busy, s)
		case s.total == traffic{} || now.Sub(s.lastEmitted) > counterMemory:
			delete(set.byKey, key)
		default:
			s.stats.rtts, s.stats.closedRTTs = rtts{}, rtts{} // gives back their memory
			idle = append(idle, s)
		}
	}
	set.forget(idle)
	slices.SortFunc(busy, func(a, b *series) int {
		return cmp.Or(cmp.Compare(b.stats.sockets, a.stats.sockets), cmp.Compare(a.key, b.key))
	})
	set.folded = 0
	if limit := set.options.maxSeries; len(busy) > limit {
		rest := busy[limit-1:]
		set.fold(rest)
		busy = append(busy[:limit-1], set.other)
	}
	for _, s := range busy {
		s.lastEmitted, s.tags = now, set.tags(s)
		s.total.add(&s.stats.delta)
		each(s)
		s.reset()
	}
}

// forget forgets what there is too much of.
func (set *seriesSet) forget(idle []*series) {
	if len(idle) <= maxIdleSeries {
		return
	}
	slices.SortFunc(idle, func(a, b *series) int { return a.lastEmitted.Compare(b.lastEmitted) })
	for _, s := range idle[:len(idle)-maxIdleSeries] {
		delete(set.byKey, s.key)
	}
}

// fold sums up the series in the one that stands for them. What their counters would have grown by, its counters do.
func (set *seriesSet) fold(rest []*series) {
	set.folded = len(rest)
	for _, s := range rest {
		set.other.merge(s)
		s.reset()
	}
	set.warnOnce.Do(func() {
		set.options.log.Warnf("Measurement %s has %d series, more than max_series = %d: emitting the busiest; "+
			"the rest are summed in one series with the tag value %q",
			set.measurement, set.options.maxSeries-1+len(rest), set.options.maxSeries, other)
	})
}

// maxTagValue bounds a tag value, in bytes: command lines can be of any length.
const maxTagValue = 256

// tagValue makes a tag value of what the kernel or a process calls something, which can be any bytes. What is not
// printable is escaped, and so is the backslash, which the line protocol cannot have at the end of a tag value.
func tagValue(name string) string {
	if name == "" {
		return "(empty)" // a tag without a value would be left out
	}
	if len(name) <= maxTagValue && !strings.ContainsFunc(name, needsEscape) {
		return name
	}
	const ellipsis = "…"
	var value []byte
	fits := 0 // the part of value after which an ellipsis has room
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

func needsEscape(r rune) bool {
	return r == '\\' || r == utf8.RuneError || !unicode.IsPrint(r)
}

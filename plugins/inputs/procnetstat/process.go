//go:build linux

package procnetstat

import "slices"

var processSchema = measurementSchema{
	name: "procnetstat_process", option: measureProcess, about: "The sockets by the processes that hold them",
	tags: slices.Concat([]tag{
		{tagProcessName, "Command name"},
		{tagUser, "Effective user"},
		{tagPID, "Process ID; if chosen in `process_tags`, as all below"},
		{"exe", "Path of the executable; needs `CAP_SYS_PTRACE`"},
		{"cmdline", "Command line; it can hold secrets"},
	}, workloadTags, []tag{{tagCgroup, "Path of the cgroup"}}),
	fields: []field{{name: "processes", unit: "processes", about: "Processes that hold a socket"}},
}

// processMeasurement is procnetstat_process: the sockets by the tags of the processes that hold them.
type processMeasurement struct {
	series       *seriesSet
	tagNames     []string
	owners       *owners
	unattributed *series // in this scope
}

func newProcessMeasurement(tagNames []string, owners *owners, options seriesOptions) *processMeasurement {
	return &processMeasurement{
		series:   newSeriesSet(&processSchema, tagNames, repeatTagValue(other, len(tagNames)), options),
		tagNames: tagNames,
		owners:   owners,
	}
}

func (m *processMeasurement) enter(sc *scope) {
	m.series.scope, m.unattributed = sc, nil
}

func (m *processMeasurement) observe(o *observation) {
	if len(o.owners) == 0 {
		if m.unattributed == nil {
			m.unattributed = m.series.get(repeatTagValue(unattributed, len(m.tagNames)))
		}
		m.unattributed.count(o)
		return
	}
	for _, w := range o.owners {
		if w.series == nil {
			w.series = m.series.get(m.owners.tagValues(w, m.tagNames))
		}
		if !w.isHolding && len(o.holders) > 0 {
			w.isHolding = true
			w.series.processes++
		}
		w.series.count(o)
	}
}

func (m *processMeasurement) emit(out emission) {
	m.series.emit(out.now, func(s *series) {
		m.series.group(out.forScope(s.scope), s, map[string]any{"processes": s.processes}, map[string]any{})
	})
}

func (m *processMeasurement) folded() int { return m.series.folded }

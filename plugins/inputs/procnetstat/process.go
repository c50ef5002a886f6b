//go:build linux

package procnetstat

import (
	"os/user"
	"strconv"
	"strings"

	"github.com/procnetstat/procnetstat/netstat"
)

// The names in the option process_tags.
const (
	tagProcessName = "process_name"
	tagUser        = "user"
	tagPID         = "pid"
	tagExe         = "exe"
	tagCmdline     = "cmdline"
)

var allProcessTags = []string{tagProcessName, tagUser, tagPID, tagExe, tagCmdline}

// processMeasurement is procnetstat_process: the sockets by what is the same of the processes that hold them.
type processMeasurement struct {
	series       *seriesSet
	tagNames     []string
	users        map[uint32]string
	pass         uint64
	processes    map[*netstat.Process]*processSeries
	last         *processSeries // most sockets have the owner of the socket before
	unattributed *series
}

// processSeries is what a process was found to count in.
type processSeries struct {
	process *netstat.Process
	series  *series
	pass    uint64 // the last one that it was seen in
}

func newProcessMeasurement(tagNames []string, limit seriesLimit) *processMeasurement {
	return &processMeasurement{
		series:    newSeriesSet("procnetstat_process", tagNames, repeat(other, len(tagNames)), limit),
		tagNames:  tagNames,
		users:     map[uint32]string{},
		processes: map[*netstat.Process]*processSeries{},
		pass:      1,
	}
}

func (m *processMeasurement) observe(o *observation) {
	if len(o.owners) == 0 {
		if m.unattributed == nil {
			m.unattributed = m.series.get(repeat(unattributed, len(m.tagNames)))
		}
		m.unattributed.stats.add(o.Socket)
		return
	}
	for _, process := range o.owners {
		s := m.seriesOf(process)
		if s.counted != o.number {
			s.counted = o.number
			s.stats.add(o.Socket)
		}
	}
}

// seriesOf returns the series of the process, and counts the process in it when it is first seen in a pass.
func (m *processMeasurement) seriesOf(process *netstat.Process) *series {
	if m.last != nil && m.last.process == process {
		return m.last.series
	}
	found := m.processes[process]
	if found == nil {
		found = &processSeries{process: process, series: m.series.get(m.tagValues(process))}
		m.processes[process] = found
	}
	if found.pass != m.pass {
		found.pass = m.pass
		found.series.processes++
	}
	m.last = found
	return found.series
}

func (m *processMeasurement) tagValues(process *netstat.Process) []string {
	values := make([]string, len(m.tagNames))
	for i, name := range m.tagNames {
		switch name {
		case tagProcessName:
			values[i] = tagValue(process.Name)
		case tagUser:
			values[i] = m.userOf(process)
		case tagPID:
			values[i] = strconv.Itoa(process.PID)
		case tagExe:
			values[i] = tagValue(process.Exe())
		case tagCmdline:
			values[i] = tagValue(strings.Join(process.Cmdline(), " "))
		}
	}
	return values
}

// userOf returns the name of the user that the process runs as, or the number of one that has no name.
func (m *processMeasurement) userOf(process *netstat.Process) string {
	uid, known := process.UID()
	if !known {
		return "unknown" // it has ended since its descriptors were read
	}
	name, known := m.users[uid]
	if !known {
		name = strconv.FormatUint(uint64(uid), 10)
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
		name = tagValue(name)
		m.users[uid] = name
	}
	return name
}

func (m *processMeasurement) emit(to emission) {
	m.series.emit(to.now, func(s *series) {
		fields := map[string]any{"processes": s.processes}
		s.stats.fields(to.read, fields)
		to.gauges(m.series.measurement, fields, s.tags)
	})
	for process, found := range m.processes {
		if found.pass != m.pass {
			delete(m.processes, process)
		}
	}
	m.pass++
	m.last, m.unattributed = nil, nil
}

func (m *processMeasurement) folded() int { return m.series.folded }

package main

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
)

// noValue is printed in place of a missing figure.
const noValue = "–"

// text returns the report as text.
func (r *report) text() string {
	return strings.Join([]string{r.header(), r.table(), r.targetTable()}, "\n")
}

func (r *report) header() string {
	namespace := "in the current network namespace"
	if r.OwnNamespace {
		namespace = "in a separate network namespace"
	}
	p := r.Parameters
	return align("ll", [][]string{
		{"date", r.Date.Format(time.RFC3339)},
		{"machine", fmt.Sprintf("%s, %d cores, %s of memory", r.Machine.CPU, r.Machine.Cores, formatBytes(r.Machine.Memory))},
		{"kernel", "Linux " + r.Machine.Kernel},
		{"versions", r.versionList()},
		{"load", fmt.Sprintf("%s established TCP sockets (%s connections over loopback) in %d processes, %s",
			formatCount(int64(p.Sockets)), formatCount(int64(p.Sockets/2)), p.Processes, namespace)},
		{"figures", fmt.Sprintf("medians of %d gathers, taken in turns after a warm-up; CPU is user + system", p.Runs)},
	})
}

func (r *report) versionList() string {
	list := make([]string, len(r.Versions))
	for i, v := range r.Versions {
		list[i] = shortModule(v.Name) + " " + v.Version
	}
	return strings.Join(list, ", ")
}

var majorVersion = regexp.MustCompile(`/v\d+$`)

// shortModule returns the common name of a module.
func shortModule(module string) string {
	short := strings.TrimPrefix(majorVersion.ReplaceAllString(module, ""), "github.com/")
	switch path.Dir(short) {
	case "influxdata", "shirou":
		return path.Base(short)
	}
	return short
}

var columns = []string{"wall", "CPU", "allocations", "allocated", "peak RSS", "CPU ÷ floor", "sockets seen", ""}

func (r *report) table() string {
	lines := [][]string{append([]string{""}, columns...)}
	for _, g := range []group{groupFloors, groupOurs, groupPeers} {
		inGroup := false
		for _, row := range r.Rows {
			if row.Group != g {
				continue
			}
			if !inGroup {
				lines, inGroup = append(lines, nil, []string{string(g)}), true
			}
			lines = append(lines, r.line(row))
		}
	}
	return align("lrrrrrlrl", lines)
}

func (r *report) line(row *row) []string {
	line := []string{"  " + row.Name}
	if !row.measured() {
		for range columns[1:] {
			line = append(line, noValue)
		}
		return append(line, row.reason())
	}
	m := row.median()
	objects, allocated := noValue, noValue
	if m.Heap != nil {
		objects, allocated = formatCount(m.Heap.Objects), formatBytes(m.Heap.Bytes)
	}
	return append(line, formatDuration(m.Wall), formatDuration(m.CPU), objects, allocated, formatBytes(m.PeakRSS), r.floorRatio(row),
		formatCount(int64(m.Sockets)), r.note(row))
}

// reason returns why a row has no figures.
func (r *row) reason() string {
	switch {
	case r.Failed != "":
		return "FAILED: " + r.Failed
	case r.Unavailable != "":
		return "not measured: " + r.Unavailable
	}
	return "not measured"
}

func (r *report) note(row *row) string {
	if row.Name == rowProcstat {
		return formatDuration(row.median().CPU/procstatProcesses) + " of CPU per monitored process"
	}
	if bpf := row.median().BPF; bpf != nil {
		return fmt.Sprintf("%s; includes %s in %s runs of BPF programs", row.Note, formatDuration(bpf.Time), formatCount(bpf.Runs))
	}
	if row.Name == rowExecd {
		return fmt.Sprintf("%s; owner lookup: %s", row.Note, row.median().Owners)
	}
	return row.Note
}

// floorRatio returns the CPU time of the row divided by that of its floors.
func (r *report) floorRatio(row *row) string {
	floor, ok := r.cpu(row.Floors...)
	if !ok || floor == 0 {
		return noValue
	}
	return formatDigits(row.median().CPU.Seconds()/floor.Seconds()) + " × " + joinFloors(row.Floors...)
}

func (r *report) targetTable() string {
	lines := [][]string{{"targets", "measured", "limit", ""}}
	for _, v := range r.Targets {
		figure := noValue
		if v.Figure != nil {
			figure = formatDigits(*v.Figure)
		}
		limit := strings.TrimSpace(fmt.Sprintf("%s %g %s", v.Relation, v.Limit, v.Unit))
		lines = append(lines, []string{"  " + v.What, figure, limit, string(v.Result)})
	}
	return align("lrll", lines) + fmt.Sprintf(`
Targets are evaluated from %s sockets on: below that, the fixed cost of a gather dominates.
The limit of peak RSS applies up to %s sockets. Allocations are counted after the warm-up,
without the objects that hold an emitted number. They may vary by 2 %%, as those of the Go runtime do.
`, formatCount(minTargetSockets), formatCount(defaultSockets))
}

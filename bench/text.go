package main

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"
)

// none stands where there is no figure.
const none = "–"

// text is the report as it is printed.
func (r *report) text() string {
	return strings.Join([]string{r.head(), r.table(), r.targetTable()}, "\n")
}

func (r *report) head() string {
	namespace := "in the present network namespace"
	if r.OwnNamespace {
		namespace = "in a network namespace of their own"
	}
	p := r.Parameters
	return align("ll", [][]string{
		{"date", r.Date.Format(time.RFC3339)},
		{"machine", fmt.Sprintf("%s, %d cores, %s of memory", r.Machine.CPU, r.Machine.Cores, size(r.Machine.Memory))},
		{"kernel", "Linux " + r.Machine.Kernel},
		{"versions", r.versionList()},
		{"load", fmt.Sprintf("%s established TCP sockets, which are %s connections over loopback, in %d processes, %s",
			count(int64(p.Sockets)), count(int64(p.Sockets/2)), p.Processes, namespace)},
		{"figures", fmt.Sprintf("of one gather: the median of %d, in turns, after one that does not count; CPU is user + system",
			p.Runs)},
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

// shortModule returns the name that a module goes by.
func shortModule(module string) string {
	short := strings.TrimPrefix(majorVersion.ReplaceAllString(module, ""), "github.com/")
	switch path.Dir(short) {
	case "influxdata", "shirou":
		return path.Base(short)
	}
	return short
}

var columns = []string{"wall", "CPU", "allocations", "allocated", "peak RSS", "CPU ÷ floor", "sockets seen", ""}

// table has a line for each row.
func (r *report) table() string {
	lines := [][]string{append([]string{""}, columns...)}
	for _, of := range []group{groupFloors, groupOurs, groupPeers} {
		begun := false
		for _, row := range r.Rows {
			if row.Group != of {
				continue
			}
			if !begun {
				lines, begun = append(lines, nil, []string{string(of)}), true
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
			line = append(line, none)
		}
		return append(line, row.why())
	}
	m := row.median()
	objects, allocated := none, none
	if m.Heap != nil {
		objects, allocated = count(m.Heap.Objects), size(m.Heap.Bytes)
	}
	return append(line, duration(m.Wall), duration(m.CPU), objects, allocated, size(m.PeakRSS), r.toFloor(row),
		count(int64(m.Sockets)), r.note(row))
}

// why says why a row has no figures.
func (r *row) why() string {
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
		return duration(row.median().CPU/procstatProcesses) + " of CPU for each process asked for"
	}
	if row.Name == rowExecd {
		return fmt.Sprintf("%s; it found owners by %s", row.Note, row.median().Owners)
	}
	return row.Note
}

// toFloor is the CPU time of the row, measured by that of its floors.
func (r *report) toFloor(row *row) string {
	floor, ok := r.cpu(row.Floors...)
	if !ok || floor == 0 {
		return none
	}
	return digits(row.median().CPU.Seconds()/floor.Seconds()) + " × " + joinFloors(row.Floors...)
}

func (r *report) targetTable() string {
	lines := [][]string{{"targets", "measured", "wanted", ""}}
	for _, v := range r.Targets {
		figure := none
		if v.Figure != nil {
			figure = digits(*v.Figure)
		}
		wanted := strings.TrimSpace(fmt.Sprintf("%s %g %s", v.Relation, v.Limit, v.Unit))
		lines = append(lines, []string{"  " + v.What, figure, wanted, string(v.Result)})
	}
	return align("lrll", lines) + "\n" +
		"Targets are judged from " + count(judgedFrom) + " sockets on: with fewer, what any gather costs is most of it. That of\n" +
		"memory is for up to " + count(usualSockets) + ". Allocations are those of a gather when nothing new comes up, but for the objects\n" +
		"that hold a number to emit, and may differ by 2 %, as those of Go's runtime do.\n"
}

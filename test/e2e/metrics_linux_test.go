package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// metrics has values by time in nanoseconds, series and field.
type metrics map[int64]gather

// gather has the values of one time by series: see seriesName.
type gather map[string]fields

// fields has values by name. All fields of procnetstat and of Telegraf's netstat are integers, except texts.
type fields map[string]int64

// texts has the string fields of connections.
type texts map[textField]string

type textField struct {
	time          int64
	series, field string
}

func (m metrics) add(time int64, series, field string, value int64) {
	if m[time] == nil {
		m[time] = gather{}
	}
	m[time].of(series)[field] = value
}

// of returns the fields of a series. It adds the series if it is missing.
func (g gather) of(series string) fields {
	if g[series] == nil {
		g[series] = fields{}
	}
	return g[series]
}

// measurement returns the series of a measurement, or the series of that name.
func (g gather) measurement(name string) gather {
	found := gather{}
	for series, f := range g {
		if series == name || strings.HasPrefix(series, name+",") {
			found[series] = f
		}
	}
	return found
}

// values returns the number of values.
func (g gather) values() int {
	n := 0
	for _, f := range g {
		n += len(f)
	}
	return n
}

// sum adds up a field of all series.
func (g gather) sum(field string) int64 {
	var sum int64
	for _, f := range g {
		sum += f[field]
	}
	return sum
}

// seriesName returns the name of a series: name,tag="value",…, with sorted tags.
func seriesName(measurement string, tags map[string]string) string {
	var b strings.Builder
	b.WriteString(measurement)
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		if tags[tag] != "" {
			fmt.Fprintf(&b, ",%s=%q", tag, tags[tag])
		}
	}
	return b.String()
}

// requireFields checks the fields in want of a series. The series may have other fields.
func requireFields(t *testing.T, g gather, series string, want fields) {
	t.Helper()
	got, found := g[series]
	if !found {
		t.Errorf("no series %s in\n\t%s", series, strings.Join(slices.Sorted(maps.Keys(g)), "\n\t"))
		return
	}
	for _, field := range slices.Sorted(maps.Keys(want)) {
		if value, found := got[field]; !found {
			t.Errorf("%s has no %s, want %d", series, field, want[field])
		} else if value != want[field] {
			t.Errorf("%s has %s=%d, want %d", series, field, value, want[field])
		}
	}
}

// requireSeries checks the fields in want of each series of a measurement. A series may have other fields; there may be no other
// series.
func requireSeries(t *testing.T, got gather, measurement string, want gather) {
	t.Helper()
	for _, series := range slices.Sorted(maps.Keys(want.measurement(measurement))) {
		requireFields(t, got, series, want[series])
	}
	for _, series := range slices.Sorted(maps.Keys(got.measurement(measurement))) {
		if _, expected := want[series]; !expected {
			t.Errorf("unexpected series %s: %v", series, got[series])
		}
	}
}

// requireMetrics checks that got has every value of want.
func requireMetrics(t *testing.T, got, want metrics) {
	t.Helper()
	for _, time := range slices.Sorted(maps.Keys(want)) {
		if len(got[time]) == 0 {
			t.Errorf("no gather at %d", time)
			continue
		}
		for series, f := range want[time] {
			if !maps.Equal(got[time][series], f) {
				t.Errorf("at %d, %s has %v, want %v", time, series, got[time][series], f)
			}
		}
	}
}

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// metrics are values by time in nanoseconds, series and field.
type metrics map[int64]gather

// gather has the values of one time by series: see seriesName.
type gather map[string]fields

// fields are by name. All fields of procnetstat and of Telegraf's netstat are integers, but for texts.
type fields map[string]int64

// texts are the fields of connections that are no integers.
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

// of returns the fields of a series, which it makes if need be.
func (g gather) of(series string) fields {
	if g[series] == nil {
		g[series] = fields{}
	}
	return g[series]
}

// measurement returns the series of a measurement, or the one of that name.
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

// seriesName names a series as name,tag="value",…, with the tags in their order.
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

// requireFields compares the fields of a series that are expected. It may have others.
func requireFields(t *testing.T, g gather, series string, want fields) {
	t.Helper()
	got, found := g[series]
	if !found {
		t.Errorf("no series %s; there are\n\t%s", series, strings.Join(slices.Sorted(maps.Keys(g)), "\n\t"))
		return
	}
	for _, field := range slices.Sorted(maps.Keys(want)) {
		if value, found := got[field]; !found {
			t.Errorf("%s has no %s, expected %d", series, field, want[field])
		} else if value != want[field] {
			t.Errorf("%s has %s=%d, expected %d", series, field, value, want[field])
		}
	}
}

// requireSeries compares what is expected of each series of a measurement. It may have other fields, but no other series.
func requireSeries(t *testing.T, got gather, measurement string, want gather) {
	t.Helper()
	for _, series := range slices.Sorted(maps.Keys(want.measurement(measurement))) {
		requireFields(t, got, series, want[series])
	}
	for _, series := range slices.Sorted(maps.Keys(got.measurement(measurement))) {
		if _, expected := want[series]; !expected {
			t.Errorf("there is a series %s: %v", series, got[series])
		}
	}
}

// requireAll wants got to have every value of want.
func requireMetrics(t *testing.T, got, want metrics) {
	t.Helper()
	for _, time := range slices.Sorted(maps.Keys(want)) {
		if len(got[time]) == 0 {
			t.Errorf("the gather at %d is missing", time)
			continue
		}
		for series, f := range want[time] {
			if !maps.Equal(got[time][series], f) {
				t.Errorf("at %d, %s has %v, expected %v", time, series, got[time][series], f)
			}
		}
	}
}

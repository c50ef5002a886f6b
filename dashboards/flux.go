package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
)

type flux struct{}

func (flux) name() string       { return "flux" }
func (flux) title() string      { return "Flux" }
func (flux) dataSource() string { return "influxdb" }

func (flux) tagValues(from measurement, tag string) string {
	return fmt.Sprintf("import \"influxdata/influxdb/schema\"\nschema.tagValues(bucket: v.defaultBucket, tag: %q, "+
		"predicate: (r) => r._measurement == %q, start: v.timeRangeStart)", tag, from.name)
}

// fluxPipe is a chain of Flux functions.
type fluxPipe []string

func (p *fluxPipe) stepf(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }
func (p *fluxPipe) group(columns ...string) {
	p.stepf("group(columns: [%s])", strings.Join(quoteAll(columns), ", "))
}
func (p fluxPipe) String() string { return strings.Join(p, "\n  |> ") }

func (flux) query(q query) variants.Dataquery {
	p := fluxSeries(q)
	groupBy := slices.Clone(q.groupBy)
	if !q.inTable {
		groupBy = append(groupBy, "_time")
	}
	combine := "sum()"
	if q.value.aggregation == aggregateMaximum {
		combine = "max()"
	}
	switch {
	case q.value.divisor == nil:
		p.group(groupBy...)
		p.stepf("%s", combine)
	case q.value.isMaximumOfQuotients():
		p.stepf(`group(columns: ["_field", "_time", "_value"], mode: "except")`)
		fluxQuotient(&p, q.value, "_time")
		p.group(groupBy...)
		p.stepf("%s", combine)
	default:
		p.stepf("map(fn: (r) => ({r with _value: float(v: r._value)}))")
		p.group(append(slices.Clone(groupBy), "_field")...)
		p.stepf("%s", combine)
		p.group()
		if len(groupBy) == 0 { // pivot requires a column
			p.stepf(`set(key: "row", value: "")`)
			groupBy = []string{"row"}
		}
		fluxQuotient(&p, q.value, groupBy...)
	}
	label := func() { p.stepf("set(key: \"_field\", value: %q)", q.label) }
	switch {
	case q.inTable:
		p.group()
		if q.top {
			p.stepf("top(n: ${%s})", topVariable)
		}
		p.stepf("keep(columns: [%s])", strings.Join(quoteAll(append(slices.Clone(q.groupBy), "_value")), ", "))
		p.stepf("rename(columns: {_value: %q})", q.label)
	case q.top:
		p.group(q.groupBy...)
		p.stepf(`sort(columns: ["_time"])`)
		key := "r." + strings.Join(q.groupBy, ` + "\t" + r.`)
		all := p
		p = fluxPipe{"all"}
		p.stepf("filter(fn: (r) => contains(value: %s, set: biggest))", key)
		label()
		return influxTarget{RefID: q.ref, Query: fmt.Sprintf(`all = %s

biggest = all
  |> max()
  |> group()
  |> top(n: ${%s})
  |> map(fn: (r) => ({series: %s}))
  |> findColumn(fn: (key) => true, column: "series")

%s`, all, topVariable, key, p)}
	default:
		p.group(q.groupBy...)
		p.stepf(`sort(columns: ["_time"])`)
		label()
	}
	return influxTarget{RefID: q.ref, Query: p.String()}
}

// fluxSeries selects series and reduces each to one value, or to one of each window. Counters are read point by point: the last
// value of each window would miss what a series did in its first window.
func fluxSeries(q query) (p fluxPipe) {
	fields := slices.Clone(q.value.fields)
	if q.value.divisor != nil {
		fields = append(fields, q.value.divisor.fields...)
	}
	for i, field := range fields {
		fields[i] = fmt.Sprintf("r._field == %q", field)
	}
	p.stepf("from(bucket: v.defaultBucket)")
	p.stepf("range(start: v.timeRangeStart, stop: v.timeRangeStop)")
	p.stepf("filter(fn: (r) => r._measurement == %q and (%s))", q.from.name, strings.Join(fields, " or "))
	selectBy := func(tag string) { p.stepf("filter(fn: (r) => r.%s =~ /^${%s:regex}$/)", tag, tag) }
	for _, tag := range q.selected {
		if !isOptional(tag) {
			selectBy(tag)
		}
	}
	window := func(function string) {
		p.stepf("aggregateWindow(every: v.windowPeriod, fn: %s, createEmpty: false)", function)
	}
	switch {
	case q.value.aggregation == aggregateRate:
		p.stepf("derivative(unit: 1s, nonNegative: true)")
		window("mean")
	case q.value.aggregation == aggregateIncrease:
		p.stepf("difference(nonNegative: true)")
		p.stepf("sum()")
	case q.inTable:
		p.stepf("last()")
	case q.value.aggregation == aggregateMaximum && q.value.divisor == nil:
		window("max")
	default:
		window("last")
	}

	var absent []string
	for _, tag := range append(slices.Clone(q.selected), q.groupBy...) {
		if name := fmt.Sprintf(`%s: if exists r.%[1]s then r.%[1]s else ""`, tag); isOptional(tag) && !slices.Contains(absent, name) {
			absent = append(absent, name)
		}
	}
	if len(absent) > 0 {
		p.stepf("map(fn: (r) => ({r with %s}))", strings.Join(absent, ", "))
	}
	for _, tag := range q.selected {
		if isOptional(tag) {
			selectBy(tag)
		}
	}
	return p
}

// fluxQuotient divides fields by another field. The rows of all have the same values in the columns of a row.
func fluxQuotient(p *fluxPipe, v value, row ...string) {
	lower := v.divisor.fields[0]
	parts := make([]string, len(v.fields))
	for i, field := range v.fields {
		parts[i] = fmt.Sprintf("float(v: r.%s)", field)
	}
	upper := strings.Join(parts, " + ")
	if len(parts) > 1 {
		upper = "(" + upper + ")"
	}
	p.stepf("pivot(rowKey: [%s], columnKey: [\"_field\"], valueColumn: \"_value\")", strings.Join(quoteAll(row), ", "))
	p.stepf("map(fn: (r) => ({r with _value: if exists r.%[2]s and float(v: r.%[2]s) > 0.0 then %[1]s / float(v: r.%[2]s) else 0.0}))",
		upper, lower)
	p.stepf("drop(columns: [%s])", strings.Join(quoteAll(append(slices.Clone(v.fields), lower)), ", "))
}

package main

import (
	"fmt"
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

func (flux) query(q query) variants.Dataquery {
	var steps []string
	step := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	step("from(bucket: v.defaultBucket)")
	step("range(start: v.timeRangeStart, stop: v.timeRangeStop)")
	var fields []string
	for _, field := range q.value.fields {
		fields = append(fields, fmt.Sprintf("r._field == %q", field))
	}
	if q.value.divisor != nil {
		fields = append(fields, fmt.Sprintf("r._field == %q", q.value.divisor.fields[0]))
	}
	step("filter(fn: (r) => r._measurement == %q and (%s))", q.from.name, strings.Join(fields, " or "))
	for _, tag := range q.from.tags {
		step("filter(fn: (r) => r.%s =~ /^${%s:regex}$/)", tag, tag)
	}

	function, combine := "last", "sum"
	if q.value.aggregation == aggregateMaximum {
		if combine = "max"; !q.inTable {
			function = "max"
		}
	}
	if q.inTable && q.value.aggregation != aggregateIncrease {
		step("%s()", function)
	} else {
		step("aggregateWindow(every: v.windowPeriod, fn: %s, createEmpty: false)", function)
	}
	switch q.value.aggregation {
	case aggregateRate:
		step("derivative(unit: 1s, nonNegative: true)")
	case aggregateIncrease:
		step("difference(nonNegative: true)")
	}

	groupBy := q.groupBy
	if !q.inTable {
		groupBy = append(groupBy[:len(groupBy):len(groupBy)], "_time")
	}
	if q.value.divisor == nil {
		step("group(columns: [%s])", strings.Join(quoteAll(groupBy), ", "))
		step("%s()", combine)
	} else {
		step("map(fn: (r) => ({r with _value: float(v: r._value)}))")
		step("group(columns: [%s])", strings.Join(quoteAll(append(groupBy[:len(groupBy):len(groupBy)], "_field")), ", "))
		step("%s()", combine)
		step("group()")
		step("pivot(rowKey: [%s], columnKey: [\"_field\"], valueColumn: \"_value\")", strings.Join(quoteAll(groupBy), ", "))
		upper, lower := q.value.fields[0], q.value.divisor.fields[0]
		step("map(fn: (r) => ({r with _value: if r.%[2]s > 0.0 then r.%[1]s / r.%[2]s else 0.0}))", upper, lower)
		step("drop(columns: [%q, %q])", upper, lower)
	}
	if q.inTable {
		step("group()")
		step("rename(columns: {_value: %q})", q.label)
	} else {
		step("group(columns: [%s])", strings.Join(quoteAll(q.groupBy), ", "))
		step("sort(columns: [\"_time\"])")
		step("set(key: \"_field\", value: %q)", q.label)
	}
	return influxTarget{RefID: q.ref, Query: strings.Join(steps, "\n  |> ")}
}

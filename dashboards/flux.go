package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
)

type flux struct{}

func (flux) name() string       { return "flux" }
func (flux) version() string    { return "Flux" }
func (flux) dataSource() string { return "influxdb" }

func (flux) values(of measurement, tag string) string {
	return fmt.Sprintf("import \"influxdata/influxdb/schema\"\nschema.tagValues(bucket: v.defaultBucket, tag: %q, "+
		"predicate: (r) => r._measurement == %q, start: v.timeRangeStart)", tag, of.name)
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
	if q.value.per != nil {
		fields = append(fields, fmt.Sprintf("r._field == %q", q.value.per.fields[0]))
	}
	step("filter(fn: (r) => r._measurement == %q and (%s))", q.of.name, strings.Join(fields, " or "))
	for _, tag := range q.of.tags {
		step("filter(fn: (r) => r.%s =~ /^${%s:regex}$/)", tag, tag)
	}

	function, all := "last", "sum"
	if q.value.how == asHighest {
		function, all = "max", "max"
	}
	if q.inTable && q.value.how != asTotal {
		step("%s()", function)
	} else {
		step("aggregateWindow(every: v.windowPeriod, fn: %s, createEmpty: false)", function)
	}
	switch q.value.how {
	case asRate:
		step("derivative(unit: 1s, nonNegative: true)")
	case asTotal:
		step("difference(nonNegative: true)")
	}

	by := q.by
	if !q.inTable {
		by = append(by[:len(by):len(by)], "_time")
	}
	if q.value.per == nil {
		step("group(columns: [%s])", strings.Join(quoted(by), ", "))
		step("%s()", all)
	} else {
		step("map(fn: (r) => ({r with _value: float(v: r._value)}))")
		step("group(columns: [%s])", strings.Join(quoted(append(by[:len(by):len(by)], "_field")), ", "))
		step("%s()", all)
		step("group()")
		step("pivot(rowKey: [%s], columnKey: [\"_field\"], valueColumn: \"_value\")", strings.Join(quoted(by), ", "))
		upper, lower := q.value.fields[0], q.value.per.fields[0]
		step("map(fn: (r) => ({r with _value: if r.%[2]s > 0.0 then r.%[1]s / r.%[2]s else 0.0}))", upper, lower)
		step("drop(columns: [%q, %q])", upper, lower)
	}
	if q.inTable {
		step("group()")
		step("rename(columns: {_value: %q})", q.label)
	} else {
		step("group(columns: [%s])", strings.Join(quoted(q.by), ", "))
		step("sort(columns: [\"_time\"])")
		step("set(key: \"_field\", value: %q)", q.label)
	}
	return influxTarget{RefID: q.ref, Query: strings.Join(steps, "\n  |> ")}
}

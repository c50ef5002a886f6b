package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
)

type influxQL struct{}

func (influxQL) name() string       { return "influxql" }
func (influxQL) title() string      { return "InfluxQL" }
func (influxQL) dataSource() string { return "influxdb" }

func (influxQL) tagValues(from measurement, tag string) string {
	return fmt.Sprintf(`SHOW TAG VALUES FROM %q WITH KEY = %q`, from.name, tag)
}

// query reduces each series to one value in a subquery, and combines these values.
func (influxQL) query(q query) variants.Dataquery {
	conditions := []string{"$timeFilter"}
	for _, tag := range q.from.tags {
		conditions = append(conditions, fmt.Sprintf(`%q =~ /^${%s:regex}$/`, tag, tag))
	}
	inner, outer := influxQLValue(q.value, "v", q.inTable)
	if q.value.divisor != nil {
		innerDivisor, outerDivisor := influxQLValue(*q.value.divisor, "d", q.inTable)
		inner, outer = inner+", "+innerDivisor, outer+" / "+outerDivisor
	}
	innerBy, outerBy := "*", quoteAll(q.groupBy)
	if !q.inTable || q.value.aggregation == aggregateIncrease {
		innerBy = "time($__interval), *"
	}
	if !q.inTable {
		outerBy = append([]string{"time($__interval)"}, outerBy...)
	}
	text := fmt.Sprintf("SELECT %s AS %q FROM (SELECT %s FROM %q WHERE %s GROUP BY %s) WHERE $timeFilter",
		outer, q.label, inner, q.from.name, strings.Join(conditions, " AND "), innerBy)
	if len(outerBy) > 0 {
		text += " GROUP BY " + strings.Join(outerBy, ", ")
	}
	target := influxTarget{RefID: q.ref, Query: text, RawQuery: true, ResultFormat: "table"}
	if !q.inTable {
		target.Query += " fill(none)"
		target.ResultFormat, target.Alias = "time_series", q.label
		for _, tag := range q.groupBy {
			target.Alias += " $tag_" + tag
		}
	}
	return target
}

// influxQLValue returns the expressions of the inner query, for each series, and of the outer query, for all of them.
func influxQLValue(v value, name string, inTable bool) (inner, outer string) {
	function, outer := "last(%q)", "sum"
	switch v.aggregation {
	case aggregateMaximum:
		if outer = "max"; !inTable {
			function = "max(%q)"
		}
	case aggregateRate:
		function = "non_negative_derivative(last(%q), 1s)"
	case aggregateIncrease:
		function = "non_negative_difference(last(%q))"
	}
	parts := make([]string, len(v.fields))
	for i, field := range v.fields {
		parts[i] = fmt.Sprintf(function, field)
	}
	return strings.Join(parts, " + ") + " AS " + name, outer + "(" + name + ")"
}

func quoteAll(names []string) (quoted []string) {
	for _, name := range names {
		quoted = append(quoted, fmt.Sprintf("%q", name))
	}
	return quoted
}

// influxTarget is a query of Grafana's InfluxDB data source, which the SDK lacks. Flux uses only the first two fields.
type influxTarget struct {
	RefID        string `json:"refId"`
	Query        string `json:"query"`
	RawQuery     bool   `json:"rawQuery,omitempty"`
	ResultFormat string `json:"resultFormat,omitempty"`
	Alias        string `json:"alias,omitempty"`
}

func (influxTarget) ImplementsDataqueryVariant()            {}
func (influxTarget) DataqueryType() string                  { return "influxdb" }
func (influxTarget) Validate() error                        { return nil }
func (t influxTarget) Equals(other variants.Dataquery) bool { return t == other }

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

// query reduces each series to one value, or to one of each interval, in a subquery, and combines these values.
func (influxQL) query(q query) variants.Dataquery {
	conditions := []string{"$timeFilter"}
	for _, tag := range q.selected {
		conditions = append(conditions, fmt.Sprintf(`%q =~ /^${%s:regex}$/`, tag, tag))
	}
	columns, outer := influxQLValue(q.value, q.inTable)
	by := "*"
	if !q.inTable && q.value.aggregation != aggregateRate {
		by = "time($__interval), *"
	}
	inner := fmt.Sprintf("SELECT %s FROM %q WHERE %s GROUP BY %s", columns, q.from.name, strings.Join(conditions, " AND "), by)
	if q.value.aggregation == aggregateRate {
		means := "mean(v) AS v"
		if q.value.divisor != nil {
			means += ", mean(d) AS d"
		}
		inner = fmt.Sprintf("SELECT %s FROM (%s) WHERE $timeFilter GROUP BY time($__interval), *", means, inner)
	}
	outerBy, fill := quoteAll(q.groupBy), ""
	if !q.inTable {
		outerBy, fill = append([]string{"time($__interval)"}, outerBy...), " fill(none)"
	}
	text := fmt.Sprintf("SELECT %s AS %q FROM (%s) WHERE $timeFilter", outer, q.label, inner)
	if len(outerBy) > 0 {
		text += " GROUP BY " + strings.Join(outerBy, ", ") + fill
	}
	target := influxTarget{RefID: q.ref, Query: text, RawQuery: true, ResultFormat: "table"}
	switch {
	case q.top:
		// Columns, not series: a GROUP BY of tags would select the biggest in each group. See seriesFromColumns.
		target.Query = fmt.Sprintf("SELECT top(%q, %s, $%s) AS %[1]q FROM (%[4]s) WHERE $timeFilter",
			q.label, strings.Join(quoteAll(q.groupBy), ", "), topVariable, text)
		if !q.inTable {
			target.Query += " GROUP BY time($__interval) fill(none)"
		}
	case !q.inTable:
		target.ResultFormat, target.Alias = "time_series", q.label
		for _, tag := range q.groupBy {
			target.Alias += " $tag_" + tag
		}
	}
	return target
}

// influxQLValue returns the columns of the inner query, for each series, and the expression of the outer query, for all of them.
// Counters are read point by point: the last value of each interval would miss what a series did in its first interval.
func influxQLValue(v value, inTable bool) (columns, outer string) {
	function := "last(%q)"
	switch v.aggregation {
	case aggregateMaximum:
		if !inTable && v.divisor == nil {
			function = "max(%q)"
		}
	case aggregateRate:
		function = "non_negative_derivative(%q, 1s)"
	case aggregateIncrease:
		function = "non_negative_difference(%q)"
	}
	parts := make([]string, len(v.fields))
	for i, field := range v.fields {
		parts[i] = fmt.Sprintf(function, field)
	}
	columns = strings.Join(parts, " + ")
	const dividedBy = " * 1.0 / " // InfluxQL takes a quotient of integers for an integer in the next query
	switch {
	case v.isMaximumOfQuotients():
		return columns + dividedBy + fmt.Sprintf(function, v.divisor.fields[0]) + " AS v", "max(v)"
	case v.aggregation == aggregateMaximum:
		return columns + " AS v", "max(v)"
	case v.divisor != nil:
		return columns + " AS v, " + fmt.Sprintf(function, v.divisor.fields[0]) + " AS d", "sum(v)" + dividedBy + "sum(d)"
	}
	return columns + " AS v", "sum(v)"
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

package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
)

type influxQL struct{}

func (influxQL) name() string       { return "influxql" }
func (influxQL) version() string    { return "InfluxQL" }
func (influxQL) dataSource() string { return "influxdb" }

func (influxQL) values(of measurement, tag string) string {
	return fmt.Sprintf(`SHOW TAG VALUES FROM %q WITH KEY = %q`, of.name, tag)
}

// query makes one value of each series in a subquery, and sums these up.
func (influxQL) query(q query) variants.Dataquery {
	conditions := []string{"$timeFilter"}
	for _, tag := range q.of.tags {
		conditions = append(conditions, fmt.Sprintf(`%q =~ /^${%s:regex}$/`, tag, tag))
	}
	each, all := influxValue(q.value, "v")
	if q.value.per != nil {
		eachPer, allPer := influxValue(*q.value.per, "d")
		each, all = each+", "+eachPer, all+" / "+allPer
	}
	eachBy, by := "*", quoted(q.by)
	if !q.inTable || q.value.how == asTotal {
		eachBy = "time($__interval), *"
	}
	if !q.inTable {
		by = append([]string{"time($__interval)"}, by...)
	}
	text := fmt.Sprintf("SELECT %s AS %q FROM (SELECT %s FROM %q WHERE %s GROUP BY %s) WHERE $timeFilter",
		all, q.label, each, q.of.name, strings.Join(conditions, " AND "), eachBy)
	if len(by) > 0 {
		text += " GROUP BY " + strings.Join(by, ", ")
	}
	target := influxTarget{RefID: q.ref, Query: text, RawQuery: true, ResultFormat: "table"}
	if !q.inTable {
		target.Query += " fill(none)"
		target.ResultFormat, target.Alias = "time_series", q.label
		for _, tag := range q.by {
			target.Alias += " $tag_" + tag
		}
	}
	return target
}

// influxValue returns what to select of each series, and then of all of them.
func influxValue(v value, name string) (each, all string) {
	function, all := "last(%q)", "sum"
	switch v.how {
	case asHighest:
		function, all = "max(%q)", "max"
	case asRate:
		function = "non_negative_derivative(last(%q), 1s)"
	case asTotal:
		function = "non_negative_difference(last(%q))"
	}
	parts := make([]string, len(v.fields))
	for i, field := range v.fields {
		parts[i] = fmt.Sprintf(function, field)
	}
	return strings.Join(parts, " + ") + " AS " + name, all + "(" + name + ")"
}

func quoted(names []string) (all []string) {
	for _, name := range names {
		all = append(all, fmt.Sprintf("%q", name))
	}
	return all
}

// influxTarget is a query of Grafana's InfluxDB data source, which the SDK does not have: in InfluxQL, and in Flux with no more than the
// first two fields.
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

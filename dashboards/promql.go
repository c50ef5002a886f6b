package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

type promQL struct{}

func (promQL) name() string       { return "promql" }
func (promQL) title() string      { return "PromQL" }
func (promQL) dataSource() string { return "prometheus" }

func (promQL) tagValues(from measurement, tag string) string {
	series := from.name + "_" + from.fields[0]
	if len(from.fields) > 1 {
		series = fmt.Sprintf(`{__name__=~"%s_(%s)"}`, from.name, strings.Join(from.fields, "|"))
	}
	return fmt.Sprintf("label_values(%s, %s)", series, tag)
}

func (promQL) query(q query) variants.Dataquery {
	text := promQLValue(q, q.value)
	if divisor := q.value.divisor; divisor != nil && !q.value.isMaximumOfQuotients() {
		const epsilon = "0.001" // avoids a division by zero, so that the quotient is 0
		text = fmt.Sprintf("%s / clamp_min(%s, %s)", text, promQLValue(q, *divisor), epsilon)
	}
	switch {
	case q.top && q.inTable:
		text = fmt.Sprintf("topk($%s, %s)", topVariable, text)
	case q.top: // topk alone selects other series at each point in time
		text = fmt.Sprintf("(%s) and on (%s) topk($%s, max_over_time((%[1]s)[$__range:$__interval] @ end()))",
			text, strings.Join(q.groupBy, ", "), topVariable)
	}
	target := prometheus.Dataquery{RefId: cog.ToPtr(q.ref), Expr: text}
	if q.inTable {
		target.Instant, target.Format = cog.ToPtr(true), cog.ToPtr(prometheus.PromQueryFormatTable)
		return target
	}
	legend := []string{q.label}
	for _, tag := range q.groupBy {
		legend = append(legend, "{{"+tag+"}}")
	}
	target.Range, target.LegendFormat = cog.ToPtr(true), cog.ToPtr(strings.Join(legend, " "))
	return target
}

func promQLValue(q query, v value) string {
	var conditions []string
	for _, tag := range q.selected {
		conditions = append(conditions, fmt.Sprintf(`%s=~"$%s"`, tag, tag))
	}
	grouping := ""
	if len(q.groupBy) > 0 {
		grouping = " by (" + strings.Join(q.groupBy, ", ") + ")"
	}
	series := func(field string) string {
		return fmt.Sprintf("%s_%s{%s}", q.from.name, field, strings.Join(conditions, ","))
	}
	parts := make([]string, len(v.fields))
	for i, field := range v.fields {
		switch v.aggregation {
		case aggregateSum:
			parts[i] = fmt.Sprintf("sum%s (%s)", grouping, series(field))
		case aggregateMaximum:
			of := series(field)
			if v.divisor != nil {
				of += " / " + series(v.divisor.fields[0])
			}
			parts[i] = fmt.Sprintf("max%s (%s)", grouping, of)
		case aggregateRate:
			parts[i] = fmt.Sprintf("sum%s (rate(%s[$__rate_interval]))", grouping, series(field))
		case aggregateIncrease:
			parts[i] = fmt.Sprintf("sum%s (increase(%s[$__range]))", grouping, series(field))
		}
	}
	sum := strings.Join(parts, " + ")
	if len(parts) > 1 && v.divisor != nil {
		return "(" + sum + ")"
	}
	return sum
}

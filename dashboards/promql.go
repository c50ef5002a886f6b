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
func (promQL) version() string    { return "PromQL" }
func (promQL) dataSource() string { return "prometheus" }

func (promQL) values(of measurement, tag string) string {
	field := "tcp_established"
	if of.name == gather.name {
		field = "sockets"
	}
	return fmt.Sprintf("label_values(%s_%s, %s)", of.name, field, tag)
}

func (promQL) query(q query) variants.Dataquery {
	text := promValue(q, q.value)
	if per := q.value.per; per != nil {
		const nearNothing = "0.001" // for a value of 0 where there was nothing
		text = fmt.Sprintf("%s / clamp_min(%s, %s)", text, promValue(q, *per), nearNothing)
	}
	legend := []string{q.label}
	for _, tag := range q.by {
		legend = append(legend, "{{"+tag+"}}")
	}
	target := prometheus.Dataquery{RefId: cog.ToPtr(q.ref), Expr: text}
	if q.inTable {
		target.Instant, target.Format = cog.ToPtr(true), cog.ToPtr(prometheus.PromQueryFormatTable)
	} else {
		target.Range, target.LegendFormat = cog.ToPtr(true), cog.ToPtr(strings.Join(legend, " "))
	}
	return target
}

func promValue(q query, v value) string {
	var conditions []string
	for _, tag := range q.of.tags {
		conditions = append(conditions, fmt.Sprintf(`%s=~"$%s"`, tag, tag))
	}
	by := ""
	if len(q.by) > 0 {
		by = " by (" + strings.Join(q.by, ", ") + ")"
	}
	parts := make([]string, len(v.fields))
	for i, field := range v.fields {
		series := fmt.Sprintf("%s_%s{%s}", q.of.name, field, strings.Join(conditions, ","))
		switch v.how {
		case asGauge:
			parts[i] = fmt.Sprintf("sum%s (%s)", by, series)
		case asHighest:
			parts[i] = fmt.Sprintf("max%s (%s)", by, series)
		case asRate:
			parts[i] = fmt.Sprintf("sum%s (rate(%s[$__rate_interval]))", by, series)
		case asTotal:
			parts[i] = fmt.Sprintf("sum%s (increase(%s[$__range]))", by, series)
		}
	}
	return strings.Join(parts, " + ")
}

package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/nodegraph"
	gtable "github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

const (
	tag         = "procnetstat"
	panelHeight = 8
	pageColumns = 24 // the columns of a page
)

// build builds a Grafana dashboard in the schema that every version since Grafana 8 imports.
//
//nolint:staticcheck // the SDK deprecates this schema in favour of that of Grafana 12
func build(b board, lang language) (dashboard.Dashboard, error) {
	source := common.DataSourceRef{Type: cog.ToPtr(lang.dataSource()), Uid: cog.ToPtr("${datasource}")}
	d := dashboard.NewDashboardBuilder(b.title+" ("+lang.title()+")").
		Uid("procnetstat-"+b.name+"-"+lang.name()).
		Description(b.description).
		Tags([]string{tag, lang.name()}).
		Time("now-1h", "now").
		Refresh("30s").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("procnetstat").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{tag, lang.name()}).IncludeVars(true).KeepTime(true)).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("data source").Type(lang.dataSource()))
	for _, v := range b.variables {
		d.WithVariable(dashboard.NewQueryVariableBuilder(v.tag).
			Query(dashboard.StringOrMap{String: cog.ToPtr(lang.tagValues(v.from, v.tag))}).
			Datasource(source).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
			Sort(dashboard.VariableSortAlphabeticalAsc).
			Multi(true).IncludeAll(true).AllValue(".*"))
	}
	for _, p := range b.panels {
		switch p.kind {
		case graph:
			d.WithPanel(buildGraph(p, lang, source))
		case table:
			d.WithPanel(buildTable(p, lang, source))
		case nodeGraph:
			d.WithPanel(buildNodeGraph(p, lang, source))
		}
	}
	return d.Build()
}

// target makes a complete query a builder, as the SDK requires.
type target struct{ variants.Dataquery }

func (t target) Build() (variants.Dataquery, error) { return t.Dataquery, nil }

func targets(p panel, lang language) (builders []cog.Builder[variants.Dataquery]) {
	for i, c := range p.values {
		builders = append(builders, target{lang.query(query{
			from: p.from, value: c.value, groupBy: p.groupBy, label: c.label, inTable: p.kind != graph, ref: string(rune('A' + i)),
		})})
	}
	return builders
}

func buildGraph(p panel, lang language, source common.DataSourceRef) cog.Builder[dashboard.Panel] {
	return timeseries.NewPanelBuilder().
		Title(p.title).Description(p.description).Datasource(source).
		Height(panelHeight).Span(pageColumns / 2).
		Unit(p.unit).Min(0).FillOpacity(10).
		ShowPoints(common.VisibilityModeNever).
		SpanNulls(common.BoolOrFloat64{Float64: cog.ToPtr(60_000.0)}). // milliseconds
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeTable).
			Placement(common.LegendPlacementBottom).Calcs([]string{"lastNotNull", "max"}).SortBy("Last *").SortDesc(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)).
		Targets(targets(p, lang))
}

func buildTable(p panel, lang language, source common.DataSourceRef) cog.Builder[dashboard.Panel] {
	t := gtable.NewPanelBuilder().
		Title(p.title).Description(p.description).Datasource(source).
		Height(panelHeight + 2).Span(pageColumns).
		Filterable(true).
		Targets(targets(p, lang)).
		Transformations(mergeIntoTable(p, lang)).
		SortBy([]cog.Builder[common.TableSortByFieldState]{
			common.NewTableSortByFieldStateBuilder().DisplayName(p.values[0].label).Desc(true),
		})
	for _, c := range p.values {
		t.OverrideByName(c.label, []dashboard.DynamicConfigValue{{Id: "unit", Value: c.unit}})
	}
	return t
}

// mergeIntoTable returns the transformations that merge the results, one value each, into one table without the time.
func mergeIntoTable(p panel, lang language) []dashboard.DataTransformerConfig {
	names := map[string]string{}
	if lang.name() == (promQL{}).name() { // Grafana names PromQL values after the query's refId
		for i, c := range p.values {
			names["Value #"+string(rune('A'+i))] = c.label
		}
		if len(p.values) == 1 {
			names["Value"] = p.values[0].label
		}
	}
	return []dashboard.DataTransformerConfig{
		{Id: "merge", Options: map[string]any{}},
		{Id: "organize", Options: map[string]any{
			"excludeByName": map[string]bool{"Time": true, "time": true},
			"renameByName":  names,
		}},
	}
}

// buildNodeGraph renames the columns to those that a node graph requires of an edge. Grafana derives the nodes from the edges.
func buildNodeGraph(p panel, lang language, source common.DataSourceRef) cog.Builder[dashboard.Panel] {
	return nodegraph.NewPanelBuilder().
		Title(p.title).Description(p.description).Datasource(source).
		Height(2 * panelHeight).Span(pageColumns).
		Targets(targets(p, lang)).
		Transformations(append(mergeIntoTable(p, lang),
			dashboard.DataTransformerConfig{Id: "calculateField", Options: map[string]any{"mode": "index", "alias": "id"}},
			dashboard.DataTransformerConfig{Id: "convertFieldType", Options: map[string]any{
				"conversions": []map[string]any{{"targetField": "id", "destinationType": "string"}},
			}},
			dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{"renameByName": map[string]string{
				p.groupBy[0]: "source", p.groupBy[1]: "target", p.values[0].label: "mainstat",
			}}},
		))
}

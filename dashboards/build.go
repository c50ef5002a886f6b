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
	tag    = "procnetstat"
	height = 8
	full   = 24 // the columns of a page
)

// build makes a dashboard of Grafana, of the schema that every version since 8 imports.
//
//nolint:staticcheck // the SDK would have the schema that Grafana 12 brings
func build(b board, in language) (dashboard.Dashboard, error) {
	source := common.DataSourceRef{Type: cog.ToPtr(in.dataSource()), Uid: cog.ToPtr("${datasource}")}
	d := dashboard.NewDashboardBuilder(b.title+" ("+in.version()+")").
		Uid("procnetstat-"+b.name+"-"+in.name()).
		Description(b.description).
		Tags([]string{tag, in.name()}).
		Time("now-1h", "now").
		Refresh("30s").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("procnetstat").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{tag, in.name()}).IncludeVars(true).KeepTime(true)).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("data source").Type(in.dataSource()))
	for _, v := range b.variables {
		d.WithVariable(dashboard.NewQueryVariableBuilder(v.tag).
			Query(dashboard.StringOrMap{String: cog.ToPtr(in.values(v.of, v.tag))}).
			Datasource(source).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
			Sort(dashboard.VariableSortAlphabeticalAsc).
			Multi(true).IncludeAll(true).AllValue(".*"))
	}
	for _, p := range b.panels {
		switch p.kind {
		case graph:
			d.WithPanel(buildGraph(p, in, source))
		case table:
			d.WithPanel(buildTable(p, in, source))
		case links:
			d.WithPanel(buildMap(p, in, source))
		}
	}
	return d.Build()
}

// target is a query that is built already.
type target struct{ variants.Dataquery }

func (t target) Build() (variants.Dataquery, error) { return t.Dataquery, nil }

func targets(p panel, in language) (all []cog.Builder[variants.Dataquery]) {
	for i, c := range p.values {
		all = append(all, target{in.query(query{
			of: p.of, value: c.value, by: p.by, label: c.label, inTable: p.kind != graph, ref: string(rune('A' + i)),
		})})
	}
	return all
}

func buildGraph(p panel, in language, source common.DataSourceRef) cog.Builder[dashboard.Panel] {
	return timeseries.NewPanelBuilder().
		Title(p.title).Description(p.description).Datasource(source).
		Height(height).Span(full / 2).
		Unit(p.unit).Min(0).FillOpacity(10).
		ShowPoints(common.VisibilityModeNever).
		SpanNulls(common.BoolOrFloat64{Float64: cog.ToPtr(60_000.0)}). // milliseconds
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeTable).
			Placement(common.LegendPlacementBottom).Calcs([]string{"lastNotNull", "max"}).SortBy("Last *").SortDesc(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)).
		Targets(targets(p, in))
}

func buildTable(p panel, in language, source common.DataSourceRef) cog.Builder[dashboard.Panel] {
	t := gtable.NewPanelBuilder().
		Title(p.title).Description(p.description).Datasource(source).
		Height(height + 2).Span(full).
		Filterable(true).
		Targets(targets(p, in)).
		Transformations(asOneTable(p, in)).
		SortBy([]cog.Builder[common.TableSortByFieldState]{
			common.NewTableSortByFieldStateBuilder().DisplayName(p.values[0].label).Desc(true),
		})
	for _, c := range p.values {
		t.OverrideByName(c.label, []dashboard.DynamicConfigValue{{Id: "unit", Value: c.unit}})
	}
	return t
}

// asOneTable puts the answers, a value each, into one table, without the time.
func asOneTable(p panel, in language) []dashboard.DataTransformerConfig {
	names := map[string]string{}
	if in.name() == (promQL{}).name() { // which calls values by their query
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

// buildMap names the columns as a node graph wants those of its edges; Grafana makes the nodes of these.
func buildMap(p panel, in language, source common.DataSourceRef) cog.Builder[dashboard.Panel] {
	return nodegraph.NewPanelBuilder().
		Title(p.title).Description(p.description).Datasource(source).
		Height(2 * height).Span(full).
		Targets(targets(p, in)).
		Transformations(append(asOneTable(p, in),
			dashboard.DataTransformerConfig{Id: "calculateField", Options: map[string]any{"mode": "index", "alias": "id"}},
			dashboard.DataTransformerConfig{Id: "convertFieldType", Options: map[string]any{
				"conversions": []map[string]any{{"targetField": "id", "destinationType": "string"}},
			}},
			dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{"renameByName": map[string]string{
				p.by[0]: "source", p.by[1]: "target", p.values[0].label: "mainstat",
			}}},
		))
}

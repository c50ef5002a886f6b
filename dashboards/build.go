package main

import (
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/nodegraph"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	gtable "github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

const (
	tag          = "procnetstat"
	panelHeight  = 8
	numberHeight = 4
	pageColumns  = 24 // the columns of a page
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
	d.WithVariable(dashboard.NewCustomVariableBuilder(topVariable).Label("lines and rows").
		Description("How many lines a graph has, and how many rows a table: those with the biggest values.").
		Values(dashboard.StringOrMap{String: cog.ToPtr("5,10,20,50,100")}).
		Current(dashboard.VariableOption{
			Text: dashboard.StringOrArrayOfString{String: cog.ToPtr("10")}, Value: dashboard.StringOrArrayOfString{String: cog.ToPtr("10")},
		}))
	numbers := uint32(0)
	for _, p := range b.panels {
		if p.kind == number {
			numbers++
		}
	}
	for _, p := range b.panels {
		s := shown{panel: p, board: b, lang: lang, source: source}
		switch p.kind {
		case graph:
			d.WithPanel(s.graph())
		case table:
			d.WithPanel(s.table())
		case nodeGraph:
			d.WithPanel(s.nodeGraph())
		case number:
			d.WithPanel(s.number(pageColumns / numbers))
		}
	}
	return d.Build()
}

// shown is a panel in a language.
type shown struct {
	panel

	board  board
	lang   language
	source common.DataSourceRef
}

// target makes a complete query a builder, as the SDK requires.
type target struct{ variants.Dataquery }

func (t target) Build() (variants.Dataquery, error) { return t.Dataquery, nil }

func (s shown) targets() (builders []cog.Builder[variants.Dataquery]) {
	var selected []string
	for _, v := range s.board.variables {
		if slices.Contains(s.from.tags, v.tag) {
			selected = append(selected, v.tag)
		}
	}
	for i, c := range s.values {
		top := len(s.groupBy) > 0 && (s.kind == graph || i == 0) // withoutOthers selects the rows of a table by the first value
		builders = append(builders, target{s.lang.query(query{
			from: s.from, selected: selected, value: c.value, groupBy: s.groupBy, label: c.label, top: top,
			inTable: s.kind != graph && c.value.aggregation != aggregateRate,
			ref:     string(rune('A' + i)),
		})})
	}
	return builders
}

func (s shown) graph() cog.Builder[dashboard.Panel] {
	p := timeseries.NewPanelBuilder().
		Title(s.title).Description(s.description).Datasource(s.source).
		Height(panelHeight).Span(pageColumns / 2).
		Unit(s.unit).Min(0).FillOpacity(10).
		ShowPoints(common.VisibilityModeNever).
		SpanNulls(common.BoolOrFloat64{Float64: cog.ToPtr(60_000.0)}). // milliseconds
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeTable).
			Placement(common.LegendPlacementBottom).Calcs([]string{"lastNotNull", "max"}).SortBy("Last *").SortDesc(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)).
		Targets(s.targets())
	if s.limits != (limits{}) {
		p.Thresholds(thresholds(s.limits)).
			ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
	}
	if len(s.groupBy) > 0 && s.lang.name() == (influxQL{}).name() {
		name := []string{"${__field.name}"}
		for _, tag := range s.groupBy {
			name = append(name, "${__field.labels."+tag+"}")
		}
		p.DisplayName(strings.Join(name, " ")).Transformations(seriesFromColumns())
	}
	return p
}

// seriesFromColumns returns the transformation that makes a series of the rows with the same values in the columns of tags.
func seriesFromColumns() []dashboard.DataTransformerConfig {
	return []dashboard.DataTransformerConfig{{Id: "prepareTimeSeries", Options: map[string]any{"format": "many"}}}
}

func (s shown) number(span uint32) cog.Builder[dashboard.Panel] {
	return stat.NewPanelBuilder().
		Title(s.title).Description(s.description).Datasource(s.source).
		Height(numberHeight).Span(span).
		Unit(s.unit).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
		Thresholds(thresholds(s.limits)).
		ColorMode(common.BigValueColorModeValue).GraphMode(common.BigValueGraphModeArea).TextMode(common.BigValueTextModeValue).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		Targets(s.targets())
}

// thresholds returns the colours of values: green below the limits, or, without limits, that of text.
func thresholds(l limits) *dashboard.ThresholdsConfigBuilder {
	steps := []dashboard.Threshold{{Color: "green"}}
	if l == (limits{}) {
		steps[0].Color = "text"
	}
	if l.warning > 0 {
		steps = append(steps, dashboard.Threshold{Value: cog.ToPtr(l.warning), Color: "orange"})
	}
	if l.critical > 0 {
		steps = append(steps, dashboard.Threshold{Value: cog.ToPtr(l.critical), Color: "red"})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)
}

func (s shown) table() cog.Builder[dashboard.Panel] {
	t := gtable.NewPanelBuilder().
		Title(s.title).Description(s.description).Datasource(s.source).
		Height(panelHeight + 2).Span(pageColumns).
		Filterable(true).
		Targets(s.targets()).
		Transformations(append(s.mergeIntoTable(), s.withoutOthers())).
		SortBy([]cog.Builder[common.TableSortByFieldState]{
			common.NewTableSortByFieldStateBuilder().DisplayName(s.values[0].label).Desc(true),
		})
	for _, c := range s.values {
		properties := []dashboard.DynamicConfigValue{{Id: "unit", Value: c.unit}}
		if c.limits != (limits{}) {
			steps, err := thresholds(c.limits).Build()
			if err != nil {
				t.RecordError(c.label, err)
			}
			properties = append(properties,
				dashboard.DynamicConfigValue{Id: "thresholds", Value: steps},
				dashboard.DynamicConfigValue{Id: "custom.cellOptions", Value: common.NewTableColorTextCellOptions()})
		}
		t.OverrideByName(c.label, properties)
	}
	return t
}

// mergeIntoTable returns the transformations that merge the results, one value each, into one table without the time.
func (s shown) mergeIntoTable() []dashboard.DataTransformerConfig {
	names := map[string]string{}
	if s.lang.name() == (promQL{}).name() { // Grafana names PromQL values after the query's refId
		for i, c := range s.values {
			names["Value #"+string(rune('A'+i))] = c.label
		}
		if len(s.values) == 1 {
			names["Value"] = s.values[0].label
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

// withoutOthers returns the transformation that removes the rows without the first value: only its query selects the biggest.
func (s shown) withoutOthers() dashboard.DataTransformerConfig {
	return dashboard.DataTransformerConfig{Id: "filterByValue", Options: map[string]any{
		"type": "include", "match": "all",
		"filters": []map[string]any{{
			"fieldName": s.values[0].label, "config": map[string]any{"id": "isNotNull", "options": map[string]any{}},
		}},
	}}
}

// nodeGraph renames the columns to those that a node graph requires of an edge. Grafana derives the nodes from the edges.
func (s shown) nodeGraph() cog.Builder[dashboard.Panel] {
	return nodegraph.NewPanelBuilder().
		Title(s.title).Description(s.description).Datasource(s.source).
		Height(2 * panelHeight).Span(pageColumns).
		Targets(s.targets()).
		Transformations(append(s.mergeIntoTable(),
			dashboard.DataTransformerConfig{Id: "calculateField", Options: map[string]any{"mode": "index", "alias": "id"}},
			dashboard.DataTransformerConfig{Id: "convertFieldType", Options: map[string]any{
				"conversions": []map[string]any{{"targetField": "id", "destinationType": "string"}},
			}},
			dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{"renameByName": map[string]string{
				s.groupBy[0]: "source", s.groupBy[1]: "target", s.values[0].label: "mainstat",
			}}},
		))
}

package main

import "github.com/grafana/grafana-foundation-sdk/go/cog/variants"

// language is that of a data source's queries.
type language interface {
	name() string
	// dataSource is the type of Grafana's data source.
	dataSource() string
	// version is what Grafana shows of the language in the title of a dashboard.
	version() string
	// query asks for a value over time, or for one value in a table.
	query(q query) variants.Dataquery
	// values asks for the values of a tag.
	values(of measurement, tag string) string
}

// measurement is a measurement of the plugin, and the variables of the dashboard that choose its series.
type measurement struct {
	name string
	tags []string // each has a variable of its name
}

var (
	host     = measurement{"procnetstat", []string{"host"}}
	process  = measurement{"procnetstat_process", []string{"host", "process_name"}}
	service  = measurement{"procnetstat_cgroup", []string{"host", "cgroup"}}
	listener = measurement{"procnetstat_listener", []string{"host", "process_name"}}
	remote   = measurement{"procnetstat_remote", []string{"host", "process_name"}}
	gather   = measurement{"procnetstat_gather", []string{"host"}}
)

// query asks for a value of each group of series that have the tags in common.
type query struct {
	of      measurement
	value   value
	by      []string
	label   string // of the value
	inTable bool
	ref     string
}

// value is what is made of fields.
type value struct {
	fields []string // the sum of them
	how    how
	per    *value // the value is divided by this one; it is 0 where that is 0
}

type how int

const (
	asGauge   how = iota // summed up over the series of a group
	asHighest            // the highest of them
	asRate               // of a counter: per second, summed up
	asTotal              // of a counter: within the time range, summed up
)

func gauge(fields ...string) value { return value{fields: fields} }
func highest(field string) value   { return value{fields: []string{field}, how: asHighest} }
func rate(field string) value      { return value{fields: []string{field}, how: asRate} }
func total(field string) value     { return value{fields: []string{field}, how: asTotal} }
func (v value) dividedBy(d value) value {
	v.per = &d
	return v
}

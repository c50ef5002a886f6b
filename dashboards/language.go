package main

import "github.com/grafana/grafana-foundation-sdk/go/cog/variants"

// language is the query language of a data source.
type language interface {
	// name returns the directory of the dashboards, which is also their tag.
	name() string
	// title returns the name of the language in the title of a dashboard.
	title() string
	// dataSource returns Grafana's name of the data source type.
	dataSource() string
	// query returns the query of a value, over time or for a table.
	query(q query) variants.Dataquery
	// tagValues returns the query of the values of a tag.
	tagValues(from measurement, tag string) string
}

// measurement is a measurement of the plugin, and the dashboard variables that select its series.
type measurement struct {
	name   string
	tags   []string // the variable of the same name selects series, if the dashboard has it
	fields []string // every series has at least one of them
}

var (
	host     = measurement{"procnetstat", []string{"host", "netns"}, []string{"tcp_established"}}
	process  = measurement{"procnetstat_process", []string{"host", "netns", "process_name"}, []string{"tcp_established"}}
	service  = measurement{"procnetstat_cgroup", []string{"host", "netns", "cgroup"}, []string{"tcp_established"}}
	listener = measurement{
		"procnetstat_listener",
		[]string{"host", "netns", "process_name"},
		[]string{"tcp_established", "udp_socket", "unix_socket"},
	}
	remote = measurement{
		"procnetstat_remote",
		[]string{"host", "netns", "process_name"},
		[]string{"tcp_established", "udp_socket", "udplite_socket"},
	}
	gather = measurement{"procnetstat_gather", []string{"host"}, []string{"sockets"}}
)

// isOptional reports whether series can lack a tag: netns without several namespaces, interface without a device, local_port of a
// unix socket.
func isOptional(tag string) bool { return tag == "netns" || tag == "interface" || tag == "local_port" }

// topVariable is the dashboard variable that bounds the series of a panel.
const topVariable = "topk"

// query requests a value of each group of series that share the tags of groupBy.
type query struct {
	from     measurement
	selected []string // tags that dashboard variables select
	value    value
	groupBy  []string
	label    string // of the value
	inTable  bool   // one value of each group, of the time range; else a value of each point in time
	top      bool   // only the groups with the biggest values, as many as topVariable says
	ref      string
}

// value is an expression of fields.
type value struct {
	fields      []string // are added
	aggregation aggregation
	divisor     *value // nil, or divides the value
}

type aggregation int

const (
	aggregateSum      aggregation = iota // sum of the series of a group; a quotient is that of the sums, and 0 if the divisor is 0
	aggregateMaximum                     // maximum of the series, or of their quotients: in a table, of the last values
	aggregateRate                        // of counters: sum of the rates per second
	aggregateIncrease                    // of counters: sum of the increases in the time range
)

func gauge(fields ...string) value { return value{fields: fields} }
func maximum(field string) value {
	return value{fields: []string{field}, aggregation: aggregateMaximum}
}
func rate(field string) value { return value{fields: []string{field}, aggregation: aggregateRate} }
func increase(fields ...string) value {
	return value{fields: fields, aggregation: aggregateIncrease}
}
func (v value) dividedBy(d value) value {
	v.divisor = &d
	return v
}

// isMaximumOfQuotients reports whether the quotient is computed for each series, not of the sums.
func (v value) isMaximumOfQuotients() bool {
	return v.divisor != nil && v.aggregation == aggregateMaximum
}

package main

// board is a dashboard.
type board struct {
	name, title, description string
	variables                []variable
	panels                   []panel
}

// variable is a selector of the values of a tag.
type variable struct {
	from measurement
	tag  string
}

// panel is a graph, a table, a node graph, or a number.
type panel struct {
	title, description string
	kind               kind
	from               measurement
	groupBy            []string // a panel with groups shows as many as topVariable says, in a table those with the biggest first value
	unit               string   // of the values without a unit of their own
	limits             limits
	values             []column
}

type kind int

const (
	graph     kind = iota
	table          // sorted by the first value
	nodeGraph      // edges from the first tag of groupBy to the second
	number         // one value in a row of numbers
)

type column struct {
	label  string
	value  value
	unit   string
	limits limits
}

// limits are the values from which a value is coloured. Zero: none.
type limits struct{ warning, critical float64 }

// The limits that have an alert (see alerts/) are the same there.
var (
	queueLimits      = limits{80, 100} // percent
	retransmitLimits = limits{0.01, 0.05}
	usageLimits      = limits{critical: 0.8}
	orphanLimits     = limits{critical: 0.5} // the kernel counts an orphan up to four times
	unknownLimits    = limits{warning: 0.1}
)

// Grafana's ids of units.
const (
	sockets        = "short"
	bytes          = "bytes"
	bytesPerSecond = "Bps"
	perSecond      = "cps"
	microseconds   = "µs"
	share          = "percentunit"
	percent        = "percent"
	nanoseconds    = "ns"
)

func retransmits(from measurement, groupBy ...string) panel {
	return panel{
		title: "Retransmits", from: from, groupBy: groupBy, unit: share, limits: retransmitLimits,
		description: "Retransmitted segments, as a share of the segments sent. Above 1 %, packets are lost or heavily delayed.",
		values:      []column{{label: "retransmitted", value: rate("tcp_retrans_segs").dividedBy(rate("tcp_segs_out"))}},
	}
}

// numberOf returns a panel of a number.
func numberOf(title string, from measurement, v value, unit string, l limits, description string) panel {
	return panel{
		title: title, description: description, kind: number, from: from, unit: unit, limits: l,
		values: []column{{label: title, value: v}},
	}
}

// trafficNumbers returns the numbers that processes, listeners and peers have in common.
func trafficNumbers(from measurement) []panel {
	return []panel{
		numberOf("Connections", from, gauge("tcp_established"), sockets, limits{},
			"Established connections. One that is held by processes of several series counts in each."),
		numberOf("Opened", from, rate("tcp_opened"), perSecond, limits{}, "Connections opened per second."),
		numberOf("Retransmitted", from, increase("tcp_retrans_segs").dividedBy(increase("tcp_segs_out")), share, retransmitLimits,
			"Retransmitted segments, as a share of the segments sent in the time range."),
	}
}

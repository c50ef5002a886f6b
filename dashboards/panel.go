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
	failedLimits     = limits{critical: 0.1}
	connectLimits    = limits{critical: 500_000} // microseconds
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

// failedConnects are the fields that count attempts to connect that failed.
var failedConnects = []string{"tcp_connect_refused", "tcp_connect_timed_out", "tcp_connect_unreachable", "tcp_connect_no_port"}

func failedConnectsNumber(from measurement, all string) panel {
	return numberOf("Failed connects", from, increase(failedConnects...).dividedBy(increase("tcp_opened")), share, failedLimits,
		"Attempts to connect that failed in the time range, as a share of the "+all+". Without BPF there is no data.")
}

// connectPanels returns the panels of connects that the series of processes and of peers have in common.
func connectPanels(from measurement, groupBy ...string) []panel {
	return []panel{
		{
			title: "Failed connects by reason", from: from, groupBy: groupBy, unit: perSecond,
			description: "Refused: nothing listens at the port. Timed out: no answer. Unreachable: a router says so, or no neighbour answers. " +
				"No local port: all are in use. Given up: by the process, before an answer. Without BPF there is no data.",
			values: []column{
				{label: "refused", value: rate("tcp_connect_refused")},
				{label: "timed out", value: rate("tcp_connect_timed_out")},
				{label: "unreachable", value: rate("tcp_connect_unreachable")},
				{label: "no local port", value: rate("tcp_connect_no_port")},
				{label: "given up", value: rate("tcp_connect_aborted")},
			},
		},
		{
			title: "Connect time", from: from, groupBy: groupBy, unit: microseconds, limits: connectLimits,
			description: "From SYN to ESTABLISHED, of the connections established between two gathers: median, 95th percentile, maximum. " +
				"A second or more: SYNs are lost. Without BPF there is no data.",
			values: []column{
				{label: "p50", value: maximum("tcp_connect_p50_us")},
				{label: "p95", value: maximum("tcp_connect_p95_us")},
				{label: "max", value: maximum("tcp_connect_max_us")},
			},
		},
		{
			title: "Connections that broke", from: from, groupBy: groupBy, unit: perSecond,
			description: "Established connections that the peer reset, or that ended as it no longer answered. Without BPF there is no data.",
			values: []column{
				{label: "reset by the peer", value: rate("tcp_closed_reset")},
				{label: "timed out", value: rate("tcp_closed_timed_out")},
			},
		},
		{
			title: "SYN retransmits", from: from, groupBy: groupBy, unit: perSecond,
			description: "SYNs that were sent again: they were lost, or the accept queue of the peer is full.",
			values:      []column{{label: "SYNs", value: rate("tcp_syn_retrans")}},
		},
	}
}

// stallPanels returns the panels of the set stalls.
func stallPanels(from measurement, groupBy ...string) []panel {
	const set = ` No data: add "stalls" to the option details of the plugin.`
	return []panel{
		{
			title: "Idle connections", from: from, groupBy: groupBy, unit: sockets,
			description: "Established connections without data in either direction for idle_after. Growth is a leak." + set,
			values:      []column{{label: "idle", value: gauge("tcp_idle")}},
		},
		{
			title: "Unsent bytes", from: from, groupBy: groupBy, unit: bytes,
			description: "Written by the process and not yet sent. Much: see what limits the connections." + set,
			values:      []column{{label: "unsent", value: gauge("tcp_notsent_bytes")}},
		},
		{
			title: "Limited by receiver or send buffer", from: from, groupBy: groupBy, unit: share,
			description: "Shares of the time in which connections had unsent or unacknowledged data. Receiver: its window was full, it is " +
				"slow. Send buffer: it was too small for the path. The rest: the network." + set,
			values: []column{
				{label: "receiver", value: rate("tcp_rwnd_limited_us").dividedBy(rate("tcp_busy_us"))},
				{label: "send buffer", value: rate("tcp_sndbuf_limited_us").dividedBy(rate("tcp_busy_us"))},
			},
		},
		{
			title: "Time-outs, reordering, needless retransmits", from: from, groupBy: groupBy, unit: perSecond,
			description: "Time-outs: of the retransmission timer, SYNs included (Linux 6.7). Out of order: segments received so. " +
				"Needless: the peer reported segments that it had already (DSACK)." + set,
			values: []column{
				{label: "time-outs", value: rate("tcp_rto")},
				{label: "out of order", value: rate("tcp_rcv_ooopack")},
				{label: "needless", value: rate("tcp_dsack_dups")},
			},
		},
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

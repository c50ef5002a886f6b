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

// panel is a graph, a table or a node graph.
type panel struct {
	title, description string
	kind               kind
	from               measurement
	groupBy            []string
	unit               string // of the values without a unit of their own
	values             []column
}

type kind int

const (
	graph     kind = iota
	table          // sorted by the first value
	nodeGraph      // edges from the first tag of groupBy to the second
)

type column struct {
	label string
	value value
	unit  string
}

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
		title: "Retransmits", from: from, groupBy: groupBy, unit: share,
		description: "Retransmitted segments, as a share of the segments sent. Above 1 %, packets are lost or heavily delayed.",
		values:      []column{{label: "retransmitted", value: rate("tcp_retrans_segs").dividedBy(rate("tcp_segs_out"))}},
	}
}

var boards = []board{
	{
		name: "host", title: "procnetstat: host",
		description: "The sockets of a host: states, queues, orphans, memory.",
		variables:   []variable{{host, "host"}},
		panels: []panel{
			{
				title: "Connections", from: host, unit: sockets,
				description: "TCP sockets in the states that a healthy host has.",
				values: []column{
					{label: "ESTABLISHED", value: gauge("tcp_established")},
					{label: "TIME_WAIT", value: gauge("tcp_time_wait")},
					{label: "LISTEN", value: gauge("tcp_listen")},
				},
			},
			{
				title: "Transient states", from: host, unit: sockets,
				description: "Growing CLOSE_WAIT: a program does not close its sockets. Persistent SYN_SENT or SYN_RECV: peers do " +
					"not answer. Growing FIN_WAIT or LAST_ACK: peers do not finish closing.",
				values: []column{
					{label: "CLOSE_WAIT", value: gauge("tcp_close_wait")},
					{label: "SYN_SENT", value: gauge("tcp_syn_sent")},
					{label: "SYN_RECV", value: gauge("tcp_syn_recv")},
					{label: "FIN_WAIT", value: gauge("tcp_fin_wait1", "tcp_fin_wait2")},
					{label: "LAST_ACK", value: gauge("tcp_last_ack")},
					{label: "CLOSING", value: gauge("tcp_closing")},
				},
			},
			{
				title: "Connections per second", from: host, groupBy: []string{"host"}, unit: perSecond,
				description: "Opened and closed connections. A connection within the host counts at both ends. More opened than " +
					"closed: a leak.",
				values: []column{
					{label: "opened", value: rate("tcp_opened")},
					{label: "closed", value: rate("tcp_closed")},
				},
			},
			{
				title: "TCP traffic", from: host, groupBy: []string{"host"}, unit: bytesPerSecond,
				description: "Bytes sent and acknowledged, and bytes received.",
				values: []column{
					{label: "sent", value: rate("tcp_bytes_acked")},
					{label: "received", value: rate("tcp_bytes_received")},
				},
			},
			retransmits(host, "host"),
			{
				title: "Round-trip time", from: host, groupBy: []string{"host"}, unit: microseconds,
				description: "Smoothed round-trip time of established connections: median and 95th percentile.",
				values: []column{
					{label: "p50", value: maximum("tcp_rtt_p50_us")},
					{label: "p95", value: maximum("tcp_rtt_p95_us")},
				},
			},
			{
				title: "Queues", from: host, groupBy: []string{"host"}, unit: bytes,
				description: "Receive: received and not yet read by the process. Send: not yet sent or acknowledged. " +
					"A persistently long queue: the process, or the peer, is too slow.",
				values: []column{
					{label: "TCP receive", value: gauge("tcp_rx_queue")},
					{label: "TCP send", value: gauge("tcp_tx_queue")},
					{label: "UDP receive", value: gauge("udp_rx_queue")},
				},
			},
			{
				title: "Socket memory", from: host, groupBy: []string{"host"}, unit: bytes,
				description: "Memory of all socket buffers. The limit for TCP is the third number of net.ipv4.tcp_mem, in pages.",
				values: []column{
					{label: "TCP", value: gauge("tcp_mem_bytes")},
					{label: "UDP", value: gauge("udp_mem_bytes")},
				},
			},
			{
				title: "Orphans", from: host, groupBy: []string{"host"}, unit: sockets,
				description: "Connections that no process holds any more, but that are still closing. The limit is net.ipv4.tcp_max_orphans.",
				values:      []column{{label: "orphans", value: gauge("tcp_orphan")}},
			},
			{
				title: "Dropped datagrams", from: host, groupBy: []string{"host"}, unit: perSecond,
				description: "Datagrams dropped by UDP sockets, mostly because of a full queue: the process does not read fast enough.",
				values:      []column{{label: "dropped", value: rate("udp_drops")}},
			},
			{
				title: "Sockets without a known process", from: gather, groupBy: []string{"host"}, unit: sockets,
				description: "Sockets that are not attributed, and processes whose descriptors cannot be read. Mostly missing privileges.",
				values: []column{
					{label: "unattributed", value: gauge("unattributed")},
					{label: "denied", value: gauge("denied")},
				},
			},
			{
				title: "Gather duration", from: gather, groupBy: []string{"host"}, unit: nanoseconds,
				description: "Time to read all sockets and look up their owners.",
				values:      []column{{label: "gather", value: maximum("duration_ns")}},
			},
		},
	},
	{
		name: "processes", title: "procnetstat: processes and services",
		description: "Connections, leaks, traffic and latency by process and service.",
		variables:   []variable{{process, "host"}, {process, "process_name"}, {service, "cgroup"}},
		panels: []panel{
			{
				title: "Processes", kind: table, from: process, groupBy: []string{"host", "process_name", "user"},
				description: "Last values in the time range. Opened, sent and received: totals of the time range.",
				values: []column{
					{"connections", gauge("tcp_established"), sockets},
					{"CLOSE_WAIT", gauge("tcp_close_wait"), sockets},
					{"opened", increase("tcp_opened"), sockets},
					{"sent", increase("tcp_bytes_acked"), bytes},
					{"received", increase("tcp_bytes_received"), bytes},
					{"retransmitted", increase("tcp_retrans_segs").dividedBy(increase("tcp_segs_out")), share},
					{"RTT p95", maximum("tcp_rtt_p95_us"), microseconds},
				},
			},
			{
				title: "Connections", from: process, groupBy: []string{"process_name"}, unit: sockets,
				description: "Established connections of each process.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "CLOSE_WAIT: leaks", from: process, groupBy: []string{"process_name"}, unit: sockets,
				description: "Connections that the peer has closed and the process has not. Growth is a leak, which ends with EMFILE.",
				values:      []column{{label: "CLOSE_WAIT", value: gauge("tcp_close_wait")}},
			},
			{
				title: "Bytes sent", from: process, groupBy: []string{"process_name"}, unit: bytesPerSecond,
				description: "Bytes sent and acknowledged.",
				values:      []column{{label: "sent", value: rate("tcp_bytes_acked")}},
			},
			{
				title: "Bytes received", from: process, groupBy: []string{"process_name"}, unit: bytesPerSecond,
				description: "Bytes received, read by the process or not.",
				values:      []column{{label: "received", value: rate("tcp_bytes_received")}},
			},
			retransmits(process, "process_name"),
			{
				title: "Round-trip time", from: process, groupBy: []string{"process_name"}, unit: microseconds,
				description: "95th percentile of the established connections of the process.",
				values:      []column{{label: "p95", value: maximum("tcp_rtt_p95_us")}},
			},
			{
				title: "Connections by service", from: service, groupBy: []string{"cgroup"}, unit: sockets,
				description: "Established connections by the cgroup that created them: a systemd unit, a container, a pod.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "CLOSE_WAIT by service", from: service, groupBy: []string{"cgroup"}, unit: sockets,
				description: "Connections that the peer has closed and the service has not.",
				values:      []column{{label: "CLOSE_WAIT", value: gauge("tcp_close_wait")}},
			},
			{
				title: "Bytes sent by service", from: service, groupBy: []string{"cgroup"}, unit: bytesPerSecond,
				description: "Bytes sent and acknowledged.",
				values:      []column{{label: "sent", value: rate("tcp_bytes_acked")}},
			},
			{
				title: "Bytes received by service", from: service, groupBy: []string{"cgroup"}, unit: bytesPerSecond,
				description: "Bytes received, read by the service or not.",
				values:      []column{{label: "received", value: rate("tcp_bytes_received")}},
			},
		},
	},
	{
		name: "listeners", title: "procnetstat: listeners",
		description: "Listening TCP and unix sockets and bound UDP sockets: queues, drops, incoming connections.",
		variables:   []variable{{listener, "host"}, {listener, "process_name"}},
		panels: []panel{
			{
				title: "Listeners", kind: table, from: listener,
				groupBy: []string{"host", "process_name", "protocol", "interface", "local_address", "local_port"},
				description: "Last values in the time range. Drops and opened: totals of the time range. Sockets that share " +
					"a port have an accept queue each: the fullest is shown as a share of its limit.",
				values: []column{
					{"fullest queue", maximum("accept_queue_used_percent"), percent},
					{"accept queue", gauge("accept_queue"), sockets},
					{"limit", gauge("accept_queue_limit"), sockets},
					{"drops", increase("drops"), sockets},
					{"dropped datagrams", increase("udp_drops"), sockets},
					{"connections", gauge("tcp_established"), sockets},
					{"opened", increase("tcp_opened"), sockets},
					{"RTT p95", maximum("tcp_rtt_p95_us"), microseconds},
				},
			},
			{
				title: "Accept queue usage", from: listener, groupBy: []string{"process_name", "local_address", "local_port"}, unit: percent,
				description: "The fullest accept queue, as a share of its limit. Above 100 %, connections are dropped: the process does " +
					"not accept fast enough, or its backlog is too short.",
				values: []column{{label: "used", value: maximum("accept_queue_used_percent")}},
			},
			{
				title: "Accept queue", from: listener, groupBy: []string{"process_name", "local_address", "local_port"}, unit: sockets,
				description: "Connections that wait to be accepted, of all sockets that share a port.",
				values:      []column{{label: "waiting", value: gauge("accept_queue")}},
			},
			{
				title: "Drops", from: listener, groupBy: []string{"process_name", "local_port"}, unit: perSecond,
				description: "Connection attempts that the listener dropped. The peer retries after a second, then after longer.",
				values:      []column{{label: "dropped", value: rate("drops")}},
			},
			{
				title: "Incoming connections", from: listener, groupBy: []string{"process_name", "local_port"}, unit: perSecond,
				description: "Incoming connections, including those that closed between two gathers.",
				values:      []column{{label: "opened", value: rate("tcp_opened")}},
			},
			{
				title: "Connections", from: listener, groupBy: []string{"process_name", "local_port"}, unit: sockets,
				description: "Established incoming connections.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			retransmits(listener, "process_name", "local_port"),
			{
				title: "Queued datagrams", from: listener, groupBy: []string{"process_name", "local_port"}, unit: bytes,
				description: "Memory of the datagrams that bound UDP sockets have received and the process has not read.",
				values:      []column{{label: "UDP receive", value: gauge("udp_rx_queue")}},
			},
			{
				title: "Dropped datagrams", from: listener, groupBy: []string{"process_name", "local_port"}, unit: perSecond,
				description: "Datagrams dropped by bound UDP sockets, mostly because of a full queue: the process does not read fast enough.",
				values:      []column{{label: "dropped", value: rate("udp_drops")}},
			},
		},
	},
	{
		name: "peers", title: "procnetstat: peers",
		description: "Dependencies: outgoing connections by process and remote endpoint.",
		variables:   []variable{{remote, "host"}, {remote, "process_name"}},
		panels: []panel{
			{
				title: "Dependency map", kind: nodeGraph, from: remote, groupBy: []string{"process_name", "remote_address"}, unit: sockets,
				description: "Processes and the addresses that they connect to. Edges show the number of established connections.",
				values:      []column{{label: "connections", value: gauge("tcp_established")}},
			},
			{
				title: "Dependencies", kind: table, from: remote, groupBy: []string{"host", "process_name", "remote_address", "remote_port"},
				description: "Last values in the time range. Opened, sent and received: totals of the time range.",
				values: []column{
					{"connections", gauge("tcp_established"), sockets},
					{"opened", increase("tcp_opened"), sockets},
					{"sent", increase("tcp_bytes_acked"), bytes},
					{"received", increase("tcp_bytes_received"), bytes},
					{"retransmitted", increase("tcp_retrans_segs").dividedBy(increase("tcp_segs_out")), share},
					{"RTT p95", maximum("tcp_rtt_p95_us"), microseconds},
				},
			},
			{
				title: "Connections", from: remote, groupBy: []string{"remote_address", "remote_port"}, unit: sockets,
				description: "Established connections to each endpoint.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "Local ports in use", from: remote, groupBy: []string{"remote_address", "remote_port"}, unit: sockets,
				description: "Connections to an endpoint in a state that holds a local port. The default of net.ipv4.ip_local_port_range " +
					"has 28,232 per endpoint.",
				values: []column{{label: "ports", value: gauge("tcp_established", "tcp_syn_sent", "tcp_fin_wait1", "tcp_fin_wait2",
					"tcp_time_wait", "tcp_close_wait", "tcp_last_ack", "tcp_closing")}},
			},
			{
				title: "Round-trip time", from: remote, groupBy: []string{"remote_address", "remote_port"}, unit: microseconds,
				description: "High to one peer: the peer, or the path to it. High to all peers: this host, or its network.",
				values:      []column{{label: "p95", value: maximum("tcp_rtt_p95_us")}},
			},
			retransmits(remote, "remote_address", "remote_port"),
			{
				title: "Unanswered connection attempts", from: remote, groupBy: []string{"remote_address", "remote_port"}, unit: sockets,
				description: "Connections in SYN_SENT: the peer does not answer, or drops them.",
				values:      []column{{label: "SYN_SENT", value: gauge("tcp_syn_sent")}},
			},
		},
	},
}

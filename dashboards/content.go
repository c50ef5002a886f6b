package main

// board is a dashboard.
type board struct {
	name, title, description string
	variables                []variable
	panels                   []panel
}

// variable lets one choose the values of a tag.
type variable struct {
	of  measurement
	tag string
}

// panel is a graph over time, or a table of what there is in the time range.
type panel struct {
	title, description string
	kind               kind
	of                 measurement
	by                 []string
	unit               string // of all values that do not say theirs
	values             []column
}

type kind int

const (
	graph kind = iota
	table      // sorted by the first value
	links      // a node graph, from the first tag of by to the second
)

type column struct {
	label string
	value value
	unit  string
}

// Units of Grafana.
const (
	sockets      = "short"
	bytes        = "bytes"
	bytesASecond = "Bps"
	perSecond    = "cps"
	microseconds = "µs"
	share        = "percentunit"
	nanoseconds  = "ns"
)

// Ratios that several dashboards have.
var (
	retransmitted = rate("tcp_retrans_segs").dividedBy(rate("tcp_segs_out"))
	fullness      = gauge("accept_queue").dividedBy(gauge("accept_queue_limit"))
)

const retransmittedMeans = "Segments that were sent again, of those sent. Above 1 % something loses packets, or delays them a lot."

var boards = []board{
	{
		name: "host", title: "procnetstat: host",
		description: "The sockets of hosts: states, queues, orphans, memory.",
		variables:   []variable{{host, "host"}},
		panels: []panel{
			{
				title: "Connections", of: host, unit: sockets,
				description: "TCP sockets in the states of a working host.",
				values: []column{
					{label: "ESTABLISHED", value: gauge("tcp_established")},
					{label: "TIME_WAIT", value: gauge("tcp_time_wait")},
					{label: "LISTEN", value: gauge("tcp_listen")},
				},
			},
			{
				title: "Connections that do not get on", of: host, unit: sockets,
				description: "CLOSE_WAIT that grows is a program that does not close; SYN_SENT and SYN_RECV that stay are peers that do not answer; " +
					"FIN_WAIT and LAST_ACK that grow are peers that do not end.",
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
				title: "Connections a second", of: host, by: []string{"host"}, unit: perSecond,
				description: "Connections that began and that ended, at both ends where both are on the host. More that begin than end is a leak.",
				values: []column{
					{label: "opened", value: rate("tcp_opened")},
					{label: "closed", value: rate("tcp_closed")},
				},
			},
			{
				title: "Traffic of TCP", of: host, by: []string{"host"}, unit: bytesASecond,
				description: "Bytes that were sent and acknowledged, and received, by connections that are read.",
				values: []column{
					{label: "sent", value: rate("tcp_bytes_acked")},
					{label: "received", value: rate("tcp_bytes_received")},
				},
			},
			{
				title: "Retransmits", of: host, by: []string{"host"}, unit: share, description: retransmittedMeans,
				values: []column{{label: "sent again", value: retransmitted}},
			},
			{
				title: "Round-trip time", of: host, by: []string{"host"}, unit: microseconds,
				description: "Smoothed round-trip time of the established connections: half of them have less than p50, one in twenty has more than p95.",
				values: []column{
					{label: "p50", value: highest("tcp_rtt_p50_us")},
					{label: "p95", value: highest("tcp_rtt_p95_us")},
				},
			},
			{
				title: "Queues", of: host, by: []string{"host"}, unit: bytes,
				description: "Received, and not read by the process; sent, and not acknowledged or not sent yet. What stays high is a process, or a peer, that is too slow.",
				values: []column{
					{label: "to read", value: gauge("tcp_rx_queue")},
					{label: "to send", value: gauge("tcp_tx_queue")},
					{label: "UDP to read", value: gauge("udp_rx_queue")},
				},
			},
			{
				title: "Memory of sockets", of: host, by: []string{"host"}, unit: bytes,
				description: "Memory in the buffers of all sockets. The limit is the third number of net.ipv4.tcp_mem, in pages.",
				values: []column{
					{label: "TCP", value: gauge("tcp_mem_bytes")},
					{label: "UDP", value: gauge("udp_mem_bytes")},
				},
			},
			{
				title: "Orphans", of: host, by: []string{"host"}, unit: sockets,
				description: "Connections that no process holds any more, and that have not ended. net.ipv4.tcp_max_orphans is the limit.",
				values:      []column{{label: "orphans", value: gauge("tcp_orphan")}},
			},
			{
				title: "Datagrams that were dropped", of: host, by: []string{"host"}, unit: perSecond,
				description: "Dropped by UDP sockets, mostly as their queue was full: the process does not read fast enough.",
				values:      []column{{label: "dropped", value: rate("udp_drops")}},
			},
			{
				title: "Sockets without a known process", of: gather, by: []string{"host"}, unit: sockets,
				description: "Sockets that are not attributed, and processes that may not be looked into: a matter of privileges.",
				values: []column{
					{label: "unattributed", value: gauge("unattributed")},
					{label: "denied", value: gauge("denied")},
				},
			},
			{
				title: "Time of a gather", of: gather, by: []string{"host"}, unit: nanoseconds,
				description: "How long it took to read all sockets and their owners.",
				values:      []column{{label: "gather", value: highest("duration_ns")}},
			},
		},
	},
	{
		name: "processes", title: "procnetstat: processes and services",
		description: "Which process, and which service, has the connections, leaks them, moves the bytes, and waits.",
		variables:   []variable{{process, "host"}, {process, "process_name"}, {service, "cgroup"}},
		panels: []panel{
			{
				title: "Processes", kind: table, of: process, by: []string{"host", "process_name", "user"},
				description: "As last seen in the time range; what was sent, received and opened is of the whole of it.",
				values: []column{
					{"connections", gauge("tcp_established"), sockets},
					{"CLOSE_WAIT", gauge("tcp_close_wait"), sockets},
					{"opened", total("tcp_opened"), sockets},
					{"sent", total("tcp_bytes_acked"), bytes},
					{"received", total("tcp_bytes_received"), bytes},
					{"sent again", total("tcp_retrans_segs").dividedBy(total("tcp_segs_out")), share},
					{"RTT p95", highest("tcp_rtt_p95_us"), microseconds},
				},
			},
			{
				title: "Connections", of: process, by: []string{"process_name"}, unit: sockets,
				description: "Established connections of each process.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "CLOSE_WAIT: leaks", of: process, by: []string{"process_name"}, unit: sockets,
				description: "Connections that the peer has closed and the process has not. What grows is a leak, and ends with EMFILE.",
				values:      []column{{label: "CLOSE_WAIT", value: gauge("tcp_close_wait")}},
			},
			{
				title: "Bytes sent", of: process, by: []string{"process_name"}, unit: bytesASecond,
				description: "Sent and acknowledged.",
				values:      []column{{label: "sent", value: rate("tcp_bytes_acked")}},
			},
			{
				title: "Bytes received", of: process, by: []string{"process_name"}, unit: bytesASecond,
				description: "Received by the host for the process.",
				values:      []column{{label: "received", value: rate("tcp_bytes_received")}},
			},
			{
				title: "Retransmits", of: process, by: []string{"process_name"}, unit: share, description: retransmittedMeans,
				values: []column{{label: "sent again", value: retransmitted}},
			},
			{
				title: "Round-trip time", of: process, by: []string{"process_name"}, unit: microseconds,
				description: "One in twenty established connections of the process has a higher one.",
				values:      []column{{label: "p95", value: highest("tcp_rtt_p95_us")}},
			},
			{
				title: "Connections by service", of: service, by: []string{"cgroup"}, unit: sockets,
				description: "Established connections by the cgroup that they were made in: a systemd unit, a container, a pod.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "CLOSE_WAIT by service", of: service, by: []string{"cgroup"}, unit: sockets,
				description: "Connections that the peer has closed and the service has not.",
				values:      []column{{label: "CLOSE_WAIT", value: gauge("tcp_close_wait")}},
			},
			{
				title: "Bytes sent by service", of: service, by: []string{"cgroup"}, unit: bytesASecond,
				description: "Sent and acknowledged.",
				values:      []column{{label: "sent", value: rate("tcp_bytes_acked")}},
			},
			{
				title: "Bytes received by service", of: service, by: []string{"cgroup"}, unit: bytesASecond,
				description: "Received by the host for the service.",
				values:      []column{{label: "received", value: rate("tcp_bytes_received")}},
			},
		},
	},
	{
		name: "listeners", title: "procnetstat: listeners",
		description: "What listens, and whether it accepts what comes in.",
		variables:   []variable{{listener, "host"}, {listener, "process_name"}},
		panels: []panel{
			{
				title: "Listeners", kind: table, of: listener, by: []string{"host", "process_name", "local_address", "local_port"},
				description: "As last seen in the time range; drops and what came in are of the whole of it.",
				values: []column{
					{"accept queue", gauge("accept_queue"), sockets},
					{"limit", gauge("accept_queue_limit"), sockets},
					{"drops", total("drops"), sockets},
					{"connections", gauge("tcp_established"), sockets},
					{"came in", total("tcp_opened"), sockets},
					{"RTT p95", highest("tcp_rtt_p95_us"), microseconds},
				},
			},
			{
				title: "Accept queue, of its limit", of: listener, by: []string{"process_name", "local_port"}, unit: share,
				description: "At 100 % connections are dropped: the process does not accept fast enough, or its backlog is too short.",
				values:      []column{{label: "full", value: fullness}},
			},
			{
				title: "Accept queue", of: listener, by: []string{"process_name", "local_port"}, unit: sockets,
				description: "Connections that wait to be accepted.",
				values:      []column{{label: "waiting", value: gauge("accept_queue")}},
			},
			{
				title: "Drops", of: listener, by: []string{"process_name", "local_port"}, unit: perSecond,
				description: "Attempts to connect that the listener has dropped. The peer tries again after a second, and then after longer.",
				values:      []column{{label: "dropped", value: rate("drops")}},
			},
			{
				title: "Connections in", of: listener, by: []string{"process_name", "local_port"}, unit: perSecond,
				description: "Connections that came in, those that were over between two gathers included.",
				values:      []column{{label: "came in", value: rate("tcp_opened")}},
			},
			{
				title: "Connections", of: listener, by: []string{"process_name", "local_port"}, unit: sockets,
				description: "Established connections that came in.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "Retransmits", of: listener, by: []string{"process_name", "local_port"}, unit: share, description: retransmittedMeans,
				values: []column{{label: "sent again", value: retransmitted}},
			},
		},
	},
	{
		name: "peers", title: "procnetstat: peers",
		description: "What depends on what: the connections that went out, by process and remote endpoint.",
		variables:   []variable{{remote, "host"}, {remote, "process_name"}},
		panels: []panel{
			{
				title: "Who talks to whom", kind: links, of: remote, by: []string{"process_name", "remote_address"}, unit: sockets,
				description: "Processes, and the addresses that they have connected to. At an edge stand the established connections.",
				values:      []column{{label: "connections", value: gauge("tcp_established")}},
			},
			{
				title: "Dependencies", kind: table, of: remote, by: []string{"host", "process_name", "remote_address", "remote_port"},
				description: "As last seen in the time range; what was sent, received and opened is of the whole of it.",
				values: []column{
					{"connections", gauge("tcp_established"), sockets},
					{"opened", total("tcp_opened"), sockets},
					{"sent", total("tcp_bytes_acked"), bytes},
					{"received", total("tcp_bytes_received"), bytes},
					{"sent again", total("tcp_retrans_segs").dividedBy(total("tcp_segs_out")), share},
					{"RTT p95", highest("tcp_rtt_p95_us"), microseconds},
				},
			},
			{
				title: "Connections", of: remote, by: []string{"remote_address", "remote_port"}, unit: sockets,
				description: "Established connections to each endpoint.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "Local ports that are taken", of: remote, by: []string{"remote_address", "remote_port"}, unit: sockets,
				description: "Connections to an endpoint in any state that holds a local port. There are 28,232 for each, by default: " +
					"net.ipv4.ip_local_port_range.",
				values: []column{{label: "ports", value: gauge("tcp_established", "tcp_syn_sent", "tcp_fin_wait1", "tcp_fin_wait2", "tcp_time_wait",
					"tcp_close_wait", "tcp_last_ack", "tcp_closing")}},
			},
			{
				title: "Round-trip time", of: remote, by: []string{"remote_address", "remote_port"}, unit: microseconds,
				description: "High to one peer alone: it, or the way to it. High to all: this host, or its network.",
				values:      []column{{label: "p95", value: highest("tcp_rtt_p95_us")}},
			},
			{
				title: "Retransmits", of: remote, by: []string{"remote_address", "remote_port"}, unit: share, description: retransmittedMeans,
				values: []column{{label: "sent again", value: retransmitted}},
			},
			{
				title: "Attempts that stay without an answer", of: remote, by: []string{"remote_address", "remote_port"}, unit: sockets,
				description: "Connections in SYN_SENT: the peer does not answer, or drops them.",
				values:      []column{{label: "SYN_SENT", value: gauge("tcp_syn_sent")}},
			},
		},
	},
}

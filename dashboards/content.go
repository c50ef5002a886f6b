package main

import "slices"

var processNumbers = slices.Concat(trafficNumbers(process), []panel{
	numberOf("Sent", process, rate("tcp_bytes_acked"), bytesPerSecond, limits{}, "Bytes sent and acknowledged."),
	numberOf("Received", process, rate("tcp_bytes_received"), bytesPerSecond, limits{}, "Bytes received."),
	numberOf("Most in CLOSE_WAIT", process, maximum("tcp_close_wait"), sockets, limits{},
		"Connections of one process name that the peer has closed and the process has not."),
	failedConnectsNumber(process, "connections opened, incoming ones included"),
	numberOf("Slowest connects", process, maximum("tcp_connect_p95_us"), microseconds, connectLimits,
		"95th percentile of the connect times of one process name."),
})

var listenerNumbers = slices.Concat([]panel{
	numberOf("Fullest accept queue", listener, maximum("accept_queue_used_percent"), percent, queueLimits,
		"The fullest accept queue, as a share of its limit. A full queue drops connections."),
	numberOf("Drops", listener, increase("drops"), sockets, limits{}, "Connection attempts that were dropped in the time range."),
	numberOf("Dropped datagrams", listener, increase("udp_drops"), sockets, limits{},
		"Datagrams that bound UDP sockets dropped in the time range."),
}, trafficNumbers(listener))

var peerNumbers = slices.Concat(trafficNumbers(remote), []panel{
	numberOf("Sent", remote, rate("tcp_bytes_acked"), bytesPerSecond, limits{}, "Bytes sent and acknowledged."),
	numberOf("SYN_SENT", remote, gauge("tcp_syn_sent"), sockets, limits{}, "Connections that the peer has not answered."),
	numberOf("Slowest peer", remote, maximum("tcp_rtt_p95_us"), microseconds, limits{},
		"95th percentile of the round-trip times to one peer."),
	failedConnectsNumber(remote, "attempts"),
	numberOf("Slowest connects", remote, maximum("tcp_connect_p95_us"), microseconds, connectLimits,
		"95th percentile of the connect times of a process to one peer."),
})

var boards = []board{
	hostBoard,
	{
		name: "processes", title: "procnetstat: processes and services",
		description: "Connections, leaks, traffic and latency by process and service.",
		variables:   []variable{{process, "host"}, {process, "netns"}, {process, "process_name"}, {service, "cgroup"}},
		panels: slices.Concat(processNumbers, []panel{
			{
				title: "Processes", kind: table, from: process, groupBy: []string{"host", "netns", "process_name", "user"},
				description: "Last values in the time range. Opened, failed to connect, sent and received: totals of the time range.",
				values: []column{
					{"connections", gauge("tcp_established"), sockets, limits{}},
					{"CLOSE_WAIT", gauge("tcp_close_wait"), sockets, limits{}},
					{"opened", increase("tcp_opened"), sockets, limits{}},
					{"failed", increase(failedConnects...), sockets, limits{}},
					{"sent", increase("tcp_bytes_acked"), bytes, limits{}},
					{"received", increase("tcp_bytes_received"), bytes, limits{}},
					{"retransmitted", increase("tcp_retrans_segs").dividedBy(increase("tcp_segs_out")), share, retransmitLimits},
					{"RTT p95", maximum("tcp_rtt_p95_us"), microseconds, limits{}},
				},
			},
			{
				title: "Connections", from: process, groupBy: []string{"process_name", "netns"}, unit: sockets,
				description: "Established connections of each process.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "CLOSE_WAIT: leaks", from: process, groupBy: []string{"process_name", "netns"}, unit: sockets,
				description: "Connections that the peer has closed and the process has not. Growth is a leak, which ends with EMFILE.",
				values:      []column{{label: "CLOSE_WAIT", value: gauge("tcp_close_wait")}},
			},
			{
				title: "Bytes sent", from: process, groupBy: []string{"process_name", "netns"}, unit: bytesPerSecond,
				description: "Bytes sent and acknowledged.",
				values:      []column{{label: "sent", value: rate("tcp_bytes_acked")}},
			},
			{
				title: "Bytes received", from: process, groupBy: []string{"process_name", "netns"}, unit: bytesPerSecond,
				description: "Bytes received, read by the process or not.",
				values:      []column{{label: "received", value: rate("tcp_bytes_received")}},
			},
			retransmits(process, "process_name", "netns"),
			{
				title: "Round-trip time", from: process, groupBy: []string{"process_name", "netns"}, unit: microseconds,
				description: "95th percentile of the established connections of the process.",
				values:      []column{{label: "p95", value: maximum("tcp_rtt_p95_us")}},
			},
		}, connectPanels(process, "process_name", "netns"), stallPanels(process, "process_name", "netns"), []panel{
			{
				title: "Connections by service", from: service, groupBy: []string{"cgroup", "netns"}, unit: sockets,
				description: "Established connections by the cgroup that created them: a systemd unit, a container, a pod.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "CLOSE_WAIT by service", from: service, groupBy: []string{"cgroup", "netns"}, unit: sockets,
				description: "Connections that the peer has closed and the service has not.",
				values:      []column{{label: "CLOSE_WAIT", value: gauge("tcp_close_wait")}},
			},
			{
				title: "Bytes sent by service", from: service, groupBy: []string{"cgroup", "netns"}, unit: bytesPerSecond,
				description: "Bytes sent and acknowledged.",
				values:      []column{{label: "sent", value: rate("tcp_bytes_acked")}},
			},
			{
				title: "Bytes received by service", from: service, groupBy: []string{"cgroup", "netns"}, unit: bytesPerSecond,
				description: "Bytes received, read by the service or not.",
				values:      []column{{label: "received", value: rate("tcp_bytes_received")}},
			},
		}),
	},
	{
		name: "listeners", title: "procnetstat: listeners",
		description: "Listening TCP and unix sockets and bound UDP sockets: queues, drops, incoming connections.",
		variables:   []variable{{listener, "host"}, {listener, "netns"}, {listener, "process_name"}},
		panels: slices.Concat(listenerNumbers, []panel{
			{
				title: "Listeners", kind: table, from: listener,
				groupBy: []string{"host", "netns", "process_name", "protocol", "interface", "local_address", "local_port"},
				description: "The TCP and unix sockets with the fullest accept queues. Last values in the time range. Drops and " +
					"opened: totals of the time range. Sockets that share a port have an accept queue each: the fullest is shown as " +
					"a share of its limit.",
				values: []column{
					{"fullest queue", maximum("accept_queue_used_percent"), percent, queueLimits},
					{"accept queue", gauge("accept_queue"), sockets, limits{}},
					{"limit", gauge("accept_queue_limit"), sockets, limits{}},
					{"drops", increase("drops"), sockets, limits{}},
					{"connections", gauge("tcp_established"), sockets, limits{}},
					{"opened", increase("tcp_opened"), sockets, limits{}},
					{"RTT p95", maximum("tcp_rtt_p95_us"), microseconds, limits{}},
				},
			},
			{
				title: "UDP sockets", kind: table, from: listener,
				groupBy:     []string{"host", "netns", "process_name", "protocol", "interface", "local_address", "local_port"},
				description: "The bound UDP sockets that dropped most datagrams in the time range. Last values of the queue.",
				values: []column{
					{"dropped", increase("udp_drops"), sockets, limits{}},
					{"queue", gauge("udp_rx_queue"), bytes, limits{}},
					{"sockets", gauge("udp_socket"), sockets, limits{}},
				},
			},
			{
				title: "Accept queue usage", from: listener, unit: percent, limits: queueLimits,
				groupBy: []string{"process_name", "local_address", "local_port", "netns"},
				description: "The fullest accept queue, as a share of its limit. Above 100 %, connections are dropped: the process does " +
					"not accept fast enough, or its backlog is too short.",
				values: []column{{label: "used", value: maximum("accept_queue_used_percent")}},
			},
			{
				title: "Accept queue", from: listener, groupBy: []string{"process_name", "local_address", "local_port", "netns"}, unit: sockets,
				description: "Connections that wait to be accepted, of all sockets that share a port.",
				values:      []column{{label: "waiting", value: gauge("accept_queue")}},
			},
			{
				title: "Drops", from: listener, groupBy: []string{"process_name", "local_port", "netns"}, unit: perSecond,
				description: "Connection attempts that the listener dropped. The peer retries after a second, then after longer.",
				values:      []column{{label: "dropped", value: rate("drops")}},
			},
			{
				title: "Incoming connections", from: listener, groupBy: []string{"process_name", "local_port", "netns"}, unit: perSecond,
				description: "Incoming connections, including those that closed between two gathers.",
				values:      []column{{label: "opened", value: rate("tcp_opened")}},
			},
			{
				title: "Connections", from: listener, groupBy: []string{"process_name", "local_port", "netns"}, unit: sockets,
				description: "Established incoming connections.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			retransmits(listener, "process_name", "local_port", "netns"),
			{
				title: "Queued datagrams", from: listener, groupBy: []string{"process_name", "local_port", "netns"}, unit: bytes,
				description: "Memory of the datagrams that bound UDP sockets have received and the process has not read.",
				values:      []column{{label: "UDP receive", value: gauge("udp_rx_queue")}},
			},
			{
				title: "Dropped datagrams", from: listener, groupBy: []string{"process_name", "local_port", "netns"}, unit: perSecond,
				description: "Datagrams dropped by bound UDP sockets, mostly because of a full queue: the process does not read fast enough.",
				values:      []column{{label: "dropped", value: rate("udp_drops")}},
			},
		}),
	},
	{
		name: "peers", title: "procnetstat: peers",
		description: "Dependencies: outgoing connections by process and remote endpoint. The measurement remote is off by default: " +
			"add it to the option measurements of the plugin, as in " +
			`measurements = ["host", "process", "listener", "cgroup", "remote", "gather"].`,
		variables: []variable{{remote, "host"}, {remote, "netns"}, {remote, "process_name"}},
		panels: slices.Concat(peerNumbers, []panel{
			{
				title: "Dependency map", kind: nodeGraph, from: remote, groupBy: []string{"process_name", "remote_address"}, unit: sockets,
				description: "Processes and the addresses that they connect to. Edges show the number of established connections. No data: " +
					"the measurement remote is off by default; add it to the option measurements of the plugin.",
				values: []column{{label: "connections", value: gauge("tcp_established")}},
			},
			{
				title: "Dependencies", kind: table, from: remote, groupBy: []string{"host", "netns", "process_name", "remote_address", "remote_port"},
				description: "Last values in the time range. Opened, failed to connect, sent and received: totals of the time range.",
				values: []column{
					{"connections", gauge("tcp_established"), sockets, limits{}},
					{"opened", increase("tcp_opened"), sockets, limits{}},
					{"failed", increase(failedConnects...), sockets, limits{}},
					{"sent", increase("tcp_bytes_acked"), bytes, limits{}},
					{"received", increase("tcp_bytes_received"), bytes, limits{}},
					{"retransmitted", increase("tcp_retrans_segs").dividedBy(increase("tcp_segs_out")), share, retransmitLimits},
					{"RTT p95", maximum("tcp_rtt_p95_us"), microseconds, limits{}},
				},
			},
			{
				title: "Connections", from: remote, groupBy: []string{"remote_address", "remote_port", "netns"}, unit: sockets,
				description: "Established connections to each endpoint.",
				values:      []column{{label: "ESTABLISHED", value: gauge("tcp_established")}},
			},
			{
				title: "Local ports in use", from: remote, groupBy: []string{"remote_address", "remote_port", "netns"}, unit: sockets,
				description: "Connections to an endpoint in a state that holds a local port. The dashboard of the host shows how many of " +
					"those that there are are in use.",
				values: []column{{label: "ports", value: gauge("tcp_established", "tcp_syn_sent", "tcp_fin_wait1", "tcp_fin_wait2",
					"tcp_time_wait", "tcp_close_wait", "tcp_last_ack", "tcp_closing")}},
			},
			{
				title: "Round-trip time", from: remote, groupBy: []string{"remote_address", "remote_port", "netns"}, unit: microseconds,
				description: "High to one peer: the peer, or the path to it. High to all peers: this host, or its network.",
				values:      []column{{label: "p95", value: maximum("tcp_rtt_p95_us")}},
			},
			retransmits(remote, "remote_address", "remote_port", "netns"),
			{
				title: "Unanswered connection attempts", from: remote, groupBy: []string{"remote_address", "remote_port", "netns"}, unit: sockets,
				description: "Connections in SYN_SENT: the peer does not answer, or drops them.",
				values:      []column{{label: "SYN_SENT", value: gauge("tcp_syn_sent")}},
			},
		}, connectPanels(remote, "remote_address", "remote_port", "netns")),
	},
}

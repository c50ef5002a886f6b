package main

import "slices"

// byNetNS groups values of a network namespace, byHost those that the kernel keeps for all of them: a sum would count these again
// for each namespace.
var (
	byNetNS = []string{"host", "netns"}
	byHost  = []string{"host"}
)

var hostBoard = board{
	name: "host", title: "procnetstat: host",
	description: "The sockets of a host: states, queues, limits, failures.",
	variables:   []variable{{host, "host"}, {host, "netns"}},
	panels:      slices.Concat(hostNumbers, hostConnections, hostLimits, hostGather),
}

var hostNumbers = []panel{
	numberOf("ESTABLISHED", host, gauge("tcp_established"), sockets, limits{}, "Established connections."),
	numberOf("CLOSE_WAIT", host, gauge("tcp_close_wait"), sockets, limits{}, "Connections that the peer has closed and the process has not."),
	numberOf("Opened", host, rate("tcp_opened"), perSecond, limits{}, "Connections opened per second, attempts included."),
	numberOf("Retransmitted", host, increase("tcp_retrans_segs").dividedBy(increase("tcp_segs_out")), share, retransmitLimits,
		"Retransmitted segments, as a share of the segments sent in the time range."),
	numberOf("Fullest accept queue", listener, maximum("accept_queue_used_percent"), percent, queueLimits,
		"The fullest accept queue, as a share of its limit. A full queue drops connections."),
	numberOf("Local ports used", host, maximum("local_ports_used").dividedBy(gauge("local_ports")), share, usageLimits,
		"Local ports to the remote endpoint that takes most of them, as a share of those that there are. At 100 %, connect fails."),
	numberOf("Orphans", host, maximum("tcp_orphan").dividedBy(gauge("tcp_orphan_limit")), share, orphanLimits,
		"Orphaned connections, as a share of net.ipv4.tcp_max_orphans. The kernel resets more."),
	numberOf("Unattributed", gather, maximum("unattributed").dividedBy(gauge("sockets")), share, unknownLimits,
		"Sockets of which no process is known, as a share of all, those in TIME_WAIT included. Mostly missing privileges."),
}

var hostConnections = []panel{
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
		title: "Connections per second", from: host, groupBy: byNetNS, unit: perSecond,
		description: "Opened and closed connections. A connection within the host counts at both ends. More opened than " +
			"closed: a leak.",
		values: []column{
			{label: "opened", value: rate("tcp_opened")},
			{label: "closed", value: rate("tcp_closed")},
		},
	},
	{
		title: "TCP traffic", from: host, groupBy: byNetNS, unit: bytesPerSecond,
		description: "Bytes sent and acknowledged, and bytes received.",
		values: []column{
			{label: "sent", value: rate("tcp_bytes_acked")},
			{label: "received", value: rate("tcp_bytes_received")},
		},
	},
	retransmits(host, byNetNS...),
	{
		title: "Round-trip time", from: host, groupBy: byNetNS, unit: microseconds,
		description: "Smoothed round-trip time of established connections: median and 95th percentile.",
		values: []column{
			{label: "p50", value: maximum("tcp_rtt_p50_us")},
			{label: "p95", value: maximum("tcp_rtt_p95_us")},
		},
	},
	{
		title: "TCP failures", from: host, unit: perSecond,
		description: "The kernel's own counts. Accept queue full: SYNs and handshakes that found it full. Dropped by listener: for " +
			"that and other reasons. Attempts failed: refused, timed out or reset before they were established, either way. " +
			"Reset: established connections that ended by a reset. Resets sent: often connections to a port without a listener.",
		values: []column{
			{label: "accept queue full", value: rate("tcp_listen_overflows")},
			{label: "dropped by listener", value: rate("tcp_listen_drops")},
			{label: "attempts failed", value: rate("tcp_attempt_fails")},
			{label: "reset", value: rate("tcp_estab_resets")},
			{label: "resets sent", value: rate("tcp_out_rsts")},
		},
	},
	{
		title: "UDP failures", from: host, unit: perSecond,
		description: "The kernel's own counts. No port: datagrams to a port without a socket. Receive errors: the queue of the socket was " +
			"full. Send errors: the send buffer was.",
		values: []column{
			{label: "no port", value: rate("udp_no_ports")},
			{label: "receive errors", value: rate("udp_rcvbuf_errors")},
			{label: "send errors", value: rate("udp_sndbuf_errors")},
		},
	},
	{
		title: "Queues", from: host, groupBy: byNetNS, unit: bytes,
		description: "Receive: received and not yet read by the process. Send: not yet sent or acknowledged. " +
			"A persistently long queue: the process, or the peer, is too slow.",
		values: []column{
			{label: "TCP receive", value: gauge("tcp_rx_queue")},
			{label: "TCP send", value: gauge("tcp_tx_queue")},
			{label: "UDP receive", value: gauge("udp_rx_queue")},
		},
	},
	{
		title: "Dropped datagrams", from: host, groupBy: byNetNS, unit: perSecond,
		description: "Datagrams dropped by UDP sockets, mostly because of a full queue: the process does not read fast enough.",
		values:      []column{{label: "dropped", value: rate("udp_drops")}},
	},
}

var hostLimits = []panel{
	{
		title: "Limits by namespace", from: host, groupBy: byNetNS, unit: share, limits: usageLimits,
		description: "Shares of the limits of a network namespace. Local ports: of net.ipv4.ip_local_port_range, those that connections " +
			"to one remote endpoint take; connect fails without one. TIME_WAIT: of net.ipv4.tcp_max_tw_buckets.",
		values: []column{
			{label: "local ports", value: maximum("local_ports_used").dividedBy(gauge("local_ports"))},
			{label: "TIME_WAIT", value: maximum("tcp_time_wait").dividedBy(gauge("tcp_time_wait_limit"))},
		},
	},
	{
		title: "Local ports", from: host, groupBy: byNetNS, unit: sockets,
		description: "Used: local ports to the remote endpoint that takes most of them, from one local address. Limit: those that " +
			"connections can take.",
		values: []column{
			{label: "used", value: maximum("local_ports_used")},
			{label: "limit", value: maximum("local_ports")},
		},
	},
	{
		title: "Socket memory", from: host, groupBy: byHost, unit: bytes,
		description: "Memory of the buffers of all sockets, in all network namespaces. The limit for TCP is the third number of " +
			"net.ipv4.tcp_mem.",
		values: []column{
			{label: "TCP", value: maximum("tcp_mem_bytes")},
			{label: "TCP limit", value: maximum("tcp_mem_limit_bytes")},
			{label: "UDP", value: maximum("udp_mem_bytes")},
		},
	},
	{
		title: "Socket memory used", from: host, groupBy: byHost, unit: share, limits: usageLimits,
		description: "Memory of TCP buffers, as a share of its limit. At the limit, the kernel drops segments and resets connections.",
		values:      []column{{label: "TCP", value: maximum("tcp_mem_bytes").dividedBy(gauge("tcp_mem_limit_bytes"))}},
	},
	{
		title: "Orphans", from: host, groupBy: byHost, unit: sockets,
		description: "Connections that no process holds any more, but that are still closing, in all network namespaces. The limit is " +
			"net.ipv4.tcp_max_orphans.",
		values: []column{
			{label: "orphans", value: maximum("tcp_orphan")},
			{label: "limit", value: maximum("tcp_orphan_limit")},
		},
	},
	{
		title: "Orphans used", from: host, groupBy: byHost, unit: share, limits: orphanLimits,
		description: "Orphans, as a share of their limit. From half of it on, the kernel can reset connections.",
		values:      []column{{label: "orphans", value: maximum("tcp_orphan").dividedBy(gauge("tcp_orphan_limit"))}},
	},
}

var hostGather = []panel{
	{
		title: "Sockets without a known process", from: gather, groupBy: byHost, unit: sockets,
		description: "Sockets that are not attributed, and processes whose descriptors cannot be read. Mostly missing privileges.",
		values: []column{
			{label: "unattributed", value: gauge("unattributed")},
			{label: "denied", value: gauge("denied")},
		},
	},
	{
		title: "Gather duration", from: gather, groupBy: byHost, unit: nanoseconds,
		description: "Time to read all sockets and look up their owners.",
		values:      []column{{label: "gather", value: maximum("duration_ns")}},
	},
}

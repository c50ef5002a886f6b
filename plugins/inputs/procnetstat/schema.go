//go:build linux

package procnetstat

import (
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
	"github.com/procnetstat/procnetstat/plugins/inputs/procnetstat/internal/quantile"
)

// field describes a field. docs/developers/SCHEMA.md and the plugin's README are generated from these descriptions.
type field struct {
	name      string
	unit      string
	isCounter bool
	detail    detail // the set of the option details that it is in; 0: always emitted
	needs     string // what must be there; empty: nothing
	about     string
}

// detail is a set of fields that the option details chooses, or several.
type detail uint8

const (
	detailRTT detail = 1 << iota
	detailTraffic
	detailLifecycle
	detailConnects
	detailStalls
)

// detailsOfTCPInfo are the sets that the kernel's details of connections are read for.
const detailsOfTCPInfo = detailRTT | detailTraffic | detailConnects | detailStalls

const (
	detailNameLifecycle = "lifecycle"
	detailNameConnects  = "connects"
	detailNameStalls    = "stalls"
)

var (
	// detailNames are the names in the option details, in the order of the documents.
	detailNames    = []string{"rtt", "traffic", detailNameLifecycle, detailNameConnects, detailNameStalls}
	defaultDetails = []string{"rtt", "traffic", detailNameLifecycle, detailNameConnects}
	detailsByName  = map[string]detail{
		"rtt": detailRTT, "traffic": detailTraffic, detailNameLifecycle: detailLifecycle, detailNameConnects: detailConnects,
		detailNameStalls: detailStalls,
	}
)

// detailOf returns the sets with the names.
func detailOf(names []string) (details detail) {
	for _, name := range names {
		details |= detailsByName[name]
	}
	return details
}

// The units of fields.
const (
	unitSockets      = "sockets"
	unitConnections  = "connections"
	unitBytes        = "bytes"
	unitSegments     = "segments"
	unitDatagrams    = "datagrams"
	unitMicroseconds = "microseconds"
	unitPorts        = "ports"
	unitTimeouts     = "timeouts"
)

// What fields need.
const (
	needsNetlink      = "netlink"
	needsTCPBytes     = "netlink, Linux 4.1"
	needsTCPSegs      = "netlink, Linux 4.2"
	needsTCPLimits    = "netlink, Linux 4.10"
	needsDSACKDups    = "netlink, Linux 4.19"
	needsRcvOOOPack   = "netlink, Linux 5.4"
	needsTotalRTO     = "netlink, Linux 6.7"
	needsClosedEvents = "netlink, `closed_connections`"
	needsConnects     = "netlink, `closed_connections`, BPF"
)

// groupField is a field of every group of sockets.
type groupField struct {
	field
	transport    netstat.Transport
	tcpFields    netstat.Field // that the source must give of every connection
	closedEvents bool          // the kernel must report closed connections
	connects     bool          // attempts to connect must be recorded
	// value reports false if the group has no sample of it.
	value func(*series) (value int64, ok bool)
}

// group emits a series: the fields common to all groups of sockets, and those of the measurement.
func (e emission) group(measurement string, fields []groupField, s *series, gauges, counters map[string]any) {
	for i := range fields {
		f := &fields[i]
		if !e.read[f.transport] || f.tcpFields&^e.tcpFields != 0 || f.closedEvents && !e.closedEvents ||
			f.connects && !e.connects {
			continue
		}
		value, ok := f.value(s)
		switch {
		case !ok:
		case f.isCounter:
			counters[f.name] = value
		default:
			gauges[f.name] = value
		}
	}
	e.gauges(measurement, gauges, s.tags)
	if len(counters) > 0 {
		e.acc.AddCounter(measurement, counters, s.tags, e.now)
	}
}

const tcp, udp = netstat.TransportTCP, netstat.TransportUDP

// allGroupFields are in the order of the documents. The states have the names that Telegraf's inputs.netstat gives them.
var allGroupFields = []groupField{
	stateField("tcp_established", netstat.TCPEstablished),
	stateField("tcp_syn_sent", netstat.TCPSynSent),
	stateField("tcp_syn_recv", netstat.TCPSynRecv),
	stateField("tcp_fin_wait1", netstat.TCPFinWait1),
	stateField("tcp_fin_wait2", netstat.TCPFinWait2),
	stateField("tcp_time_wait", netstat.TCPTimeWait),
	stateField("tcp_close", netstat.TCPClose),
	stateField("tcp_close_wait", netstat.TCPCloseWait),
	stateField("tcp_last_ack", netstat.TCPLastAck),
	stateField("tcp_listen", netstat.TCPListen),
	stateField("tcp_closing", netstat.TCPClosing),
	queueField("tcp_rx_queue", tcp, "Received and not yet read by the process", func(q queues) int64 { return q.recv }),
	queueField("tcp_tx_queue", tcp, "Not yet sent, or not yet acknowledged by the peer", func(q queues) int64 { return q.send }),
	rttField("tcp_rtt_p50_us", 50, "Median smoothed round-trip time of the established connections; at most 1.6 % off"),
	rttField("tcp_rtt_p95_us", 95, "95th percentile of the same; at most 1.6 % off"),
	rttField("tcp_rtt_max_us", 100, "Maximum of the same"),
	{
		field: field{
			"tcp_closed_rtt_p95_us", unitMicroseconds, false, detailRTT, needsClosedEvents,
			"95th percentile of the smoothed round-trip time, at their end, of the connections that ended since the last gather",
		},
		transport: tcp, closedEvents: true,
		value: func(s *series) (int64, bool) { return percentile(&s.stats.closedRTTs, 95) },
	},
	trafficField("tcp_bytes_acked", unitBytes, netstat.FieldTCPBytes, needsTCPBytes,
		"Sent and acknowledged by the peer, SYN and FIN included", countBytesAcked),
	trafficField("tcp_bytes_received", unitBytes, netstat.FieldTCPBytes, needsTCPBytes,
		"Received", countBytesReceived),
	trafficField("tcp_segs_out", unitSegments, netstat.FieldTCPSegs, needsTCPSegs,
		"Sent", countSegsOut),
	trafficField("tcp_segs_in", unitSegments, netstat.FieldTCPSegs, needsTCPSegs,
		"Received", countSegsIn),
	trafficField("tcp_retrans_segs", unitSegments, netstat.FieldTCPInfo, needsNetlink,
		"Retransmitted", countRetransSegs),
	lifecycleField("tcp_opened", "Connections that began, and attempts to connect", countOpened),
	lifecycleField("tcp_closed", "Connections that ended, failed attempts to connect included", countClosed),
	connectField("tcp_connect_refused", "Attempts to connect that the peer refused, by a reset or by ICMP that the port is unreachable", countConnectRefused),
	connectField("tcp_connect_timed_out", "Attempts to connect that nothing answered", countConnectTimedOut),
	connectField("tcp_connect_unreachable", "Attempts to connect that ended as ICMP reported another error, or as no neighbour answered; "+
		"without any route to the peer an attempt does not begin", countConnectUnreachable),
	connectField("tcp_connect_no_port", "Attempts to connect for which no local port was free", countConnectNoPort),
	connectField("tcp_connect_aborted", "Attempts to connect that the process gave up", countConnectAborted),
	connectTimeField("tcp_connect_p50_us", 50, "Median time from the first SYN until the connection was established, of those that were "+
		"established since the last gather; at most 1.6 % off"),
	connectTimeField("tcp_connect_p95_us", 95, "95th percentile of the same; at most 1.6 % off"),
	connectTimeField("tcp_connect_max_us", 100, "Maximum of the same"),
	synRetransField,
	connectField("tcp_closed_reset", "Established connections that the peer reset", countClosedReset),
	connectField("tcp_closed_timed_out", "Established connections that ended as the peer no longer answered", countClosedTimedOut),
	stallGauge("tcp_idle", unitConnections, netstat.FieldTCPInfo, needsNetlink,
		"Established and without data in either direction for `idle_after`", func(st *stats) int64 { return st.idle }),
	stallCounter("tcp_busy_us", unitMicroseconds, netstat.FieldTCPLimits, needsTCPLimits,
		"Time with unsent or unacknowledged data, the two below included; summed over the connections, in ticks of the kernel (1 to 10 ms)",
		countBusy),
	stallCounter("tcp_rwnd_limited_us", unitMicroseconds, netstat.FieldTCPLimits, needsTCPLimits,
		"Of it the time in which the receive window of the peer was full: the receiver is slow", countRwndLimited),
	stallCounter("tcp_sndbuf_limited_us", unitMicroseconds, netstat.FieldTCPLimits, needsTCPLimits,
		"Of it the time in which the send buffer was too small for the path", countSndbufLimited),
	stallGauge("tcp_notsent_bytes", unitBytes, netstat.FieldTCPLimits, needsTCPLimits,
		"Written by the process and never sent yet; a part of tcp_tx_queue", func(st *stats) int64 { return st.notsent }),
	stallCounter("tcp_rcv_ooopack", unitSegments, netstat.FieldTCPRcvOOOPack, needsRcvOOOPack,
		"Received out of order: lost or reordered on the way here", countRcvOOOPack),
	stallCounter("tcp_dsack_dups", unitSegments, netstat.FieldTCPDSACKDups, needsDSACKDups,
		"That the peer reports as received twice: retransmitted needlessly", countDSACKDups),
	stallCounter("tcp_rto", unitTimeouts, netstat.FieldTCPTotalRTO, needsTotalRTO,
		"Of the retransmission timer, also of SYNs", countRTO),
	socketField(udp),
	queueField("udp_rx_queue", udp, "Memory of the datagrams not yet read by the process", func(q queues) int64 { return q.recv }),
	queueField("udp_tx_queue", udp, "Memory of the datagrams not yet sent", func(q queues) int64 { return q.send }),
	counterField(field{
		name: "udp_drops", unit: unitDatagrams, about: "Dropped by the socket, mostly because its queue was full",
	}, udp, countUDPDrops),
	socketField(netstat.TransportUDPLite),
	socketField(netstat.TransportRaw),
	socketField(netstat.TransportICMP),
	socketField(netstat.TransportUnix),
}

func stateField(name string, state netstat.TCPState) groupField {
	return groupField{
		field:     field{name: name, unit: unitSockets, about: "TCP sockets in the state " + state.String()},
		transport: tcp,
		value:     func(s *series) (int64, bool) { return s.stats.states[state], true },
	}
}

func socketField(transport netstat.Transport) groupField {
	return groupField{
		field:     field{name: transport.String() + "_socket", unit: unitSockets, about: "Sockets of the protocol " + transport.String()},
		transport: transport,
		value:     func(s *series) (int64, bool) { return s.stats.perTransport[transport], true },
	}
}

func queueField(name string, transport netstat.Transport, about string, length func(queues) int64) groupField {
	return groupField{
		field:     field{name: name, unit: unitBytes, about: about},
		transport: transport,
		value:     func(s *series) (int64, bool) { return length(s.stats.queues[transport]), true },
	}
}

func rttField(name string, p int, about string) groupField {
	return groupField{
		field:     field{name, unitMicroseconds, false, detailRTT, needsNetlink, about},
		transport: tcp, tcpFields: netstat.FieldTCPInfo,
		value: func(s *series) (int64, bool) { return percentile(&s.stats.rtts, p) },
	}
}

func percentile(times *quantile.Times, p int) (int64, bool) {
	value, ok := times.Percentile(p)
	return int64(value), ok
}

func counterField(f field, transport netstat.Transport, counter int) groupField {
	f.isCounter = true
	return groupField{field: f, transport: transport, value: func(s *series) (int64, bool) { return s.emit(counter), true }}
}

func trafficField(name, unit string, tcpFields netstat.Field, needs, about string, counter int) groupField {
	f := counterField(field{name: name, unit: unit, detail: detailTraffic, needs: needs, about: about}, tcp, counter)
	f.tcpFields = tcpFields
	return f
}

func lifecycleField(name, about string, counter int) groupField {
	f := counterField(field{
		name: name, unit: unitConnections, detail: detailLifecycle, needs: needsClosedEvents, about: about,
	}, tcp, counter)
	f.closedEvents = true
	return f
}

func connectField(name, about string, counter int) groupField {
	f := counterField(field{name: name, unit: unitConnections, detail: detailConnects, needs: needsConnects, about: about}, tcp, counter)
	f.connects = true
	return f
}

func connectTimeField(name string, p int, about string) groupField {
	return groupField{
		field:     field{name, unitMicroseconds, false, detailConnects, needsConnects, about},
		transport: tcp, connects: true,
		value: func(s *series) (int64, bool) { return percentile(&s.stats.connectTimes, p) },
	}
}

// synRetransField needs no records: without them only what a gather sees while the connection is in SYN_SENT counts.
var synRetransField = func() groupField {
	f := counterField(field{
		name: "tcp_syn_retrans", unit: unitSegments, detail: detailConnects, needs: needsNetlink,
		about: "SYN segments that were sent again; without BPF only those until the last gather that saw the connection in SYN_SENT",
	}, tcp, countSynRetrans)
	f.tcpFields = netstat.FieldTCPInfo
	return f
}()

func stallField(name, unit string, tcpFields netstat.Field, needs, about string) groupField {
	return groupField{
		field:     field{name: name, unit: unit, detail: detailStalls, needs: needs, about: about},
		transport: tcp, tcpFields: tcpFields,
	}
}

func stallGauge(name, unit string, tcpFields netstat.Field, needs, about string, of func(*stats) int64) groupField {
	f := stallField(name, unit, tcpFields, needs, about)
	f.value = func(s *series) (int64, bool) { return of(&s.stats), true }
	return f
}

func stallCounter(name, unit string, tcpFields netstat.Field, needs, about string, counter int) groupField {
	f := stallField(name, unit, tcpFields, needs, about)
	f.isCounter = true
	f.value = func(s *series) (int64, bool) { return s.stalls.emit(counter), true }
	return f
}

// measurementSchema describes a measurement.
type measurementSchema struct {
	name    string
	option  string // its name in the option measurements
	about   string
	tags    []tag
	without []string // the group fields that can never be other than 0
	// protocols are those of its sockets. A series has the group fields of its tag protocol. nil: there is no such tag, and a series
	// has sockets of all protocols.
	protocols []netstat.Transport
	noGroup   bool    // it has no group fields
	fields    []field // beside the group fields
}

// tag describes a tag.
type tag struct{ name, about string }

// covers reports whether the measurement has sockets of the transport.
func (m *measurementSchema) covers(transport netstat.Transport) bool {
	return m.protocols == nil || slices.Contains(m.protocols, transport)
}

// groupFields returns its group fields with these details.
func (m *measurementSchema) groupFields(details detail) (fields []groupField) {
	for _, f := range allGroupFields {
		if !m.noGroup && m.covers(f.transport) && f.detail&^details == 0 && !slices.Contains(m.without, f.name) {
			fields = append(fields, f)
		}
	}
	return fields
}

var (
	processNameTag = tag{tagProcessName, "Command name; not with `owners = \"none\"`"}
	workloadTags   = []tag{
		{tagSystemdUnit, "Innermost systemd service, scope or slice of the cgroup, if it is in one"},
		{tagContainerID, "Container of Docker, containerd, CRI-O, Podman, LXC, Garden or Nomad (`<allocation>.<task>`), if it is in one"},
		{tagPodUID, "Pod of Kubernetes, if it is in one"},
	}
	netNSTag = tag{tagNetNS, "Network namespace, if several can be read: `self` for that of Telegraf, else its name in `/run/netns`, else the " +
		"container of its first process, else its inode number, as in `lsns -t net`; `pid:` and a process if the number cannot be read"}
)

// The group fields that measurements of connections in one direction can never have other than 0.
var (
	withoutListening = []string{"tcp_listen"}
	withoutOutgoing  = []string{
		"tcp_syn_sent", "tcp_connect_refused", "tcp_connect_timed_out", "tcp_connect_unreachable", "tcp_connect_no_port",
		"tcp_connect_aborted", "tcp_connect_p50_us", "tcp_connect_p95_us", "tcp_connect_max_us", "tcp_syn_retrans",
	}
)

// schema describes all measurements.
var schema = []*measurementSchema{
	&hostSchema, &processSchema, &listenerSchema, &cgroupSchema, &remoteSchema, &clientSchema, &connectionSchema, &gatherSchema,
}

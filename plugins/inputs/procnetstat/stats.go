//go:build linux

package procnetstat

import "github.com/procnetstat/procnetstat/netstat"

// protocolSet is the set of protocols that were read. Only their fields are emitted: a zero for the others would be wrong.
type protocolSet map[netstat.Transport]bool

// onlyProtocol returns the protocols of a series whose tag protocol has this value: the fields of others would always be zero.
// The series "other" has all protocols that the measurement covers.
func (set protocolSet) onlyProtocol(name string, covers func(netstat.Transport) bool) protocolSet {
	only := protocolSet{}
	for transport := range set {
		if name == transport.String() || name == other && covers(transport) {
			only[transport] = true
		}
	}
	return only
}

// stats are the statistics of a group of sockets in a pass.
type stats struct {
	sockets int64
	// states counts the TCP sockets by state; states[netstat.TCPUnknown] counts invalid states.
	states       [netstat.TCPClosing + 1]int64
	queues       [netstat.TransportUDP + 1]queues // of TCP and UDP
	perTransport [netstat.TransportUnix + 1]int64
	rtts         rtts // of established connections
	delta        traffic
	closedRTTs   rtts // of connections that were closed since the previous pass
}

// queues are sums of queue lengths in bytes.
type queues struct{ recv, send int64 }

// add counts the socket.
func (st *stats) add(o *observation) {
	if o.Closed {
		st.addClosed(o)
		return
	}
	st.sockets++
	st.perTransport[o.Transport]++
	switch o.Transport {
	case netstat.TransportTCP:
		st.states[stateIndex(o.State)]++
		if o.TCP.RTT > 0 && o.State == netstat.TCPEstablished {
			st.rtts.add(o.TCP.RTT)
		}
	case netstat.TransportUDP:
	default:
		return
	}
	q := &st.queues[o.Transport]
	q.recv += int64(o.RecvQueue)
	q.send += int64(o.SendQueue)
	if !o.idle {
		st.delta.add(&o.delta)
	}
}

// addClosed adds the last traffic of a closed connection.
func (st *stats) addClosed(o *observation) {
	if o.delta.closed == 0 {
		return
	}
	st.delta.add(&o.delta)
	if o.TCP.RTT > 0 {
		st.closedRTTs.add(o.TCP.RTT)
	}
}

func stateIndex(state netstat.TCPState) netstat.TCPState {
	switch {
	case state == netstat.TCPNewSynRecv:
		return netstat.TCPSynRecv
	case state < 0 || state > netstat.TCPClosing:
		return netstat.TCPUnknown
	default:
		return state
	}
}

// merge adds the statistics of another group.
func (st *stats) merge(other *stats) {
	st.sockets += other.sockets
	for i, n := range other.states {
		st.states[i] += n
	}
	for i, q := range other.queues {
		st.queues[i].recv += q.recv
		st.queues[i].send += q.send
	}
	for i, n := range other.perTransport {
		st.perTransport[i] += n
	}
	st.rtts.merge(&other.rtts)
	st.closedRTTs.merge(&other.closedRTTs)
	st.delta.add(&other.delta)
}

// reset prepares for the next pass and keeps the buffers.
func (st *stats) reset() {
	st.rtts.reset()
	st.closedRTTs.reset()
	*st = stats{rtts: st.rtts, closedRTTs: st.closedRTTs}
}

// stateFields names the fields of the TCP states as Telegraf's inputs.netstat does.
var stateFields = [...]string{
	netstat.TCPEstablished: "tcp_established",
	netstat.TCPSynSent:     "tcp_syn_sent",
	netstat.TCPSynRecv:     "tcp_syn_recv",
	netstat.TCPFinWait1:    "tcp_fin_wait1",
	netstat.TCPFinWait2:    "tcp_fin_wait2",
	netstat.TCPTimeWait:    "tcp_time_wait",
	netstat.TCPClose:       "tcp_close",
	netstat.TCPCloseWait:   "tcp_close_wait",
	netstat.TCPLastAck:     "tcp_last_ack",
	netstat.TCPListen:      "tcp_listen",
	netstat.TCPClosing:     "tcp_closing",
}

// gauges adds the gauges of the group to fields.
func (st *stats) gauges(read protocolSet, tcpFields netstat.Field, fields map[string]any) {
	if read[netstat.TransportTCP] {
		for state, name := range stateFields {
			if name != "" {
				fields[name] = st.states[state]
			}
		}
		fields["tcp_rx_queue"] = st.queues[netstat.TransportTCP].recv
		fields["tcp_tx_queue"] = st.queues[netstat.TransportTCP].send
		if tcpFields&netstat.FieldTCPInfo != 0 {
			fields["tcp_rtt_p50_us"] = int64(st.rtts.percentile(50))
			fields["tcp_rtt_p95_us"] = int64(st.rtts.percentile(95))
			fields["tcp_rtt_max_us"] = int64(st.rtts.max)
		}
	}
	if read[netstat.TransportUDP] {
		fields["udp_socket"] = st.perTransport[netstat.TransportUDP]
		fields["udp_rx_queue"] = st.queues[netstat.TransportUDP].recv
		fields["udp_tx_queue"] = st.queues[netstat.TransportUDP].send
	}
	for _, transport := range []netstat.Transport{
		netstat.TransportUDPLite, netstat.TransportRaw, netstat.TransportICMP, netstat.TransportUnix,
	} {
		if read[transport] {
			fields[transport.String()+"_socket"] = st.perTransport[transport]
		}
	}
}

// counters adds the counters of the group to fields.
func (t *traffic) counters(read protocolSet, tcpFields netstat.Field, fields map[string]any) {
	if read[netstat.TransportTCP] {
		if tcpFields&netstat.FieldTCPInfo != 0 {
			fields["tcp_retrans_segs"] = t.retransSegs
		}
		if tcpFields&netstat.FieldTCPBytes != 0 {
			fields["tcp_bytes_acked"] = t.bytesAcked
			fields["tcp_bytes_received"] = t.bytesReceived
		}
		if tcpFields&netstat.FieldTCPSegs != 0 {
			fields["tcp_segs_out"] = t.segsOut
			fields["tcp_segs_in"] = t.segsIn
		}
	}
	if read[netstat.TransportUDP] {
		fields["udp_drops"] = t.udpDrops
	}
}

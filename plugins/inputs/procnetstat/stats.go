//go:build linux

package procnetstat

import "github.com/procnetstat/procnetstat/netstat"

// protocolSet says which protocols are read: only their fields are emitted, as a zero for the others would be a lie.
type protocolSet map[netstat.Transport]bool

// stats is what is known of a group of sockets.
type stats struct {
	sockets int64
	// states counts the TCP sockets by state; those of a state that the kernel does not have are in
	// states[netstat.TCPUnknown].
	states       [netstat.TCPClosing + 1]int64
	queues       [netstat.TransportUDP + 1]queues // of TCP and UDP
	perTransport [netstat.TransportUnix + 1]int64
}

// queues are sums in bytes.
type queues struct{ recv, send int64 }

// add counts the socket.
func (st *stats) add(s *netstat.Socket) {
	st.sockets++
	st.perTransport[s.Transport]++
	switch s.Transport {
	case netstat.TransportTCP:
		st.states[stateIndex(s.State)]++
	case netstat.TransportUDP:
	default:
		return
	}
	q := &st.queues[s.Transport]
	q.recv += int64(s.RecvQueue)
	q.send += int64(s.SendQueue)
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

// merge adds what is known of another group.
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

// fields puts the fields of every group measurement into fields.
func (st *stats) fields(read protocolSet, fields map[string]any) {
	if read[netstat.TransportTCP] {
		for state, name := range stateFields {
			if name != "" {
				fields[name] = st.states[state]
			}
		}
		fields["tcp_rx_queue"] = st.queues[netstat.TransportTCP].recv
		fields["tcp_tx_queue"] = st.queues[netstat.TransportTCP].send
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

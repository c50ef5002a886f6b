//go:build linux

package procnetstat

import (
	"github.com/procnetstat/procnetstat/netstat"
	"github.com/procnetstat/procnetstat/plugins/inputs/procnetstat/internal/quantile"
)

// protocolSet is the set of protocols that were read. Only their fields are emitted: a zero for the others would be wrong.
type protocolSet map[netstat.Transport]bool

// onlyProtocol returns the protocols of a series whose tag protocol has this value: the fields of others would always be zero.
func (set protocolSet) onlyProtocol(name string) protocolSet {
	if name == other {
		return set
	}
	only := protocolSet{}
	for transport := range set {
		if name == transport.String() {
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
	rtts         quantile.Times // of established connections
	delta        traffic
	closedRTTs   quantile.Times // of connections that were closed since the previous pass
	connectTimes quantile.Times // of those that were established since the previous pass
	idle         int64          // connections, like notsent with the set stalls
	notsent      int64          // bytes
	stalls       stallCounts
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
		if o.rtt > 0 && o.State == netstat.TCPEstablished {
			st.rtts.Add(o.rtt)
		}
		if o.connectTime > 0 {
			st.connectTimes.Add(o.connectTime)
		}
		if o.stall != nil {
			st.addStall(o.stall)
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
	if o.delta == (traffic{}) {
		return
	}
	st.delta.add(&o.delta)
	if o.stall != nil {
		st.stalls.add(&o.stall.counts)
	}
	if o.rtt > 0 {
		st.closedRTTs.Add(o.rtt)
	}
	if o.connectTime > 0 {
		st.connectTimes.Add(o.connectTime)
	}
}

// addStall adds a live connection.
func (st *stats) addStall(of *stall) {
	if of.idle {
		st.idle++
	}
	st.notsent += int64(of.notsent)
	st.stalls.add(&of.counts)
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
	st.rtts.Merge(&other.rtts)
	st.closedRTTs.Merge(&other.closedRTTs)
	st.connectTimes.Merge(&other.connectTimes)
	st.delta.add(&other.delta)
	st.idle += other.idle
	st.notsent += other.notsent
	st.stalls.add(&other.stalls)
}

// reset prepares for the next pass and keeps the buffers.
func (st *stats) reset() {
	st.rtts.Reset()
	st.closedRTTs.Reset()
	st.connectTimes.Reset()
	*st = stats{rtts: st.rtts, closedRTTs: st.closedRTTs, connectTimes: st.connectTimes}
}

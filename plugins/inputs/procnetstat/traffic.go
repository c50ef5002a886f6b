//go:build linux

package procnetstat

import (
	"math"

	"github.com/procnetstat/procnetstat/netstat"
)

// traffic is an increase of counters, by the indexes below.
type traffic [trafficCounters]int64

const (
	countBytesAcked = iota
	countBytesReceived
	countSegsOut
	countSegsIn
	countRetransSegs
	countUDPDrops
	countListenDrops
	countOpened // connections; only if the kernel reports closed ones, like countClosed
	countClosed
	countConnectRefused // attempts to connect that failed; only if the library records them, like what follows
	countConnectTimedOut
	countConnectUnreachable
	countConnectNoPort
	countConnectAborted
	countSynRetrans  // also without records
	countClosedReset // established connections
	countClosedTimedOut
	trafficCounters
)

func (t *traffic) add(o *traffic) {
	for i, n := range o {
		t[i] += n
	}
}

// counters are the counters of a series. increase() and similar functions of databases ignore the first value, so each counter is
// emitted as 0 first. What it has counted by then is pending, and added in the next gather.
type counters[A traffic | stallCounts | hostCounts | eventsLost] struct {
	total   A // as emitted
	pending A
	begun   uint // bits: the counters that have been emitted
	owes    bool // a counter has begun while something was pending: the next gather must emit it
}

// grow adds an increase.
func (c *counters[A]) grow(delta A) {
	for i := range len(c.pending) {
		c.pending[i] += min(delta[i], math.MaxInt64-c.pending[i]-c.total[i]) // a copy of a proc file system can have any number
	}
}

// emit returns the value of a counter that is emitted now.
func (c *counters[A]) emit(i int) int64 {
	if c.begun&(1<<i) == 0 {
		c.begun |= 1 << i
		c.owes = c.owes || c.pending[i] > 0
		return 0
	}
	c.total[i] += c.pending[i]
	c.pending[i] = 0
	return c.total[i]
}

// isZero reports whether nothing has been counted.
func (c *counters[A]) isZero() bool { return c.total == *new(A) && c.pending == *new(A) }

// kernelCounters are the counters that the kernel keeps for a socket.
type kernelCounters struct {
	bytesAcked, bytesReceived           uint64
	segsOut, segsIn, retransSegs, drops uint32
}

// countersOf returns the counters of a socket; of a connection only the drops, unless a set of details needs the others.
func (t *flows) countersOf(s *netstat.Socket) kernelCounters {
	if !t.countsTraffic {
		return kernelCounters{drops: s.Drops}
	}
	return kernelCounters{
		bytesAcked: s.TCP.BytesAcked, bytesReceived: s.TCP.BytesReceived,
		segsOut: s.TCP.SegsOut, segsIn: s.TCP.SegsIn, retransSegs: s.TCP.RetransSegs, drops: s.Drops,
	}
}

// restartedSince reports whether the counters are those of another connection than last: a process can disconnect a socket and
// connect it again (tcp_disconnect, net/ipv4/tcp.c).
func (r *kernelCounters) restartedSince(last *kernelCounters) bool {
	return r.bytesAcked < last.bytesAcked || r.bytesReceived < last.bytesReceived ||
		wentBack(r.segsOut, last.segsOut) || wentBack(r.segsIn, last.segsIn) || wentBack(r.retransSegs, last.retransSegs)
}

// wentBack reports whether a 32-bit counter has been reset since last: one that wraps increases by less than half of its range.
func wentBack(now, last uint32) bool { return int32(now-last) < 0 }

// setDifference sets the traffic to the increase of the counters since last.
func (t *traffic) setDifference(now *kernelCounters, last kernelCounters, transport netstat.Transport) {
	if now.restartedSince(&last) {
		last = kernelCounters{}
	}
	// The differences of 32-bit counters are correct when the counters wrap.
	t[countBytesAcked] = int64(now.bytesAcked - last.bytesAcked)
	t[countBytesReceived] = int64(now.bytesReceived - last.bytesReceived)
	t[countSegsOut] = int64(now.segsOut - last.segsOut)
	t[countSegsIn] = int64(now.segsIn - last.segsIn)
	t[countRetransSegs] = int64(now.retransSegs - last.retransSegs)
	switch drops := int64(now.drops - last.drops); transport {
	case netstat.TransportTCP:
		t[countListenDrops] = drops
	case netstat.TransportUDP:
		t[countUDPDrops] = drops
	}
}

// stallCounts is an increase of counters of the set stalls, by the indexes below.
type stallCounts [stallCounters]int64

const (
	countBusy = iota // microseconds, like the next two
	countRwndLimited
	countSndbufLimited
	countRcvOOOPack
	countDSACKDups
	countRTO
	stallCounters
)

func (c *stallCounts) add(o *stallCounts) {
	for i, n := range o {
		c[i] += n
	}
}

// kernelStalls are the counters of the set stalls that the kernel keeps for a connection.
type kernelStalls struct {
	busy, rwndLimited, sndbufLimited uint64 // microseconds
	rcvOOOPack, dsackDups            uint32
	rto                              uint16
}

func stallsOf(s *netstat.Socket) kernelStalls {
	return kernelStalls{
		busy: s.TCP.BusyTime, rwndLimited: s.TCP.RwndLimited, sndbufLimited: s.TCP.SndbufLimited,
		rcvOOOPack: s.TCP.RcvOOOPack, dsackDups: s.TCP.DSACKDups, rto: s.TCP.TotalRTO,
	}
}

// setDifference sets the increase of the counters since last. restarted: the other counters of the kernel are those of another
// connection.
func (c *stallCounts) setDifference(now, last kernelStalls, restarted bool) {
	// tcp_disconnect resets the counts, but not the times. A time that is less than before has wrapped.
	since := func(now, last uint64) int64 {
		if now < last {
			last = 0
		}
		return int64(now - last)
	}
	c[countBusy] = since(now.busy, last.busy)
	c[countRwndLimited] = since(now.rwndLimited, last.rwndLimited)
	c[countSndbufLimited] = since(now.sndbufLimited, last.sndbufLimited)
	if restarted || wentBack(now.rcvOOOPack, last.rcvOOOPack) || wentBack(now.dsackDups, last.dsackDups) || int16(now.rto-last.rto) < 0 {
		last = kernelStalls{}
	}
	c[countRcvOOOPack] = int64(now.rcvOOOPack - last.rcvOOOPack)
	c[countDSACKDups] = int64(now.dsackDups - last.dsackDups)
	c[countRTO] = int64(now.rto - last.rto)
}

// stall is what the set stalls has of a connection.
type stall struct {
	idle    bool        // established, and without data in either direction for idle_after
	notsent uint32      // bytes
	counts  stallCounts // since the previous pass
}

// begin sets it for a socket without counts.
func (st *stall) begin(s *netstat.Socket, idleAfter uint32) {
	*st = stall{
		idle: s.State == netstat.TCPEstablished && s.Has(netstat.FieldTCPInfo) &&
			min(s.TCP.LastDataSent, s.TCP.LastDataRecv) >= idleAfter,
		notsent: s.TCP.NotsentBytes,
	}
}

// countStalls updates the stall counters of the flow, and sets their increase like count. now are the other counters of the socket.
func (t *flows) countStalls(f *flow, s *netstat.Socket, now *kernelCounters, isFirst bool) {
	last := &t.table.stalls[t.table.indexOf(f)]
	switch {
	case !isFirst:
		t.stall.counts.setDifference(stallsOf(s), *last, now.restartedSince(&f.kernelCounters))
	case t.current.baselined[s.Transport]:
		t.stall.counts.setDifference(stallsOf(s), kernelStalls{}, false)
	}
	*last = stallsOf(s)
}

// countLastStalls sets the increase of the stall counters of a destroyed socket since the pass that saw it last; f is nil if none did.
// now and before are its other counters.
func (t *flows) countLastStalls(f *flow, s *netstat.Socket, now, before *kernelCounters) {
	var last kernelStalls
	if f != nil && f.has(flowCounted) && !f.has(flowFailed) {
		last = t.table.stalls[t.table.indexOf(f)]
	}
	t.stall.counts.setDifference(stallsOf(s), last, now.restartedSince(before))
}

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
type counters[A traffic | hostCounts | eventsLost] struct {
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

// countersOf returns the counters of a socket; of a connection without the set traffic only the drops.
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
	// A 32-bit counter that wraps increases by less than half of its range.
	wentBack := func(now, last uint32) bool { return int32(now-last) < 0 }
	return r.bytesAcked < last.bytesAcked || r.bytesReceived < last.bytesReceived ||
		wentBack(r.segsOut, last.segsOut) || wentBack(r.segsIn, last.segsIn) || wentBack(r.retransSegs, last.retransSegs)
}

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

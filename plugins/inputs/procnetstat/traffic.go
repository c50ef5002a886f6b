//go:build linux

package procnetstat

import "github.com/procnetstat/procnetstat/netstat"

// traffic is an increase of counters: since the previous pass, or since the plugin started.
type traffic struct {
	bytesAcked, bytesReceived    int64
	segsOut, segsIn, retransSegs int64
	udpDrops                     int64
	listenDrops                  int64
	opened, closed               int64 // connections; only if the kernel reports closed ones
}

func (t *traffic) add(o *traffic) {
	t.bytesAcked += o.bytesAcked
	t.bytesReceived += o.bytesReceived
	t.segsOut += o.segsOut
	t.segsIn += o.segsIn
	t.retransSegs += o.retransSegs
	t.udpDrops += o.udpDrops
	t.listenDrops += o.listenDrops
	t.opened += o.opened
	t.closed += o.closed
}

// counterTotals are counters that begin with 0: increase() and the like of a database do not see what the first value of a series is
// made of. What a series has counted in the gather in which it is new is therefore pending, and added in the next one.
type counterTotals[T comparable, P interface {
	*T
	add(*T)
}] struct {
	total   T // as emitted
	pending T
	isOld   bool // it has been emitted
}

// grow adds the increase since the previous gather, before the series is emitted.
func (c *counterTotals[T, P]) grow(delta *T) {
	if !c.isOld {
		c.isOld, c.pending = true, *delta
		return
	}
	pending := c.takePending()
	P(&c.total).add(&pending)
	P(&c.total).add(delta)
}

// takePending returns what is pending, which is not pending any more.
func (c *counterTotals[T, P]) takePending() (pending T) {
	pending, c.pending = c.pending, pending
	return pending
}

// isPending reports whether the series must be emitted in the next gather, even without sockets.
func (c *counterTotals[T, P]) isPending() bool { return c.pending != *new(T) }

// isZero reports whether nothing has been counted.
func (c *counterTotals[T, P]) isZero() bool { return c.total == *new(T) && !c.isPending() }

// kernelCounters are the counters that the kernel keeps for a socket.
type kernelCounters struct {
	bytesAcked, bytesReceived           uint64
	segsOut, segsIn, retransSegs, drops uint32
}

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
	t.bytesAcked = int64(now.bytesAcked - last.bytesAcked)
	t.bytesReceived = int64(now.bytesReceived - last.bytesReceived)
	t.segsOut = int64(now.segsOut - last.segsOut)
	t.segsIn = int64(now.segsIn - last.segsIn)
	t.retransSegs = int64(now.retransSegs - last.retransSegs)
	switch drops := int64(now.drops - last.drops); transport {
	case netstat.TransportTCP:
		t.listenDrops = drops
	case netstat.TransportUDP:
		t.udpDrops = drops
	}
}

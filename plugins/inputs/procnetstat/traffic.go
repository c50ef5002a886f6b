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

// kernelCounters are the counters that the kernel keeps for a socket.
type kernelCounters struct {
	bytesAcked, bytesReceived           uint64
	segsOut, segsIn, retransSegs, drops uint32
}

func kernelCountersOf(s *netstat.Socket) kernelCounters {
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

//go:build linux

package procnetstat

import "github.com/procnetstat/procnetstat/netstat"

// traffic is what sockets did: since the pass before, or since the plugin started.
type traffic struct {
	bytesAcked, bytesReceived    int64
	segsOut, segsIn, retransSegs int64
	udpDrops                     int64
	listenDrops                  int64
}

func (t *traffic) add(o *traffic) {
	t.bytesAcked += o.bytesAcked
	t.bytesReceived += o.bytesReceived
	t.segsOut += o.segsOut
	t.segsIn += o.segsIn
	t.retransSegs += o.retransSegs
	t.udpDrops += o.udpDrops
	t.listenDrops += o.listenDrops
}

// tracker makes increments of the numbers that the kernel keeps for each socket since it was made. It remembers those of
// the pass before, by what identifies the socket.
type tracker struct {
	known   map[uint64]reading
	passes  [netstat.TransportUnix + 1]uint32 // in which all sockets of the transport were read
	started [netstat.TransportUnix + 1]bool   // all sockets of the transport have been read once
}

// reading is what the kernel told of a socket.
type reading struct {
	bytesAcked, bytesReceived           uint64
	segsOut, segsIn, retransSegs, drops uint32
	pass                                uint32
	transport                           netstat.Transport
}

// beganAnew tells whether the numbers are those of another connection: a process can end a connection and make one anew with
// the same socket (tcp_disconnect, net/ipv4/tcp.c).
func (r *reading) beganAnew(last *reading) bool {
	// A 32-bit number that wraps goes forward by less than half of its range.
	wentBack := func(now, last uint32) bool { return int32(now-last) < 0 }
	return r.bytesAcked < last.bytesAcked || r.bytesReceived < last.bytesReceived ||
		wentBack(r.segsOut, last.segsOut) || wentBack(r.segsIn, last.segsIn) || wentBack(r.retransSegs, last.retransSegs)
}

// since returns what the socket did since the pass before: all that it ever did, if it was made since; nothing, if its
// transport is read for the first time, as what was before the plugin started is not its to count.
func (t *tracker) since(s *netstat.Socket) traffic {
	if s.Fields&(netstat.FieldTCPInfo|netstat.FieldDrops) == 0 {
		return traffic{}
	}
	id := s.Cookie
	if !s.Has(netstat.FieldCookie) {
		if s.Inode == 0 {
			return traffic{} // nothing tells it from others
		}
		const fromInode = 1 << 63 // no cookie is as high
		id = s.Inode | fromInode
	}
	if t.known == nil {
		t.known = map[uint64]reading{}
	}
	last, known := t.known[id]
	now := reading{
		bytesAcked: s.TCP.BytesAcked, bytesReceived: s.TCP.BytesReceived,
		segsOut: s.TCP.SegsOut, segsIn: s.TCP.SegsIn, retransSegs: s.TCP.RetransSegs, drops: s.Drops,
		pass: t.passes[s.Transport], transport: s.Transport,
	}
	t.known[id] = now
	if !known && !t.started[s.Transport] {
		return traffic{}
	}
	if now.beganAnew(&last) {
		last = reading{}
	}
	// The 32-bit numbers wrap, and so do their differences.
	did := traffic{
		bytesAcked:    int64(now.bytesAcked - last.bytesAcked),
		bytesReceived: int64(now.bytesReceived - last.bytesReceived),
		segsOut:       int64(now.segsOut - last.segsOut),
		segsIn:        int64(now.segsIn - last.segsIn),
		retransSegs:   int64(now.retransSegs - last.retransSegs),
	}
	switch drops := int64(now.drops - last.drops); s.Transport {
	case netstat.TransportTCP:
		did.listenDrops = drops
	case netstat.TransportUDP:
		did.udpDrops = drops
	}
	return did
}

// missedPasses is how often a socket can be missing before it is taken for closed. A dump can miss a socket while the table
// changes, and counting it anew would count its past.
const missedPasses = 2

// end ends a pass in which all sockets of these protocols were read. Those of the others are remembered, seen or not: they may
// be there still.
func (t *tracker) end(read protocolSet) {
	var done [len(t.passes)]bool
	for transport := range read {
		t.started[transport], done[transport] = true, true
	}
	for id, last := range t.known {
		if done[last.transport] && t.passes[last.transport]-last.pass > missedPasses {
			delete(t.known, id)
		}
	}
	for transport := range read {
		t.passes[transport]++
	}
}

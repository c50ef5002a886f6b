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
	known   readings
	passes  [netstat.TransportUnix + 1]uint32 // in which all sockets of the transport were read
	started [netstat.TransportUnix + 1]bool   // all sockets of the transport have been read once
}

// beganAnew tells whether the numbers are those of another connection: a process can end a connection and make one anew with
// the same socket (tcp_disconnect, net/ipv4/tcp.c).
func (r *numbers) beganAnew(last *numbers) bool {
	// A 32-bit number that wraps goes forward by less than half of its range.
	wentBack := func(now, last uint32) bool { return int32(now-last) < 0 }
	return r.bytesAcked < last.bytesAcked || r.bytesReceived < last.bytesReceived ||
		wentBack(r.segsOut, last.segsOut) || wentBack(r.segsIn, last.segsIn) || wentBack(r.retransSegs, last.retransSegs)
}

// since returns what the socket did since the pass before: all that it ever did, if it was made since; nothing, if its
// transport is read for the first time, as what was before the plugin started is not its to count. Most sockets are idle.
func (t *tracker) since(s *netstat.Socket) (did traffic, idle bool) {
	if s.Fields&(netstat.FieldTCPInfo|netstat.FieldDrops) == 0 {
		return traffic{}, true
	}
	id := s.Cookie
	if !s.Has(netstat.FieldCookie) {
		if s.Inode == 0 {
			return traffic{}, true // nothing tells it from others
		}
		const fromInode = 1 << 63 // no cookie is as high
		id = s.Inode | fromInode
	}
	now := numbers{
		bytesAcked: s.TCP.BytesAcked, bytesReceived: s.TCP.BytesReceived,
		segsOut: s.TCP.SegsOut, segsIn: s.TCP.SegsIn, retransSegs: s.TCP.RetransSegs, drops: s.Drops,
	}
	var last numbers
	pass := t.passes[s.Transport]
	if known := t.known.find(id); known != nil {
		last, known.pass = known.numbers, pass
		if now == last {
			return traffic{}, true
		}
		known.numbers = now
	} else {
		t.known.add(reading{id: id, numbers: now, pass: pass, transport: s.Transport})
		if !t.started[s.Transport] {
			return traffic{}, true
		}
	}
	if now.beganAnew(&last) {
		last = numbers{}
	}
	// The 32-bit numbers wrap, and so do their differences.
	did = traffic{
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
	return did, false
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
	t.known.keep(func(last *reading) bool {
		return !done[last.transport] || t.passes[last.transport]-last.pass <= missedPasses
	})
	for transport := range read {
		t.passes[transport]++
	}
}

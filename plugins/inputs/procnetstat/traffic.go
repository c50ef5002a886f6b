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
	known      readings
	passes     [netstat.TransportUnix + 1]uint32 // in which all sockets of the transport were read
	namespaces map[*netstat.Namespace]*history
	now        *history // of the one that is read
	// findsNew says that a namespace that was not there in the pass before is new, and so all sockets in it.
	findsNew bool
	ended    bool // a pass has ended
}

// history is what is known of the sockets of a network namespace.
type history struct {
	source  netstat.Source                  // that they were read from
	started [netstat.TransportUnix + 1]bool // all sockets of the transport have been read once from it
}

// of returns the history of a scope.
func (t *tracker) of(in *scope) *history {
	h := t.namespaces[in.namespace]
	if h == nil || h.source != in.namespace.Source {
		isNew := h == nil && t.findsNew && t.ended
		h = &history{source: in.namespace.Source}
		for transport := range h.started {
			h.started[transport] = isNew
		}
		if t.namespaces == nil {
			t.namespaces = map[*netstat.Namespace]*history{}
		}
		t.namespaces[in.namespace] = h
	}
	return h
}

// enter begins a scope.
func (t *tracker) enter(in *scope) { t.now = t.of(in) }

// beganAnew tells whether the numbers are those of another connection: a process can end a connection and make one anew with
// the same socket (tcp_disconnect, net/ipv4/tcp.c).
func (r *numbers) beganAnew(last *numbers) bool {
	// A 32-bit number that wraps goes forward by less than half of its range.
	wentBack := func(now, last uint32) bool { return int32(now-last) < 0 }
	return r.bytesAcked < last.bytesAcked || r.bytesReceived < last.bytesReceived ||
		wentBack(r.segsOut, last.segsOut) || wentBack(r.segsIn, last.segsIn) || wentBack(r.retransSegs, last.retransSegs)
}

// since returns what the socket did since the pass before: all that it ever did, if it was made since; nothing, if its
// transport is read for the first time, as what was before the plugin read it is not its to count. Most sockets are idle.
func (t *tracker) since(s *netstat.Socket) (did traffic, idle bool) {
	if s.Fields&(netstat.FieldTCPInfo|netstat.FieldDrops) == 0 {
		return traffic{}, true
	}
	const (
		netNSBits = 1<<31 - 1
		fromInode = 1 << 63 // no cookie is as high
	)
	id := s.Cookie ^ s.NetNS&netNSBits<<32 // before Linux 5.10 each network namespace has its own cookies
	if !s.Has(netstat.FieldCookie) {
		if s.Inode == 0 {
			return traffic{}, true // nothing tells it from others
		}
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
		if !t.now.started[s.Transport] {
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

// end ends a pass. The sockets of protocols that could not be read everywhere are remembered, seen or not: they may be there
// still.
func (t *tracker) end(all *scopes) {
	t.ended = true
	before := t.namespaces
	t.namespaces = make(map[*netstat.Namespace]*history, len(all.all)) // of namespaces that are gone nothing is kept
	for _, in := range all.all {
		if h := before[in.namespace]; h != nil {
			t.namespaces[in.namespace] = h
		}
		h := t.of(in)
		for transport := range in.read {
			h.started[transport] = true
		}
	}
	var done [len(t.passes)]bool
	for transport := range all.whole().read {
		done[transport] = true
	}
	t.known.keep(func(last *reading) bool {
		return !done[last.transport] || t.passes[last.transport]-last.pass <= missedPasses
	})
	for transport, done := range done {
		if done {
			t.passes[transport]++
		}
	}
}

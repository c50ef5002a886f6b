//go:build linux

package procnetstat

import "github.com/procnetstat/procnetstat/netstat"

// traffic is what sockets did: since the pass before, or since the plugin started.
type traffic struct {
	bytesAcked, bytesReceived    int64
	segsOut, segsIn, retransSegs int64
	udpDrops                     int64
	listenDrops                  int64
	opened, closed               int64 // connections; where closed ones are heard of
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

// tracker makes increments of the numbers that the kernel keeps for each socket since it was made. It remembers those of
// the pass before, by what identifies the socket.
type tracker struct {
	known        readings
	passes       [netstat.TransportUnix + 1]uint32 // in which all sockets of the transport were read
	histories    map[uint64]*history               // by Namespace.ID
	historyCount uint32
	current      *history // of the one that is read
	updated      *reading // of the socket that since was asked of last; nil: none is kept of it
	// findsNew says that a namespace that was not there in the pass before is new, and so all sockets in it.
	countNewNamespaces bool
	firstPassDone      bool // a pass has ended
}

// history is what is known of the sockets of a network namespace.
type history struct {
	number       uint32
	closedEvents bool                            // the kernel tells of the sockets that it destroys there
	sources      sources                         // of the pass before
	baselined    [netstat.TransportUnix + 1]bool // all sockets of the transport have been read once from its source
}

// sources are those of the tables of each transport; SourceAuto: none has been read.
type sources [netstat.TransportUnix + 1]netstat.Source

// sourceOf returns where a socket was read from.
func sourceOf(s *netstat.Socket) netstat.Source {
	if s.Has(netstat.FieldCookie) {
		return netstat.SourceNetlink
	}
	return netstat.SourceProcfs
}

// of returns the history of a scope.
func (t *tracker) historyOf(sc *scope) *history {
	h := t.histories[sc.namespace.ID]
	if h == nil {
		isNew := t.countNewNamespaces && t.firstPassDone
		t.historyCount++
		h = &history{number: t.historyCount}
		for transport := range h.baselined {
			h.baselined[transport] = isNew
		}
		if t.histories == nil {
			t.histories = map[uint64]*history{}
		}
		t.histories[sc.namespace.ID] = h
	}
	return h
}

// enter begins a scope.
func (t *tracker) enter(sc *scope) {
	t.current = t.historyOf(sc)
	t.current.closedEvents = sc.closedEvents
}

// beganAnew tells whether the numbers are those of another connection: a process can end a connection and make one anew with
// the same socket (tcp_disconnect, net/ipv4/tcp.c).
func (r *kernelCounters) restartedSince(last *kernelCounters) bool {
	// A 32-bit number that wraps goes forward by less than half of its range.
	wentBack := func(now, last uint32) bool { return int32(now-last) < 0 }
	return r.bytesAcked < last.bytesAcked || r.bytesReceived < last.bytesReceived ||
		wentBack(r.segsOut, last.segsOut) || wentBack(r.segsIn, last.segsIn) || wentBack(r.retransSegs, last.retransSegs)
}

// identify returns what is the same for a socket in every pass, and for no other one; false if there is nothing.
func identify(s *netstat.Socket) (id uint64, ok bool) {
	const (
		netNSBits = 1<<31 - 1
		fromInode = 1 << 63 // no cookie is as high
	)
	if s.Has(netstat.FieldCookie) {
		return s.Cookie ^ s.NetNS&netNSBits<<32, true // before Linux 5.10 each network namespace has its own cookies
	}
	return s.Inode | fromInode, s.Inode != 0
}

func kernelCountersOf(s *netstat.Socket) kernelCounters {
	return kernelCounters{
		bytesAcked: s.TCP.BytesAcked, bytesReceived: s.TCP.BytesReceived,
		segsOut: s.TCP.SegsOut, segsIn: s.TCP.SegsIn, retransSegs: s.TCP.RetransSegs, drops: s.Drops,
	}
}

// since returns what the socket did since the pass before: all that it ever did, if it was made since; nothing, if its
// transport is read for the first time, as what was before the plugin read it is not its to count. Most sockets are idle.
func (t *tracker) update(s *netstat.Socket) (delta traffic, idle bool) {
	t.updated = nil
	if !s.Has(netstat.FieldTCPInfo) && !s.Has(netstat.FieldDrops) {
		return traffic{}, true
	}
	if before := t.current.sources[s.Transport]; before != netstat.SourceAuto && before != sourceOf(s) {
		t.resetBaseline(s.Transport)
	}
	id, ok := identify(s)
	if !ok {
		return traffic{}, true
	}
	now := kernelCountersOf(s)
	var last kernelCounters
	pass, closedEvents := t.passes[s.Transport], t.current.closedEvents && s.Transport == netstat.TransportTCP
	if t.updated = t.known.find(id); t.updated != nil {
		last, t.updated.pass, t.updated.closedEvents = t.updated.kernelCounters, pass, closedEvents
		if closedEvents && isOrphan(s) {
			t.updated = nil // what it belonged to stays
			return traffic{}, true
		}
		if now == last {
			return traffic{}, true
		}
		t.updated.kernelCounters = now
	} else {
		if closedEvents && t.current.baselined[s.Transport] && isOrphan(s) {
			return traffic{}, true
		}
		t.updated = t.known.add(reading{
			id: id, kernelCounters: now, pass: pass, transport: s.Transport, history: t.current.number, closedEvents: closedEvents, port: s.Remote.Port(),
		})
		if !t.current.baselined[s.Transport] {
			return traffic{}, true
		}
		if closedEvents && s.State != netstat.TCPListen {
			delta.opened = 1
		}
	}
	delta.setDifference(&now, last, s.Transport)
	return delta, false
}

// startAnew restarts a transport whose source has changed: the new source identifies sockets otherwise, so its first pass is only a
// baseline.
func (t *tracker) resetBaseline(transport netstat.Transport) {
	t.current.baselined[transport], t.current.sources[transport] = false, netstat.SourceAuto
}

// isOrphan tells whether the process has closed the connection, which is not finished: whose it was is told when it is destroyed.
// What it did counts then.
func isOrphan(s *netstat.Socket) bool {
	if s.Inode != 0 {
		return false
	}
	switch s.State {
	case netstat.TCPFinWait1, netstat.TCPFinWait2, netstat.TCPClosing, netstat.TCPLastAck:
		return true
	default:
		return false
	}
}

// grow sets what the kernel counts to the difference of what it told.
func (t *traffic) setDifference(now *kernelCounters, last kernelCounters, transport netstat.Transport) {
	if now.restartedSince(&last) {
		last = kernelCounters{}
	}
	// The 32-bit numbers wrap, and so do their differences.
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

// over returns what a destroyed socket did since it was seen last, and what is known of it from then, which is nil if it never
// was: then all of it is new, unless it can have been there before the plugin read anything.
func (t *tracker) updateClosed(s *netstat.Socket) (delta traffic, last *reading) {
	id, ok := identify(s)
	if !ok {
		return traffic{}, nil
	}
	last = t.known.find(id)
	wasClosed := last != nil && last.closed
	if last != nil {
		last.closed = true
	}
	now, before := kernelCountersOf(s), kernelCounters{}
	switch {
	case wasClosed, !s.HasPeer(): // or it was no connection
		return traffic{}, last
	case last != nil:
		before = last.kernelCounters
		now.drops = before.drops // nothing tells them
	case t.current.baselined[netstat.TransportTCP]:
		delta.opened = 1
	default:
		return traffic{}, nil
	}
	delta.closed = 1
	delta.setDifference(&now, before, netstat.TransportTCP)
	return delta, last
}

const (
	// missedPasses is how often a socket can be missing before it is taken for closed. A dump can miss a socket while the table
	// changes, and counting it anew would count its past. One pass has to be allowed for; that two dumps in a row miss the same
	// socket is unlikely, and the second pass is a margin that nothing relies on.
	maxMissedPasses = 2
	// mostGone bounds the sockets that are remembered until the kernel tells that it has destroyed them, which it does of one
	// that was reset when its process closes it. The kernel may have told, and had no room for that.
	maxUnreported = 1 << 16
)

// end ends a pass. The sockets of protocols that could not be read everywhere are remembered, seen or not: they may be there
// still.
func (t *tracker) end(all *scopes, keep func(*reading)) {
	t.firstPassDone, t.updated = true, nil
	before := t.histories
	t.histories = make(map[uint64]*history, len(all.all)) // of namespaces that are gone nothing is kept
	exists := map[uint32]bool{}
	for _, sc := range all.all {
		if h := before[sc.namespace.ID]; h != nil {
			t.histories[sc.namespace.ID] = h
		}
		h := t.historyOf(sc)
		exists[h.number] = true
		for transport := range sc.read {
			h.baselined[transport], h.sources[transport] = true, sc.sources[transport]
		}
	}
	var allRead [len(t.passes)]bool
	for transport := range all.common().read {
		allRead[transport] = true
	}
	isMissing := func(r *reading) bool { return allRead[r.transport] && t.passes[r.transport]-r.pass > maxMissedPasses }
	excess := -maxUnreported
	for i := range t.known.all {
		if r := &t.known.all[i]; r.closedEvents && !r.closed && exists[r.history] && isMissing(r) {
			excess++
		}
	}
	t.known.keep(func(r *reading) bool {
		if r.closed {
			return false
		}
		if isMissing(r) {
			if !r.closedEvents || !exists[r.history] {
				return false
			}
			if excess > 0 {
				excess--
				return false
			}
		}
		keep(r)
		return true
	})
	for transport, read := range allRead {
		if read {
			t.passes[transport]++
		}
	}
}

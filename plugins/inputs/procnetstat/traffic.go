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

// tracker computes the traffic since the previous pass from the counters that the kernel keeps for each socket. It remembers the
// counters of every socket by its identity.
type tracker struct {
	readings     readings
	passes       [netstat.TransportUnix + 1]uint32 // number of passes that read all sockets of the transport
	histories    map[uint64]*history               // by Namespace.ID
	historyCount uint32
	current      *history // of the namespace that is being read
	updated      *reading // of the last call of update; nil: not tracked, or its attribution must not change
	// countNewNamespaces: a namespace that appears after the first pass is new, so the whole traffic of its sockets counts.
	countNewNamespaces bool
	firstPassDone      bool
}

// history is the state of a network namespace across passes.
type history struct {
	number       uint32
	closedEvents bool                            // the kernel reports the sockets that it destroys there
	sources      sources                         // of the previous pass
	baselined    [netstat.TransportUnix + 1]bool // all sockets of the transport were read once from the current source
}

// sources are the sources of the tables of each transport; SourceAuto: not read yet.
type sources [netstat.TransportUnix + 1]netstat.Source

// sourceOf returns the source that a socket was read from.
func sourceOf(s *netstat.Socket) netstat.Source {
	if s.Has(netstat.FieldCookie) {
		return netstat.SourceNetlink
	}
	return netstat.SourceProcfs
}

// historyOf returns the history of a scope.
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

// enter starts a scope.
func (t *tracker) enter(sc *scope) {
	t.current = t.historyOf(sc)
	t.current.closedEvents = sc.closedEvents
}

// restartedSince reports whether the counters are those of another connection than last: a process can disconnect a socket and
// connect it again (tcp_disconnect, net/ipv4/tcp.c).
func (r *kernelCounters) restartedSince(last *kernelCounters) bool {
	// A 32-bit counter that wraps increases by less than half of its range.
	wentBack := func(now, last uint32) bool { return int32(now-last) < 0 }
	return r.bytesAcked < last.bytesAcked || r.bytesReceived < last.bytesReceived ||
		wentBack(r.segsOut, last.segsOut) || wentBack(r.segsIn, last.segsIn) || wentBack(r.retransSegs, last.retransSegs)
}

// identify returns an ID that is unique to the socket and the same in every pass; false if there is none.
func identify(s *netstat.Socket) (id uint64, ok bool) {
	const (
		netNSBits = 1<<31 - 1
		fromInode = 1 << 63 // no cookie has this bit
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

// update records the counters of the socket and returns the traffic since the previous pass. For a socket created since then this
// is all of its traffic; in the first pass over a transport it is zero, as traffic before the plugin started does not count. Most
// sockets are idle.
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
	if t.updated = t.readings.find(id); t.updated != nil {
		last, t.updated.pass, t.updated.closedEvents = t.updated.kernelCounters, pass, closedEvents
		if closedEvents && isOrphan(s) {
			t.updated = nil // keep its attribution
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
		t.updated = t.readings.add(reading{
			id: id, kernelCounters: now, pass: pass, transport: s.Transport, history: t.current.number,
			closedEvents: closedEvents, port: s.Remote.Port(),
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

// resetBaseline resets a transport whose source has changed: the new source identifies sockets differently, so its first pass is
// only a baseline.
func (t *tracker) resetBaseline(transport netstat.Transport) {
	t.current.baselined[transport], t.current.sources[transport] = false, netstat.SourceAuto
}

// isOrphan reports whether the process has closed the connection and the kernel is still finishing it. Its traffic counts when it
// is destroyed.
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

// updateClosed returns the traffic of a destroyed socket since it was last seen, and its reading from then; nil: never seen. Then
// all of its traffic counts, unless the socket can be older than the first pass.
func (t *tracker) updateClosed(s *netstat.Socket) (delta traffic, last *reading) {
	id, ok := identify(s)
	if !ok {
		return traffic{}, nil
	}
	last = t.readings.find(id)
	wasClosed := last != nil && last.closed
	if last != nil {
		last.closed = true
	}
	now, before := kernelCountersOf(s), kernelCounters{}
	switch {
	case wasClosed, !s.HasPeer(): // reported before, or not a connection
		return traffic{}, last
	case last != nil:
		before = last.kernelCounters
		now.drops = before.drops // the event does not carry drops
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
	// maxMissedPasses is how many passes can miss a socket before it is considered closed. A dump can miss a socket while the
	// table changes; if the socket were forgotten, its past traffic would count again. One pass is required. The second is a
	// margin: two dumps in a row are unlikely to miss the same socket.
	maxMissedPasses = 2
	// maxUnreported bounds the missing sockets that are remembered until the kernel reports their destruction. For a connection
	// that was reset, this is when its process closes it. The event can have been lost (no buffer space).
	maxUnreported = 1 << 16
)

// end ends a pass. It removes the sockets that are gone and calls keep for the others. Sockets of protocols that were not read in
// every namespace are all kept: they may still exist.
func (t *tracker) end(all *scopes, keep func(*reading)) {
	t.firstPassDone, t.updated = true, nil
	before := t.histories
	t.histories = make(map[uint64]*history, len(all.all)) // drops namespaces that no longer exist
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
	for i := range t.readings.all {
		if r := &t.readings.all[i]; r.closedEvents && !r.closed && exists[r.history] && isMissing(r) {
			excess++
		}
	}
	t.readings.keep(func(r *reading) bool {
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

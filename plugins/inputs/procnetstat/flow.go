//go:build linux

package procnetstat

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/procnetstat/procnetstat/netstat"
)

// flow is what is known of a TCP connection: what it belongs to, which is decided when it is first seen, and its counters when it
// was last seen. Other sockets with counters have a flow too.
type flow struct {
	id uint64 // see flows.identify
	kernelCounters
	belonging uint32 // an index, see belongings
	ports     uint32 // an index, see localPorts; 0: not an outgoing connection
	pass      uint32 // the last one that saw it: see history.passes
	scan      uint32 // the same: see flows.scan
	history   uint32 // history.number of its namespace
	// Of an outgoing connection: the number of the attempt that was seen last, and of the one that was seen before it in SYN_SENT.
	attempt, before uint32
	// The segments that were counted of attempt and of before.
	synRetrans, beforeSynRetrans uint16
	port                         uint16 // of the peer
	transport                    netstat.Transport
	flags                        flowFlags
}

type flowFlags uint8

const (
	flowCounted      flowFlags = 1 << iota // the kernel's counters are those of the last pass that saw it
	flowDecided                            // its belonging says whether a listener accepted it
	flowUnexplained                        // no process has initiated it, and no listener is known that accepted it
	flowClosedEvents                       // the kernel reports when it is destroyed
	flowClosed                             // the kernel has reported it
	flowConnecting                         // it was in SYN_SENT when it was seen last
	flowFailed                             // the attempt has failed; the socket can connect again
	flowEnded                              // it was reset or timed out, but the kernel has not destroyed the socket
)

func (f *flow) has(flags flowFlags) bool { return f.flags&flags == flags }

// flows remembers the flow of every socket, and computes the traffic since the previous pass from the counters that the kernel
// keeps. Live and destroyed sockets both pass through it.
type flows struct {
	table        flowTable
	belongings   belongings
	localPorts   localPorts
	scan         uint32              // number of passes
	histories    map[uint64]*history // by Namespace.ID
	historyCount uint32
	current      *history // of the namespace that is being read
	seed         maphash.Seed
	// countNewNamespaces: a namespace that appears after the first pass is new, so the whole traffic of its sockets counts.
	countNewNamespaces bool
	firstPassDone      bool
	countsTraffic      bool // of connections
	countsLifecycle    bool
	countsConnects     bool
	attemptOf          func(*netstat.Socket) (netstat.Attempt, bool)
	// connectTime is the observation.connectTime of the socket that was recorded last.
	connectTime uint32
	stall       *stall // of the last socket that live or destroyed has recorded; nil: without the set stalls
	idleAfter   uint32 // milliseconds
}

func newFlows(details detail) flows {
	t := flows{
		seed: maphash.MakeSeed(), belongings: newBelongings(), localPorts: newLocalPorts(),
		countsTraffic:   details&(detailTraffic|detailStalls) != 0, // by them it shows that a socket has been connected again
		countsLifecycle: details&detailLifecycle != 0,
		countsConnects:  details&detailConnects != 0,
		attemptOf:       (*netstat.Socket).Attempt,
	}
	if details&detailStalls != 0 {
		t.stall, t.table.hasStalls = new(stall), true
	}
	return t
}

// history is the state of a network namespace across passes.
type history struct {
	number       uint32
	closedEvents bool                              // the kernel reports the sockets that it destroys there
	passes       [netstat.TransportUnix + 1]uint32 // number of passes that read all sockets of the transport
	read         protocolSet                       // whose sockets this pass has read
	sources      sources                           // of the previous pass
	baselined    [netstat.TransportUnix + 1]bool   // all sockets of the transport were read once from the current source
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
func (t *flows) historyOf(sc *scope) *history {
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
func (t *flows) enter(sc *scope) {
	t.current = t.historyOf(sc)
	t.current.closedEvents = sc.closedEvents
}

// The highest bits of an ID. No cookie has them.
const (
	idOfInode     = 1 << 63
	idOfAddresses = 3 << 62
)

// identify returns an ID that is unique to the socket and the same in every pass, or 0 if there is none. It is the cookie, which a
// connection keeps from SYN_RECV to TIME_WAIT. Without a cookie (procfs), it is the inode number; a connection has none in these
// states, and is identified by its addresses instead.
func (t *flows) identify(s *netstat.Socket) uint64 {
	const netNSBits = 1<<31 - 1
	switch {
	case s.Has(netstat.FieldCookie) && s.Cookie != 0:
		return s.Cookie ^ s.NetNS&netNSBits<<32 // before Linux 5.10 each network namespace has its own cookies
	case isConnection(s):
		return t.hash(s) | idOfAddresses
	case s.Inode != 0:
		return s.Inode | idOfInode
	default:
		return 0
	}
}

// hash returns a hash of the addresses of a connection in the current namespace.
func (t *flows) hash(s *netstat.Socket) uint64 {
	var key [2*16 + 2*2 + 4]byte
	local, remote := s.Local.Addr().As16(), s.Remote.Addr().As16()
	copy(key[:], local[:])
	copy(key[16:], remote[:])
	binary.LittleEndian.PutUint16(key[32:], s.Local.Port())
	binary.LittleEndian.PutUint16(key[34:], s.Remote.Port())
	binary.LittleEndian.PutUint32(key[36:], t.current.number)
	return maphash.Bytes(t.seed, key[:])
}

// isConnection reports whether the socket is a TCP connection, established or not.
func isConnection(s *netstat.Socket) bool {
	return s.Transport == netstat.TransportTCP && s.State != netstat.TCPListen && s.HasPeer()
}

// isFullConnection reports whether the socket is a connection whose end the kernel can report. It does not report the end of a
// connection that is not established yet. It has reported that of a TIME_WAIT entry, whose state can be FIN_WAIT2 too.
func (t *flows) isFullConnection(s *netstat.Socket) bool {
	switch s.State {
	case netstat.TCPTimeWait, netstat.TCPSynRecv, netstat.TCPNewSynRecv:
		return false
	case netstat.TCPFinWait2:
		if s.Inode == 0 {
			return false
		}
	}
	return isConnection(s)
}

// live records a live socket. It returns its flow, or nil if there is nothing to remember; the pointer is valid until the next
// call. Unless the socket is idle, it sets delta to the traffic since the previous pass.
func (t *flows) live(s *netstat.Socket, delta *traffic) (f *flow, idle bool) {
	if t.stall != nil {
		t.stall.begin(s, t.idleAfter)
	}
	hasCounters := s.Having(netstat.FieldTCPInfo|netstat.FieldDrops) != 0 || (t.countsLifecycle || t.countsConnects) && t.isFullConnection(s)
	t.connectTime = 0
	if !hasCounters && !isConnection(s) {
		return nil, true
	}
	if before := t.current.sources[s.Transport]; before != netstat.SourceAuto && before != sourceOf(s) {
		t.resetBaseline(s.Transport)
	}
	id := t.identify(s)
	if id == 0 {
		return nil, true
	}
	if f = t.table.find(id); f == nil {
		f = t.table.add(flow{id: id, transport: s.Transport, history: t.current.number, port: s.Remote.Port()})
	}
	if f.has(flowFailed) && t.isFullConnection(s) {
		f.reopen()
	}
	f.pass, f.scan = t.current.passes[s.Transport], t.scan
	isNew, before := !f.has(flowCounted), f.kernelCounters
	idle = !hasCounters || t.count(f, s, delta)
	if t.mustConnect(f, s, isNew, !idle && f.restartedSince(&before)) {
		idle = !t.connect(f, s, delta, idle)
	}
	return f, idle
}

// count updates the counters of the flow, and sets delta to their increase, unless it is idle. For a socket created since the
// previous pass the increase is all of its traffic; in the first pass over a transport it is zero, as traffic before the plugin
// started does not count. Most sockets are idle.
func (t *flows) count(f *flow, s *netstat.Socket, delta *traffic) (idle bool) {
	closedEvents := t.current.closedEvents && s.Transport == netstat.TransportTCP
	countedLater := closedEvents && isOrphan(s) // when it is destroyed
	isFirst := !f.has(flowCounted)
	if isFirst && countedLater && t.current.baselined[s.Transport] {
		return true
	}
	if f.flags = f.flags&^flowClosedEvents | flowCounted; closedEvents {
		f.flags |= flowClosedEvents
	}
	if !isFirst && countedLater {
		return true
	}
	now := t.countersOf(s)
	if t.stall != nil {
		t.countStalls(f, s, &now, isFirst)
	}
	if !isFirst && now == f.kernelCounters {
		return true
	}
	last := f.kernelCounters
	f.kernelCounters = now
	*delta = traffic{}
	if isFirst {
		f.port = s.Remote.Port()
		if !t.current.baselined[s.Transport] {
			return true
		}
		if closedEvents && s.State != netstat.TCPListen {
			delta[countOpened] = 1
		}
	}
	delta.setDifference(&now, last, s.Transport)
	return false
}

// resetBaseline resets a transport whose source has changed: the new source identifies sockets differently, so its first pass is
// only a baseline.
func (t *flows) resetBaseline(transport netstat.Transport) {
	t.current.baselined[transport], t.current.sources[transport] = false, netstat.SourceAuto
}

// isOrphan reports whether the process has closed the connection and the kernel is still finishing it.
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

// destroyed records the event of a destroyed socket. It returns the flow, or nil if no pass saw the socket, and the traffic since
// it was last seen. If it was never seen, all of its traffic counts, unless the socket can be older than the first pass.
func (t *flows) destroyed(s *netstat.Socket) (f *flow, delta traffic) {
	t.beginEnd()
	f = t.table.find(t.identify(s))
	wasClosed := f != nil && f.has(flowClosed)
	if f != nil {
		f.flags |= flowClosed
	}
	now, before := t.countersOf(s), kernelCounters{}
	hasEnded := f != nil && f.has(flowEnded) // then its end has been counted
	switch {
	case wasClosed, !s.HasPeer(): // reported before, or not a connection
		return f, traffic{}
	case f != nil && f.has(flowCounted) && !f.has(flowFailed):
		before = f.kernelCounters
		now.drops = before.drops // the event does not carry drops
	case t.current.baselined[netstat.TransportTCP]:
		delta[countOpened] = 1
	default:
		return f, traffic{}
	}
	if t.stall != nil {
		t.countLastStalls(f, s, &now, &before)
	}
	delta.setDifference(&now, before, netstat.TransportTCP)
	if !hasEnded {
		delta[countClosed] = 1
		t.endConnect(f, s, &delta)
	}
	return f, delta
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

// end ends a pass. It removes the flows of sockets that are gone. Sockets of a protocol that was not read in their namespace are
// kept: they may still exist.
func (t *flows) end(all *scopes) {
	t.firstPassDone = true
	before := t.histories
	t.histories = make(map[uint64]*history, len(all.all)) // drops namespaces that no longer exist
	byNumber := make(map[uint32]*history, len(all.all))
	for _, sc := range all.all {
		if h := before[sc.namespace.ID]; h != nil {
			t.histories[sc.namespace.ID] = h
		}
		h := t.historyOf(sc)
		h.read = sc.read
		byNumber[h.number] = h
		for transport := range sc.read {
			h.baselined[transport], h.sources[transport] = true, sc.sources[transport]
		}
	}
	isMissing := func(f *flow) bool {
		if h := byNumber[f.history]; h != nil {
			return h.read[f.transport] && h.passes[f.transport]-f.pass > maxMissedPasses
		}
		return t.scan-f.scan > maxMissedPasses
	}
	isAwaited := func(f *flow) bool { return f.has(flowClosedEvents) && byNumber[f.history] != nil } // its event may still come
	excess := -maxUnreported
	for i := range t.table.all {
		if f := &t.table.all[i]; !f.isOver() && isMissing(f) && isAwaited(f) {
			excess++
		}
	}
	t.belongings.beginSweep()
	t.table.keep(func(f *flow) bool {
		isGone := false
		switch {
		case f.isOver():
			isGone = f.scan != t.scan // else its TIME_WAIT entry remains
		case !isMissing(f):
		case !isAwaited(f):
			isGone = true
		case excess > 0:
			excess--
			isGone = true
		}
		if isGone {
			t.localPorts.remove(f.ports)
			return false
		}
		if f.ports != 0 && f.scan != t.scan {
			t.localPorts.all[f.ports].missing++
		}
		t.belongings.keep(f.belonging)
		return true
	})
	t.localPorts.shrink(t.table.all)
	most := t.localPorts.most()
	for _, sc := range all.all {
		sc.localPortsUsed = most[sc.namespace.ID]
	}
	t.belongings.endSweep()
	for _, sc := range all.all {
		for transport := range sc.read {
			t.histories[sc.namespace.ID].passes[transport]++
		}
	}
	t.scan++
}

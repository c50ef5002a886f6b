//go:build linux

package procnetstat

import (
	"math"
	"net/netip"

	"github.com/procnetstat/procnetstat/netstat"
)

// A socket can connect again after an attempt has failed. Each attempt counts as a connection that is opened and, when it fails, closed.
// Live sockets are seen before the failed attempts of a pass, so a live one can be at its next attempt already: the numbers of the
// attempts tell them apart.

// counterOf are the counters of outcomes.
var counterOf = map[netstat.Outcome]int{
	netstat.OutcomeReset:              countClosedReset,
	netstat.OutcomeTimedOut:           countClosedTimedOut,
	netstat.OutcomeConnectRefused:     countConnectRefused,
	netstat.OutcomeConnectTimedOut:    countConnectTimedOut,
	netstat.OutcomeConnectUnreachable: countConnectUnreachable,
	netstat.OutcomeConnectNoPort:      countConnectNoPort,
	netstat.OutcomeConnectAborted:     countConnectAborted,
}

func (t *traffic) countOutcome(outcome netstat.Outcome) {
	if counter, counts := counterOf[outcome]; counts {
		t[counter] = 1
	}
}

// isOver reports whether the end of the connection has been reported.
func (f *flow) isOver() bool { return f.flags&(flowClosed|flowFailed) != 0 }

// reopen begins a new attempt of a socket whose attempt has failed.
func (f *flow) reopen() {
	f.flags &^= flowFailed | flowCounted | flowConnecting
	f.kernelCounters, f.attempt, f.before, f.synRetrans = kernelCounters{}, 0, 0, 0
}

// mustConnect reports whether connect must be called for a live socket. restarted: its counters are those of another connection than
// before.
func (t *flows) mustConnect(f *flow, s *netstat.Socket, isNew, restarted bool) bool {
	if !t.countsConnects && !t.countsLifecycle || s.Transport != netstat.TransportTCP {
		return false
	}
	if isNew && f.has(flowCounted) && t.current.baselined[netstat.TransportTCP] { // else it can have been established long ago
		return true
	}
	return s.State == netstat.TCPSynSent || f.has(flowConnecting) || f.attempt != 0 && (restarted || f.port != s.Remote.Port())
}

// connect records the attempt of a live connection that has not been seen established before. It adds to delta, or sets it if the
// connection is idle, and reports whether there is any change.
func (t *flows) connect(f *flow, s *netstat.Socket, delta *traffic, idle bool) (changed bool) {
	if idle {
		*delta = traffic{}
	}
	attempt, isKnown := t.attemptOf(s)
	if isKnown && attempt.Number != f.attempt {
		if f.attempt != 0 { // it was counted when it was seen
			f.before, f.beforeSynRetrans, f.synRetrans = f.attempt, f.synRetrans, 0
			delta[countOpened]++
			if !f.has(flowConnecting) { // it was established, and the process has disconnected it
				delta[countClosed]++
			}
		}
		f.attempt = attempt.Number
	}
	retrans := uint32(f.synRetrans)
	if s.State == netstat.TCPSynSent {
		f.flags |= flowConnecting
		retrans = s.TCP.RetransSegs
	} else {
		f.flags &^= flowConnecting
		if isKnown {
			retrans = attempt.SynRetrans
			t.connectTime = microseconds(attempt)
		}
	}
	t.countSynRetrans(f, retrans, delta)
	return *delta != traffic{} || t.connectTime > 0
}

// countSynRetrans counts those of an attempt that have not been counted. In the first pass it counts nothing.
func (t *flows) countSynRetrans(f *flow, retrans uint32, delta *traffic) {
	now := uint16(min(retrans, math.MaxUint16))
	if now <= f.synRetrans {
		return
	}
	if t.current.baselined[netstat.TransportTCP] {
		delta[countSynRetrans] += int64(now - f.synRetrans)
	}
	f.synRetrans = now
}

func microseconds(a netstat.Attempt) uint32 {
	return uint32(min(a.ConnectTime.Microseconds(), math.MaxUint32))
}

// endConnect adds the attempt of a connection that the kernel has destroyed, unless a pass has seen it established, and its outcome.
func (t *flows) endConnect(f *flow, s *netstat.Socket, delta *traffic) {
	delta.countOutcome(s.Outcome)
	if f == nil || !f.has(flowCounted) || f.has(flowFailed) {
		f = &flow{}
	} else if !f.has(flowConnecting) {
		return
	}
	f.flags &^= flowConnecting
	attempt, isKnown := t.attemptOf(s)
	switch {
	case isKnown:
		if attempt.Number != f.attempt {
			f.synRetrans = 0
		}
		t.connectTime = microseconds(attempt)
		t.countSynRetrans(f, attempt.SynRetrans, delta)
	case f.has(flowCounted) && s.TCP.BytesAcked == 0: // it was never established; nothing records attempts
		t.countSynRetrans(f, s.TCP.RetransSegs, delta)
	}
}

// beginEnd resets what is known of the socket that was recorded last.
func (t *flows) beginEnd() {
	t.connectTime = 0
	if t.stall != nil {
		*t.stall = stall{}
	}
}

// failed records a failed attempt. It returns the flow of the socket, or nil if no pass saw the attempt, and what it adds.
func (t *flows) failed(s *netstat.Socket) (f *flow, delta traffic) {
	t.beginEnd()
	f = t.table.find(t.identify(s))
	attempt, _ := t.attemptOf(s)
	before, counted := &flow{}, false // what has been counted of the attempt
	if f != nil && f.has(flowCounted) && !f.has(flowFailed) {
		switch {
		case attempt.Number == f.attempt, attempt.Number == 0, f.attempt == 0 && f.has(flowConnecting):
			before, counted = f, true
			f.flags = f.flags&^flowConnecting | flowFailed
		case attempt.Number == f.before:
			counted = true
			before.synRetrans = f.beforeSynRetrans
			before.segsOut, before.retransSegs = 1+uint32(f.beforeSynRetrans), uint32(f.beforeSynRetrans)
		}
	}
	switch {
	case counted:
	case t.current.baselined[netstat.TransportTCP]:
		delta[countOpened] = 1
	default:
		return f, traffic{}
	}
	delta[countClosed] = 1
	delta.countOutcome(s.Outcome)
	now := t.countersOf(s)
	now.drops = before.drops
	delta.setDifference(&now, before.kernelCounters, netstat.TransportTCP)
	t.countSynRetrans(before, attempt.SynRetrans, &delta)
	return f, delta
}

// ended records a connection that was reset or timed out while its process still holds the socket. It returns the flow and what it
// adds.
func (t *flows) ended(s *netstat.Socket) (f *flow, delta traffic) {
	t.beginEnd()
	id := t.identify(s)
	f = t.table.find(id)
	switch {
	case f != nil && f.has(flowCounted) && !f.has(flowFailed):
	case t.current.baselined[netstat.TransportTCP]:
		if f == nil {
			f = t.table.add(flow{id: id, transport: s.Transport, history: t.current.number, port: s.Remote.Port()})
		} else {
			f.reopen()
		}
		attempt, _ := t.attemptOf(s)
		f.attempt = attempt.Number
		delta[countOpened] = 1
	default:
		return f, traffic{}
	}
	delta[countClosed] = 1
	t.endConnect(f, s, &delta)
	f.flags |= flowCounted | flowEnded | flowClosedEvents
	f.pass, f.scan = t.current.passes[s.Transport], t.scan
	return f, delta
}

// countLost counts a new outgoing connection whose attempt is not known although attempts are recorded.
func (p *pass) countLost(o *observation, attemptKnown bool) {
	isNew := !o.idle && o.delta[countOpened] > 0
	if isNew && !attemptKnown && o.listener == nil && p.flows.countsConnects && p.scope.connects && o.State != netstat.TCPSynSent {
		p.attemptsLost++
	}
}

// observeClosed is observe for a connection that has ended, or an attempt that has failed. If no pass has seen it, it belongs to the
// process that initiated it, else to the listener at its local address. Owners of other connections to the same peer are no evidence.
func (p *pass) observeClosed(o *observation) {
	s := o.Socket
	var f *flow
	switch {
	case s.Outcome.IsFailedConnect():
		f, o.delta = p.flows.failed(s)
	case !s.Closed:
		f, o.delta = p.flows.ended(s)
		s.Closed = true // for the measurements
	default:
		f, o.delta = p.flows.destroyed(s)
	}
	o.idle, o.connectTime = false, p.flows.connectTime
	if !s.HasPeer() {
		if s.Local.Port() != 0 {
			p.listeners.observeEnd(s)
		}
		return
	}
	if f == nil || !f.has(flowDecided) {
		for _, process := range s.Owners() {
			p.holders = append(p.holders, p.owners.of(process))
		}
		o.holders = p.holders
		_, isOutgoing := p.flows.attemptOf(s)
		if len(o.holders) == 0 && !isOutgoing && !s.Outcome.IsFailedConnect() {
			o.listener = p.listeners.findForClosed(s)
		}
		if f != nil && !f.has(flowEnded) {
			f = nil
		}
		if f == nil { // else attribute counts it
			p.countLost(o, isOutgoing)
		}
	} else {
		if s.Remote.Port() == 0 {
			s.Remote = netip.AddrPortFrom(s.Remote.Addr(), f.port) // a refused or aborted connection has lost its peer port
		}
		o.listener = p.flows.belongings.get(f.belonging).listener
		if f.has(flowUnexplained) {
			p.explain(o, f, p.listeners.findForClosed(s))
		}
	}
	p.attribute(o, f)
	o.holders = nil // the initiator need not hold anything
	o.wanted = o.delta != (traffic{}) && p.wants(o)
}

//go:build linux

package procnetstat

import (
	"container/list"
	"net/netip"
	"time"
)

// endedListeners remembers listeners that have ended, for connections that they accepted and that the kernel reports later. The
// kernel reports destroyed sockets from a work queue (sock_diag_broadcast_destroy, net/core/sock_diag.c): late on a busy host,
// and across CPUs in any order. For the same reason a listener that the previous pass saw may have ended without being reported
// yet.
type endedListeners struct {
	pass       uint64
	now        time.Time
	live       map[endpoint]*listener       // seen by this pass
	lastPass   map[endpoint]*formerListener // seen by the previous pass
	byEndpoint map[endpoint]*list.Element   // ended
	byAge      list.List                    // of *endedListener, oldest first
}

// endpoint is an address and port in a network namespace.
type endpoint struct {
	namespace uint64     // Namespace.ID
	addr      netip.Addr // IPv4-mapped addresses are unmapped
	port      uint16
}

type endedListener struct {
	endpoint
	listener *formerListener
	pass     uint64 // the last pass that noticed its end or had it reported
	endedAt  time.Time
}

// An ended listener is removed when both limits are exceeded: the work queue can be seconds late, and the next gather can be even
// later.
const (
	minEndedPasses = 3
	minEndedTime   = 10 * time.Second
	// maxEnded bounds the ended listeners of all namespaces together; beyond it the oldest are removed.
	maxEnded = 4096
)

// begin starts a pass.
func (e *endedListeners) begin(now time.Time) {
	e.pass++
	e.now = now
	e.live = map[endpoint]*listener{}
	for oldest := e.byAge.Front(); oldest != nil && e.isExpired(oldest); oldest = e.byAge.Front() {
		e.forget(oldest)
	}
}

func (e *endedListeners) isExpired(element *list.Element) bool {
	ended := endedOf(element)
	return e.pass-ended.pass > minEndedPasses && e.now.Sub(ended.endedAt) > minEndedTime
}

func (e *endedListeners) forget(element *list.Element) {
	e.byAge.Remove(element)
	delete(e.byEndpoint, endedOf(element).endpoint)
}

func endedOf(element *list.Element) *endedListener {
	return element.Value.(*endedListener) //nolint:forcetypeassert // byAge holds nothing else
}

// observe adds a listener of this pass. It may get more owners until the end of the pass.
func (e *endedListeners) observe(namespace uint64, l *listener) {
	e.live[endpoint{namespace, l.addr, l.port}] = l
}

// end ends a pass. A listener that the previous pass saw and this one did not has ended.
func (e *endedListeners) end() {
	for at, former := range e.lastPass {
		if e.live[at] == nil {
			e.add(at.namespace, former)
		}
	}
	e.lastPass = make(map[endpoint]*formerListener, len(e.live))
	for at, l := range e.live {
		e.lastPass[at] = newFormerListener(l)
	}
	e.live = nil // owners are valid in one pass only
}

// add remembers a listener that has ended. A listener without owners, which no pass saw, does not replace one with owners.
func (e *endedListeners) add(namespace uint64, former *formerListener) {
	at := endpoint{namespace, former.addr, former.port}
	if element, known := e.byEndpoint[at]; known {
		ended := endedOf(element)
		if len(former.owners) > 0 || len(ended.listener.owners) == 0 {
			ended.listener = former
		}
		ended.pass, ended.endedAt = e.pass, e.now
		e.byAge.MoveToBack(element)
		return
	}
	if e.byEndpoint == nil {
		e.byEndpoint = map[endpoint]*list.Element{}
	}
	if len(e.byEndpoint) == maxEnded {
		e.forget(e.byAge.Front())
	}
	e.byEndpoint[at] = e.byAge.PushBack(&endedListener{at, former, e.pass, e.now})
}

// find returns the ended listener that accepts connections to the local address, or nil.
func (e *endedListeners) find(namespace uint64, local netip.AddrPort) *formerListener {
	addrs, n := listenAddrs(local.Addr())
	for _, addr := range addrs[:n] {
		at := endpoint{namespace, addr, local.Port()}
		if former := e.lastPass[at]; former != nil {
			return former
		}
		if element, known := e.byEndpoint[at]; known {
			return endedOf(element).listener
		}
	}
	return nil
}

//go:build linux

package procnetstat

import (
	"container/list"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// endpoint is where a listener listens.
type endpoint struct {
	namespace uint64 // Namespace.ID
	transport netstat.Transport
	device    uint32     // the index of the device that it is bound to; 0: any
	addr      netip.Addr // IPv4-mapped addresses are unmapped
	port      uint16
}

func endpointOf(s *netstat.Socket) endpoint {
	return endpoint{s.Namespace.ID, s.Transport, s.Interface, s.Local.Addr().Unmap(), s.Local.Port()}
}

// listener is an endpoint with listening TCP sockets, or with UDP sockets that have no peer. Several sockets can share it
// (SO_REUSEPORT). It stays the same from pass to pass. Connections that it accepted keep it, also after it is forgotten.
type listener struct {
	endpoint
	holders, previous []*owner          // processes that hold its sockets, in the last pass that saw one and in the one before
	isHolder          map[*owner]bool   // of holders, if there are many
	accepting         map[*owner]uint64 // holders that have held connections that it accepted, and the pass that first saw it
	acceptingKnown    bool              // an earlier pass saw one
	cgroup            *cgroupEntry      // of its first socket; nil: not known
	pass              uint64            // the last one that saw one of its sockets
	endedIn           uint64            // the last pass that had the end of one of its sockets reported
	touched           time.Time         // when that or its end was last noticed
	ended             *list.Element     // in listeners.ended; nil: it listens, or did in the last pass
	series            listenerSeries    // in procnetstat_listener

	representative     *owner // see pass.representativeOf
	representativePass uint64 // for which it was chosen
	ambiguousPass      uint64 // in which it was found that it must wait: see pass.isAmbiguous
}

// listens reports whether a socket listens there, as far as the current pass knows.
func (l *listener) listens(pass uint64) bool { return l.pass == pass }

// listeners keeps the listeners of all namespaces, and remembers those that have ended for the connections that they accepted and
// that are seen, or reported as closed, after that. The kernel reports destroyed sockets from a work queue
// (sock_diag_broadcast_destroy, net/core/sock_diag.c): late on a busy host, and across CPUs in any order.
type listeners struct {
	pass       uint64
	now        time.Time
	byEndpoint map[endpoint]*listener
	ports      map[portKey]*portUse
	ended      list.List // of *listener, the one that ended first first
}

type portKey struct {
	namespace uint64
	transport netstat.Transport
	port      uint16
}

// portUse counts the listeners of a port. The local ports of most outgoing connections have none: one lookup is enough for these.
type portUse struct {
	listeners int
	devices   []uint32 // to which they are bound; the first ones, if there are many
}

func (e *endpoint) portKey() portKey { return portKey{e.namespace, e.transport, e.port} }

// An ended listener is removed when both limits are exceeded: the work queue can be seconds late, and the next gather can be even
// later.
const (
	minEndedPasses = 3
	minEndedTime   = 10 * time.Second
	// maxEnded bounds the ended listeners of all namespaces together; beyond it the oldest are removed.
	maxEnded = 4096
)

func newListeners() listeners {
	return listeners{byEndpoint: map[endpoint]*listener{}, ports: map[portKey]*portUse{}}
}

// begin starts a pass.
func (t *listeners) begin(now time.Time) {
	t.pass++
	t.now = now
	for oldest := t.ended.Front(); oldest != nil && t.isExpired(listenerOf(oldest)); oldest = t.ended.Front() {
		t.forget(listenerOf(oldest))
	}
}

func (t *listeners) isExpired(l *listener) bool {
	return t.pass-max(l.pass, l.endedIn) > minEndedPasses && t.now.Sub(l.touched) > minEndedTime
}

func listenerOf(element *list.Element) *listener {
	return element.Value.(*listener) //nolint:forcetypeassert // ended holds nothing else
}

func (t *listeners) add(e endpoint) *listener {
	l := &listener{endpoint: e}
	t.byEndpoint[e] = l
	use := t.ports[e.portKey()]
	if use == nil {
		use = &portUse{}
		t.ports[e.portKey()] = use
	}
	use.listeners++
	const maxDevices = 64
	if len(use.devices) < maxDevices && !slices.Contains(use.devices, e.device) {
		use.devices = append(use.devices, e.device)
	}
	return l
}

func (t *listeners) forget(l *listener) {
	if l.ended != nil {
		t.ended.Remove(l.ended)
		l.ended = nil
	}
	delete(t.byEndpoint, l.endpoint)
	key := l.portKey()
	if use := t.ports[key]; use.listeners > 1 {
		use.listeners--
	} else {
		delete(t.ports, key)
	}
}

// observe adds a listening socket, and returns the listener that it is part of.
func (t *listeners) observe(s *netstat.Socket, holders []*owner, cgroup *cgroupEntry) *listener {
	e := endpointOf(s)
	l := t.byEndpoint[e]
	if l == nil {
		l = t.add(e)
	}
	if l.ended != nil {
		t.ended.Remove(l.ended)
		l.ended = nil
	}
	if l.pass != t.pass {
		l.pass, l.touched, l.cgroup = t.pass, t.now, cgroup
		l.previous, l.holders = l.holders, l.previous[:0]
		l.holders = append(l.holders, holders...)
		clear(l.isHolder)
		return l
	}
	for _, w := range holders {
		l.addHolder(w)
	}
	return l
}

// addHolder adds a holder unless it is known. A group of sockets can have many holders, each of which holds all of them.
func (l *listener) addHolder(w *owner) {
	const few = 16
	if len(l.holders) <= few {
		if !slices.Contains(l.holders, w) {
			l.holders = append(l.holders, w)
		}
		return
	}
	if l.isHolder == nil {
		l.isHolder = map[*owner]bool{}
	}
	if len(l.isHolder) == 0 {
		for _, known := range l.holders {
			l.isHolder[known] = true
		}
	}
	if !l.isHolder[w] {
		l.isHolder[w] = true
		l.holders = append(l.holders, w)
	}
}

// observeEnd records the event of a destroyed socket without a peer: it may have been listening.
func (t *listeners) observeEnd(s *netstat.Socket) {
	e := endpointOf(s)
	l := t.byEndpoint[e]
	if l == nil {
		l = t.add(e)
	}
	l.endedIn, l.touched = t.pass, t.now
	switch {
	case l.ended != nil:
		t.ended.MoveToBack(l.ended)
	case l.pass+1 < t.pass || l.pass == 0: // no pass has seen it listen lately
		t.end(l)
	}
}

func (t *listeners) end(l *listener) {
	if t.ended.Len() >= maxEnded {
		t.forget(listenerOf(t.ended.Front()))
	}
	l.ended = t.ended.PushBack(l)
}

// finish ends a pass. A listener of a table that was read has ended if this pass has not seen it.
func (t *listeners) finish(all *scopes) {
	unread := func(l *listener) bool {
		return slices.ContainsFunc(all.all, func(sc *scope) bool {
			return sc.namespace.ID == l.namespace && !sc.read[l.transport]
		})
	}
	var ended []*listener
	for _, l := range t.byEndpoint {
		switch {
		case l.pass == t.pass:
			l.forgetAccepting()
			l.acceptingKnown = len(l.accepting) > 0
		case l.ended != nil:
		case unread(l):
			l.pass = t.pass
		case l.transport != netstat.TransportTCP: // it has accepted nothing
			t.forget(l)
		default:
			ended = append(ended, l)
		}
	}
	for _, l := range ended {
		l.touched = t.now
		t.end(l)
	}
}

// forgetAccepting forgets which processes hold accepted connections, if they do not hold the listener any more.
func (l *listener) forgetAccepting() {
	if len(l.accepting) > 0 && !slices.Equal(l.holders, l.previous) {
		maps.DeleteFunc(l.accepting, func(w *owner, _ uint64) bool { return !slices.Contains(l.holders, w) })
	}
}

// find returns the listener that accepted a connection, or nil: one at the device of the connection, else at any; there, one at
// its local address, else a wildcard. Listeners that listen now come first. isKnown says which of the others count.
func (t *listeners) find(s *netstat.Socket, isKnown func(*listener) bool) *listener {
	if t.ports[portKey{s.Namespace.ID, s.Transport, s.Local.Port()}] == nil {
		return nil
	}
	devices := [...]uint32{s.Interface, 0}
	addrs, n := listenAddrs(s.Local.Addr())
	var known *listener // the first that does not listen now
	for i, device := range devices {
		if i > 0 && device == devices[0] {
			continue
		}
		for _, addr := range addrs[:n] {
			l := t.byEndpoint[endpoint{s.Namespace.ID, s.Transport, device, addr, s.Local.Port()}]
			switch {
			case l == nil:
			case l.listens(t.pass):
				return l
			case known == nil && isKnown(l):
				known = l
			}
		}
	}
	return known
}

// findForLive is find for a live connection that this pass sees for the first time. Its listener listens now, did in the last
// pass, or was reported as destroyed after the last pass had read the table.
func (t *listeners) findForLive(s *netstat.Socket) *listener {
	return t.find(s, func(l *listener) bool { return max(l.pass, l.endedIn)+1 >= t.pass })
}

// findForClosed is find for a connection that was destroyed before any pass saw it. The event can be late.
func (t *listeners) findForClosed(s *netstat.Socket) *listener {
	return t.find(s, func(*listener) bool { return true })
}

// listenAddrs returns the n addresses at which a listener accepts connections to the local address, preferred first. An
// IPv4-mapped address is that of a dual-stack socket: either wildcard can have accepted it.
func listenAddrs(local netip.Addr) (addrs [3]netip.Addr, n int) {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	switch {
	case local.Is4():
		return [...]netip.Addr{local, any4, {}}, 2
	case local.Is4In6():
		return [...]netip.Addr{local.Unmap(), any6, any4}, 3
	default:
		return [...]netip.Addr{local, any6, {}}, 2
	}
}

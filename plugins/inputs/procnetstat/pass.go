//go:build linux

package procnetstat

import (
	"net/netip"
	"slices"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// unattributed is the tag value for an unknown process or cgroup.
const unattributed = "unattributed"

// observation is a socket and its attribution.
type observation struct {
	*netstat.Socket
	// number counts the sockets of this pass, from 1.
	number uint64
	// delta is the traffic since the previous pass; idle: it is zero.
	delta traffic
	idle  bool
	// owners are the processes that hold the socket; if none does (TIME_WAIT, SYN_RECV, not yet accepted, orphaned), those of its
	// listener. Empty if none is known. Processes that the filters exclude are removed.
	owners []*owner
	// listener is the one that a listening TCP socket is part of, or that accepted the connection; nil for an outgoing connection
	// and for other protocols.
	listener *listener
	// cgroup is that of the socket, else of its first owner, else of its listener; nil: not known.
	cgroup *cgroupEntry
}

// listener is a local address and port with listening TCP sockets: several can share it (SO_REUSEPORT).
type listener struct {
	addr   netip.Addr // IPv4-mapped addresses are unmapped
	port   uint16
	owners []*owner
	cgroup *cgroupEntry
	series []*series // in procnetstat_listener
	ended  bool      // no socket listens there now
}

// pass is one pass over the sockets. The scanner returns the listening sockets of a family before its connections, so the
// listeners are known when a connection is matched to one.
type pass struct {
	owners  *owners
	cgroups *cgroups
	filter  socketFilter
	tracker tracker
	scope   *scope // the current one
	// attributions are those of the sockets that the tracker remembers.
	attributions attributions

	current               observation
	holders, wantedOwners []*owner // buffers for current.owners
	unattributed          int

	listenPorts [1 << 16 / 64]uint64 // a bitmap of ports: a fast negative answer, as most connections of a busy host are outgoing
	listeners   map[uint16][]*listener
	// ended are listeners of earlier passes; restored are those of them that accepted closed connections of this scope.
	ended    endedListeners
	restored map[*formerListener]*listener
}

func newPass(filter filters, users *userNames, cgroups *cgroups) *pass {
	return &pass{
		owners: newOwners(filter.owner, users, cgroups), cgroups: cgroups, filter: filter.socket,
		listeners: map[uint16][]*listener{}, restored: map[*formerListener]*listener{},
	}
}

func (p *pass) begin(now time.Time) {
	p.owners.begin()
	p.cgroups.begin()
	p.attributions.begin()
	p.ended.begin(now)
	p.current = observation{}
	p.unattributed, p.scope = 0, nil
}

// enter starts a scope. Ports are separate in each network namespace.
func (p *pass) enter(sc *scope) {
	p.scope = sc
	p.listenPorts = [len(p.listenPorts)]uint64{}
	clear(p.listeners)
	clear(p.restored)
	p.owners.enter()
	p.cgroups.enter()
	p.tracker.enter(sc)
}

// observe returns the socket with its attribution, and whether it passes the filters; if not, only the host measurement counts
// it. The observation is valid until the next call.
func (p *pass) observe(s *netstat.Socket) (o *observation, wanted bool) {
	if s.Closed {
		return p.observeClosed(s)
	}
	o = &p.current
	o.Socket, o.number = s, o.number+1
	o.listener = nil
	o.delta, o.idle = p.tracker.update(s)
	p.holders = p.holders[:0]
	for _, process := range s.Owners() {
		p.holders = append(p.holders, p.owners.of(process))
	}
	o.owners = p.holders
	o.cgroup = p.cgroups.ofSocket(s, p.holders)

	if s.Transport == netstat.TransportTCP {
		if s.State == netstat.TCPListen {
			o.listener = p.observeListener(o)
		} else {
			o.listener = p.findListener(s.Local)
			if s.State == netstat.TCPEstablished {
				p.scope.tcpFields = s.Having(p.scope.tcpFields)
			}
		}
	}
	p.inheritFromListener(o)
	if len(o.owners) == 0 {
		p.unattributed++
	}
	if last := p.tracker.updated; last != nil && last.closedEvents {
		last.attribution = p.attributions.of(o)
	}
	return o, p.wants(o)
}

// inheritFromListener uses the owners and the cgroup of the listener where the socket has none.
func (p *pass) inheritFromListener(o *observation) {
	l := o.listener
	if l == nil {
		return
	}
	if len(o.owners) == 0 {
		o.owners = l.owners
	}
	// With cgroup v1, all sockets are in the root of v2, which is less precise than the cgroup of the listener's process.
	if o.cgroup == nil || o.cgroup.path == "/" && len(p.holders) == 0 && l.cgroup != nil {
		o.cgroup = l.cgroup
	}
}

// end ends a pass.
func (p *pass) end(all *scopes) {
	p.cgroups.end()
	p.ended.end()
	p.tracker.end(all, p.attributions.carryOver)
}

// wants reports whether the socket passes the filters, and removes the owners that do not pass.
func (p *pass) wants(o *observation) bool {
	if !p.filter.wants(o) {
		return false
	}
	if !p.owners.filter.active {
		return true
	}
	if len(o.owners) == 0 {
		return p.owners.filter.wantsUnattributed
	}
	if slices.ContainsFunc(o.owners, func(w *owner) bool { return !w.wanted }) {
		p.wantedOwners = p.wantedOwners[:0]
		for _, w := range o.owners {
			if w.wanted {
				p.wantedOwners = append(p.wantedOwners, w)
			}
		}
		o.owners = p.wantedOwners
	}
	return len(o.owners) > 0
}

// observeListener adds a listening socket, and returns the listener that it is part of.
func (p *pass) observeListener(o *observation) *listener {
	addr, port := o.Local.Addr().Unmap(), o.Local.Port()
	l := listenerAt(addr, p.listeners[port])
	if l == nil {
		l = &listener{addr: addr, port: port, cgroup: o.cgroup}
		p.addListener(l)
		p.ended.observe(p.scope.namespace.ID, l)
	}
	for _, w := range o.owners {
		if !slices.Contains(l.owners, w) {
			l.owners = append(l.owners, w)
		}
	}
	return l
}

func (p *pass) addListener(l *listener) {
	p.listenPorts[l.port/64] |= 1 << (l.port % 64)
	p.listeners[l.port] = append(p.listeners[l.port], l)
}

// findListener returns the listener with the connection's local address and port, else the wildcard listener of that port, else
// nil.
func (p *pass) findListener(local netip.AddrPort) *listener {
	addr, port := local.Addr(), local.Port()
	if p.listenPorts[port/64]&(1<<(port%64)) == 0 {
		return nil
	}
	candidates := p.listeners[port]
	addrs, n := listenAddrs(addr)
	for _, addr := range addrs[:n] {
		if l := listenerAt(addr, candidates); l != nil {
			return l
		}
	}
	return nil
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

// listenerAt returns the candidate at the address, or nil.
func listenerAt(addr netip.Addr, candidates []*listener) *listener {
	for _, l := range candidates {
		if l.addr == addr {
			return l
		}
	}
	return nil
}

//go:build linux

package procnetstat

import (
	"net/netip"
	"slices"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// unattributed stands for the process or the cgroup of a socket of which none is known.
const unattributed = "unattributed"

// observation is a socket and what it belongs to.
type observation struct {
	*netstat.Socket
	// number is the socket's in this pass, from 1.
	number uint64
	// did is what the socket did since the pass before; idle says that this is nothing.
	delta traffic
	idle  bool
	// owners are the processes that it counts for: those that hold it; for a socket that none holds (TIME_WAIT, SYN_RECV,
	// not yet accepted, orphaned) those of the listener that it came in through. Empty if none is known. Processes that
	// the filters exclude are left out.
	owners []*owner
	// listener is what a listening TCP socket is part of, and what a connection came in through; nil for an outgoing
	// connection and for other protocols.
	listener *listener
	// cgroup is what it was made in, or its listener, or its first owner; nil if that is not known.
	cgroup *cgroupEntry
}

// listener is an address and port that TCP sockets listen at: several may share it (SO_REUSEPORT).
type listener struct {
	addr   netip.Addr // IPv4-mapped addresses are unmapped
	port   uint16
	owners []*owner
	cgroup *cgroupEntry
	series []*series // in procnetstat_listener
	ended  bool      // no socket listens there any more
}

// pass is one pass over the sockets. It learns the listeners first, as the listening sockets of a family come before its
// connections, and so can tell for each connection whether it came in and through which listener.
type pass struct {
	owners  *owners
	cgroups *cgroups
	filter  socketFilter
	tracker tracker
	scope   *scope // that is read now
	// belongings are of the sockets that the tracker remembers.
	attributions attributions

	current               observation
	holders, wantedOwners []*owner // room for current.owners
	unattributed          int

	listenPorts [1 << 16 / 64]uint64 // a bit a port: most connections of a busy host go out from ports that nobody listens at
	listeners   map[uint16][]*listener
	// ended are listeners of earlier passes; late has those of them that closed connections of this scope came in through.
	ended    endedListeners
	restored map[*formerListener]*listener
}

func newPass(filter filters, users *userNames, groups *cgroups) *pass {
	return &pass{
		owners: newOwners(filter.owner, users, groups), cgroups: groups, filter: filter.socket,
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

// enter begins a scope: the same port is another one in another namespace.
func (p *pass) enter(sc *scope) {
	p.scope = sc
	p.listenPorts = [len(p.listenPorts)]uint64{}
	clear(p.listeners)
	clear(p.restored)
	p.owners.enter()
	p.cgroups.enter()
	p.tracker.enter(sc)
}

// observe returns what the socket belongs to, and whether the filters let it through; what they leave out counts for the
// host alone. It is valid until the next call.
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

// belongToListener has the socket belong to what the listener does that it came in through, for want of its own.
func (p *pass) inheritFromListener(o *observation) {
	l := o.listener
	if l == nil {
		return
	}
	if len(o.owners) == 0 {
		o.owners = l.owners
	}
	// Where cgroup v1 is used, all sockets are in the root of v2: that says less than the listener's process.
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

// wants tells whether the filters let the socket through, and leaves out the owners that they do not want.
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

// listen returns the listener that the listening socket is part of.
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

// cameInThrough returns the listener with the connection's local address and port, else the wildcard listener of that
// port, else nil.
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

// listenAddrs returns the n addresses at which a listener accepts connections to the local address, the preferred first. An
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

// at returns the listener at the address, or nil.
func listenerAt(addr netip.Addr, candidates []*listener) *listener {
	for _, l := range candidates {
		if l.addr == addr {
			return l
		}
	}
	return nil
}

//go:build linux

package procnetstat

import (
	"slices"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// observation is a socket and its attribution.
type observation struct {
	*netstat.Socket
	// number counts the sockets of this pass, from 1.
	number uint64
	// delta is the traffic since the previous pass. It is not set if idle: there was none.
	delta traffic
	idle  bool
	// connectTime is the time that it took to connect, in microseconds, if the connection has been established since the previous pass; 0:
	// it was not, or that is not known.
	connectTime uint32
	stall       *stall // nil: without the set stalls
	// rtt is the smoothed round-trip time in microseconds; 0: not known, or not wanted.
	rtt uint32
	// holders are the processes that hold the socket.
	holders []*owner
	// owners are the processes for which the socket counts: its holders; if there are none (TIME_WAIT, SYN_RECV, not yet accepted,
	// orphaned, closed), one that stands for those that held it last, else for those that hold its listener. Empty if none is
	// known. Processes that the filters exclude are removed.
	owners []*owner
	// listener is the one that a socket without a peer is part of, or that accepted the connection; nil for an outgoing
	// connection.
	listener *listener
	// cgroup is that of the socket, else of its first holder, else of its listener; nil: not known.
	cgroup *cgroupEntry
	// wanted: it passes the filters. If not, only the host measurement counts it.
	wanted bool
}

// pass is one pass over the sockets.
type pass struct {
	owners     *owners
	cgroups    *cgroups
	filter     socketFilter
	flows      flows
	listeners  listeners
	localAddrs localAddrs
	scope      *scope // the current one
	details    detail // that some measurement emits
	// attributes: some measurement needs the attribution of sockets.
	attributes bool
	// connectsSeen: the library records attempts to connect.
	connectsSeen bool
	attemptsLost int // connections whose attempts should be recorded, but are not
	// countsLocalPorts: the host measurement emits local_ports_used.
	countsLocalPorts bool

	current               observation
	number                uint64   // of current
	holders, wantedOwners []*owner // buffers for current
	single                [1]*owner
	groups                []ownerGroup // a buffer of representative
	undecided             undecided
	unattributed          int
}

func newPass(filter filters, details detail, users *userNames, cgroups *cgroups) *pass {
	return &pass{
		owners: newOwners(filter.owner, users, cgroups), cgroups: cgroups, filter: filter.socket,
		flows: newFlows(details), listeners: newListeners(), details: details, attributes: true,
	}
}

func (p *pass) begin(now time.Time, connectsSeen bool) {
	p.connectsSeen, p.attemptsLost = connectsSeen, 0
	p.owners.begin()
	p.cgroups.begin()
	p.listeners.begin(now)
	p.undecided.clear()
	p.current, p.number = observation{}, 0
	p.unattributed, p.scope = 0, nil
}

// enter starts a scope. The undecided sockets of the previous one must have been counted.
func (p *pass) enter(sc *scope) {
	p.scope = sc
	p.owners.scope = sc
	p.flows.enter(sc)
}

// observe returns the socket with its attribution. The observation is valid until the next call. It is not wanted if it is
// undecided: then settle returns it later.
func (p *pass) observe(s *netstat.Socket) *observation {
	o := &p.current
	p.number++
	o.Socket, o.number, o.listener, o.cgroup, o.wanted = s, p.number, nil, nil, false
	p.holders = p.holders[:0]
	o.holders, o.owners, o.stall = nil, nil, p.flows.stall
	if o.rtt = 0; p.details&detailRTT != 0 {
		o.rtt = s.TCP.RTT
	}
	if s.Closed || s.Outcome != netstat.OutcomeUnknown {
		p.observeClosed(o)
		return o
	}
	var f *flow
	f, o.idle = p.flows.live(s, &o.delta)
	o.connectTime = p.flows.connectTime
	if s.Transport == netstat.TransportTCP && s.State == netstat.TCPEstablished {
		p.scope.tcpFields = s.Having(p.scope.tcpFields)
	}
	if !p.attributes {
		p.unattributed++
		return o
	}
	for _, process := range s.Owners() {
		p.holders = append(p.holders, p.owners.of(process))
	}
	o.holders = p.holders
	switch {
	case isConnection(s):
		if !p.decide(o, f) || p.mustWait(o, f) {
			p.undecided.add(o, p.flows.table.indexOf(f))
			return o
		}
	case listens(s):
		p.attribute(o, nil)
		o.listener = p.listeners.observe(s, o.owners, o.cgroup)
		o.wanted = p.wants(o)
		return o
	default:
		f = nil
	}
	p.attribute(o, f)
	o.wanted = p.wants(o)
	return o
}

// listens reports whether the socket is part of a listener: it listens, or is a bound UDP socket without a peer.
func listens(s *netstat.Socket) bool {
	switch s.Transport {
	case netstat.TransportTCP:
		return s.State == netstat.TCPListen
	case netstat.TransportUDP:
		return s.Local.Port() != 0 && !s.HasPeer()
	default:
		return false
	}
}

// decide sets the listener that accepted the connection. It reports false if a listener that has not been seen yet may have
// accepted it.
func (p *pass) decide(o *observation, f *flow) bool {
	if f.has(flowDecided) {
		o.listener = p.flows.belongings.get(f.belonging).listener
		switch {
		case o.State == netstat.TCPSynSent || f.port != o.Remote.Port(): // the process has connected the socket to another peer
			p.flows.localPorts.remove(f.ports)
			f.ports, f.port = 0, o.Remote.Port()
			p.explain(o, f, nil)
		case f.has(flowUnexplained):
			p.explain(o, f, p.listeners.findForLive(o.Socket))
		}
		return true
	}
	p.localAddrs.add(o.Socket)
	if o.State == netstat.TCPSynSent {
		return true
	}
	if _, isOutgoing := p.flows.attemptOf(o.Socket); isOutgoing {
		if process, cgroupID := o.Initiator(); process != nil { // else a kernel thread
			p.initiatedBy(o, f, process, cgroupID)
		}
		return true
	}
	if o.listener = p.listeners.findForLive(o.Socket); o.listener != nil {
		return true
	}
	isOld := !p.flows.current.baselined[netstat.TransportTCP] // it may have been there before the first pass
	return isOld || !p.scope.closedEvents || p.undecided.isFull()
}

// explain replaces the listener of a connection that is decided.
func (p *pass) explain(o *observation, f *flow, l *listener) {
	last := p.flows.belongings.get(f.belonging)
	o.listener = l
	f.flags &^= flowUnexplained
	p.countLocalPort(o, f)
	f.belonging = p.flows.belongings.indexOf(f.belonging, last.owners, l, last.cgroup)
}

// mustWait reports whether the socket counts for a process that is not known before all sockets of the scope have been seen.
func (p *pass) mustWait(o *observation, f *flow) bool {
	return o.listener != nil && len(o.holders) == 0 && len(p.flows.belongings.get(f.belonging).owners) == 0 &&
		p.isAmbiguous(o.listener) && !p.undecided.isFull()
}

// initiatedBy records the initiator of a connection that has no holder.
func (p *pass) initiatedBy(o *observation, f *flow, process *netstat.Process, cgroupID uint64) {
	if len(o.holders) > 0 {
		return
	}
	w := p.owners.of(process)
	cgroup := p.cgroups.ofIDOrProcess(cgroupID, w)
	f.belonging = p.flows.belongings.indexOf(f.belonging, append(p.single[:0], w), nil, cgroup)
}

// attribute finds the owners and the cgroup of the socket, and remembers what a connection belongs to. The listener is known.
func (p *pass) attribute(o *observation, f *flow) {
	last := &belonging{}
	if f != nil {
		last = p.flows.belongings.get(f.belonging)
	}
	o.owners, o.cgroup = nil, p.cgroups.ofSocket(o.Socket, o.holders)
	switch {
	case len(o.holders) > 0:
		o.owners = o.holders
		if o.cgroup == nil && o.listener != nil {
			o.cgroup = p.cgroups.use(o.listener.cgroup)
		}
	case len(last.owners) > 0:
		o.owners = p.one(p.representativeOfLast(last))
		if last.cgroup != nil {
			o.cgroup = p.cgroups.use(last.cgroup)
		}
	case o.listener != nil:
		o.owners = p.one(p.representativeOf(o.listener))
		o.cgroup = p.cgroups.preferred(o.cgroup, p.cgroups.use(o.listener.cgroup))
	}
	if len(o.owners) == 0 && !o.Closed {
		p.unattributed++
	}
	if f == nil {
		return
	}
	if len(o.holders) > 0 || len(last.owners) == 0 {
		f.belonging = p.flows.belongings.indexOf(f.belonging, o.holders, o.listener, o.cgroup)
	}
	if !f.has(flowDecided) {
		p.countLocalPort(o, f)
		p.countLost(o, f.attempt != 0)
	}
	f.flags |= flowDecided
	if o.listener != nil {
		o.listener.observeHolders(o.holders, p.listeners.pass)
	}
}

// countLocalPort counts the local port that the connection holds if it is outgoing.
func (p *pass) countLocalPort(o *observation, f *flow) {
	switch {
	case o.listener != nil:
		p.flows.localPorts.remove(f.ports)
		f.ports = 0
	case f.ports == 0 && !o.Closed && p.countsLocalPorts:
		f.ports = p.flows.localPorts.add(p.scope.namespace.ID, o.Socket)
	}
}

func (p *pass) one(w *owner) []*owner {
	if w == nil {
		return nil
	}
	return append(p.single[:0], p.owners.use(w))
}

// end ends a pass.
func (p *pass) end(all *scopes) {
	p.cgroups.end()
	p.listeners.finish(all)
	p.localAddrs.finish(all)
	p.flows.end(all)
	for _, sc := range all.all {
		if !p.attributes || !p.countsLocalPorts {
			sc.localPortsUsed = -1
		}
	}
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

// undecided are connections of a namespace that can only be attributed after its other live sockets:
//   - New ones without a known listener. A listener that accepted one and closed since the last pass is reported after the live
//     sockets. Until then it is not known whether they are outgoing.
//   - Those that nobody holds, of a listener that several programs hold. They count for the program that accepts connections.
type undecided struct {
	rows    []undecidedRow
	holders []*owner // of all rows
	stalls  []stall  // of the rows, with the set stalls
}

type undecidedRow struct {
	socket      netstat.Socket // without its owners
	number      uint64
	delta       traffic
	idle        bool
	rtt         uint32
	connectTime uint32
	flow        int // index in flowTable.all
	first, last int // indexes of its holders
}

// maxUndecided bounds the memory. Sockets beyond it are attributed at once, by what is known then.
const maxUndecided = 8192

func (u *undecided) isFull() bool { return len(u.rows) == maxUndecided }

func (u *undecided) add(o *observation, flow int) {
	first := len(u.holders)
	u.holders = append(u.holders, o.holders...)
	u.rows = append(u.rows, undecidedRow{
		*o.Socket, o.number, o.delta, o.idle, o.rtt, o.connectTime, flow, first, len(u.holders),
	})
	if o.stall != nil {
		u.stalls = append(u.stalls, *o.stall)
	}
}

func (u *undecided) clear() {
	clear(u.rows) // releases the names
	clear(u.holders)
	u.rows, u.holders, u.stalls = u.rows[:0], u.holders[:0], u.stalls[:0]
}

// mustSettle reports whether settle must be called before the socket is observed: what is undecided is decided by the destroyed
// listeners, which come before the destroyed connections.
func (p *pass) mustSettle(s *netstat.Socket) bool {
	isEnd := s.Closed || s.Outcome != netstat.OutcomeUnknown
	return len(p.undecided.rows) > 0 && (p.scope.namespace != s.Namespace || isEnd && s.HasPeer())
}

// settle decides the undecided connections of the scope, and calls count for each.
func (p *pass) settle(count func(*observation)) {
	for i := range p.undecided.rows {
		row := &p.undecided.rows[i]
		o := &p.current
		o.Socket, o.number, o.delta, o.idle, o.rtt = &row.socket, row.number, row.delta, row.idle, row.rtt
		o.connectTime = row.connectTime
		if o.stall != nil {
			o.stall = &p.undecided.stalls[i]
		}
		o.holders = p.undecided.holders[row.first:row.last]
		f := &p.flows.table.all[row.flow]
		if f.has(flowDecided) { // the dump has repeated it
			o.listener = p.flows.belongings.get(f.belonging).listener
		} else if o.listener = p.listeners.findForLive(o.Socket); o.listener == nil && p.connectsSeen {
			f.flags |= flowUnexplained
		}
		p.attribute(o, f)
		o.wanted = p.wants(o)
		count(o)
	}
	p.undecided.clear()
}

//go:build linux

package procnetstat

import (
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

// belonging is what a socket belonged to when it was seen last.
type belonging struct {
	owners   []*netstat.Process
	listener *formerListener // that it came in through, or is part of; nil: none
	cgroup   string          // the path; empty: not known
}

// formerListener is a listener as it was when sockets of it were seen last.
type formerListener struct {
	addr   netip.Addr
	port   uint16
	owners []*netstat.Process
	cgroup string
}

func newFormerListener(l *listener) *formerListener {
	return &formerListener{l.addr, l.port, processesOf(l.owners), l.cgroup.pathIfKnown()}
}

// belongings keeps what the sockets that are remembered belonged to, so that what is told of one when it has been destroyed counts
// for the same. Many sockets belong to the same: a reading has but an index. There is one list for those that were seen in this
// pass and one for those that were not, and the lowest bit of an index says which.
type belongings struct {
	lists     [2][]belonging
	now       uint32 // the list of this pass
	found     map[belongingKey]uint32
	listeners map[*listener]*formerListener
	carried   map[uint32]uint32
}

// belongingKey is what a socket belongs to in a pass.
type belongingKey struct {
	first    *owner
	owners   int
	listener *listener
	cgroup   *cgroupEntry
}

// begin opens a pass.
func (b *belongings) begin() {
	b.now ^= 1
	clear(b.lists[b.now])
	b.lists[b.now] = b.lists[b.now][:0]
	b.found, b.listeners, b.carried = map[belongingKey]uint32{}, map[*listener]*formerListener{}, map[uint32]uint32{}
}

func (b *belongings) add(of belonging) uint32 {
	b.lists[b.now] = append(b.lists[b.now], of)
	return uint32(len(b.lists[b.now]))<<1 | b.now
}

// get returns what belongs to an index; nil if the socket belonged to nothing that is known.
func (b *belongings) get(index uint32) *belonging {
	if index>>1 == 0 {
		return nil
	}
	return &b.lists[index&1][index>>1-1]
}

// of returns the index of what the socket belongs to.
func (b *belongings) of(o *observation) uint32 {
	key := belongingKey{owners: len(o.owners), listener: o.listener, cgroup: o.cgroup}
	if key == (belongingKey{}) {
		return 0
	}
	if len(o.owners) > 0 {
		key.first = o.owners[0]
		if key.first.belongs == key && key.owners == 1 {
			return key.first.belongsTo
		}
	}
	index, known := b.found[key]
	for known && key.owners > 1 && !isOwnedBy(b.get(index).owners, o.owners) {
		key.owners += 1 << 16 // another set of as many processes
		index, known = b.found[key]
	}
	if !known {
		index = b.add(belonging{processesOf(o.owners), b.formerOf(o.listener), o.cgroup.pathIfKnown()})
		b.found[key] = index
	}
	if key.first != nil {
		key.first.belongs, key.first.belongsTo = key, index
	}
	return index
}

func (b *belongings) formerOf(l *listener) *formerListener {
	if l == nil {
		return nil
	}
	former := b.listeners[l]
	if former == nil {
		former = newFormerListener(l)
		b.listeners[l] = former
	}
	if len(former.owners) < len(l.owners) { // a socket of others is part of it too
		former.owners = processesOf(l.owners)
	}
	return former
}

// carry takes over, from pass to pass, what a socket belonged to that was not seen.
func (b *belongings) carry(r *reading) {
	if r.belongs>>1 == 0 || r.belongs&1 == b.now {
		return
	}
	index, known := b.carried[r.belongs]
	if !known {
		index = b.add(*b.get(r.belongs))
		b.carried[r.belongs] = index
	}
	r.belongs = index
}

func processesOf(owners []*owner) []*netstat.Process {
	var processes []*netstat.Process
	for _, o := range owners {
		processes = append(processes, o.process)
	}
	return processes
}

func isOwnedBy(processes []*netstat.Process, owners []*owner) bool {
	return slices.EqualFunc(processes, owners, func(p *netstat.Process, o *owner) bool { return p == o.process })
}

// observeClosed is observe for a socket that the kernel has destroyed. Who it was is known, if a pass saw it. If none did, it is
// told by the port that it came in through, or by a program that saw the process connect. Else it is not known: others that are
// connected to the same peer say nothing of it.
//
// Destroyed sockets come after all others of their namespace, and of them first those that listened.
func (p *pass) observeClosed(s *netstat.Socket) (o *observation, wanted bool) {
	o = &p.current
	o.Socket, o.number = s, o.number+1
	o.listener, o.cgroup = nil, nil
	var last *reading
	o.did, last = p.tracker.over(s)
	o.idle = o.did == traffic{}
	var was belonging
	if last != nil {
		if known := p.belongings.get(last.belongs); known != nil {
			was = *known
		}
		if s.Remote.Port() == 0 && s.HasPeer() {
			s.Remote = netip.AddrPortFrom(s.Remote.Addr(), last.port) // of one that was refused or aborted
		}
	}
	p.held = p.held[:0]
	processes := was.owners
	if len(processes) == 0 {
		processes = s.Owners()
	}
	for _, process := range processes {
		p.held = append(p.held, p.owners.of(process))
	}
	o.owners = p.held
	if o.cgroup = p.cgroups.ofPath(was.cgroup); o.cgroup == nil {
		o.cgroup = p.cgroups.ofSocket(s, p.held)
	}
	if !s.HasPeer() {
		p.listenerOver(s, was.listener)
		return o, false
	}
	if o.listener = p.cameInThrough(s.Local); o.listener == nil && was.listener != nil {
		o.listener = p.bringBack(was.listener)
	}
	if o.listener == nil && last == nil && len(o.owners) == 0 {
		o.listener = p.cameInThroughEnded(s.Local)
	}
	p.belongToListener(o)
	return o, o.did.closed > 0 && p.wants(o)
}

// listenerOver learns that a socket without a peer has been destroyed: it may have listened, and connections that came in through
// it may have been destroyed too.
func (p *pass) listenerOver(s *netstat.Socket, was *formerListener) {
	if s.Local.Port() == 0 {
		return
	}
	if was == nil {
		was = &formerListener{addr: s.Local.Addr().Unmap(), port: s.Local.Port()}
	}
	p.bringBack(was)
	p.ended.add(p.scope.namespace.ID, was)
}

// cameInThroughEnded returns the ended listener that a closed connection came in through, or nil. It is for connections that no pass
// saw and no process is known to have begun: others from the port of an ended listener went out.
func (p *pass) cameInThroughEnded(local netip.AddrPort) *listener {
	was := p.ended.find(p.scope.namespace.ID, local)
	if was == nil {
		return nil
	}
	l := p.late[was]
	if l == nil {
		l = p.restore(was)
		p.late[was] = l // not in p.listeners: connections that a pass saw are not judged by it
	}
	return l
}

// bringBack returns the listener as it is now, or as it was.
func (p *pass) bringBack(was *formerListener) *listener {
	l := at(was.addr, p.listeners[was.port])
	if l == nil {
		l = p.restore(was)
		p.addListener(l)
	}
	return l
}

// restore returns the listener as it was.
func (p *pass) restore(was *formerListener) *listener {
	l := &listener{addr: was.addr, port: was.port, cgroup: p.cgroups.ofPath(was.cgroup), isOver: true}
	for _, process := range was.owners {
		l.owners = append(l.owners, p.owners.of(process))
	}
	return l
}

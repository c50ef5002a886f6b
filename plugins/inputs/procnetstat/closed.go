//go:build linux

package procnetstat

import (
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

// belonging is what a socket belonged to when it was seen last.
type attribution struct {
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
type attributions struct {
	lists       [2][]attribution
	current     uint32 // the list of this pass
	indexes     map[attributionKey]uint32
	listeners   map[*listener]*formerListener
	carriedOver map[uint32]uint32
}

// belongingKey is what a socket belongs to in a pass.
type attributionKey struct {
	first    *owner
	owners   int
	listener *listener
	cgroup   *cgroupEntry
}

// begin opens a pass.
func (b *attributions) begin() {
	b.current ^= 1
	clear(b.lists[b.current])
	b.lists[b.current] = b.lists[b.current][:0]
	b.indexes, b.listeners, b.carriedOver = map[attributionKey]uint32{}, map[*listener]*formerListener{}, map[uint32]uint32{}
}

func (b *attributions) add(a attribution) uint32 {
	b.lists[b.current] = append(b.lists[b.current], a)
	return uint32(len(b.lists[b.current]))<<1 | b.current
}

// get returns what belongs to an index; nil if the socket belonged to nothing that is known.
func (b *attributions) get(index uint32) *attribution {
	if index>>1 == 0 {
		return nil
	}
	return &b.lists[index&1][index>>1-1]
}

// of returns the index of what the socket belongs to.
func (b *attributions) of(o *observation) uint32 {
	key := attributionKey{owners: len(o.owners), listener: o.listener, cgroup: o.cgroup}
	if key == (attributionKey{}) {
		return 0
	}
	if len(o.owners) > 0 {
		key.first = o.owners[0]
		if key.first.attributionKey == key && key.owners == 1 {
			return key.first.attribution
		}
	}
	index, known := b.indexes[key]
	for known && key.owners > 1 && !sameProcesses(b.get(index).owners, o.owners) {
		key.owners += 1 << 16 // another set of as many processes
		index, known = b.indexes[key]
	}
	if !known {
		index = b.add(attribution{processesOf(o.owners), b.formerListenerOf(o.listener), o.cgroup.pathIfKnown()})
		b.indexes[key] = index
	}
	if key.first != nil {
		key.first.attributionKey, key.first.attribution = key, index
	}
	return index
}

func (b *attributions) formerListenerOf(l *listener) *formerListener {
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
func (b *attributions) carryOver(r *reading) {
	if r.attribution>>1 == 0 || r.attribution&1 == b.current {
		return
	}
	index, known := b.carriedOver[r.attribution]
	if !known {
		index = b.add(*b.get(r.attribution))
		b.carriedOver[r.attribution] = index
	}
	r.attribution = index
}

func processesOf(owners []*owner) []*netstat.Process {
	var processes []*netstat.Process
	for _, o := range owners {
		processes = append(processes, o.process)
	}
	return processes
}

func sameProcesses(processes []*netstat.Process, owners []*owner) bool {
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
	o.delta, last = p.tracker.updateClosed(s)
	o.idle = o.delta == traffic{}
	var former attribution
	if last != nil {
		if known := p.attributions.get(last.attribution); known != nil {
			former = *known
		}
		if s.Remote.Port() == 0 && s.HasPeer() {
			s.Remote = netip.AddrPortFrom(s.Remote.Addr(), last.port) // of one that was refused or aborted
		}
	}
	p.holders = p.holders[:0]
	processes := former.owners
	if len(processes) == 0 {
		processes = s.Owners()
	}
	for _, process := range processes {
		p.holders = append(p.holders, p.owners.of(process))
	}
	o.owners = p.holders
	if o.cgroup = p.cgroups.ofPath(former.cgroup); o.cgroup == nil {
		o.cgroup = p.cgroups.ofSocket(s, p.holders)
	}
	if !s.HasPeer() {
		p.observeClosedListener(s, former.listener)
		return o, false
	}
	if o.listener = p.findListener(s.Local); o.listener == nil && former.listener != nil {
		o.listener = p.liveOrRestored(former.listener)
	}
	if o.listener == nil && last == nil && len(o.owners) == 0 {
		o.listener = p.findEndedListener(s.Local)
	}
	p.inheritFromListener(o)
	return o, o.delta.closed > 0 && p.wants(o)
}

// listenerOver learns that a socket without a peer has been destroyed: it may have listened, and connections that came in through
// it may have been destroyed too.
func (p *pass) observeClosedListener(s *netstat.Socket, former *formerListener) {
	if s.Local.Port() == 0 {
		return
	}
	if former == nil {
		former = &formerListener{addr: s.Local.Addr().Unmap(), port: s.Local.Port()}
	}
	p.liveOrRestored(former)
	p.ended.add(p.scope.namespace.ID, former)
}

// cameInThroughEnded returns the ended listener that a closed connection came in through, or nil. It is for connections that no pass
// saw and no process is known to have begun: others from the port of an ended listener went out.
func (p *pass) findEndedListener(local netip.AddrPort) *listener {
	former := p.ended.find(p.scope.namespace.ID, local)
	if former == nil {
		return nil
	}
	l := p.restored[former]
	if l == nil {
		l = p.restore(former)
		p.restored[former] = l // not in p.listeners: connections that a pass saw are not judged by it
	}
	return l
}

// bringBack returns the listener as it is now, or as it was.
func (p *pass) liveOrRestored(was *formerListener) *listener {
	l := listenerAt(was.addr, p.listeners[was.port])
	if l == nil {
		l = p.restore(was)
		p.addListener(l)
	}
	return l
}

// restore returns the listener as it was.
func (p *pass) restore(was *formerListener) *listener {
	l := &listener{addr: was.addr, port: was.port, cgroup: p.cgroups.ofPath(was.cgroup), ended: true}
	for _, process := range was.owners {
		l.owners = append(l.owners, p.owners.of(process))
	}
	return l
}

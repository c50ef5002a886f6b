//go:build linux

package procnetstat

import (
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

// attribution is what a socket was attributed to when it was last seen.
type attribution struct {
	owners   []*netstat.Process
	listener *formerListener // that accepted it, or that it is part of; nil: none
	cgroup   string          // the path; empty: not known
}

// formerListener is a listener as it was when its sockets were last seen.
type formerListener struct {
	addr   netip.Addr
	port   uint16
	owners []*netstat.Process
	cgroup string
}

func newFormerListener(l *listener) *formerListener {
	return &formerListener{l.addr, l.port, processesOf(l.owners), l.cgroup.pathIfKnown()}
}

// attributions keeps the attributions of the sockets that the tracker remembers: the event of a destroyed socket has no owners.
// Many sockets share an attribution, so a reading has only an index. Passes alternate between two lists: one for this pass, one
// for the previous pass. The lowest bit of an index selects the list. Index 0 (and 1) is no attribution.
type attributions struct {
	lists       [2][]attribution
	current     uint32 // index of the list of this pass
	indexes     map[attributionKey]uint32
	listeners   map[*listener]*formerListener
	carriedOver map[uint32]uint32
}

// attributionKey identifies an attribution in a pass.
type attributionKey struct {
	first    *owner
	owners   int
	listener *listener
	cgroup   *cgroupEntry
}

// begin starts a pass.
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

// get returns the attribution with the index; nil if it is not known.
func (b *attributions) get(index uint32) *attribution {
	if index>>1 == 0 {
		return nil
	}
	return &b.lists[index&1][index>>1-1]
}

// of returns the index of the attribution of the socket.
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
		key.owners += 1 << 16 // try the next key: another set with the same number of processes
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
	if len(former.owners) < len(l.owners) { // other processes hold sockets of it too (SO_REUSEPORT)
		former.owners = processesOf(l.owners)
	}
	return former
}

// carryOver copies the attribution of a socket that this pass has not seen from the previous pass.
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

// observeClosed is observe for a socket that the kernel has destroyed. Its owners are those that an earlier pass saw; else those
// that the BPF program recorded when the process connected; else those of the listener on its local port; else unknown. Owners of
// other connections to the same peer are no evidence.
//
// The scanner returns destroyed sockets after all others of their namespace, and of them listening sockets first.
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
			s.Remote = netip.AddrPortFrom(s.Remote.Addr(), last.port) // a refused or aborted connection has lost its peer port
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

// observeClosedListener adds a destroyed socket without a peer to the listeners: it may have been listening, and connections that
// it accepted may have been destroyed too.
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

// findEndedListener returns the ended listener that accepted a closed connection, or nil. Call it only for connections that no
// pass saw and no process is known to have initiated: others from the port of an ended listener are outgoing.
func (p *pass) findEndedListener(local netip.AddrPort) *listener {
	former := p.ended.find(p.scope.namespace.ID, local)
	if former == nil {
		return nil
	}
	l := p.restored[former]
	if l == nil {
		l = p.restore(former)
		p.restored[former] = l // not in p.listeners: it must not match connections that a pass saw
	}
	return l
}

// liveOrRestored returns the current listener at the endpoint, or else the former one, restored.
func (p *pass) liveOrRestored(former *formerListener) *listener {
	l := listenerAt(former.addr, p.listeners[former.port])
	if l == nil {
		l = p.restore(former)
		p.addListener(l)
	}
	return l
}

// restore recreates a listener that has ended.
func (p *pass) restore(former *formerListener) *listener {
	l := &listener{addr: former.addr, port: former.port, cgroup: p.cgroups.ofPath(former.cgroup), ended: true}
	for _, process := range former.owners {
		l.owners = append(l.owners, p.owners.of(process))
	}
	return l
}

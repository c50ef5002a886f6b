//go:build linux

package procnetstat

import (
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

// localAddrs knows in which network namespaces an address is local: those in which a socket has it as its local address. A
// wildcard listener does not tell at which addresses it listens.
type localAddrs struct {
	namespaces map[netip.Addr][]uint64 // Namespace.ID
	last       localAddr               // cache: most sockets have the same address as the socket before
}

type localAddr struct {
	addr      netip.Addr
	namespace uint64
}

// maxLocalAddrs bounds the addresses of all namespaces together.
const maxLocalAddrs = 1 << 16

// add adds the local address of a socket.
func (a *localAddrs) add(s *netstat.Socket) {
	this := localAddr{s.Local.Addr(), s.Namespace.ID}
	if this == a.last {
		return
	}
	a.last = this
	addr := this.addr.Unmap()
	in := a.namespaces[addr]
	if addr.IsUnspecified() || addr.Zone() != "" || slices.Contains(in, this.namespace) || len(a.namespaces) == maxLocalAddrs {
		return
	}
	if a.namespaces == nil {
		a.namespaces = map[netip.Addr][]uint64{}
	}
	a.namespaces[addr] = append(in, this.namespace)
}

// finish ends a pass: it forgets the addresses of namespaces that are gone.
func (a *localAddrs) finish(all *scopes) {
	exists := make(map[uint64]bool, len(all.all))
	for _, sc := range all.all {
		exists[sc.namespace.ID] = true
	}
	for addr, in := range a.namespaces {
		if rest := slices.DeleteFunc(in, func(id uint64) bool { return !exists[id] }); len(rest) == 0 {
			delete(a.namespaces, addr)
		} else {
			a.namespaces[addr] = rest
		}
	}
	a.last = localAddr{}
}

// processAt returns the name of the process that listens at the remote end of a connection from a namespace. It is empty if no
// namespace that this pass has read has the listener, or if several have.
func (p *pass) processAt(from uint64, transport netstat.Transport, remote netip.AddrPort) string {
	in := []uint64{from}
	if !remote.Addr().IsLoopback() {
		in = p.localAddrs.namespaces[remote.Addr()]
	}
	var found *listener
	for _, namespace := range in {
		l := p.listeners.listeningAt(portKey{namespace, transport, remote.Port()}, remote.Addr())
		if l != nil && found != nil {
			return ""
		}
		if l != nil {
			found = l
		}
	}
	if found == nil {
		return ""
	}
	w := p.representativeOf(found)
	if w == nil {
		return ""
	}
	return w.name
}

// listeningAt returns the listener of this pass that accepts connections to the address, or nil.
func (t *listeners) listeningAt(at portKey, addr netip.Addr) *listener {
	addrs := [...]netip.Addr{addr, netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	if addr.Is6() {
		addrs[1] = addrs[2]
	}
	for _, addr := range addrs {
		for _, l := range t.byPort[at] {
			if l.addr == addr && l.listens(t.pass) {
				return l
			}
		}
	}
	return nil
}

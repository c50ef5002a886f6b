//go:build linux

package procnetstat

import (
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

// unattributed stands for the process of a socket that no process is known of.
const unattributed = "unattributed"

// observation is a socket and what it belongs to.
type observation struct {
	*netstat.Socket
	// number is the socket's in this pass, from 1.
	number uint64
	// owners are the processes that it counts for: those that hold it; for a socket that none holds (TIME_WAIT, SYN_RECV,
	// not yet accepted, orphaned) those of the listener that it came in through. Empty if none is known.
	owners []*netstat.Process
	// listener is what a listening TCP socket is part of, and what a connection came in through; nil for an outgoing
	// connection and for other protocols.
	listener *listener
}

// listener is an address and port that TCP sockets listen at: several may share it (SO_REUSEPORT).
type listener struct {
	addr   netip.Addr // IPv4-mapped addresses are unmapped
	port   uint16
	owners []*netstat.Process
}

// pass is one pass over the sockets. It learns the listeners first, as the listening sockets of a family come before its
// connections, and so can tell for each connection whether it came in and through which listener.
type pass struct {
	current      observation
	unattributed int

	listening [1 << 16 / 64]uint64 // a bit a port: most connections of a busy host go out from ports that nobody listens at
	listeners map[uint16][]*listener
}

func (p *pass) begin() {
	p.current = observation{}
	p.unattributed = 0
	p.listening = [len(p.listening)]uint64{}
	if p.listeners == nil {
		p.listeners = map[uint16][]*listener{}
	}
	clear(p.listeners)
}

// observe returns what the socket belongs to; it is valid until the next call.
func (p *pass) observe(s *netstat.Socket) *observation {
	o := &p.current
	o.Socket, o.owners, o.listener = s, s.Owners(), nil
	o.number++
	if s.Transport == netstat.TransportTCP {
		if s.State == netstat.TCPListen {
			o.listener = p.listen(s, o.owners)
		} else {
			o.listener = p.cameInThrough(s.Local)
		}
	}
	if len(o.owners) == 0 && o.listener != nil {
		o.owners = o.listener.owners
	}
	if len(o.owners) == 0 {
		p.unattributed++
	}
	return o
}

// listen returns the listener that the listening socket is part of.
func (p *pass) listen(s *netstat.Socket, owners []*netstat.Process) *listener {
	addr, port := s.Local.Addr().Unmap(), s.Local.Port()
	p.listening[port/64] |= 1 << (port % 64)
	l := p.find(addr, port)
	if l == nil {
		l = &listener{addr: addr, port: port}
		p.listeners[port] = append(p.listeners[port], l)
	}
	for _, owner := range owners {
		if !slices.Contains(l.owners, owner) {
			l.owners = append(l.owners, owner)
		}
	}
	return l
}

// cameInThrough returns the listener with the connection's local address and port, else the wildcard listener of that
// port, else nil. An IPv4-mapped address is that of a dual-stack socket: it can have come in through either wildcard.
func (p *pass) cameInThrough(local netip.AddrPort) *listener {
	addr, port := local.Addr(), local.Port()
	if p.listening[port/64]&(1<<(port%64)) == 0 {
		return nil
	}
	if l := p.find(addr.Unmap(), port); l != nil {
		return l
	}
	if addr.Is6() {
		if l := p.find(netip.IPv6Unspecified(), port); l != nil || !addr.Is4In6() {
			return l
		}
	}
	return p.find(netip.IPv4Unspecified(), port)
}

func (p *pass) find(addr netip.Addr, port uint16) *listener {
	for _, l := range p.listeners[port] {
		if l.addr == addr {
			return l
		}
	}
	return nil
}

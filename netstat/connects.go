package netstat

import (
	"fmt"
	"sync/atomic"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

// connectLookup finds the initiators of TCP connections. It is safe for concurrent use.
type connectLookup interface {
	// Lookup returns the initiator of the connection with the cookie; false if it is unknown.
	Lookup(cookie uint64) (bpf.Connect, bool)
	// Close must not be called during or before a Lookup.
	Close()
}

var (
	_ connectLookup = (*bpf.Connects)(nil)
	_ connectLookup = (*connects)(nil)
)

// connects is the lookup in the records of the BPF program; empty while that is not loaded. It is safe for concurrent use.
type connects struct {
	lookup atomic.Pointer[connectLookup]
}

func (c *connects) isOpen() bool { return c.lookup.Load() != nil }

func (c *connects) Lookup(cookie uint64) (bpf.Connect, bool) {
	if lookup := c.lookup.Load(); lookup != nil {
		return (*lookup).Lookup(cookie)
	}
	return bpf.Connect{}, false
}

func (c *connects) Close() {
	if lookup := c.lookup.Swap(nil); lookup != nil {
		(*lookup).Close()
	}
}

// openConnects loads the BPF program that records the initiators of connections, if owners come from BPF too.
func (s *Scanner) openConnects() {
	if s.stats.OwnerMethod != OwnersBPF || s.connects.isOpen() {
		return
	}
	recorded, err := bpf.OpenConnects(s.config.ProcRoot)
	if err != nil {
		s.fallbacks.markUnavailable(fallbackConnects, fmt.Errorf("processes of closed TCP sockets unavailable: %w", err))
		return
	}
	s.fallbacks.markAvailable(fallbackConnects)
	s.setConnects(recorded)
}

// setConnects sets the lookup, and makes the process cache keep ended processes: they can be initiators of closed connections.
func (s *Scanner) setConnects(lookup connectLookup) {
	s.connects.lookup.Store(&lookup)
	s.processes.keepsPast = true
	s.stats.Initiators = true
}

// setClosedInitiator makes the initiator of the connection that of the closed socket, and its owner.
func (s *Scanner) setClosedInitiator(connect *bpf.Connect) {
	s.current.setInitiator(connect)
	if connect.CgroupID != 0 {
		s.socket.CgroupID = connect.CgroupID
		s.socket.fields |= FieldCgroupID
	}
	s.current.owners = append(s.current.owners, s.current.initiator.process)
}

package netstat

import (
	"fmt"
	"sync/atomic"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

// connectLookup knows which processes initiated TCP connections. It can be used by several goroutines.
type connectLookup interface {
	// Lookup returns which process initiated the connection of the socket with the cookie; false if that is not known.
	Lookup(cookie uint64) (bpf.Connect, bool)
	// Close may be called when no Lookup is under way, and none follows.
	Close()
}

var (
	_ connectLookup = (*bpf.Connects)(nil)
	_ connectLookup = (*connects)(nil)
)

// connects are those that a BPF program records, from when it could be loaded. It can be used by several goroutines.
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

// openConnects has the processes recorded that initiate connections, where a BPF program can.
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

// setConnects has the processes kept that have gone while there may be connections that they initiated.
func (s *Scanner) setConnects(lookup connectLookup) {
	s.connects.lookup.Store(&lookup)
	s.processes.keepsPast = true
}

// setInitiator has the closed socket be of the process that initiated the connection.
func (s *Scanner) setInitiator(connect *bpf.Connect) {
	if connect.CgroupID != 0 {
		s.socket.CgroupID = connect.CgroupID
		s.socket.fields |= FieldCgroupID
	}
	s.current.owners = append(s.current.owners, s.processes.ofConnect(connect))
}

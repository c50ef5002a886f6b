package netstat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
)

// ClosedMode says whether a [Scanner] hands out the TCP sockets that the kernel has destroyed.
type ClosedMode uint8

// What to do about TCP sockets that the kernel has destroyed.
const (
	// ClosedOff leaves them out.
	ClosedOff ClosedMode = iota
	// ClosedAuto hands them out where the scanner can subscribe to them.
	ClosedAuto
	// ClosedRequired has [NewScanner] fail if it cannot subscribe to them in the reader's own network namespace.
	ClosedRequired
)

var closedModeNames = [...]string{ClosedOff: "off", ClosedAuto: "auto", ClosedRequired: "on"}

// String returns the mode's name, and ClosedMode(n) for a number that is no mode.
func (m ClosedMode) String() string { return enumName("ClosedMode", m, closedModeNames[:]) }

// MarshalText returns the mode's name.
func (m ClosedMode) MarshalText() ([]byte, error) {
	return marshalEnum("ClosedMode", m, closedModeNames[:])
}

// UnmarshalText sets the mode to the one with the name.
func (m *ClosedMode) UnmarshalText(name []byte) error {
	return unmarshalEnum(m, name, closedModeNames[:])
}

// HearsClosed tells whether the scanner hears of the TCP sockets that are destroyed in the namespace.
func (s *Scanner) HearsClosed(n *Namespace) bool { return n.closed != nil }

var errNoClosedInProcfs = errors.New("procfs has no cookies to know them by")

func (s *Scanner) wantsClosed() bool {
	return s.config.Closed != ClosedOff && slices.Contains(s.config.Transports, TransportTCP)
}

// checkClosed tells what is wrong with Closed.
func (c *ScannerConfig) checkClosed() error {
	switch {
	case int(c.Closed) >= len(closedModeNames):
		return fmt.Errorf("%s does not say whether closed sockets are wanted", c.Closed)
	case c.Closed == ClosedRequired && !slices.Contains(c.Transports, TransportTCP):
		return errors.New("closed sockets are those of tcp, which is not among the transports")
	}
	return nil
}

// closedRoom bounds what the kernel may keep for a scanner, in bytes: 2 * closedRoom, as it doubles what it is given (see
// sockdiag.Subscription). All subscriptions share it. It is enough for some 48,000 events. Without CAP_NET_ADMIN each
// subscription is bounded by net.core.rmem_max, which is enough for some 5,900 where it is 4 MiB, as in Linux 6.18, and for 300
// where it is 208 KiB.
const closedRoom = 32 << 20

// subscribeSelf subscribes to the closed sockets of the reader's own namespace, before any socket in it is read.
func (s *Scanner) subscribeSelf() error {
	self := s.namespaces.self
	if !s.wantsClosed() {
		return nil
	}
	if self.diag == nil { // which has been said
		if s.config.Closed == ClosedRequired {
			return fmt.Errorf("closed TCP sockets are not known: %w", errNoClosedInProcfs)
		}
		return nil
	}
	s.openConnects()
	s.namespaces.subscribe = func(room int) (closedConn, error) { return openClosedConn(&s.connects, s.budget, room) }
	// Without a handler for TCP the kernel accepts the subscription, and sends nothing (inet_diag_handler_get_info,
	// net/ipv4/inet_diag.c). A dump of no state loads the handler, or fails.
	nothing := sockdiag.Request{Protocol: sockdiag.ProtocolTCP}
	_, err := self.diag.Dump(context.Background(), nothing, func([]byte) bool { return true })
	if !errors.Is(err, errors.ErrUnsupported) {
		self.closed, err = openClosedConn(&s.connects, s.budget, cmp.Or(s.namespaces.room, closedRoom))
	}
	switch {
	case err == nil:
		s.fallbacks.restore(fallbackClosed)
		return nil
	case errors.Is(err, errors.ErrUnsupported):
		return s.withoutClosed(err)
	default:
		return fmt.Errorf("cannot subscribe to closed TCP sockets: %w", err)
	}
}

// withoutClosed says that the scanner has to do without closed sockets, which is an error with ClosedOn.
func (s *Scanner) withoutClosed(err error) error {
	if s.config.Closed == ClosedRequired {
		return fmt.Errorf("closed TCP sockets are not known: %w", err)
	}
	s.fallbacks.refuse(fallbackClosed, fmt.Errorf("closed TCP sockets are not known: %w", err))
	return nil
}

// connects are the connections that a BPF program records, once it is loaded. It can be used by several goroutines.
type connects struct {
	recorder atomic.Pointer[connectRecorder]
}

var _ connectRecorder = (*connects)(nil)

func (c *connects) look(cookie uint64) (connectRecord, bool) {
	if recorder := c.recorder.Load(); recorder != nil {
		return (*recorder).look(cookie)
	}
	return connectRecord{}, false
}

// close may be called when no subscription looks any more.
func (c *connects) close() {
	if recorder := c.recorder.Swap(nil); recorder != nil {
		(*recorder).close()
	}
}

// openConnects records which processes initiate connections, where a BPF program can.
func (s *Scanner) openConnects() {
	if s.stats.OwnerMethod != OwnersBPF || s.connects.recorder.Load() != nil {
		return
	}
	recorder, err := newConnects(s.config.ProcRoot)
	if err != nil {
		s.fallbacks.refuse(fallbackConnects, fmt.Errorf("the processes of closed TCP sockets are not known: %w", err))
		return
	}
	s.fallbacks.restore(fallbackConnects)
	s.setConnects(recorder)
}

// setConnects uses the recorder. Processes that have ended are kept as long as there may be connections that they initiated.
func (s *Scanner) setConnects(recorder connectRecorder) {
	s.connects.recorder.Store(&recorder)
	s.processes.keepsPast = true
}

// handOutClosed hands out the sockets that were destroyed in the namespace until now. All that were read in it have been handed
// out before.
func (s *Scanner) handOutClosed(ctx context.Context, n *Namespace, yield func(*Socket, error) bool) bool {
	if n.closed == nil {
		return true
	}
	if !s.handOutTaken(ctx, n, yield) { // what a loop that was stopped has left
		return false
	}
	chunks, lost, err := n.closed.take(n.taken.chunks)
	n.taken.chunks = chunks
	s.stats.ClosedLost += lost
	if err != nil && !yield(nil, &TableError{n, TransportTCP, fmt.Errorf("reading closed TCP sockets: %w", err)}) {
		return false
	}
	return s.handOutTaken(ctx, n, yield)
}

func (s *Scanner) handOutTaken(ctx context.Context, n *Namespace, yield func(*Socket, error) bool) bool {
	s.socket.Namespace, s.socket.NetNS = n, n.Inode
	const checkEvery = 1024 // sockets
	for i := 1; ; i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			yield(nil, ctx.Err())
			return false
		}
		initiator, ok := n.taken.next(&s.socket)
		if !ok {
			return true
		}
		if s.config.TCPFilter != nil && !s.config.TCPFilter.Match(&s.socket) {
			continue
		}
		if initiator != nil {
			s.setInitiator(initiator)
		}
		if !yield(&s.socket, nil) {
			return false
		}
	}
}

// setInitiator makes the process that initiated the connection the owner of the socket.
func (s *Scanner) setInitiator(initiator *connectRecord) {
	if initiator.cgroupID != 0 {
		s.socket.CgroupID = initiator.cgroupID
		s.socket.fields |= FieldCgroupID
	}
	s.current.owners = append(s.current.owners, s.processes.ofConnect(initiator))
}

// handOutEnded hands out the closed sockets of the namespaces that have been forgotten. Those of the reader's own are left out
// while it is not read.
func (s *Scanner) handOutEnded(ctx context.Context, yield func(*Socket, error) bool) bool {
	if self := s.namespaces.self; self.closed != nil && !slices.Contains(s.namespaces.known, self) {
		self.taken.drop()
		self.taken.chunks, _, _ = self.closed.take(nil)
		self.taken.drop()
	}
	for len(s.namespaces.ended) > 0 {
		s.namespaces.ended[0].close() // as late as possible: the kernel sends the last events a moment after the namespace has ended
		if !s.handOutClosed(ctx, s.namespaces.ended[0], yield) {
			return false
		}
		s.namespaces.ended = slices.Delete(s.namespaces.ended, 0, 1)
	}
	return true
}

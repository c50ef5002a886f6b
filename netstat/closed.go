package netstat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

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

var errNoClosedInProcfs = errors.New("/proc/net has no socket cookies")

func (s *Scanner) wantsClosed() bool {
	return s.config.Closed != ClosedOff && slices.Contains(s.config.Transports, TransportTCP)
}

// checkClosed tells what is wrong with Closed.
func (c *ScannerConfig) checkClosed() error {
	switch {
	case int(c.Closed) >= len(closedModeNames):
		return fmt.Errorf("%s is not a closed mode", c.Closed)
	case c.Closed == ClosedRequired && !slices.Contains(c.Transports, TransportTCP):
		return errors.New("closed sockets require transport tcp")
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
			return fmt.Errorf("closed TCP sockets unavailable: %w", errNoClosedInProcfs)
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
		return fmt.Errorf("closed TCP sockets unavailable: %w", err)
	}
	s.fallbacks.refuse(fallbackClosed, fmt.Errorf("closed TCP sockets unavailable: %w", err))
	return nil
}

// handOutClosed hands out the sockets that were destroyed in the namespace until now. All that were read in it have been handed
// out before. Their Namespace is the value given.
func (s *Scanner) handOutClosed(ctx context.Context, n *trackedNamespace, as *Namespace, yield func(*Socket, error) bool) bool {
	if n.closed == nil {
		return true
	}
	s.socket.Namespace, s.socket.NetNS = as, n.Inode
	if !s.handOutTaken(ctx, n, yield) { // what a loop that was stopped has left
		return false
	}
	chunks, lost, err := n.closed.take(n.taken.chunks)
	n.taken.chunks = chunks
	s.stats.ClosedLost += lost
	if err != nil && !yield(nil, &TableError{as, TransportTCP, fmt.Errorf("reading closed TCP sockets: %w", err)}) {
		return false
	}
	return s.handOutTaken(ctx, n, yield)
}

func (s *Scanner) handOutTaken(ctx context.Context, n *trackedNamespace, yield func(*Socket, error) bool) bool {
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

// handOutEnded hands out the closed sockets of the namespaces that have been forgotten. Those of the reader's own are left out
// while it is not read.
func (s *Scanner) handOutEnded(ctx context.Context, yield func(*Socket, error) bool) bool {
	if self := s.namespaces.self; self.closed != nil && !slices.Contains(s.namespaces.known, self) {
		self.taken.drop()
		self.taken.chunks, _, _ = self.closed.take(nil)
		self.taken.drop()
	}
	for len(s.namespaces.ended) > 0 {
		n := s.namespaces.ended[0]
		n.close() // as late as possible: the kernel sends the last events a moment after the namespace has ended
		if !s.handOutClosed(ctx, n, n.handedOut, yield) {
			return false
		}
		s.namespaces.ended = slices.Delete(s.namespaces.ended, 0, 1)
	}
	return true
}

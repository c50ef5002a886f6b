package netstat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// ClosedMode says whether a [Scanner] hands out the TCP sockets that the kernel has destroyed.
type ClosedMode uint8

// What to do about TCP sockets that the kernel has destroyed.
const (
	// ClosedOff leaves them out.
	ClosedOff ClosedMode = iota
	// ClosedAuto hands them out where the kernel tells of them.
	ClosedAuto
	// ClosedRequired has [NewScanner] fail if the kernel does not tell of them in the reader's own network namespace.
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

// subscribeSelf has the kernel tell of what it destroys in the reader's own namespace, before any socket in it is read.
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
	// Without a handler for TCP the kernel takes the subscription, and tells of nothing (inet_diag_handler_get_info,
	// net/ipv4/inet_diag.c). A dump of no state asks for it.
	_, err := self.diag.dump(context.Background(), dumpRequest{transport: TransportTCP}, func([]byte) bool { return true })
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

// handOutClosed hands out the sockets that were destroyed in the namespace, as far as they are known by now. All that were read
// in it have been handed out before. Their Namespace is the value given.
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
		by, ok := n.taken.next(&s.socket)
		if !ok {
			return true
		}
		if s.config.TCPFilter != nil && !s.config.TCPFilter.Match(&s.socket) {
			continue
		}
		if by != nil {
			s.setInitiator(by)
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
		n.close() // as late as can be: the kernel tells of the last sockets a moment after their end
		if !s.handOutClosed(ctx, n, n.handedOut, yield) {
			return false
		}
		s.namespaces.ended = slices.Delete(s.namespaces.ended, 0, 1)
	}
	return true
}

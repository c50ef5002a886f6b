package netstat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
)

// ClosedMode selects whether a [Scanner] returns the TCP sockets that the kernel has destroyed.
type ClosedMode uint8

// The modes for destroyed TCP sockets. The subscription needs sock_diag and Linux 4.12 (sock_diag_broadcast_destroy,
// net/core/sock_diag.c).
const (
	// ClosedOff does not return closed sockets.
	ClosedOff ClosedMode = iota
	// ClosedAuto returns them in the network namespaces in which the scanner can subscribe, and retries every five minutes.
	ClosedAuto
	// ClosedRequired is ClosedAuto, but [NewScanner] fails if it cannot subscribe in the reader's own network namespace.
	ClosedRequired
)

var closedModeNames = [...]string{ClosedOff: "off", ClosedAuto: "auto", ClosedRequired: "on"}

// String returns the mode's name, or ClosedMode(n) for an invalid value.
func (m ClosedMode) String() string { return enumName("ClosedMode", m, closedModeNames[:]) }

// MarshalText returns the mode's name. It fails for an invalid value.
func (m ClosedMode) MarshalText() ([]byte, error) {
	return marshalEnum("ClosedMode", m, closedModeNames[:])
}

// UnmarshalText sets the mode by its name: "off", "auto" or "on". Any other name is an error.
func (m *ClosedMode) UnmarshalText(name []byte) error {
	return unmarshalEnum(m, name, closedModeNames[:])
}

var errNoClosedInProcfs = errors.New("/proc/net has no socket cookies")

func (s *Scanner) wantsClosed() bool {
	return s.config.Closed != ClosedOff && slices.Contains(s.config.Transports, TransportTCP)
}

// checkClosed returns an error if Closed is invalid.
func (c *ScannerConfig) checkClosed() error {
	switch {
	case int(c.Closed) >= len(closedModeNames):
		return fmt.Errorf("%s is not a closed mode", c.Closed)
	case c.Closed == ClosedRequired && !slices.Contains(c.Transports, TransportTCP):
		return errors.New("closed sockets require transport tcp")
	}
	return nil
}

// closedRoom is the total of the receive buffers of all subscriptions, in bytes. The kernel doubles it (see
// sockdiag.Subscription): 64 MiB hold about 48,000 events. Without CAP_NET_ADMIN net.core.rmem_max limits each subscription: to
// about 5,900 events with 4 MiB (the default of Linux 6.18), to 300 with 208 KiB.
const closedRoom = 32 << 20

// subscribeSelf subscribes to the closed sockets of the reader's own namespace. It must be called before the first read.
func (s *Scanner) subscribeSelf() error {
	self := s.namespaces.self
	if !s.wantsClosed() {
		return nil
	}
	if self.diag == nil { // reported by openSelf
		if s.config.Closed == ClosedRequired {
			return fmt.Errorf("closed TCP sockets unavailable: %w", errNoClosedInProcfs)
		}
		return nil
	}
	s.openConnects()
	s.namespaces.subscribe = func(room int) (closedConn, error) { return openClosedConn(&s.connects, s.budget, room) }
	// Without tcp_diag the kernel accepts the subscription but sends no events (inet_diag_handler_get_info,
	// net/ipv4/inet_diag.c). A dump of no states loads the module, or fails.
	nothing := sockdiag.Request{Protocol: sockdiag.ProtocolTCP}
	_, err := self.diag.Dump(context.Background(), nothing, func([]byte) bool { return true })
	if errors.Is(err, errors.ErrUnsupported) {
		err = s.noModule(TransportTCP, err)
	} else {
		self.closed, err = openClosedConn(&s.connects, s.budget, cmp.Or(s.namespaces.room, closedRoom))
	}
	switch {
	case err == nil:
		s.fallbacks.markAvailable(fallbackClosed)
		return nil
	case errors.Is(err, errors.ErrUnsupported):
		return s.closedUnavailable(err)
	default:
		return fmt.Errorf("cannot subscribe to closed TCP sockets: %w", err)
	}
}

// closedUnavailable returns an error with ClosedRequired, and warns otherwise.
func (s *Scanner) closedUnavailable(err error) error {
	if s.config.Closed == ClosedRequired {
		return fmt.Errorf("closed TCP sockets unavailable: %w", err)
	}
	s.fallbacks.markUnavailable(fallbackClosed, fmt.Errorf("closed TCP sockets unavailable: %w", err))
	return nil
}

// handOutClosed yields the sockets that were destroyed in the namespace until now, with Namespace as. The live sockets of the
// namespace must have been yielded before.
func (s *Scanner) handOutClosed(ctx context.Context, n *trackedNamespace, as *Namespace, yield func(*Socket, error) bool) bool {
	if n.closed == nil {
		return true
	}
	s.socket.Namespace, s.socket.NetNS = as, n.Inode
	if !s.handOutTaken(ctx, n, yield) { // left by an iteration that the caller stopped
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
		connect, isKnown, ok := n.taken.next(&s.socket)
		if !ok {
			return true
		}
		n.devices.addZones(&s.socket)
		if s.config.TCPFilter != nil && !s.config.TCPFilter.Match(&s.socket) {
			continue
		}
		if isKnown {
			s.setClosedConnect(&connect)
		}
		if !yield(&s.socket, nil) {
			return false
		}
	}
}

// handOutEnded yields the closed sockets of namespaces that have ended. It drops those of the reader's own namespace while that
// is not among the namespaces to read.
func (s *Scanner) handOutEnded(ctx context.Context, yield func(*Socket, error) bool) bool {
	if self := s.namespaces.self; self.closed != nil && !slices.Contains(s.namespaces.known, self) {
		self.taken.drop()
		self.taken.chunks, _, _ = self.closed.take(nil)
		self.taken.drop()
	}
	for len(s.namespaces.ended) > 0 {
		n := s.namespaces.ended[0]
		n.close() // as late as possible: the kernel sends the last events shortly after the end of the namespace
		if !s.handOutClosed(ctx, n, n.handedOut, yield) {
			return false
		}
		s.namespaces.ended = slices.Delete(s.namespaces.ended, 0, 1)
	}
	return true
}

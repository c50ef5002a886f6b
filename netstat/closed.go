package netstat

import (
	"context"
	"errors"
	"fmt"
	"iter"
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
	// ClosedOn has [NewScanner] fail if the kernel does not tell of them in the reader's own network namespace.
	ClosedOn
)

var closedModeNames = [...]string{ClosedOff: "off", ClosedAuto: "auto", ClosedOn: "on"}

// String returns the mode's name, and ClosedMode(n) for a number that is no mode.
func (m ClosedMode) String() string { return enumName("ClosedMode", int(m), closedModeNames[:]) }

// ParseClosedMode returns the mode with the name.
func ParseClosedMode(name string) (ClosedMode, error) {
	i, err := parseEnum(name, closedModeNames[:])
	return ClosedMode(i), err
}

// HearsClosed tells whether the scanner hears of the TCP sockets that are destroyed in the namespace.
func (s *Scanner) HearsClosed(n *Namespace) bool { return n.closed != nil }

var errNoClosedInProcfs = errors.New("procfs has no cookies to know them by")

func (s *Scanner) wantsClosed() bool {
	return s.config.Closed != ClosedOff && slices.Contains(s.config.Transports, TransportTCP)
}

// checkClosed tells what is wrong with ScannerConfig.Closed.
func (s *Scanner) checkClosed() error {
	switch {
	case int(s.config.Closed) >= len(closedModeNames):
		return fmt.Errorf("%s does not say whether closed sockets are wanted", s.config.Closed)
	case s.config.Closed == ClosedOn && !s.wantsClosed():
		return errors.New("closed sockets are those of tcp, which is not among the transports")
	}
	return nil
}

// hearClosed has the kernel tell of what it destroys in the reader's own namespace, before any socket in it is read.
func (s *Scanner) hearClosed(self *Namespace) error {
	if !s.wantsClosed() {
		return nil
	}
	if self.diag == nil { // which has been said
		if s.config.Closed == ClosedOn {
			return fmt.Errorf("closed TCP sockets are not known: %w", errNoClosedInProcfs)
		}
		return nil
	}
	// Without a handler for TCP the kernel takes the subscription, and tells of nothing (inet_diag_handler_get_info,
	// net/ipv4/inet_diag.c). A dump of no state asks for it.
	_, err := self.diag.dump(context.Background(), dumpRequest{transport: TransportTCP}, func([]byte) bool { return true })
	if !errors.Is(err, errors.ErrUnsupported) {
		s.openConnects()
		self.closed, err = openClosedConn(s.connects)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		s.closeConnects()
		return s.withoutClosed(err)
	}
	s.namespaces.hear = func() (closedConn, error) { return openClosedConn(s.connects) }
	return err
}

// withoutClosed says that the scanner has to do without closed sockets, which is an error with ClosedOn.
func (s *Scanner) withoutClosed(err error) error {
	if s.config.Closed == ClosedOn {
		return fmt.Errorf("closed TCP sockets are not known: %w", err)
	}
	s.warn("closed", fmt.Errorf("closed TCP sockets are not known: %w", err))
	return nil
}

// openConnects has the kernel note which processes begin connections, where a BPF program can.
func (s *Scanner) openConnects() {
	if s.stats.Owners != OwnersBPF {
		return
	}
	connects, err := newConnects(s.config.ProcRoot)
	if err != nil {
		s.warn("connects", fmt.Errorf("the processes of closed TCP sockets are not known: %w", err))
		return
	}
	s.connects = connects
	s.keepPast()
}

// keepPast has the processes kept that have gone while there may be connections that they began.
func (s *Scanner) keepPast() {
	if keeper, ok := s.finder.(processKeeper); ok {
		keeper.kept().keepsPast = s.connects != nil
	}
}

func (s *Scanner) closeConnects() {
	if s.connects != nil {
		s.connects.close()
		s.connects = nil
	}
}

// handOutClosed hands out the sockets that were destroyed in the namespace, as far as they are known by now. All that were read
// in it have been handed out before.
func (s *Scanner) handOutClosed(ctx context.Context, n *Namespace, yield func(*Socket, error) bool) bool {
	if n.closed == nil {
		s.warnUnheard(n)
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
		by, ok := n.taken.next(&s.socket)
		if !ok {
			return true
		}
		if s.config.Connections != nil && !s.config.Connections.Wants(&s.socket) {
			continue
		}
		if by != nil {
			s.setBegun(by)
		}
		if !yield(&s.socket, nil) {
			return false
		}
	}
}

// setBegun has the socket be of the process that began the connection.
func (s *Scanner) setBegun(by *connectRecord) {
	if by.cgroupID != 0 {
		s.socket.CgroupID = by.cgroupID
		s.socket.Fields |= FieldCgroupID
	}
	if keeper, ok := s.finder.(processKeeper); ok {
		s.socket.owners = append(s.socket.owners, keeper.kept().ofConnect(by))
	}
}

// warnUnheard says why the namespace is not heard of.
func (s *Scanner) warnUnheard(n *Namespace) {
	if s.wantsClosed() && !n.failed && !n.Self && n.refusedClosed != nil { // of one that is read from procfs that is said already
		s.warn("closed", fmt.Errorf("closed TCP sockets are not known: network namespace %s: %w", n, n.refusedClosed))
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
		s.namespaces.ended[0].close() // as late as can be: the kernel tells of the last sockets a moment after their end
		if !s.handOutClosed(ctx, s.namespaces.ended[0], yield) {
			return false
		}
		s.namespaces.ended = slices.Delete(s.namespaces.ended, 0, 1)
	}
	return true
}

// LostError says that TCP sockets were destroyed of which nothing is known.
type LostError struct{ Sockets int }

func (e *LostError) Error() string {
	return fmt.Sprintf("the kernel had no room to tell of %d closed sockets", e.Sockets)
}

// ClosedSockets goes through the TCP sockets of the network namespace of the calling thread as the kernel destroys them, from when
// the loop begins. Each step fills the same [Socket], as those that a [Scanner] hands out with Closed; its Owners are not known.
// A socket that never had a peer is left out.
//
// An error has no socket. The loop may go on after a [*LostError], and after that of a message that could not be decoded. The end of
// ctx is an error, and the last. Where the kernel does not tell of such sockets, that is an error too, which is
// errors.ErrUnsupported. It takes Linux 4.12 with inet_diag and tcp_diag, and no privilege.
func ClosedSockets(ctx context.Context) iter.Seq2[*Socket, error] {
	return func(yield func(*Socket, error) bool) {
		conn, err := openClosedConn(nil)
		if err != nil {
			yield(nil, err)
			return
		}
		var taken takenClosed
		defer func() {
			conn.close()
			taken.drop()
		}()
		socket := Socket{NetNS: netNSOf(threadDir)}
		for {
			select {
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			case <-conn.ready():
			}
			chunks, lost, err := conn.take(nil)
			taken.chunks = chunks
			if err != nil && !yield(nil, err) || lost > 0 && !yield(nil, &LostError{lost}) {
				return
			}
			for {
				if _, ok := taken.next(&socket); !ok {
					break
				}
				if socket.HasPeer() && !yield(&socket, nil) {
					return
				}
			}
		}
	}
}

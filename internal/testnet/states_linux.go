package testnet

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The bytes in the queues of two connections of [States]. Parsed as decimal by mistake, their hexadecimal digits in /proc/net (50
// and C8) give another number or an error.
const (
	UnreadBytes  = 80  // in a RecvQ
	UnackedBytes = 200 // in a SendQ
)

// States creates TCP sockets in every state but CLOSE, which the kernel does not show. In FIN_WAIT1, FIN_WAIT2, LAST_ACK and
// CLOSING one socket is held by a process, and one is orphaned. The network is tcp4, tcp6 or tcp4in6: a dual-stack listener at
// [::] and IPv6 sockets connected to ::ffff:127.0.0.1. The sockets stay in their states for more than half a minute; the first
// to end are those in TIME_WAIT and the orphaned one in FIN_WAIT2, after 60 seconds. Some of the sockets drop what their peers
// retransmit, so that their drops grow.
func States(tb testing.TB, network string) *Load {
	tb.Helper()
	l := newTCPLoad(tb, network)

	l.established()
	l.unreadBytes()
	l.unackedBytes()
	l.notAccepted()
	l.synSent()
	l.synRecv()
	l.timeWait()
	l.finWait2(held)
	l.finWait2(orphaned)
	l.finWait1(held)
	l.finWait1(orphaned)
	l.lastAck(held)
	l.lastAck(orphaned)
	l.closing(held)
	l.closing(orphaned)

	l.settle()
	return l.Load
}

// Whether a process holds the socket that is put into a state.
const (
	held     = true
	orphaned = false
)

type tcpLoad struct {
	*Load
	n            network
	listener     int
	listenerAddr netip.AddrPort // as seen by a client
}

func newTCPLoad(tb testing.TB, network string) *tcpLoad {
	tb.Helper()
	l := &tcpLoad{Load: newLoad(tb)}
	l.n = l.network(network)
	l.listener, l.listenerAddr = l.listen(16)
	l.expect(l.listener, "LISTEN", 0, 16)
	return l
}

func (l *tcpLoad) listen(backlog int) (fd int, at netip.AddrPort) {
	l.tb.Helper()
	fd = l.hold(l.n.listen(netip.AddrPortFrom(l.n.wildcard, 0), backlog))
	s, err := describe(fd)
	l.must(err)
	return fd, netip.AddrPortFrom(l.n.loopback, s.Local.Port())
}

// dial starts a connection, and returns the client and the addresses of both ends.
func (l *tcpLoad) dial(to netip.AddrPort) (client int, local, remote netip.AddrPort) {
	l.tb.Helper()
	client = l.hold(l.n.open(netip.AddrPort{}))
	l.must(startConnect(client, to))
	// Before the connection is established, getpeername(2) fails.
	sa, err := unix.Getsockname(client)
	l.must(err)
	return client, addrPort(sa), to
}

// connect opens a connection and accepts it.
func (l *tcpLoad) connect() (client, server int) {
	l.tb.Helper()
	client, _, _ = l.dial(l.listenerAddr)
	l.must(finishConnect(client, deadline()))
	return client, l.hold(accept(l.listener, deadline()))
}

// expectUnheld adds a socket with empty queues that no process holds.
func (l *tcpLoad) expectUnheld(local, remote netip.AddrPort, state string) {
	l.Sockets = append(l.Sockets, Socket{Protocol: l.n.file, State: state, Local: local, Remote: remote})
}

// expectSynSent is expect for a client whose connection is not established, for which describe finds no peer.
func (l *tcpLoad) expectSynSent(client int, _, remote netip.AddrPort) {
	l.tb.Helper()
	l.expect(client, "SYN_SENT", 0, 1)
	l.Sockets[len(l.Sockets)-1].Remote = remote
}

func (l *tcpLoad) established() {
	l.tb.Helper()
	for range 2 {
		client, server := l.connect()
		l.expect(client, "ESTABLISHED", 0, 0)
		l.expect(server, "ESTABLISHED", 0, 0)
	}
}

func (l *tcpLoad) unreadBytes() {
	l.tb.Helper()
	client, server := l.connect()
	l.must(write(client, UnreadBytes))
	l.expect(client, "ESTABLISHED", 0, 0)
	l.expect(server, "ESTABLISHED", UnreadBytes, 0)
}

func (l *tcpLoad) unackedBytes() {
	l.tb.Helper()
	client, server := l.connect()
	l.dropIncoming(server)
	l.must(write(client, UnackedBytes))
	l.expect(client, "ESTABLISHED", 0, UnackedBytes)
	l.expect(server, "ESTABLISHED", 0, 0)
}

// notAccepted leaves a connection in the accept queue.
func (l *tcpLoad) notAccepted() {
	l.tb.Helper()
	listener, at := l.listen(4)
	client, local, remote := l.dial(at)
	l.must(finishConnect(client, deadline()))
	l.expect(listener, "LISTEN", 1, 4)
	l.expect(client, "ESTABLISHED", 0, 0)
	l.expectUnheld(remote, local, "ESTABLISHED")
}

func (l *tcpLoad) synSent() {
	l.tb.Helper()
	listener, at := l.listen(4)
	l.dropIncoming(listener)
	l.expect(listener, "LISTEN", 0, 4)
	for range 3 {
		l.expectSynSent(l.dial(at))
	}
}

// synRecv connects to a listener with TCP_DEFER_ACCEPT, which keeps a connection in SYN_RECV until data arrives.
func (l *tcpLoad) synRecv() {
	l.tb.Helper()
	listener, at := l.listen(4)
	l.must(unix.SetsockoptInt(listener, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 120))
	l.expect(listener, "LISTEN", 0, 4)
	for range 2 {
		client, local, remote := l.dial(at)
		l.must(finishConnect(client, deadline()))
		l.expect(client, "ESTABLISHED", 0, 0)
		l.expectUnheld(remote, local, "SYN_RECV")
	}
}

func (l *tcpLoad) timeWait() {
	l.tb.Helper()
	for range 2 {
		client, server := l.connect()
		s, err := describe(client)
		l.must(err)
		l.halfClose(client)
		l.wait(server, "CLOSE_WAIT")
		l.closeNow(server)
		l.closeNow(client)
		l.expectUnheld(s.Local, s.Remote, "TIME_WAIT")
	}
}

func (l *tcpLoad) finWait2(isHeld bool) {
	l.tb.Helper()
	client, server := l.connect()
	l.halfClose(client)
	l.wait(server, "CLOSE_WAIT")
	l.wait(client, "FIN_WAIT2")
	l.expect(server, "CLOSE_WAIT", 1, 0)
	l.expect(client, "FIN_WAIT2", 0, 0)
	l.closeUnlessHeld(client, isHeld)
}

// finWait1 closes one end while the other drops the FIN.
func (l *tcpLoad) finWait1(isHeld bool) {
	l.tb.Helper()
	client, server := l.connect()
	l.dropIncoming(server)
	l.halfClose(client)
	l.wait(client, "FIN_WAIT1")
	l.expect(server, "ESTABLISHED", 0, 0)
	l.expect(client, "FIN_WAIT1", 0, 1)
	l.closeUnlessHeld(client, isHeld)
}

// lastAck closes both ends; the first drops the FIN of the second.
func (l *tcpLoad) lastAck(isHeld bool) {
	l.tb.Helper()
	client, server := l.connect()
	l.halfClose(client)
	l.wait(server, "CLOSE_WAIT")
	l.wait(client, "FIN_WAIT2")
	l.dropIncoming(client)
	l.halfClose(server)
	l.wait(server, "LAST_ACK")
	l.expect(client, "FIN_WAIT2", 0, 0)
	l.expect(server, "LAST_ACK", 1, 1)
	l.closeUnlessHeld(server, isHeld)
}

// closing closes both ends; the second drops the FIN of the first.
func (l *tcpLoad) closing(isHeld bool) {
	l.tb.Helper()
	client, server := l.connect()
	l.dropIncoming(server)
	l.halfClose(client)
	l.halfClose(server)
	l.wait(client, "CLOSING")
	l.expect(server, "FIN_WAIT1", 0, 1)
	l.expect(client, "CLOSING", 1, 1)
	l.closeUnlessHeld(client, isHeld)
}

// dropIncoming makes a socket drop all incoming packets before TCP processes them. Its peer retransmits for minutes.
func (l *tcpLoad) dropIncoming(fd int) {
	l.tb.Helper()
	returnZero := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	program := unix.SockFprog{Len: 1, Filter: &returnZero}
	l.must(unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
}

func (l *tcpLoad) halfClose(fd int) {
	l.tb.Helper()
	l.must(unix.Shutdown(fd, unix.SHUT_WR))
}

// wait waits until a socket is in a state.
func (l *tcpLoad) wait(fd int, state string) {
	l.tb.Helper()
	end := deadline()
	for {
		is, err := tcpState(fd)
		l.must(err)
		if is == state {
			return
		}
		if time.Now().After(end) {
			l.tb.Fatalf("waiting for %s: the socket is still in %s", state, is)
		}
		time.Sleep(time.Millisecond)
	}
}

// closeUnlessHeld closes the socket that was expected last, unless it should be held. The closed socket is expected as an orphan.
func (l *tcpLoad) closeUnlessHeld(fd int, isHeld bool) {
	l.tb.Helper()
	if isHeld {
		return
	}
	l.closeNow(fd)
	s := &l.Sockets[len(l.Sockets)-1]
	s.Inode, s.Cookie, s.UID = 0, 0, 0
}

// The numbers of connections of [Overflow].
const (
	OverflowBacklog = 2
	OverflowQueued  = OverflowBacklog + 1 // full if longer than the backlog: sk_acceptq_is_full (include/net/sock.h)
	OverflowOffered = 12
)

// Overflow creates a listener with a backlog of 2 that does not accept, and 12 connections to it: 3 fill the accept queue, 9 stay
// in SYN_SENT. The listener is the first socket of the load. It drops a SYN of each of the 9, and each retransmission, after
// about 1, 2, 3, … seconds. The networks are those of [States].
func Overflow(tb testing.TB, network string) *Load {
	tb.Helper()
	l := &tcpLoad{Load: newLoad(tb)}
	l.n = l.network(network)
	listener, at := l.listen(OverflowBacklog)
	l.expect(listener, "LISTEN", OverflowQueued, OverflowBacklog)
	for range OverflowQueued {
		client, local, remote := l.dial(at)
		l.must(finishConnect(client, deadline()))
		l.expect(client, "ESTABLISHED", 0, 0)
		l.expectUnheld(remote, local, "ESTABLISHED")
	}
	for range OverflowOffered - OverflowQueued {
		l.expectSynSent(l.dial(at))
	}
	l.settle()
	return l.Load
}

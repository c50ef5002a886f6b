package testnet

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Bytes that wait in the queues of two connections of [States]. Read as decimal numbers, their hexadecimal digits in /proc/net
// (50 and C8) are something else or nothing.
const (
	UnreadBytes = 80  // in a RecvQ
	UnsentBytes = 200 // in a SendQ
)

// States makes TCP sockets in every state but CLOSE, which the kernel does not show: several in some states, and in
// FIN_WAIT1, FIN_WAIT2, LAST_ACK and CLOSING one that a process holds and one that none does. The network is tcp4, tcp6 or
// tcp4in6, which is a dual-stack listener at [::] and IPv6 sockets that use ::ffff:127.0.0.1. They all stay as they are for
// half a minute and more; the first to go are TIME_WAIT and the unheld FIN_WAIT2, after 60 seconds. Some of the sockets do not
// take what their peers send again and again: their drops grow.
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
	l.finWait2(unheld)
	l.finWait1(held)
	l.finWait1(unheld)
	l.lastAck(held)
	l.lastAck(unheld)
	l.closing(held)
	l.closing(unheld)

	l.settle()
	return l.Load
}

// Whether a process keeps the socket that a state is about.
const (
	held   = true
	unheld = false
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

// dial begins a connection, and returns the client and the addresses of both ends.
func (l *tcpLoad) dial(to netip.AddrPort) (client int, local, remote netip.AddrPort) {
	l.tb.Helper()
	client = l.hold(l.n.open(netip.AddrPort{}))
	l.must(startConnect(client, to))
	// There is no peer name before the connection is there.
	sa, err := unix.Getsockname(client)
	l.must(err)
	return client, addrPort(sa), to
}

// connect makes a connection and accepts it.
func (l *tcpLoad) connect() (client, server int) {
	l.tb.Helper()
	client, _, _ = l.dial(l.listenerAddr)
	l.must(finishConnect(client, deadline()))
	return client, l.hold(accept(l.listener, deadline()))
}

// expectUnheld adds a socket to the load that no process holds, with empty queues.
func (l *tcpLoad) expectUnheld(local, remote netip.AddrPort, state string) {
	l.Sockets = append(l.Sockets, Socket{Protocol: l.n.file, State: state, Local: local, Remote: remote})
}

// expectSynSent is expect for a client that does not know its peer yet.
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
	l.must(write(client, UnsentBytes))
	l.expect(client, "ESTABLISHED", 0, UnsentBytes)
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

// synRecv connects to a listener that waits for data before it takes a connection for complete.
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

// finWait1 closes one end while the other does not hear it.
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

// lastAck closes both ends, the second when the first no longer hears it.
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

// closing closes both ends, of which the second does not hear the first.
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

// deafen makes a socket drop all that comes in, before TCP sees it. Its peer sends again for minutes.
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
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		l.must(err)
		is := stateNames[info.State]
		if is == state {
			return
		}
		if time.Now().After(end) {
			l.tb.Fatalf("waiting for %s: the socket is still in %s", state, is)
		}
		time.Sleep(time.Millisecond)
	}
}

// keep closes the socket that was expected last, and expects it to be there still, unless it is to be held.
func (l *tcpLoad) closeUnlessHeld(fd int, isHeld bool) {
	l.tb.Helper()
	if isHeld {
		return
	}
	l.closeNow(fd)
	s := &l.Sockets[len(l.Sockets)-1]
	s.Inode, s.Cookie, s.UID = 0, 0, 0
}

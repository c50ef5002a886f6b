package testnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attempts configures attempts to connect: see [Proc.Attempt].
type Attempts struct {
	To netip.AddrPort
	// From is the address to bind to, if it is valid. With port 0 connect(2) chooses the port.
	From netip.AddrPort
	// N is the number of attempts, at most 1,000. They run at the same time.
	N int
	// NonBlocking attempts return from connect(2) at once and wait with poll(2).
	NonBlocking bool
	FastOpen    FastOpen
	// SameSocket makes all attempts on one socket, one after the other, until one succeeds. Non-blocking ones read the result of each
	// with a second connect(2): after SO_ERROR the next connect(2) would fail with ECONNABORTED, and would not be an attempt.
	SameSocket bool
	// Keep leaves the sockets open after the attempts. The default is to close them.
	Keep bool
}

const maxAttempts = 1000

// FastOpen is how an attempt uses TCP Fast Open. By default the first SYN to an address has no data: it asks for a cookie. With
// net.ipv4.tcp_fastopen = 0x607, set before the process listens, every SYN has data, and no cookie is needed.
type FastOpen string

// The ways of TCP Fast Open.
const (
	FastOpenConnect FastOpen = "TCP_FASTOPEN_CONNECT" // connect(2) and write(2) with this socket option
	FastOpenSend    FastOpen = "MSG_FASTOPEN"         // sendto(2) with this flag
)

// fastOpenData is the data that an attempt with TCP Fast Open sends.
var fastOpenData = []byte{0}

// Attempted is the result of an attempt.
type Attempted struct {
	// Errno is the error that the process got, and 0 if the connection was established. It is EINPROGRESS of an attempt that the
	// process has closed.
	Errno unix.Errno
	// Took is the time from connect(2) to the result.
	Took time.Duration
	// Socket is the socket after the attempt, before it is closed without Keep. After a failed attempt it has no remote address, and its
	// local one may be that of the attempt, or 0.
	Socket Socket
}

// A GiveUp is how a process ends an attempt itself.
type GiveUp string

// The ways to give up.
const (
	GiveUpClose      GiveUp = "close"             // close(2); not for blocking attempts, whose connect(2) holds the socket
	GiveUpShutdown   GiveUp = "shutdown"          // shutdown(2)
	GiveUpDisconnect GiveUp = "connect AF_UNSPEC" // connect(2) to an address of family AF_UNSPEC
)

// Attempt makes attempts to connect, and returns the results in the order of the attempts once all have ended. It fails the test if
// one takes more than 30 seconds.
func (p *Proc) Attempt(a Attempts) []Attempted {
	p.tb.Helper()
	return p.Finish(p.Begin(a)...)
}

// Begin begins attempts, and returns when each has ended or is in SYN_SENT, waiting for an answer. [Proc.Finish] or [Proc.GiveUp]
// must follow.
func (p *Proc) Begin(a Attempts) []Socket {
	p.tb.Helper()
	return p.do(request{Op: opBegin, Attempts: a})
}

// Finish waits until attempts have ended, and returns their results in the order of the sockets. With SameSocket a socket has several.
func (p *Proc) Finish(sockets ...Socket) []Attempted {
	p.tb.Helper()
	return p.exchange(request{Op: opFinish, Inodes: inodes(sockets)}).Attempted
}

// GiveUp ends attempts that are waiting for an answer, and returns their results. It fails the test if one has ended already.
func (p *Proc) GiveUp(how GiveUp, sockets ...Socket) []Attempted {
	p.tb.Helper()
	return p.exchange(request{Op: opGiveUp, GiveUp: how, Inodes: inodes(sockets)}).Attempted
}

// Reset closes sockets that the process holds with SO_LINGER = 0: the kernel resets their connections.
func (p *Proc) Reset(sockets ...Socket) {
	p.tb.Helper()
	p.do(request{Op: opReset, Inodes: inodes(sockets)})
}

func inodes(sockets []Socket) []uint64 {
	var inodes []uint64
	for _, s := range sockets {
		inodes = append(inodes, s.Inode)
	}
	return inodes
}

// An attempt is one or, with SameSocket, several attempts on a socket.
type attempt struct {
	Attempts
	fd      int
	to      unix.Sockaddr
	wake    int // an event descriptor: a non-blocking attempt is to be given up
	giveUp  atomic.Value
	results []Attempted
	err     error         // the helper failed, not the attempt
	ended   chan struct{} // closed when results and err are valid
}

func (h *helper) begin(r request, end time.Time) ([]Socket, error) {
	a := r.Attempts
	if !a.To.IsValid() || a.N < 1 || a.N > maxAttempts {
		return nil, fmt.Errorf("%d attempts to connect to %v: want 1 to %d, and an address", a.N, a.To, maxAttempts)
	}
	count := a.N
	if a.SameSocket {
		count = 1
	}
	var attempts []*attempt
	var sockets []Socket
	for range count {
		fd, err := a.open(r.Options)
		s, err := h.register(fd, err)
		if err != nil {
			return nil, err
		}
		wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("opening an event descriptor: %w", err)
		}
		begun := &attempt{Attempts: a, fd: fd, to: sockaddr(a.To), wake: wake, ended: make(chan struct{})}
		h.attempts[s.Inode] = begun
		attempts, sockets = append(attempts, begun), append(sockets, s)
	}
	for _, begun := range attempts {
		go begun.run()
	}
	for i, begun := range attempts {
		state, err := begun.waitForSYN(end)
		if err != nil {
			return nil, err
		}
		sockets[i].State = state
	}
	return sockets, nil
}

// open opens a socket for attempts, bound to From.
func (a Attempts) open(o SocketOptions) (int, error) {
	fd, err := networkTo(a.To.Addr()).open(netip.AddrPort{}, o)
	if err != nil {
		return -1, err
	}
	if err := bindForConnect(fd, a.From); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	if a.FastOpen == FastOpenConnect {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
	}
	if err == nil && !a.NonBlocking {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("setting the options of a socket: %w", err)
	}
	return fd, nil
}

// waitForSYN waits until an attempt has ended or is in SYN_SENT, and returns the state of the socket.
func (a *attempt) waitForSYN(end time.Time) (string, error) {
	for ; ; time.Sleep(100 * time.Microsecond) {
		select {
		case <-a.ended:
			state, err := tcpState(a.fd)
			return state, errors.Join(a.err, err)
		default:
		}
		state, err := tcpState(a.fd)
		if err != nil || state == "SYN_SENT" {
			return state, err
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("an attempt to connect to %v is in state %s", a.To, state)
		}
	}
}

// run makes the attempts on the socket.
func (a *attempt) run() {
	defer close(a.ended)
	times := 1
	if a.SameSocket {
		times = a.N
	}
	for range times {
		start := time.Now()
		errno, err := a.connect()
		took := time.Since(start)
		if err != nil {
			a.err = fmt.Errorf("connecting to %v: %w", a.To, err)
			return
		}
		a.results = append(a.results, Attempted{Errno: errno, Took: took})
		if errno == 0 || a.giveUp.Load() != nil {
			return
		}
	}
}

// connect makes one attempt. The error is not nil if the helper failed, which is not a result.
func (a *attempt) connect() (unix.Errno, error) {
	err := a.sendSYN()
	if a.NonBlocking && (err == nil || errors.Is(err, unix.EINPROGRESS)) {
		err = a.wait()
	}
	errno, isErrno := err.(unix.Errno) //nolint:errorlint // only system calls failed here
	if err != nil && !isErrno {
		return 0, err
	}
	return errno, nil
}

func (a *attempt) sendSYN() error {
	if a.FastOpen == FastOpenSend {
		return unix.Sendto(a.fd, fastOpenData, unix.MSG_FASTOPEN, a.to)
	}
	err := unix.Connect(a.fd, a.to)
	for errors.Is(err, unix.EINTR) { // of a blocking socket: the attempt goes on
		err = unix.Connect(a.fd, a.to)
	}
	if err != nil || a.FastOpen == "" {
		return err
	}
	// If no cookie is needed, or known, connect(2) has sent no SYN.
	if _, err := unix.Write(a.fd, fastOpenData); !errors.Is(err, unix.EAGAIN) {
		return err
	}
	return nil
}

// wait waits for the result of a non-blocking attempt, or until it is to be given up.
func (a *attempt) wait() error {
	for {
		fds := []unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLOUT}, {Fd: int32(a.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		if fds[0].Revents == 0 {
			return a.giveUpNow()
		}
		if err := a.result(); err != nil {
			return err
		}
		// ICMP is queued, which wakes poll, before the kernel sets first the error and then the state.
		if state, err := tcpState(a.fd); err != nil || state != "SYN_SENT" && state != "CLOSE" {
			return err
		}
	}
}

// result returns the result of a non-blocking attempt as the process reads it.
func (a *attempt) result() error {
	if !a.SameSocket {
		return socketError(a.fd)
	}
	if err := unix.Connect(a.fd, a.to); !errors.Is(err, unix.EISCONN) && !errors.Is(err, unix.EALREADY) {
		return err
	}
	return nil
}

// giveUpNow gives up a non-blocking attempt, and returns what the process reads from the socket.
func (a *attempt) giveUpNow() error {
	if err := a.end(); err != nil {
		return err
	}
	if a.giveUp.Load() == GiveUpClose {
		return unix.EINPROGRESS
	}
	return socketError(a.fd)
}

// end gives the attempt up.
func (a *attempt) end() error {
	switch how := a.giveUp.Load(); how {
	case GiveUpClose: // forget closes the socket
	case GiveUpShutdown:
		if err := unix.Shutdown(a.fd, unix.SHUT_RDWR); err != nil {
			return fmt.Errorf("shutdown: %w", err)
		}
	case GiveUpDisconnect:
		to := unix.RawSockaddr{Family: unix.AF_UNSPEC} // package unix has no Sockaddr for it
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(a.fd), uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
		if errno != 0 {
			return fmt.Errorf("connecting to AF_UNSPEC: %w", errno)
		}
	default:
		return fmt.Errorf("unknown way to give up %q", how)
	}
	return nil
}

func (h *helper) finish(r request, end time.Time) ([]Attempted, error) {
	return h.collect(r, end, func(*attempt) error { return nil })
}

func (h *helper) giveUp(r request, end time.Time) ([]Attempted, error) {
	return h.collect(r, end, func(a *attempt) error {
		select {
		case <-a.ended:
			return fmt.Errorf("the attempt to connect to %v has ended already: %v, %w", a.To, a.results, a.err)
		default:
		}
		a.giveUp.Store(r.GiveUp)
		if a.NonBlocking {
			_, err := unix.Write(a.wake, binary.NativeEndian.AppendUint64(nil, 1))
			return err
		}
		if r.GiveUp == GiveUpClose {
			return errors.New("a blocking attempt cannot be closed")
		}
		return a.end()
	})
}

// collect does something with attempts, waits until they have ended, and returns their results.
func (h *helper) collect(r request, end time.Time, do func(*attempt) error) ([]Attempted, error) {
	for _, inode := range r.Inodes {
		a, ok := h.attempts[inode]
		if !ok {
			return nil, fmt.Errorf("no attempt is made on socket %d", inode)
		}
		if err := do(a); err != nil {
			return nil, err
		}
	}
	var results []Attempted
	for _, inode := range r.Inodes {
		a := h.attempts[inode]
		select {
		case <-a.ended:
		case <-time.After(time.Until(end)):
			return nil, fmt.Errorf("an attempt to connect to %v has not ended", a.To)
		}
		of, err := h.forget(inode, a)
		if err != nil {
			return nil, err
		}
		results = append(results, of...)
	}
	return results, nil
}

// forget returns the results of an attempt that has ended, and closes what is not to be kept.
func (h *helper) forget(inode uint64, a *attempt) ([]Attempted, error) {
	delete(h.attempts, inode)
	_ = unix.Close(a.wake)
	s, err := describe(a.fd)
	if err == nil {
		s.State, err = tcpState(a.fd)
	}
	if err = errors.Join(a.err, err); err != nil {
		return nil, err
	}
	for i := range a.results {
		a.results[i].Socket = s
	}
	if !a.Keep || a.giveUp.Load() == GiveUpClose {
		err = h.close(a.fd)
	}
	return a.results, err
}

package netstat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// seccompRule has a system call fail.
type seccompRule struct {
	call     uintptr
	argument int // the first, of those that fail, such as a file; less than 0: whichever
	errno    unix.Errno
}

// failing runs f on a thread on which system calls fail, and which ends with it.
func failing(t *testing.T, f func(), rules ...seccompRule) {
	t.Helper()
	var refused error
	onThread(func() {
		if refused = install(rules); refused == nil {
			f()
		}
	})
	if refused != nil {
		testnet.SkipOrFail(t, fmt.Sprintf("seccomp: %v", refused))
	}
}

// install has the system calls fail on this thread, from now on.
func install(rules []seccompRule) error {
	const number, firstArgument, allow, fail = 0, 16, 0x7fff0000, 0x00050000 // struct seccomp_data, SECCOMP_RET_*
	var filter []unix.SockFilter
	load := func(at uint32) {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at})
	}
	unless := func(value uint32, skip uint8) {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip})
	}
	is := func(verdict uint32) {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict})
	}
	for _, rule := range rules {
		load(number)
		if rule.argument < 0 {
			unless(uint32(rule.call), 1)
		} else {
			unless(uint32(rule.call), 3)
			load(firstArgument)
			unless(uint32(rule.argument), 1)
		}
		is(fail | uint32(rule.errno))
	}
	is(allow)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	runtime.KeepAlive(filter)
	return err
}

const socketsOfCrowd = 2*1000 + 1

// newDiagSocketOfCrowd makes so many sockets, and returns a netlink socket to ask for them.
func newDiagSocketOfCrowd(t *testing.T) *diagSocket {
	t.Helper()
	testnet.Crowd(t, 1, socketsOfCrowd/2)
	conn, err := diagOpener(nil)()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn.(*diagSocket)
}

// A dump for which the kernel has no memory fails, and nothing else: the next one has all sockets again.
func TestDiagSocketOutOfMemory(t *testing.T) {
	testnet.Isolate(t, func() {
		d := newDiagSocketOfCrowd(t)
		var err error
		count := func() (n int, err error) {
			_, err = d.dump(t.Context(), dumpRequest{transport: TransportTCP, states: statesAll, tcpInfo: true}, func([]byte) bool {
				n++
				return true
			})
			return n, err
		}
		for range 3 {
			failing(t, func() { _, err = count() }, seccompRule{unix.SYS_RECVMMSG, socketOf(d).fd, unix.ENOBUFS})
			require.ErrorIs(t, err, unix.ENOBUFS)
			require.NotErrorIs(t, err, errors.ErrUnsupported)
			n, err := count()
			require.NoError(t, err)
			require.Equal(t, socketsOfCrowd, n)
		}
		failing(t, func() { _, err = count() }, seccompRule{unix.SYS_SENDTO, socketOf(d).fd, unix.ENOBUFS})
		require.ErrorIs(t, err, unix.ENOBUFS)
		require.NotErrorIs(t, err, errors.ErrUnsupported)
		n, err := count()
		require.NoError(t, err)
		require.Equal(t, socketsOfCrowd, n)
	})
}

// acknowledgment is the kernel's answer to a message that asks for one.
func acknowledgment(sequence uint32) []byte {
	return answer(nlmsgError, 0x100, sequence, append(u32s(0), make([]byte, nlmsgHeaderLen)...))
}

// The kernel fills a buffer when one was read. After it could not there is none to read, until it is asked for something.
func TestDiagSocketGoesOnAfterStall(t *testing.T) {
	d, kernel := newFakeKernel(t)
	kernel.send(socketAnswer(1, "one!"))
	_, _, err := dump(t.Context(), d)
	require.ErrorIs(t, err, errNoAnswer)
	require.Equal(t, []uint32{1}, kernel.requests())

	nudged := make(chan error, 1)
	go func() { // the kernel, which goes on when it is asked for an acknowledgment
		request := make([]byte, 100)
		n, err := unix.Read(kernel.fd, request)
		if err == nil && (n != nlmsgHeaderLen || binary.NativeEndian.Uint16(request[4:]) != unix.NLMSG_NOOP) {
			err = fmt.Errorf("asked by %x", request[:n])
		}
		for _, message := range [][]byte{
			acknowledgment(0), socketAnswer(1, "two!"), endAnswer(1), append(socketAnswer(2, "three"), endAnswer(2)...),
		} {
			err = errors.Join(err, unix.Send(kernel.fd, message, 0))
		}
		nudged <- err
	}()
	payloads, interrupted, err := dump(t.Context(), d)
	require.NoError(t, <-nudged)
	require.NoError(t, err)
	require.False(t, interrupted)
	require.Equal(t, []string{"three"}, payloads)

	kernel.send(socketAnswer(3, "four"), endAnswer(3))
	payloads, _, err = dump(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, []string{"four"}, payloads)
	require.Equal(t, []uint32{2, 3}, kernel.requests(), "a dump that went well needs no acknowledgment")
}

// The real kernel acknowledges in the middle of a dump, and goes on with it.
func TestDiagSocketNudge(t *testing.T) {
	testnet.Isolate(t, func() {
		d := newDiagSocketOfCrowd(t)
		var err error
		request := dumpRequest{transport: TransportTCP, states: statesAll, tcpInfo: true}
		for range 3 {
			_, err = d.dump(t.Context(), request, func([]byte) bool { return false })
			require.Equal(t, errStopped, err)
			require.True(t, d.pending)
			d.stalled = true
			n := 0
			_, err = d.dump(t.Context(), request, func([]byte) bool { n++; return true })
			require.NoError(t, err)
			require.Equal(t, socketsOfCrowd, n)
			require.False(t, d.stalled)
		}
	})
}

// interruptions sends a thread a signal again and again, which ends its system calls with EINTR where the socket has a timeout
// (signal(7)), until it is stopped.
func interruptions(tid int) (stop func() (sent int64)) {
	var sent atomic.Int64
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for ticker := time.NewTicker(time.Millisecond); ; <-ticker.C {
			select {
			case <-end:
				return
			default:
			}
			if unix.Tgkill(unix.Getpid(), tid, unix.SIGURG) == nil { // the signal that Go's scheduler uses itself
				sent.Add(1)
			}
		}
	}()
	return func() int64 {
		close(end)
		<-ended
		return sent.Load()
	}
}

// Signals that interrupt the wait for an answer neither end nor prolong it.
func TestDiagSocketInterrupted(t *testing.T) {
	d, kernel := newFakeKernel(t)
	d.patience = 300 * time.Millisecond
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	long := unix.NsecToTimeval(int64(time.Minute))
	require.NoError(t, unix.SetsockoptTimeval(d.conn.(*pairConn).fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &long), "nothing but a signal ends a read")
	stop := interruptions(unix.Gettid())

	began := time.Now()
	_, _, err := dump(t.Context(), d)
	took := time.Since(began)
	require.ErrorIs(t, err, errNoAnswer)
	require.GreaterOrEqual(t, took, d.patience)
	require.Less(t, took, 5*time.Second)

	d.stalled = false
	go func() {
		pause := d.patience * 2 / 3 // two are too long, if the time before is counted as well
		for _, message := range [][]byte{endAnswer(1), socketAnswer(2, "one!"), endAnswer(2)} {
			time.Sleep(pause)
			_ = unix.Send(kernel.fd, message, 0)
		}
	}()
	payloads, _, err := dump(t.Context(), d)
	require.Greater(t, stop(), int64(50))
	require.NoError(t, err)
	require.Equal(t, []string{"one!"}, payloads)
}

// The end of the context ends the wait for a silent kernel.
func TestDiagSocketContextEndsWait(t *testing.T) {
	conn, err := diagOpener(nil)()
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	d := conn.(*diagSocket)
	d.pending = true // it waits for an answer that was never asked for
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	began := time.Now()
	_, _, err = dump(ctx, d)
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(began), time.Second)
	require.Greater(t, d.patience, 2*time.Second, "it was not the deadline")
}

// A kernel that is silent costs a scan of all transports its deadline once, and not once for each of them.
func TestScannerSilentKernel(t *testing.T) {
	d, _ := newFakeKernel(t)
	d.patience = 2 * time.Second
	dup, err := unix.FcntlInt(uintptr(d.conn.(*pairConn).fd), unix.F_DUPFD_CLOEXEC, 0) // the scanner closes its own
	require.NoError(t, err)
	s := newFakeScanner(t, ScannerConfig{
		OwnerMethod: OwnersOff, Transports: []Transport{TransportTCP, TransportUDP, TransportUDPLite, TransportRaw, TransportUnix},
	}, &diagSocket{conn: &pairConn{fd: dup}, last: d.last, patience: d.patience})
	began := time.Now()
	sockets, errs := scan(s, inode)
	require.Less(t, time.Since(began), 2*d.patience)
	require.Empty(t, sockets)
	require.Len(t, errs, 5, "one of each transport")
	for _, err := range errs {
		require.ErrorIs(t, err, errNoAnswer)
	}
}

// The end of a stream of messages is not taken for silence, nor read for ever.
func TestDiagSocketClosedByPeer(t *testing.T) {
	deadline(t)
	d, kernel := newFakeKernel(t)
	require.NoError(t, unix.Shutdown(kernel.fd, unix.SHUT_WR))
	_, _, err := dump(t.Context(), d)
	require.ErrorIs(t, err, errShortMessage)
}

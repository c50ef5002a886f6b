package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

const manySockets = 2*1000 + 1

// openConnWithManySockets opens manySockets TCP sockets, and returns a connection for dumps.
func openConnWithManySockets(t *testing.T) *Conn {
	t.Helper()
	testnet.ConnectedPairs(t, 1, manySockets/2)
	return openConn(t)
}

// If the kernel is out of memory, only that dump fails: the next one has all sockets.
func TestConnOutOfMemory(t *testing.T) {
	testnet.Isolate(t, func() {
		d := openConnWithManySockets(t)
		var err error
		count := func() (n int, err error) {
			_, err = d.Dump(t.Context(), Request{Protocol: ProtocolTCP, States: StatesAll, TCPInfo: true}, func([]byte) bool {
				n++
				return true
			})
			return n, err
		}
		for range 3 {
			testnet.Failing(t, func() { _, err = count() }, testnet.Fails(unix.SYS_RECVMMSG, unix.ENOBUFS, dumpSocketOf(d).fd))
			require.ErrorIs(t, err, unix.ENOBUFS)
			require.NotErrorIs(t, err, errors.ErrUnsupported)
			n, err := count()
			require.NoError(t, err)
			require.Equal(t, manySockets, n)
		}
		testnet.Failing(t, func() { _, err = count() }, testnet.Fails(unix.SYS_SENDTO, unix.ENOBUFS, dumpSocketOf(d).fd))
		require.ErrorIs(t, err, unix.ENOBUFS)
		require.NotErrorIs(t, err, errors.ErrUnsupported)
		n, err := count()
		require.NoError(t, err)
		require.Equal(t, manySockets, n)
	})
}

// acknowledgment returns the kernel's answer to a message with NLM_F_ACK.
func acknowledgment(sequence uint32) []byte {
	return answer(typeError, 0x100, sequence, append(u32s(0), make([]byte, headerLen)...))
}

// The kernel fills the next buffer when one is read. If it cannot, it stops until it gets another request.
func TestConnContinuesAfterStall(t *testing.T) {
	d, kernel := newFakeKernel(t)
	kernel.send(socketAnswer(1, "one!"))
	_, _, err := dump(t.Context(), d)
	require.ErrorIs(t, err, ErrNoAnswer)
	require.Equal(t, []uint32{1}, kernel.requests())

	nudged := make(chan error, 1)
	go func() { // the kernel continues when it gets a request
		request := make([]byte, 100)
		n, err := unix.Read(kernel.fd, request)
		if err == nil && (n != headerLen || binary.NativeEndian.Uint16(request[4:]) != unix.NLMSG_NOOP) {
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
	require.Equal(t, []uint32{2, 3}, kernel.requests(), "a complete dump needs no acknowledgment")
}

// The real kernel acknowledges a request within a dump, and continues the dump.
func TestConnNudge(t *testing.T) {
	testnet.Isolate(t, func() {
		d := openConnWithManySockets(t)
		var err error
		request := Request{Protocol: ProtocolTCP, States: StatesAll, TCPInfo: true}
		for range 3 {
			_, err = d.Dump(t.Context(), request, func([]byte) bool { return false })
			require.Equal(t, ErrStopped, err)
			require.True(t, d.pending)
			d.stalled = true
			n := 0
			_, err = d.Dump(t.Context(), request, func([]byte) bool { n++; return true })
			require.NoError(t, err)
			require.Equal(t, manySockets, n)
			require.False(t, d.stalled)
		}
	})
}

// interruptions sends signals to a thread until stopped. They interrupt its system calls with EINTR where the socket has a
// timeout (signal(7)).
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
			if unix.Tgkill(unix.Getpid(), tid, unix.SIGURG) == nil { // the signal of Go's scheduler
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

// Signals neither end nor prolong the wait for an answer.
func TestConnInterrupted(t *testing.T) {
	d, kernel := newFakeKernel(t)
	d.timeout = 300 * time.Millisecond
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	long := unix.NsecToTimeval(int64(time.Minute))
	fd := d.conn.(*pairConn).fd
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &long), "only a signal ends a read")
	stop := interruptions(unix.Gettid())

	start := time.Now()
	_, _, err := dump(t.Context(), d)
	took := time.Since(start)
	require.ErrorIs(t, err, ErrNoAnswer)
	require.GreaterOrEqual(t, took, d.timeout)
	require.Less(t, took, 5*time.Second)

	d.stalled = false
	go func() {
		pause := d.timeout * 2 / 3 // two exceed the timeout together
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
func TestConnContextEndsWait(t *testing.T) {
	testnet.SkipIfShort(t)
	d := openConn(t)
	d.pending = true // it waits for an answer to no request
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	_, _, err := dump(ctx, d)
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(start), time.Second)
	require.Greater(t, d.timeout, 2*time.Second, "not the timeout")
}

// A silent kernel costs one timeout, not one per dump.
func TestConnSilentKernelCostsOneTimeout(t *testing.T) {
	d, _ := newFakeKernel(t)
	d.timeout = 2 * time.Second
	start := time.Now()
	for range 5 {
		_, _, err := dump(t.Context(), d)
		require.ErrorIs(t, err, ErrNoAnswer)
	}
	took := time.Since(start)
	require.GreaterOrEqual(t, took, d.timeout)
	require.Less(t, took, 2*d.timeout)
}

// The end of a stream is not taken for silence, and does not cause an endless loop.
func TestConnClosedByPeer(t *testing.T) {
	timer := time.AfterFunc(time.Minute, func() { panic(t.Name() + " hangs") })
	defer timer.Stop()
	d, kernel := newFakeKernel(t)
	require.NoError(t, unix.Shutdown(kernel.fd, unix.SHUT_WR))
	_, _, err := dump(t.Context(), d)
	require.ErrorIs(t, err, ErrShort)
}

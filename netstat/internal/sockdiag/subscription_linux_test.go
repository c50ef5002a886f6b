package sockdiag

import (
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// testBuffer is larger than any test needs.
const testBuffer = 32 << 20

// newSubscription returns a subscription that is closed when the test ends, and its handler.
func newSubscription(t *testing.T) (*Subscription, *counter) {
	t.Helper()
	handler := &counter{}
	s, err := Subscribe(handler, testBuffer)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s, handler
}

// locked calls f while the subscription does not read.
func locked(s *Subscription, f func(fd int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.socket.fd)
}

func bufferOf(t *testing.T, fd int) int {
	t.Helper()
	buffer, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	require.NoError(t, err)
	return buffer
}

func dropsOf(t *testing.T, fd int) memInfo {
	t.Helper()
	info, err := memInfoOf(fd)
	require.NoError(t, err)
	return info
}

// newListener returns a listener that is closed when the test ends, so that its socket is not destroyed before.
func newListener(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	return listener
}

// destroy opens connections and resets both ends, so that the kernel destroys two sockets per connection and no TIME_WAIT stays.
func destroy(t *testing.T, listener net.Listener, connections int) {
	t.Helper()
	for range connections {
		client, err := net.Dial("tcp4", listener.Addr().String())
		require.NoError(t, err)
		server, err := listener.Accept()
		require.NoError(t, err)
		for _, end := range []net.Conn{client, server} {
			require.NoError(t, end.(*net.TCPConn).SetLinger(0))
			require.NoError(t, end.Close())
		}
	}
}

// The handler gets every destroyed socket once.
func TestSubscription(t *testing.T) {
	testnet.Isolate(t, func() {
		listener := newListener(t)
		s, handler := newSubscription(t)
		for round := range 3 {
			const connections = 100
			destroy(t, listener, connections)
			want := 2 * connections * (round + 1)
			require.Eventually(t, func() (all bool) {
				s.Sync(func(lost int) {
					require.Zero(t, lost)
					all = handler.sockets >= want
				})
				return all
			}, 10*time.Second, time.Millisecond)
			s.Sync(func(int) { require.Equal(t, counter{sockets: want}, *handler) })
		}
	})
}

// The goroutine reads events without Sync.
func TestSubscriptionReads(t *testing.T) {
	testnet.Isolate(t, func() {
		listener := newListener(t)
		s, handler := newSubscription(t)
		for round := range 3 {
			destroy(t, listener, 10)
			require.Eventually(t, func() (all bool) {
				locked(s, func(int) { all = handler.sockets == 20*(round+1) })
				return all
			}, 10*time.Second, time.Millisecond)
		}
	})
}

// A pause is no longer than the receive buffer holds a burst, by its actual size.
func TestSubscriptionPause(t *testing.T) {
	testnet.Isolate(t, func() {
		const small, large = 208 << 10, 1 << 20 // the default net.core.rmem_max of many kernels, and more
		s, _ := newSubscription(t)
		require.Equal(t, maxPause, s.pause)
		require.Equal(t, minPause, pauseFor(0))
		for _, asked := range []int{small, large} {
			require.Greater(t, pauseFor(2*asked), minPause)
			require.Less(t, pauseFor(2*asked), maxPause)
		}

		listener := newListener(t)
		for _, asked := range []int{small, large} {
			s, _ := newSubscription(t)
			s.SetBuffer(asked)
			require.Equal(t, pauseFor(2*asked), s.pause)
			locked(s, func(fd int) {
				buffer := bufferOf(t, fd)
				require.Equal(t, 2*asked, buffer)
				burst := int(burstRate * pauseFor(buffer) / time.Second)
				destroy(t, listener, burst) // two events each
				dropped := func() bool { s.countDrops(); return s.lost > 0 }
				require.Eventually(t, dropped, 10*time.Second, 10*time.Millisecond)
				require.GreaterOrEqual(t, s.receive(), burst)
			})
		}
	})
}

// CAP_NET_ADMIN alone permits a larger buffer than net.core.rmem_max.
func TestSubscriptionBuffer(t *testing.T) {
	testnet.Isolate(t, func() {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<30))
		limit := bufferOf(t, fd)
		listener := newListener(t)
		for _, as := range []struct {
			name   string
			keep   []uint
			buffer int
		}{
			{"nobody", nil, min(limit, 2*testBuffer)},
			{"nobody with CAP_NET_ADMIN", []uint{unix.CAP_NET_ADMIN}, 2 * testBuffer},
		} {
			t.Run(as.name, func(t *testing.T) {
				testnet.BecomeNobody(t, as.keep...)
				s, _ := newSubscription(t)
				locked(s, func(fd int) {
					require.Equal(t, as.buffer, bufferOf(t, fd))
					const smallest = 1000 // bytes that any kernel charges for an event, at least
					destroy(t, listener, (min(limit, testBuffer)/smallest+1)/2)
					if limit > testBuffer {
						t.Log("net.core.rmem_max does not limit the buffer here")
						return
					}
					before, now := s.drops, memInfo{}
					require.Eventually(t, func() bool { // the kernel sends events from a work queue
						now = dropsOf(t, fd)
						return now.drops > before || int(now.received) > limit
					}, 10*time.Second, time.Millisecond)
					require.Equal(t, as.buffer < 2*testBuffer, now.drops > before, "%d of %d bytes taken", now.received, as.buffer)
				})
			})
		}
	})
}

// Events that exceed the buffer are counted, and the count is handed out once.
func TestSubscriptionLost(t *testing.T) {
	testnet.Isolate(t, func() {
		const connections = 500
		listener := newListener(t)
		s, handler := newSubscription(t)
		s.SetBuffer(16 << 10)
		lost := 0
		for round := range 2 {
			before := lost
			locked(s, func(fd int) {
				destroy(t, listener, connections)
				require.Eventually(t, func() bool { return dropsOf(t, fd).drops > s.drops }, 10*time.Second, time.Millisecond)
			})
			want := 2 * connections * (round + 1)
			require.Eventually(t, func() (all bool) {
				s.Sync(func(n int) {
					lost += n
					all = handler.sockets+lost >= want
				})
				return all
			}, 10*time.Second, time.Millisecond)
			require.Greater(t, lost, before)
			require.Equal(t, want, handler.sockets+lost)
		}
	})
}

// After an overflow the kernel sends the next events, even before the buffer has been read.
func TestSubscriptionContinuesAfterLoss(t *testing.T) {
	testnet.Isolate(t, func() {
		listener := newListener(t)
		s, _ := newSubscription(t)
		locked(s, func(fd int) {
			require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<10))
			destroy(t, listener, 100)
			require.Eventually(t, func() bool { return dropsOf(t, fd).drops > s.drops }, 10*time.Second, time.Millisecond)
			// With a larger buffer it sends more events, although nothing was read.
			require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, testBuffer))
			var before memInfo
			require.Eventually(t, func() bool { // until all have arrived
				last := before
				before = dropsOf(t, fd)
				return before == last
			}, 10*time.Second, 100*time.Millisecond)
			destroy(t, listener, 1)
			require.Eventually(t, func() bool { return dropsOf(t, fd).received > before.received }, 10*time.Second, time.Millisecond)
		})
	})
}

// Close reads the events that have arrived. If its goroutine has ended, Sync and Close read the subscription.
func TestSubscriptionReadsLastEvents(t *testing.T) {
	testnet.Isolate(t, func() {
		listener := newListener(t)
		s, handler := newSubscription(t)
		require.NoError(t, s.waiter.SetReadDeadline(time.Unix(1, 0)))
		<-s.done
		require.Equal(t, counter{failed: 1}, *handler, "reports that the goroutine has ended")
		destroyOne := func() {
			destroy(t, listener, 1)
			require.Eventually(t, func() bool {
				return dropsOf(t, s.socket.fd).received > 1408 // two events
			}, 10*time.Second, time.Millisecond)
		}
		destroyOne()
		require.Zero(t, handler.sockets)
		s.Sync(func(lost int) {
			require.Zero(t, lost)
			require.Equal(t, counter{sockets: 2, failed: 1}, *handler)
		})
		destroyOne()
		s.Close()
		require.Equal(t, counter{sockets: 4, failed: 1}, *handler)
		called := false
		s.Sync(func(lost int) {
			called = true
			require.Zero(t, lost)
		})
		require.True(t, called)
	})
}

// Close immediately releases the descriptors and the goroutine, and can be called twice.
func TestSubscriptionClose(t *testing.T) {
	testnet.Isolate(t, func() {
		first, _ := newSubscription(t) // opens what the runtime keeps open
		first.Close()
		before, goroutines := openDescriptors(t), runtime.NumGoroutine()
		for range 20 {
			s, _ := newSubscription(t)
			start := time.Now()
			s.Close()
			s.Close()
			require.Less(t, time.Since(start), 10*time.Second)
		}
		require.Equal(t, before, openDescriptors(t))
		testnet.WaitForGoroutines(t, goroutines)
	})
}

// The error of a refused subscription distinguishes unsupported from scarce, and leaves no descriptor open.
func TestSubscribeErrors(t *testing.T) {
	testnet.SkipIfShort(t)
	before := openDescriptors(t)
	for _, test := range []struct {
		call        uintptr
		errno       unix.Errno
		unsupported bool
		want        string
	}{
		{unix.SYS_SOCKET, unix.EPROTONOSUPPORT, true, "opening a sock_diag socket"},
		{unix.SYS_SETSOCKOPT, unix.ENOPROTOOPT, true, "subscribing to destroyed sockets: requires Linux 4.12"},
		{unix.SYS_GETSOCKOPT, unix.ENOPROTOOPT, true, "subscribing to destroyed sockets: requires Linux 4.12"},
		{unix.SYS_BIND, unix.EINVAL, true, "subscribing to destroyed sockets: requires Linux 4.12"},
		{unix.SYS_BIND, unix.EPERM, true, "subscribing to destroyed sockets: denied by a security module or a seccomp filter"},
		{unix.SYS_BIND, unix.ENOMEM, false, "subscribing to destroyed sockets"},
		{unix.SYS_EPOLL_CREATE1, unix.EMFILE, false, "waiting for destroyed sockets"},
		{unix.SYS_EPOLL_CTL, unix.ENOSPC, false, "waiting for destroyed sockets"},
	} {
		var s *Subscription
		var err error
		testnet.Failing(t, func() { s, err = Subscribe(&counter{}, testBuffer) },
			testnet.Fails(test.call, test.errno))
		require.Nil(t, s)
		require.ErrorIs(t, err, test.errno)
		require.ErrorContains(t, err, test.want+": ")
		require.Equal(t, test.unsupported, errors.Is(err, errors.ErrUnsupported), test.want)
		require.Equal(t, before, openDescriptors(t), test.want)
	}
}

package sockdiag

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Subscription is a netlink socket to which the kernel sends the TCP sockets that it destroys (sock_diag_broadcast_destroy,
// net/core/sock_diag.c). It stays in the network namespace that it was made in. A goroutine reads it, and so do Sync and Close.
type Subscription struct {
	// waiter is an epoll(7) instance that reports one message and then none until it is armed again, so that messages can
	// accumulate. Go's poller waits for it: a subscription costs no thread.
	waiter  *os.File
	closing chan struct{} // closed by Close
	done    chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	handler Handler
	socket  *socket // closed with the subscription
	closed  bool
	pause   time.Duration // between two reads
	armed   bool          // waiter reports the next message
	drops   uint32        // what the kernel has counted
	lost    int           // of them, those that Sync has not handed out
}

// How long messages may accumulate: to wake up for each costs far more than to read it. A pause is the longest in which
// burstRate messages a second fit into the receive buffer, within these bounds.
const (
	minPause  = 5 * time.Millisecond
	maxPause  = 40 * time.Millisecond
	burstRate = 60_000
)

// pauseFor returns the pause for a receive buffer of so many bytes.
func pauseFor(buffer int) time.Duration {
	const message = 1408 // bytes of the buffer that one takes
	pause := time.Duration(buffer/message) * time.Second / burstRate
	return min(max(pause, minPause), maxPause)
}

// Subscribe subscribes to the TCP sockets destroyed in the network namespace of this thread, with SetBuffer(buffer). An
// error that is errors.ErrUnsupported says that the kernel does not have these events, or does not permit them.
func Subscribe(handler Handler, buffer int) (*Subscription, error) {
	socket, err := openSocket(unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	s := &Subscription{socket: socket, handler: handler, closing: make(chan struct{}), done: make(chan struct{})}
	s.SetBuffer(buffer)
	if err = s.join(); err != nil {
		_ = socket.close()
		return nil, fmt.Errorf("subscribing to destroyed sockets (needs Linux 4.12): %w", eventsNotSupported(err))
	}
	var readable syscall.RawConn
	s.waiter, err = newWaiter(socket.fd)
	if err == nil {
		readable, err = s.waiter.SyscallConn()
	}
	if err != nil {
		_ = s.waiter.Close() // which may be nil
		_ = socket.close()
		return nil, fmt.Errorf("waiting for destroyed sockets: %w", err)
	}
	go s.read(readable)
	return s, nil
}

// join joins the multicast groups.
func (s *Subscription) join() error {
	const groups = 1<<0 | 1<<2 // SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY (include/uapi/linux/sock_diag.h)
	// Otherwise the kernel, once the buffer was full, would send nothing until all is read (netlink_overrun,
	// net/netlink/af_netlink.c).
	if err := unix.SetsockoptInt(s.socket.fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1); err != nil {
		return err
	}
	info, err := memInfoOf(s.socket.fd)
	if err != nil {
		return err
	}
	s.drops = info.drops
	return s.socket.subscribe(groups)
}

// eventsNotSupported marks further errors by which an old kernel says that it knows no such group or option.
func eventsNotSupported(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return notSupported(err)
}

// newWaiter returns an epoll instance for the socket that is not armed.
func newWaiter(fd int) (*os.File, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err = unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{}); err == nil {
		err = unix.SetNonblock(epfd, true) // so that Go's poller takes it
	}
	if err != nil {
		_ = unix.Close(epfd)
		return nil, err
	}
	return os.NewFile(uintptr(epfd), "sock_diag"), nil
}

// SetBuffer bounds what the kernel may keep until it is read: to 2 * bytes, as it doubles what it is given (sk_setsockopt,
// net/core/sock.c), or without CAP_NET_ADMIN to 2 * net.core.rmem_max.
func (s *Subscription) SetBuffer(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd := s.socket.fd
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes) // which gives as much as is permitted
	}
	buffer, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF) // 0, should it fail: the shortest pause
	s.pause = pauseFor(buffer)
}

// read reads until the subscription is closed.
func (s *Subscription) read(readable syscall.RawConn) {
	defer close(s.done)
	receive := func(epfd uintptr) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.armed {
			var events [1]unix.EpollEvent
			_, _ = unix.EpollWait(int(epfd), events[:], 0) // without this, each message would wake up Go's poller
			s.armed = false
		}
		return s.closed || s.receive() > 0 || !s.arm(int(epfd))
	}
	pause := time.NewTimer(minPause)
	defer pause.Stop()
	for {
		err := readable.Read(receive)
		s.mu.Lock()
		if err != nil && !s.closed { // Go's poller cannot wait for it: Sync still reads
			s.handler.Failed(fmt.Errorf("waiting for destroyed sockets: %w", err))
		}
		pause.Reset(s.pause)
		s.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-s.closing:
			return
		case <-pause.C:
		}
	}
}

// arm has the epoll instance report the next message, which may be there already.
func (s *Subscription) arm(epfd int) bool {
	next := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	err := unix.EpollCtl(epfd, unix.EPOLL_CTL_MOD, s.socket.fd, &next)
	if err != nil {
		s.handler.Failed(fmt.Errorf("waiting for destroyed sockets: %w", err))
	}
	s.armed = err == nil
	return s.armed
}

// receive reads the messages that are there, and returns how many. The caller holds the lock.
func (s *Subscription) receive() (received int) {
	const limit = 1 << 16              // messages: a process that makes more than can be read must not keep the lock
	messages := batches.Get().(*batch) //nolint:forcetypeassert // it has nothing else
	defer batches.Put(messages)
	for received < limit {
		n, err := s.socket.receive(messages, unix.MSG_DONTWAIT)
		for i := range n {
			switch b, err := messages.message(i); {
			case err == nil:
				eachEvent(b, s.handler)
			case !errors.Is(err, errNotFromKernel):
				s.handler.Failed(err)
			}
		}
		received += n
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS): // countDrops counts what was lost
		case err != nil && !errors.Is(err, unix.EAGAIN):
			s.handler.Failed(fmt.Errorf("reading destroyed sockets: %w", err))
			return received
		case n < len(messages.headers):
			return received
		}
	}
	return received
}

// batches are those that are not in use, for all subscriptions. A message has about 400 bytes.
var batches = sync.Pool{New: func() any { return newBatch(64, 1024) }}

// countDrops counts the messages that did not fit into the receive buffer since the last call. The kernel's number wraps. The
// caller holds the lock.
func (s *Subscription) countDrops() {
	info, err := memInfoOf(s.socket.fd)
	if err != nil {
		s.handler.Failed(fmt.Errorf("counting lost events of destroyed sockets: %w", err))
		return
	}
	s.lost += int(info.drops - s.drops)
	s.drops = info.drops
}

// Sync reads the events that are there and then calls f, while the handler is not called. lost is the number of events that did
// not fit into the receive buffer since the last call of Sync. It can be called after Close.
func (s *Subscription) Sync(f func(lost int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.receive()
		s.countDrops()
	}
	lost := s.lost
	s.lost = 0
	f(lost)
}

// Close reads the events that are there and ends the subscription. It can be called again.
func (s *Subscription) Close() {
	s.mu.Lock()
	wasClosed := s.closed
	if !wasClosed {
		s.receive()
		s.countDrops()
		_ = s.socket.close()
		s.closed = true
	}
	s.mu.Unlock()
	if !wasClosed {
		close(s.closing)
		_ = s.waiter.Close()
		<-s.done
	}
}

// memInfo is what SO_MEMINFO returns: Linux 4.12, include/uapi/linux/sock_diag.h.
type memInfo struct {
	received uint32    // bytes that unread messages take: SK_MEMINFO_RMEM_ALLOC
	_        [7]uint32 // up to SK_MEMINFO_BACKLOG
	drops    uint32    // messages that did not fit: SK_MEMINFO_DROPS
}

func memInfoOf(fd int) (info memInfo, err error) {
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	switch {
	case errno != 0:
		return info, errno
	case size < uint32(unsafe.Sizeof(info)):
		return info, unix.ENOPROTOOPT
	}
	return info, nil
}

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

// Subscription is a netlink socket to which the kernel reports destroyed TCP sockets (sock_diag_broadcast_destroy,
// net/core/sock_diag.c). It stays in the network namespace in which it was opened. A goroutine reads it; Sync and Close read it
// too.
type Subscription struct {
	// waiter is an epoll(7) instance that reports one message and then none until it is armed again, so that messages accumulate.
	// The runtime poller waits for it: a subscription needs no thread.
	waiter  *os.File
	closing chan struct{} // closed by Close
	done    chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	handler Handler
	socket  *socket // closed with the subscription
	closed  bool
	pause   time.Duration // between two reads
	armed   bool          // waiter reports the next message
	drops   uint32        // the kernel's counter at the last read
	lost    int           // drops that Sync has not returned yet
}

// Messages accumulate during a pause, because waking up for each costs far more than reading it. The pause is the time in which
// burstRate messages per second fill the receive buffer, within these bounds.
const (
	minPause  = 5 * time.Millisecond
	maxPause  = 40 * time.Millisecond
	burstRate = 60_000
)

// pauseFor returns the pause for a receive buffer in bytes.
func pauseFor(buffer int) time.Duration {
	const message = 1408 // bytes of the buffer per message
	pause := time.Duration(buffer/message) * time.Second / burstRate
	return min(max(pause, minPause), maxPause)
}

// Subscribe subscribes to the TCP sockets destroyed in the network namespace of the calling thread, with SetBuffer(buffer). The
// error is errors.ErrUnsupported if the kernel does not have these events or does not permit them.
func Subscribe(handler Handler, buffer int) (*Subscription, error) {
	socket, err := openSocket(unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	s := &Subscription{socket: socket, handler: handler, closing: make(chan struct{}), done: make(chan struct{})}
	s.SetBuffer(buffer)
	if err = s.join(); err != nil {
		_ = socket.close()
		return nil, fmt.Errorf("subscribing to destroyed sockets: %w", eventsNotSupported(err))
	}
	var readable syscall.RawConn
	s.waiter, err = newWaiter(socket.fd)
	if err == nil {
		readable, err = s.waiter.SyscallConn()
	}
	if err != nil {
		_ = s.waiter.Close() // also if nil
		_ = socket.close()
		return nil, fmt.Errorf("waiting for destroyed sockets: %w", err)
	}
	go s.read(readable)
	return s, nil
}

// join joins the multicast groups.
func (s *Subscription) join() error {
	const groups = 1<<0 | 1<<2 // SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY (include/uapi/linux/sock_diag.h)
	// Without this option the kernel drops all messages after an overrun until the buffer is empty (netlink_overrun,
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

// eventsNotSupported also covers the errors of an old kernel without the group or the option. The kernel lets every user subscribe
// (NL_CFG_F_NONROOT_RECV, net/core/sock_diag.c).
func eventsNotSupported(err error) error {
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOPROTOOPT):
		return fmt.Errorf("requires Linux 4.12: %w: %w", errors.ErrUnsupported, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("denied by a security module or a seccomp filter: %w", notSupported(err))
	}
	return notSupported(err)
}

// newWaiter returns an unarmed epoll instance for the socket.
func newWaiter(fd int) (*os.File, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err = unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{}); err == nil {
		err = unix.SetNonblock(epfd, true) // required by the runtime poller
	}
	if err != nil {
		_ = unix.Close(epfd)
		return nil, err
	}
	return os.NewFile(uintptr(epfd), "sock_diag"), nil
}

// SetBuffer sets the receive buffer to 2 * bytes, as the kernel doubles the value (sk_setsockopt, net/core/sock.c); without
// CAP_NET_ADMIN the limit is 2 * net.core.rmem_max.
func (s *Subscription) SetBuffer(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd := s.socket.fd
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes) // sets at most the permitted size
	}
	buffer, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF) // 0 after an error: the shortest pause
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
			_, _ = unix.EpollWait(int(epfd), events[:], 0) // disarms: otherwise each message would wake up the runtime poller
			s.armed = false
		}
		return s.closed || s.receive() > 0 || !s.arm(int(epfd))
	}
	pause := time.NewTimer(minPause)
	defer pause.Stop()
	for {
		err := readable.Read(receive)
		s.mu.Lock()
		if err != nil && !s.closed { // the runtime poller cannot wait: Sync still reads
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

// arm makes the epoll instance report the next message, also one that has already arrived.
func (s *Subscription) arm(epfd int) bool {
	next := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	err := unix.EpollCtl(epfd, unix.EPOLL_CTL_MOD, s.socket.fd, &next)
	if err != nil {
		s.handler.Failed(fmt.Errorf("waiting for destroyed sockets: %w", err))
	}
	s.armed = err == nil
	return s.armed
}

// receive reads the pending messages and returns their number. The caller holds the lock.
func (s *Subscription) receive() (received int) {
	const limit = 1 << 16              // messages: bounds the time with the lock if events arrive faster than they are read
	messages := batches.Get().(*batch) //nolint:forcetypeassert // set by New
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
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS): // countDrops counts the lost messages
		case err != nil && !errors.Is(err, unix.EAGAIN):
			s.handler.Failed(fmt.Errorf("reading destroyed sockets: %w", err))
			return received
		case n < len(messages.headers):
			return received
		}
	}
	return received
}

// batches pools free batches for all subscriptions. A message has about 400 bytes.
var batches = sync.Pool{New: func() any { return newBatch(64, 1024) }}

// countDrops adds the messages dropped since the last call. The kernel's counter wraps at 2^32. The caller holds the lock.
func (s *Subscription) countDrops() {
	info, err := memInfoOf(s.socket.fd)
	if err != nil {
		s.handler.Failed(fmt.Errorf("counting lost events of destroyed sockets: %w", err))
		return
	}
	s.lost += int(info.drops - s.drops)
	s.drops = info.drops
}

// Sync reads the pending events and then calls f; the handler is not called during f. lost is the number of events dropped
// since the last Sync because the receive buffer was full. Sync can be called after Close.
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

// Close reads the pending events and ends the subscription. Further calls do nothing.
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

// memInfo is the value of SO_MEMINFO: Linux 4.12, include/uapi/linux/sock_diag.h.
type memInfo struct {
	received uint32    // SK_MEMINFO_RMEM_ALLOC: bytes of unread messages
	_        [7]uint32 // up to SK_MEMINFO_BACKLOG
	drops    uint32    // SK_MEMINFO_DROPS: dropped messages
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

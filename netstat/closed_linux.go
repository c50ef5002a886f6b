package netstat

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

// closedSocket is a netlink socket to which the kernel tells of the TCP sockets that it destroys (sock_diag_broadcast_destroy,
// net/core/sock_diag.c). It stays in the network namespace that it was made in. A goroutine reads it, and whoever takes.
type closedSocket struct {
	// waiter is an epoll(7) instance that tells of one message, and then of none until it is asked to: messages are left to gather.
	// Go's poller waits for it, so that a namespace costs no thread.
	waiter  *os.File
	closing chan struct{}
	ended   chan struct{}

	mu     sync.Mutex
	socket *netlinkSocket // closed with the subscription
	isOver bool
	pause  time.Duration
	awaits bool // waiter is to tell of a message
	drops  uint32
	queue  closedQueue
}

var _ closedConn = (*closedSocket)(nil)

// closedRoom bounds what the kernel may keep for a scanner, in bytes: 2 * closedRoom, as it takes what it is asked for twice
// (sk_setsockopt, net/core/sock.c). All subscriptions share it. It is room for some 48,000 messages. Without CAP_NET_ADMIN each
// subscription is bounded by net.core.rmem_max, which gives room for some 5,900 where it is 4 MiB, as in Linux 6.18, and for 300
// where it is 208 KiB.
const closedRoom = 32 << 20

// How long messages are left to gather: to be woken for each costs far more than to read it. A pause is the longest in which the room
// there is takes closedBurst messages a second, within these bounds.
const (
	shortestClosedPause = 5 * time.Millisecond
	longestClosedPause  = 40 * time.Millisecond
	closedBurst         = 60_000
)

// closedPause is the pause for a receive buffer of so many bytes.
func closedPause(buffer int) time.Duration {
	const message = 1408 // bytes that the kernel takes for one
	pause := time.Duration(buffer/message) * time.Second / closedBurst
	return min(max(pause, shortestClosedPause), longestClosedPause)
}

// openClosedConn subscribes to the TCP sockets that are destroyed in the network namespace of this thread, with so many bytes of
// closedRoom. An error that is errors.ErrUnsupported says that the kernel does not tell of them, or not us.
func openClosedConn(connects connectLookup, budget *closedBudget, room int) (closedConn, error) {
	socket, err := openNetlink(unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	c := &closedSocket{
		socket: socket, closing: make(chan struct{}), ended: make(chan struct{}),
		queue: closedQueue{connects: connects, budget: budget},
	}
	c.setRoom(room)
	if err = c.subscribe(); err != nil {
		_ = socket.close()
		return nil, fmt.Errorf("subscribing to sockets that are destroyed, which takes Linux 4.12: %w", closedNotSupported(err))
	}
	var readable syscall.RawConn
	c.waiter, err = newWaiter(socket.fd)
	if err == nil {
		readable, err = c.waiter.SyscallConn()
	}
	if err != nil {
		_ = c.waiter.Close() // which may be nil
		_ = socket.close()
		return nil, fmt.Errorf("waiting for sockets that are destroyed: %w", err)
	}
	go c.read(readable)
	return c, nil
}

func (c *closedSocket) subscribe() error {
	const groups = 1<<0 | 1<<2 // SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY (include/uapi/linux/sock_diag.h)
	// Otherwise the kernel, once it had no room, would tell of nothing until all is read (netlink_overrun, net/netlink/af_netlink.c).
	if err := unix.SetsockoptInt(c.socket.fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1); err != nil {
		return err
	}
	info, err := memInfoOf(c.socket.fd)
	if err != nil {
		return err
	}
	c.drops = info.drops
	return c.socket.subscribe(groups)
}

// newWaiter returns an epoll instance for the socket, which tells of nothing yet.
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

func (c *closedSocket) setRoom(bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd := c.socket.fd
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes) // which gives as much as may be
	}
	buffer, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF) // 0, should it fail: the shortest pause
	c.pause = closedPause(buffer)
}

// closedNotSupported marks further errors by which an old kernel says that it knows no such group or option.
func closedNotSupported(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return notSupported(err)
}

// read reads until the subscription is closed.
func (c *closedSocket) read(readable syscall.RawConn) {
	defer close(c.ended)
	receive := func(epfd uintptr) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.awaits {
			var told [1]unix.EpollEvent
			_, _ = unix.EpollWait(int(epfd), told[:], 0) // it would be woken by each message until this is done
			c.awaits = false
		}
		return c.isOver || c.receive() > 0 || !c.await(int(epfd))
	}
	pause := time.NewTimer(shortestClosedPause)
	defer pause.Stop()
	for {
		err := readable.Read(receive)
		c.mu.Lock()
		if err != nil && !c.isOver { // it cannot be waited for: it is read when it is taken from
			c.queue.fail(fmt.Errorf("waiting for sockets that are destroyed: %w", err))
		}
		pause.Reset(c.pause)
		c.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-c.closing:
			return
		case <-pause.C:
		}
	}
}

// await has the epoll instance tell of the next message, which may be there already.
func (c *closedSocket) await(epfd int) bool {
	next := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	err := unix.EpollCtl(epfd, unix.EPOLL_CTL_MOD, c.socket.fd, &next)
	if err != nil {
		c.queue.fail(fmt.Errorf("waiting for sockets that are destroyed: %w", err))
	}
	c.awaits = err == nil
	return c.awaits
}

// receive reads what is there, and tells how many messages. It is to be called with the lock.
func (c *closedSocket) receive() (received int) {
	const most = 1 << 16                         // messages: whoever makes more than can be read does not keep us
	batch := closedBatches.Get().(*netlinkBatch) //nolint:forcetypeassert // it has nothing else
	defer closedBatches.Put(batch)
	for received < most {
		n, err := c.socket.receive(batch, unix.MSG_DONTWAIT)
		for i := range n {
			switch b, err := batch.message(i); {
			case err == nil:
				c.queue.hear(b)
			case !errors.Is(err, errForeignMessage):
				c.queue.fail(err)
			}
		}
		received += n
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS): // what was lost is counted by countDrops
		case err != nil && !errors.Is(err, unix.EAGAIN):
			c.queue.fail(fmt.Errorf("reading of sockets that are destroyed: %w", err))
			return received
		case n < len(batch.headers):
			return received
		}
	}
	return received
}

// closedBatches has those that are not in use, for all namespaces. A message has about 400 bytes.
var closedBatches = sync.Pool{New: func() any { return newNetlinkBatch(64, 1024) }}

// countDrops counts the messages that the kernel had no room for since it was called last. The number wraps.
func (c *closedSocket) countDrops() {
	info, err := memInfoOf(c.socket.fd)
	if err != nil {
		c.queue.fail(fmt.Errorf("counting sockets that the kernel could not tell of: %w", err))
		return
	}
	c.queue.lost += int(info.drops - c.drops)
	c.drops = info.drops
}

func (c *closedSocket) take(to []*closedChunk) (chunks []*closedChunk, lost int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isOver {
		c.receive()
		c.countDrops()
	}
	return c.queue.take(to)
}

func (c *closedSocket) close() {
	c.mu.Lock()
	wasOver := c.isOver
	if !wasOver {
		c.receive()
		c.countDrops()
		_ = c.socket.close()
		c.isOver = true
	}
	c.mu.Unlock()
	if !wasOver {
		close(c.closing)
		_ = c.waiter.Close()
		<-c.ended
	}
}

// memInfo is what SO_MEMINFO tells of a socket: Linux 4.12, include/uapi/linux/sock_diag.h.
type memInfo struct {
	received uint32    // bytes that messages take which are not read yet: SK_MEMINFO_RMEM_ALLOC
	_        [7]uint32 // up to SK_MEMINFO_BACKLOG
	drops    uint32    // messages that had no room: SK_MEMINFO_DROPS
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

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
	heard   chan struct{}
	pause   time.Duration

	mu     sync.Mutex
	fd     int  // less than 0: it is closed
	awaits bool // waiter is to tell of a message
	drops  uint32
	queue  closedQueue
}

var _ closedConn = (*closedSocket)(nil)

// closedRoom is what the kernel may keep for us in bytes (it takes it twice): some 48,000 messages. Without CAP_NET_ADMIN it is bounded
// by net.core.rmem_max, which gives room for some 5,900 where it is 4 MiB, as in Linux 6.18, and for 300 where it is 208 KiB.
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

// openClosedConn subscribes to the TCP sockets that are destroyed in the network namespace of this thread. An error that is
// errors.ErrUnsupported says that the kernel does not tell of them, or not us.
func openClosedConn(connects connectRecorder) (closedConn, error) {
	const groups = 1<<0 | 1<<2 // SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY (include/uapi/linux/sock_diag.h)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening a sock_diag socket: %w", closedNotSupported(err))
	}
	c := &closedSocket{
		fd: fd, closing: make(chan struct{}), ended: make(chan struct{}), heard: make(chan struct{}, 1),
		queue: closedQueue{connects: connects, most: mostClosed},
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, closedRoom) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, closedRoom) // which gives as much as may be
	}
	buffer, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF) // 0, should it fail: the shortest pause
	c.pause = closedPause(buffer)
	// Otherwise the kernel, once it had no room, would tell of nothing until all is read (netlink_overrun, net/netlink/af_netlink.c).
	err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1)
	var info memInfo
	if err == nil {
		info, err = memInfoOf(fd)
		c.drops = info.drops
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("subscribing to sockets that are destroyed, which takes Linux 4.12: %w", closedNotSupported(err))
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		if err = unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{}); err == nil {
			err = unix.SetNonblock(epfd, true) // so that Go's poller takes it
		}
		c.waiter = os.NewFile(uintptr(epfd), "sock_diag")
	}
	var readable syscall.RawConn
	if err == nil {
		readable, err = c.waiter.SyscallConn()
	}
	if err != nil {
		_ = c.waiter.Close() // which may be nil
		_ = unix.Close(fd)
		return nil, fmt.Errorf("waiting for sockets that are destroyed: %w", err)
	}
	go c.read(readable)
	return c, nil
}

// closedNotSupported marks further errors by which an old kernel says that it knows no such group or option.
func closedNotSupported(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return notSupported(err)
}

// read reads until the socket is closed.
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
		return c.fd < 0 || c.receive() > 0 || !c.await(int(epfd))
	}
	pause := time.NewTimer(c.pause)
	defer pause.Stop()
	for {
		err := readable.Read(receive)
		c.mu.Lock()
		if err != nil && c.fd >= 0 { // it cannot be waited for: it is read when it is taken from
			c.queue.fail(fmt.Errorf("waiting for sockets that are destroyed: %w", err))
		}
		c.mu.Unlock()
		select {
		case c.heard <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
		pause.Reset(c.pause)
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
	err := unix.EpollCtl(epfd, unix.EPOLL_CTL_MOD, c.fd, &next)
	if err != nil {
		c.queue.fail(fmt.Errorf("waiting for sockets that are destroyed: %w", err))
	}
	c.awaits = err == nil
	return c.awaits
}

func (c *closedSocket) ready() <-chan struct{} { return c.heard }

// receive reads what is there, and tells how many messages. It is to be called with the lock.
func (c *closedSocket) receive() (received int) {
	const most = 1 << 16                        // messages: whoever makes more than can be read does not keep us
	batch := closedBatches.Get().(*closedBatch) //nolint:forcetypeassert // it has nothing else
	defer closedBatches.Put(batch)
	for received < most {
		n, err := batch.receive(c.fd)
		for i := range n {
			if batch.isOfKernel(i) {
				c.queue.hear(batch.message(i))
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

// countDrops counts the messages that the kernel had no room for since it was called last. The number wraps.
func (c *closedSocket) countDrops() {
	info, err := memInfoOf(c.fd)
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
	if c.fd >= 0 {
		c.receive()
		c.countDrops()
	}
	return c.queue.take(to)
}

func (c *closedSocket) close() {
	c.mu.Lock()
	isOpen := c.fd >= 0
	if isOpen {
		c.receive()
		c.countDrops()
		_ = unix.Close(c.fd)
		c.fd = -1
	}
	c.mu.Unlock()
	if isOpen {
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

// closedBatch is what messages are received into, many by one system call: see recvmmsg(2).
type closedBatch struct {
	headers [64]mmsghdr
	buffers [64]unix.Iovec
	from    [64]unix.RawSockaddrNetlink
	bytes   [64][1024]byte // a message has about 400
}

// mmsghdr is struct mmsghdr (include/linux/socket.h).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// closedBatches has those that are not in use, for all namespaces.
var closedBatches = sync.Pool{New: func() any { return newClosedBatch() }}

func newClosedBatch() *closedBatch {
	b := new(closedBatch)
	for i := range b.headers {
		b.buffers[i].Base = &b.bytes[i][0]
		b.buffers[i].SetLen(len(b.bytes[i]))
		header := &b.headers[i].header
		header.Name = (*byte)(unsafe.Pointer(&b.from[i]))
		header.Iov = &b.buffers[i]
		header.SetIovlen(1)
	}
	return b
}

func (b *closedBatch) receive(fd int) (n int, err error) {
	for i := range b.headers {
		b.headers[i].header.Namelen = uint32(unsafe.Sizeof(b.from[i]))
	}
	received, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[0])),
		uintptr(len(b.headers)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(received), nil
}

// isOfKernel tells whether the kernel has sent the message: a process with CAP_NET_ADMIN could, too.
func (b *closedBatch) isOfKernel(i int) bool { return b.from[i].Pid == 0 }

func (b *closedBatch) message(i int) []byte {
	return b.bytes[i][:min(int(b.headers[i].length), len(b.bytes[i]))]
}

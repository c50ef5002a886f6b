package netstat

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// netlinkSocket is a socket of NETLINK_SOCK_DIAG. It stays in the network namespace that it was opened in. All that this package
// receives from netlink comes through its method receive.
//
// A process with CAP_NET_ADMIN in the user namespace that owns the network namespace, such as root of a container, can send
// messages to any socket of that network namespace. Two things keep them out. The socket is connected to the kernel, which
// therefore refuses what others send to it alone (netlink_getsockbyportid, net/netlink/af_netlink.c); and netlinkBatch.message
// looks at the sender, as the kernel lets others send to a multicast group.
type netlinkSocket struct {
	fd   int    // less than 0: closed
	port uint32 // its port ID: where the kernel sends the answers to
}

// openNetlink opens a socket; flags are SOCK_NONBLOCK or 0.
func openNetlink(flags int) (*netlinkSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening a sock_diag socket: %w", notSupported(err))
	}
	s := &netlinkSocket{fd: fd}
	if err := s.connect(); err != nil {
		_ = s.close()
		return nil, fmt.Errorf("connecting a sock_diag socket to the kernel: %w", notSupported(err))
	}
	return s, nil
}

// connect has the kernel give the socket a port ID, and refuse messages from all others.
func (s *netlinkSocket) connect() error {
	if err := unix.Connect(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return err
	}
	address, ok := name.(*unix.SockaddrNetlink)
	if !ok {
		return fmt.Errorf("the socket has an address of type %T", name)
	}
	s.port = address.Pid
	return nil
}

// subscribe has the kernel send what it sends to the multicast groups, given as a set of bits.
func (s *netlinkSocket) subscribe(groups uint32) error {
	return unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: s.port, Groups: groups})
}

// send sends a request to the kernel.
func (s *netlinkSocket) send(request []byte) error {
	return unix.Sendto(s.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive receives as many messages as there are and the batch has room for, and returns how many; it waits for the first,
// unless the flags, the socket or its SO_RCVTIMEO say otherwise.
func (s *netlinkSocket) receive(batch *netlinkBatch, flags int) (n int, err error) {
	for i := range batch.headers {
		header := &batch.headers[i].header
		header.Namelen, header.Flags = uint32(unsafe.Sizeof(batch.senders[i])), 0
	}
	received, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&batch.headers[0])),
		uintptr(len(batch.headers)), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(received), nil
}

// close closes the socket. The number of its descriptor is soon another file's.
func (s *netlinkSocket) close() error {
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// netlinkBatch is room for messages that one system call receives: see recvmmsg(2).
type netlinkBatch struct {
	headers []mmsghdr
	senders []unix.RawSockaddrNetlink
	buffers [][]byte
}

// mmsghdr is struct mmsghdr (include/linux/socket.h).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// newNetlinkBatch returns room for so many messages of so many bytes at most.
func newNetlinkBatch(messages, size int) *netlinkBatch {
	b := &netlinkBatch{
		headers: make([]mmsghdr, messages), senders: make([]unix.RawSockaddrNetlink, messages), buffers: make([][]byte, messages),
	}
	vectors, room := make([]unix.Iovec, messages), make([]byte, messages*size)
	for i := range b.headers {
		b.buffers[i] = room[i*size:][:size:size]
		vectors[i].Base = &b.buffers[i][0]
		vectors[i].SetLen(size)
		header := &b.headers[i].header
		header.Name = (*byte)(unsafe.Pointer(&b.senders[i]))
		header.Iov = &vectors[i]
		header.SetIovlen(1)
	}
	return b
}

var (
	// errForeignMessage says that another process has sent a message.
	errForeignMessage = errors.New("message is not from the kernel")
	errTruncated      = errors.New("message is longer than the buffer")
)

// message returns a message that was received: errForeignMessage, if the kernel has not sent it.
func (b *netlinkBatch) message(i int) ([]byte, error) {
	const kernel = 0 // the port ID that no process can have
	received := &b.headers[i]
	sender := &b.senders[i]
	if received.header.Namelen != uint32(unsafe.Sizeof(*sender)) || sender.Family != unix.AF_NETLINK || sender.Pid != kernel {
		return nil, errForeignMessage
	}
	if received.header.Flags&unix.MSG_TRUNC != 0 {
		return nil, errTruncated
	}
	return b.buffers[i][:min(int(received.length), len(b.buffers[i]))], nil
}

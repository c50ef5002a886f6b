package sockdiag

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a NETLINK_SOCK_DIAG socket. It stays in the network namespace in which it was opened.
//
// A process with CAP_NET_ADMIN in the user namespace that owns the network namespace, such as root of a container, can send
// messages to any netlink socket of that network namespace. Two measures reject them: the socket is connected to the kernel, so
// that unicast messages of others fail (netlink_getsockbyportid, net/netlink/af_netlink.c), and batch.message checks the
// sender, because others can send to a multicast group.
type socket struct {
	fd   int    // negative: closed
	port uint32 // port ID: the address for answers
}

// openSocket opens a socket; flags are SOCK_NONBLOCK or 0.
func openSocket(flags int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening a sock_diag socket: %w", notSupported(err))
	}
	s := &socket{fd: fd}
	if err := s.connect(); err != nil {
		_ = s.close()
		return nil, fmt.Errorf("connecting a sock_diag socket to the kernel: %w", notSupported(err))
	}
	return s, nil
}

// connect makes the kernel assign a port ID and reject unicast messages of other processes.
func (s *socket) connect() error {
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

// subscribe adds the socket to multicast groups, given as a set of bits.
func (s *socket) subscribe(groups uint32) error {
	return unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: s.port, Groups: groups})
}

// send sends a request to the kernel.
func (s *socket) send(request []byte) error {
	return unix.Sendto(s.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive receives up to a batch of datagrams, and returns their number. It waits for the first, unless MSG_DONTWAIT,
// SOCK_NONBLOCK or SO_RCVTIMEO apply.
func (s *socket) receive(into *batch, flags int) (n int, err error) {
	for i := range into.headers {
		header := &into.headers[i].header
		header.Namelen, header.Flags = uint32(unsafe.Sizeof(into.senders[i])), 0
	}
	received, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&into.headers[0])),
		uintptr(len(into.headers)), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(received), nil
}

// ifreq is struct ifreq (include/uapi/linux/if.h) with the member ifr_ifindex of its union. It has 40 bytes, on 32 bits 32.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	index int32
	_     [20]byte
}

// deviceName appends the name of a network device: SIOCGIFNAME, netdevice(7). It works on every socket (sock_do_ioctl,
// net/socket.c) and needs no privilege.
func (s *socket) deviceName(name []byte, index uint32) ([]byte, error) {
	request := ifreq{index: int32(index)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return name, errno
	}
	length := bytes.IndexByte(request.name[:], 0)
	if length < 0 {
		length = len(request.name)
	}
	return append(name, request.name[:length]...), nil
}

// close closes the socket and clears fd: another file can get the same descriptor number.
func (s *socket) close() error {
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// batch holds the datagrams that one recvmmsg(2) receives.
type batch struct {
	headers []mmsghdr
	senders []unix.RawSockaddrNetlink
	buffers [][]byte
}

// mmsghdr is struct mmsghdr (include/linux/socket.h).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// newBatch returns a batch for the given number of datagrams of at most size bytes.
func newBatch(messages, size int) *batch {
	b := &batch{
		headers: make([]mmsghdr, messages), senders: make([]unix.RawSockaddrNetlink, messages), buffers: make([][]byte, messages),
	}
	vectors, buffer := make([]unix.Iovec, messages), make([]byte, messages*size)
	for i := range b.headers {
		b.buffers[i] = buffer[i*size:][:size:size]
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
	// errNotFromKernel means that another process sent the message.
	errNotFromKernel = errors.New("message is not from the kernel")
	errTruncated     = errors.New("message is longer than the buffer")
)

// message returns a received datagram; the error is errNotFromKernel if another process sent it.
func (b *batch) message(i int) ([]byte, error) {
	const kernel = 0 // its port ID; no process can have it
	received := &b.headers[i]
	sender := &b.senders[i]
	if received.header.Namelen != uint32(unsafe.Sizeof(*sender)) || sender.Family != unix.AF_NETLINK || sender.Pid != kernel {
		return nil, errNotFromKernel
	}
	if received.header.Flags&unix.MSG_TRUNC != 0 {
		return nil, errTruncated
	}
	return b.buffers[i][:min(int(received.length), len(b.buffers[i]))], nil
}

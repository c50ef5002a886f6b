package testnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waitLimit is the time limit for everything that the kernel does asynchronously.
const waitLimit = 10 * time.Second

func deadline() time.Time {
	return time.Now().Add(waitLimit)
}

// A Socket has the values that the kernel should report for a socket.
type Socket struct {
	// Protocol is named as its file in /proc/net is: tcp, tcp6, udp, udp6, udplite, raw, icmp, …
	Protocol string
	// State has the kernel's name: ESTABLISHED, SYN_SENT, …; a datagram socket that is not connected is in CLOSE.
	State string
	// Local and Remote are addresses and ports. The local port of a raw socket is its IP protocol, and that of an ICMP socket its
	// identifier. IPv4-mapped addresses are not unmapped.
	Local, Remote netip.AddrPort
	// UID is the user who opened the socket.
	UID uint32
	// Inode is 0 if no process holds the socket: not yet accepted, closed by its process, SYN_RECV, TIME_WAIT.
	Inode uint64
	// Cookie is 0 if no descriptor of the socket is open, from which to read it.
	Cookie uint64
	// RecvQ and SendQ are bytes. Of a TCP socket they are unread and unacknowledged bytes, where a SYN or FIN counts as one. Of a
	// socket of another protocol they are buffer memory, with the kernel's overhead. Of a TCP listener they are the length of
	// the accept queue and its limit; /proc/net shows 0 instead of the limit.
	RecvQ, SendQ uint32
	// Drops counts the packets that the socket dropped. It is not set for TCP sockets.
	Drops uint32
}

// A network has the parameters of a kind of socket.
type network struct {
	file                  string // in /proc/net
	family, typ, protocol int
	v6only                int        // IPV6_V6ONLY: 1, or 0 for sockets that accept IPv4 too
	wildcard, loopback    netip.Addr // to listen at, to connect to
}

var (
	any4      = netip.IPv4Unspecified()
	any6      = netip.IPv6Unspecified()
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
	mapped    = netip.AddrFrom16(loopback4.As16())
)

var networks = map[string]network{
	"tcp4":        {"tcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP, 0, any4, loopback4},
	"tcp6":        {"tcp6", unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP, 1, any6, loopback6},
	"tcp4in6":     {"tcp6", unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP, 0, any6, mapped},
	"udp4":        {"udp", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP, 0, any4, loopback4},
	"udp6":        {"udp6", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP, 1, any6, loopback6},
	"udp4in6":     {"udp6", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP, 0, any6, mapped},
	"udplite4":    {"udplite", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, 0, any4, loopback4},
	"udplite6":    {"udplite6", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, 1, any6, loopback6},
	"udplite4in6": {"udplite6", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, 0, any6, mapped},
	"icmp4":       {"icmp", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, 0, any4, loopback4},
	"icmp6":       {"icmp6", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_ICMPV6, 1, any6, loopback6},
}

// networkTo returns the TCP network of connections to an address.
func networkTo(to netip.Addr) network {
	switch {
	case to.Is4In6():
		return networks["tcp4in6"]
	case to.Is6():
		return networks["tcp6"]
	}
	return networks["tcp4"]
}

func findNetwork(name string) (network, error) {
	n, ok := networks[name]
	if !ok {
		return network{}, fmt.Errorf("unknown network %q", name)
	}
	return n, nil
}

// open opens a non-blocking socket, bound to local if that is valid.
func (n network) open(local netip.AddrPort, options ...SocketOptions) (int, error) {
	fd, err := unix.Socket(n.family, n.typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, n.protocol)
	if err != nil {
		return -1, fmt.Errorf("opening a socket for %s: %w", n.file, err)
	}
	for _, o := range options {
		if err := o.set(fd); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
	if n.family == unix.AF_INET6 && n.typ != unix.SOCK_RAW {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, n.v6only); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("setting IPV6_V6ONLY for %s: %w", n.file, err)
		}
	}
	if local.IsValid() {
		if err := unix.Bind(fd, sockaddr(local)); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("binding a socket for %s to %v: %w", n.file, local, err)
		}
	}
	return fd, nil
}

// orAny returns at if it is valid, and otherwise the wildcard address with port 0.
func (n network) orAny(at netip.AddrPort) netip.AddrPort {
	if at.IsValid() {
		return at
	}
	return netip.AddrPortFrom(n.wildcard, 0)
}

// listen opens a listener. With port 0 the kernel chooses a port.
func (n network) listen(at netip.AddrPort, backlog int, options ...SocketOptions) (int, error) {
	fd, err := n.open(at, options...)
	if err != nil {
		return -1, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("listening at %v: %w", at, err)
	}
	return fd, nil
}

// startConnect starts to connect a non-blocking socket.
func startConnect(fd int, to netip.AddrPort) error {
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connecting to %v: %w", to, err)
	}
	return nil
}

// finishConnect waits until the connection is established.
func finishConnect(fd int, deadline time.Time) error {
	if err := poll(fd, unix.POLLOUT, deadline); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	if err := socketError(fd); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	return nil
}

// socketError reads the error of a socket, and resets it.
func socketError(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return err
}

// tcpState returns the state of a TCP socket.
func tcpState(fd int) (string, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return "", fmt.Errorf("getting TCP_INFO: %w", err)
	}
	return stateNames[info.State], nil
}

// accept waits for a connection and accepts it.
func accept(listener int, deadline time.Time) (int, error) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == nil {
			return fd, nil
		}
		// Another process may accept first on a shared listener.
		if errors.Is(err, unix.EAGAIN) {
			err = poll(listener, unix.POLLIN, deadline)
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return -1, fmt.Errorf("accepting: %w", err)
		}
	}
}

// write writes n bytes in one call.
func write(fd, n int) error {
	written, err := unix.Write(fd, make([]byte, n))
	if err != nil {
		return fmt.Errorf("writing %d bytes: %w", n, err)
	}
	if written != n {
		return fmt.Errorf("writing %d bytes: only %d written", n, written)
	}
	return nil
}

// poll waits for one of the events.
func poll(fd int, events int16, deadline time.Time) error {
	for {
		timeout := time.Until(deadline)
		if timeout < 0 {
			timeout = 0
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(fds, int(timeout.Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("poll: %w", err)
		case err == nil && timeout == 0:
			return fmt.Errorf("poll: %w", unix.ETIMEDOUT)
		}
	}
}

// memory has the bytes in the buffers of a socket, and the packets dropped because a buffer was full.
type memory struct {
	received, sent, drops uint32
}

// socketMemory reads the SK_MEMINFO_* words (include/uapi/linux/sock_diag.h).
func socketMemory(fd int) (memory, error) {
	const received, sent, drops, count = 0, 2, 8, 9
	var words [count]uint32
	size := uint32(unsafe.Sizeof(words))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&words)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return memory{}, fmt.Errorf("getting SO_MEMINFO: %w", errno)
	}
	return memory{words[received], words[sent], words[drops]}, nil
}

// describe reads all values of a socket but its state, queues and drops.
func describe(fd int) (Socket, error) {
	var s Socket
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return s, fmt.Errorf("getting SO_DOMAIN: %w", err)
	}
	if s.Protocol, err = protocolFile(fd, family); err != nil {
		return s, err
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return s, fmt.Errorf("getsockname: %w", err)
	}
	s.Local = addrPort(local)
	remote, err := unix.Getpeername(fd)
	switch {
	case err == nil:
		s.Remote = addrPort(remote)
	case !errors.Is(err, unix.ENOTCONN):
		return s, fmt.Errorf("getpeername: %w", err)
	case family == unix.AF_INET:
		s.Remote = netip.AddrPortFrom(any4, 0)
	default:
		s.Remote = netip.AddrPortFrom(any6, 0)
	}
	if s.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err != nil {
		return s, fmt.Errorf("getting SO_COOKIE: %w", err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return s, fmt.Errorf("fstat: %w", err)
	}
	s.Inode, s.UID = stat.Ino, stat.Uid
	return s, nil
}

// protocolFile returns the name of the file in /proc/net that shows the socket.
func protocolFile(fd, family int) (string, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", fmt.Errorf("getting SO_TYPE: %w", err)
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return "", fmt.Errorf("getting SO_PROTOCOL: %w", err)
	}
	for _, n := range networks {
		if n.family == family && n.typ == typ && n.protocol == protocol {
			return n.file, nil
		}
	}
	if typ == unix.SOCK_RAW && family == unix.AF_INET6 {
		return "raw6", nil
	}
	return "raw", nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	// Without the index of its device the kernel refuses a link-local address.
	if device, err := net.InterfaceByName(a.Addr().Zone()); err == nil {
		sa.ZoneId = uint32(device.Index)
	}
	return sa
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

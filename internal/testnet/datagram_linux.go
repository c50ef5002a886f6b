package testnet

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// UDP creates UDP sockets with IPv4, IPv6 and IPv4-mapped addresses: unconnected, connected, with unread datagrams, with a corked
// datagram, and with dropped datagrams.
func UDP(tb testing.TB) *Load {
	tb.Helper()
	l := newLoad(tb)
	for _, name := range []string{"udp4", "udp6", "udp4in6"} {
		n := l.network(name)
		l.datagrams(n)
		l.corked(n)
		l.overflowed(n)
	}
	l.settle()
	return l
}

// UDPLite creates UDP-Lite sockets. ok is false if the kernel does not support them.
func UDPLite(tb testing.TB) (load *Load, ok bool) {
	tb.Helper()
	l := newLoad(tb)
	fd, err := networks["udplite4"].open(netip.AddrPort{})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, false
	}
	l.hold(fd, err)
	for _, name := range []string{"udplite4", "udplite6", "udplite4in6"} {
		l.datagrams(l.network(name))
	}
	l.settle()
	return l, true
}

// datagrams creates an unconnected socket with two unread datagrams, and the connected socket that sent them.
func (l *Load) datagrams(n network) {
	l.tb.Helper()
	l.hold(n.open(netip.AddrPort{})) // the kernel does not show a socket without a port
	server := l.hold(n.open(netip.AddrPortFrom(n.wildcard, 0)))
	client := l.connectTo(n, server)
	l.must(write(client, 80))
	first := l.waitMemory(server, func(m memory) bool { return m.received > 0 })
	l.must(write(client, 1000))
	l.waitMemory(server, func(m memory) bool { return m.received > first.received })
	l.expectMeasured(server, "CLOSE")
	l.expectMeasured(client, "ESTABLISHED")
}

// corked creates a connected socket with data in its send queue: with UDP_CORK the kernel waits for the rest of the datagram.
func (l *Load) corked(n network) {
	l.tb.Helper()
	server := l.hold(n.open(netip.AddrPortFrom(n.wildcard, 0)))
	client := l.connectTo(n, server)
	l.must(unix.SetsockoptInt(client, unix.IPPROTO_UDP, unix.UDP_CORK, 1))
	l.must(write(client, 80))
	l.expectMeasured(server, "CLOSE")
	l.expectMeasured(client, "ESTABLISHED")
}

// overflowed creates a socket with a receive buffer so small that it dropped most of the datagrams sent to it.
func (l *Load) overflowed(n network) {
	l.tb.Helper()
	server := l.hold(n.open(netip.AddrPortFrom(n.wildcard, 0)))
	l.must(unix.SetsockoptInt(server, unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
	client := l.connectTo(n, server)
	const sent = 20
	l.must(write(client, 1000))
	first := l.waitMemory(server, func(m memory) bool { return m.received > 0 })
	for range sent - 1 {
		l.must(write(client, 1000))
	}
	l.waitMemory(server, func(m memory) bool { return m.received/first.received+m.drops == sent })
	l.expectMeasured(server, "CLOSE")
	l.expectMeasured(client, "ESTABLISHED")
}

// connectTo creates a socket that is connected to server.
func (l *Load) connectTo(n network, server int) int {
	l.tb.Helper()
	s, err := describe(server)
	l.must(err)
	client := l.hold(n.open(netip.AddrPort{}))
	l.must(startConnect(client, netip.AddrPortFrom(n.loopback, s.Local.Port())))
	return client
}

// waitMemory waits until arrived accepts the memory of a socket.
func (l *Load) waitMemory(fd int, arrived func(memory) bool) memory {
	l.tb.Helper()
	for end := deadline(); ; time.Sleep(time.Millisecond) {
		m, err := socketMemory(fd)
		l.must(err)
		if arrived(m) {
			return m
		}
		if time.Now().After(end) {
			l.tb.Fatalf("the datagrams did not arrive: %+v", m)
		}
	}
}

// expectMeasured is expect with the queues and drops of SO_MEMINFO: the memory that a datagram takes depends on the kernel.
func (l *Load) expectMeasured(fd int, state string) {
	l.tb.Helper()
	m, err := socketMemory(fd)
	l.must(err)
	l.expect(fd, state, m.received, m.sent)
	l.Sockets[len(l.Sockets)-1].Drops = m.drops
}

// Raw creates raw sockets of IPv4 and IPv6.
func Raw(tb testing.TB) *Load {
	tb.Helper()
	l := newLoad(tb)
	for _, n := range []network{
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, 0, any4, loopback4},
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW, 0, any4, loopback4},
		{"raw6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, 0, any6, loopback6},
	} {
		fd, err := n.open(netip.AddrPort{})
		if errors.Is(err, unix.EPERM) {
			SkipOrFail(tb, "raw sockets require CAP_NET_RAW: "+err.Error())
		}
		l.expect(l.hold(fd, err), "CLOSE", 0, 0)
		l.Sockets[len(l.Sockets)-1].Local = netip.AddrPortFrom(n.wildcard, uint16(n.protocol))
	}
	l.settle()
	return l
}

// Ping creates ICMP sockets of IPv4 and IPv6, as an unprivileged ping uses them. It sets ping_group_range of the current network
// namespace so that every group may open such sockets.
func Ping(tb testing.TB) *Load {
	tb.Helper()
	l := newLoad(tb)
	l.must(os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0o644))
	for name, identifier := range map[string]uint16{"icmp4": 4711, "icmp6": 4712} {
		n := l.network(name)
		// The bound port is the identifier of the echo requests.
		l.expect(l.hold(n.open(netip.AddrPortFrom(n.wildcard, 0))), "CLOSE", 0, 0)
		l.expect(l.hold(n.open(netip.AddrPortFrom(n.loopback, identifier))), "CLOSE", 0, 0)
	}
	l.settle()
	return l
}

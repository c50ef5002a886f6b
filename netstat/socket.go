package netstat

import (
	"net/netip"
	"slices"
)

// Transport is the kind of a socket: the protocol that carries its data.
type Transport uint8

// The transports that a [Scanner] can read.
const (
	TransportTCP Transport = iota + 1
	TransportUDP
	TransportUDPLite // RFC 3828
	TransportRaw
	TransportICMP // "ping" sockets: datagram sockets of IPPROTO_ICMP and IPPROTO_ICMPV6
	TransportUnix
)

var transportNames = [...]string{
	TransportTCP:     "tcp",
	TransportUDP:     "udp",
	TransportUDPLite: "udplite",
	TransportRaw:     "raw",
	TransportICMP:    "icmp",
	TransportUnix:    "unix",
}

// String returns the name that the files in /proc/net have, and Transport(n) for a number that is not a transport.
func (t Transport) String() string { return enumName("Transport", t, transportNames[:]) }

// MarshalText returns the transport's name.
func (t Transport) MarshalText() ([]byte, error) {
	return marshalEnum("Transport", t, transportNames[:])
}

// UnmarshalText sets the transport to the one with the name.
func (t *Transport) UnmarshalText(name []byte) error {
	return unmarshalEnum(t, name, transportNames[:])
}

// Family is the address family of a socket.
type Family uint8

// The address families that a [Scanner] can read. A dual-stack socket is of FamilyIPv6 also where it talks IPv4; its
// addresses are IPv4-mapped then (RFC 4291, section 2.5.5.2).
const (
	FamilyIPv4 Family = iota + 1
	FamilyIPv6
	FamilyUnix
)

var familyNames = [...]string{FamilyIPv4: "ipv4", FamilyIPv6: "ipv6", FamilyUnix: "unix"}

// String returns "ipv4", "ipv6" or "unix", and Family(n) for a number that is no family.
func (f Family) String() string { return enumName("Family", f, familyNames[:]) }

// Field names a part of a [Socket] that not every source, kernel or state gives.
type Field uint16

// The parts of a socket that can be absent. See [Socket.Has].
//
// A TCP socket in SYN_RECV, TIME_WAIT, or a FIN_WAIT2 that no process holds is but a stub in the kernel: it has no CgroupID
// and no TCP.
const (
	FieldCookie           Field = 1 << iota // Cookie: netlink
	FieldInterface                          // Interface: netlink, not of unix sockets
	FieldCgroupID                           // CgroupID: netlink, not of unix sockets, from Linux 5.8
	FieldAcceptQueue                        // AcceptQueue: listening TCP sockets
	FieldAcceptQueueLimit                   // AcceptQueueLimit: listening TCP sockets, netlink
	FieldDrops                              // Drops: UDP, UDP-Lite, raw, ICMP; listening TCP sockets: netlink; from Linux 4.7
	FieldTCPInfo                            // TCP: TCP connections, netlink
	FieldTCPBytes                           // TCP.BytesAcked, BytesReceived: as TCPInfo, from Linux 4.1
	FieldTCPSegs                            // TCP.SegsOut, SegsIn: as TCPInfo, from Linux 4.2
	FieldTCPBytesSent                       // TCP.BytesSent: as TCPInfo, from Linux 4.19
)

// Socket is one socket of the kernel's tables.
//
// A [Scanner] fills the same Socket again and again: use Clone to keep one. Another copy has no owners once the loop has gone on.
type Socket struct {
	Transport Transport
	Family    Family
	// State of a TCP socket. For other transports TCPEstablished says that the socket is connected, TCPClose that it
	// is not, and TCPListen that a unix socket listens.
	State TCPState

	// Closed says that the kernel has destroyed the TCP socket, and that the other fields are the last of it: see
	// [ScannerConfig].Closed. Its State is TCPClose, and its Inode and UID are 0.
	Closed bool

	// Local and Remote are the socket's addresses; zero for unix sockets. The port of a raw socket is its IP protocol
	// number, that of an ICMP socket the identifier of its echo requests.
	Local, Remote netip.AddrPort
	// Interface is the index of the network device that the socket is bound to; 0: to none.
	Interface uint32

	// Inode identifies the socket among the file descriptors of the host. It is 0 for a socket that no process has a
	// descriptor of: TIME_WAIT, SYN_RECV, not yet accepted, or orphaned (closed but not finished).
	Inode uint64
	// Cookie identifies the socket for as long as the host is up.
	Cookie uint64
	// UID of the user who made the socket. Where Inode is 0 it depends on the kernel: 0, or still that user or the
	// listener's; from procfs it is the listener's for SYN_RECV. Of a unix socket: netlink, Linux 5.3.
	UID uint32
	// CgroupID is the id of the cgroup v2 that the socket was made in; of an accepted connection: that of its listener.
	// Of a closed socket: the cgroup that the process was in that began the connection, if that is known.
	CgroupID uint64
	// Namespace is the network namespace that the socket is in.
	Namespace *Namespace
	// NetNS is the inode number of the network namespace that the socket is in; 0 if it is not known.
	NetNS uint64

	// RecvQueue: TCP: bytes received that the process has not read. Others: memory of received datagrams in bytes.
	// 0 for a listening TCP socket, which has AcceptQueue instead, and for a unix socket from procfs.
	RecvQueue uint32
	// SendQueue: TCP: bytes sent that the peer has not acknowledged, and bytes not sent yet. Others: memory of
	// datagrams not sent yet in bytes.
	SendQueue uint32
	// AcceptQueue is the number of connections that wait to be accepted.
	AcceptQueue uint32
	// AcceptQueueLimit is the backlog: one connection more than this waits at most.
	AcceptQueueLimit uint32
	// Drops counts the packets that the socket dropped since it was made; it wraps at 2^32. Of a listening TCP socket:
	// connection attempts that found a full accept queue, and others that had to be refused.
	Drops uint32

	// Path is the name of a unix socket, if [ScannerConfig].UnixPaths asks for it: a path of the file system, or an @ and an
	// abstract name (NUL bytes in which show as @ too); empty if it has none. It can hold any byte.
	Path string

	// TCP holds the details of a TCP connection. Filled in if [ScannerConfig].TCPInfo asks for it.
	TCP TCPInfo

	// fields are those that can be absent and are there. See [Socket.Has].
	fields Field

	scan   *currentSocket // where the owners are known, as long as the scan has not gone on; nil: in owners
	number uint64
	owners []*Process
}

// TCPInfo is the part of the kernel's struct tcp_info (include/uapi/linux/tcp.h) that tells how a connection is doing.
type TCPInfo struct {
	RTT    uint32 // smoothed round-trip time in microseconds (RFC 6298)
	RTTVar uint32 // its mean deviation in microseconds
	MinRTT uint32 // least round-trip time seen lately, in microseconds; 0: none, or before Linux 4.6
	CWnd   uint32 // congestion window in segments
	SndMSS uint32 // segment size in bytes

	Retransmits uint8  // retransmissions of the segment that is waited for now, without an answer
	Lost        uint32 // segments that are believed lost now

	BytesAcked    uint64 // bytes that the peer acknowledged, SYN and FIN included (RFC 4898 tcpEStatsAppHCThruOctetsAcked)
	BytesReceived uint64 // bytes received in order (RFC 4898 tcpEStatsAppHCThruOctetsReceived)
	SegsOut       uint32 // segments sent, retransmitted ones included (RFC 4898 tcpEStatsPerfSegsOut)
	SegsIn        uint32 // segments received (RFC 4898 tcpEStatsPerfSegsIn)
	BytesSent     uint64 // bytes of data sent, retransmitted ones included (RFC 4898 tcpEStatsPerfHCDataOctetsOut)
	RetransSegs   uint32 // segments retransmitted (tcpi_total_retrans; RFC 4898 tcpEStatsPerfSegsRetrans)
}

// Has tells whether the socket has the field, or all of the fields: a source, a kernel or a state that does not give one
// leaves it zero.
func (s *Socket) Has(f Field) bool { return s.fields&f == f }

// Having returns those of the fields that the socket has.
func (s *Socket) Having(f Field) Field { return s.fields & f }

// Set adds to the fields that the socket has. It is for programs that make sockets of their own, such as tests.
func (s *Socket) Set(f Field) { s.fields |= f }

// Owners returns the processes that hold a descriptor of the socket, those with lower pids first. It is empty if the
// socket has none, if they could not be looked up, and if the scanner was told not to look them up. Of a closed socket, and
// of one that was opened since the processes were looked at, it is the process that began the connection, if that is known.
// The slice is valid until the loop goes on; the processes in it can be kept.
func (s *Socket) Owners() []*Process {
	if s.scan == nil {
		return s.owners
	}
	return s.scan.ownersOf(s)
}

// Clone returns a copy that stays as it is when the scan goes on, with its owners.
func (s *Socket) Clone() *Socket {
	kept := *s
	kept.owners = slices.Clone(s.Owners())
	kept.scan, kept.number = nil, 0
	return &kept
}

// reset makes s ready for the next socket, and keeps what belongs to the scan.
func (s *Socket) reset(transport Transport, family Family) {
	namespace, netNS, scan := s.Namespace, s.NetNS, s.scan
	*s = Socket{} // in one go: a literal with these in it would be made elsewhere, and copied
	s.Transport, s.Family, s.Namespace, s.NetNS, s.scan = transport, family, namespace, netNS, scan
	if scan != nil {
		s.number = scan.next()
	}
}

// setQueues sets the queues from the two numbers that the kernel has for every socket. Those of a listening TCP socket count
// connections: the first those that wait to be accepted; only sock_diag has the second, the limit (tcp_diag_get_info,
// net/ipv4/tcp_diag.c).
func (s *Socket) setQueues(recv, send uint32) {
	if s.Transport == TransportTCP && s.State == TCPListen {
		s.AcceptQueue = recv
		s.fields |= FieldAcceptQueue
		return
	}
	s.RecvQueue, s.SendQueue = recv, send
}

// currentSocket knows the owners of the socket that a scan hands out now. Each socket has a number; a copy with an older number has no
// owners.
type currentSocket struct {
	table  *ownerTable // nil: nobody looks for owners
	number uint64
	owners []*Process // that were found, or are known otherwise
}

// next goes on to the next socket, and returns its number.
func (c *currentSocket) next() uint64 {
	c.number++
	c.owners = c.owners[:0]
	return c.number
}

func (c *currentSocket) ownersOf(s *Socket) []*Process {
	if s.number != c.number {
		return nil
	}
	if len(c.owners) == 0 && c.table != nil {
		c.owners = c.table.appendOwners(c.owners, s.Inode)
	}
	return c.owners
}

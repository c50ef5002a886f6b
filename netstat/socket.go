package netstat

import (
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

// Transport is the transport protocol of a socket, or unix.
type Transport uint8

// The transports that a [Scanner] can read.
const (
	TransportTCP Transport = iota + 1
	TransportUDP
	TransportUDPLite // RFC 3828
	TransportRaw
	TransportICMP // ping sockets: SOCK_DGRAM with IPPROTO_ICMP or IPPROTO_ICMPV6, see icmp(7)
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

// String returns the transport's name, which is that of its file in /proc/net, or Transport(n) for an invalid value.
func (t Transport) String() string { return enumName("Transport", t, transportNames[:]) }

// MarshalText returns the transport's name. It fails for an invalid value.
func (t Transport) MarshalText() ([]byte, error) {
	return marshalEnum("Transport", t, transportNames[:])
}

// UnmarshalText sets the transport by its name. An unknown name is an error.
func (t *Transport) UnmarshalText(name []byte) error {
	return unmarshalEnum(t, name, transportNames[:])
}

// Family is the address family of a socket.
type Family uint8

// The address families that a [Scanner] can read. A dual-stack socket is FamilyIPv6; for an IPv4 peer its addresses are
// IPv4-mapped (RFC 4291, section 2.5.5.2).
const (
	FamilyIPv4 Family = iota + 1
	FamilyIPv6
	FamilyUnix
)

var familyNames = [...]string{FamilyIPv4: "ipv4", FamilyIPv6: "ipv6", FamilyUnix: "unix"}

// String returns "ipv4", "ipv6" or "unix", or Family(n) for an invalid value.
func (f Family) String() string { return enumName("Family", f, familyNames[:]) }

// Field is a set of parts of a [Socket] that depend on the source, the kernel or the state.
type Field uint16

// The parts of a socket that can be absent: see [Socket.Has].
//
// For TCP sockets in SYN_RECV, TIME_WAIT, or FIN_WAIT2 without a process the kernel keeps a smaller structure (request_sock,
// inet_timewait_sock): they have no CgroupID and no TCP.
const (
	FieldCookie           Field = 1 << iota // Cookie: netlink
	FieldInterface                          // Interface: netlink, not of unix sockets
	FieldCgroupID                           // CgroupID: netlink, not of unix sockets, from Linux 5.8
	FieldAcceptQueue                        // AcceptQueue: listening TCP sockets; listening unix sockets: netlink
	FieldAcceptQueueLimit                   // AcceptQueueLimit: listening TCP and unix sockets, netlink
	FieldDrops                              // Drops: UDP, UDP-Lite, raw, ICMP; listening TCP sockets: netlink; from Linux 4.7
	FieldTCPInfo                            // TCP: TCP connections, netlink
	FieldTCPBytes                           // TCP.BytesAcked, BytesReceived: as TCPInfo, from Linux 4.1
	FieldTCPSegs                            // TCP.SegsOut, SegsIn: as TCPInfo, from Linux 4.2
	FieldTCPBytesSent                       // TCP.BytesSent: as TCPInfo, from Linux 4.19
	_
	_
	FieldTCPLimits     // TCP.NotsentBytes, BusyTime, RwndLimited, SndbufLimited: as TCPInfo, from Linux 4.10
	FieldTCPDSACKDups  // TCP.DSACKDups: as TCPInfo, from Linux 4.19
	FieldTCPRcvOOOPack // TCP.RcvOOOPack: as TCPInfo, from Linux 5.4
	FieldTCPTotalRTO   // TCP.TotalRTO: as TCPInfo, from Linux 6.7
)

// Socket is a socket in the kernel's tables.
//
// A [Scanner] reuses one Socket for all iterations: use [Socket.Clone] to keep it. A plain copy loses its owners and its initiator
// with the next iteration.
type Socket struct {
	Transport Transport
	Family    Family
	// State is the state of a TCP socket. For other transports TCPEstablished means connected and TCPClose not connected;
	// TCPListen also applies to unix sockets.
	State TCPState

	// Closed is true if the kernel has destroyed the TCP socket, or an attempt to connect has failed; the other fields have their
	// final values: see [ScannerConfig].Closed. State is TCPClose, Inode and UID are 0.
	Closed bool
	// Outcome is how a TCP connection, or an attempt to connect, ended.
	Outcome Outcome

	// Local and Remote are the addresses; zero for unix sockets. A link-local IPv6 address (fe80::/10) has a zone if the socket
	// has an Interface: the name of the device, or its index in decimal if the name is unknown. netip.Prefix.Contains is false for
	// an address with a zone: see netip.Addr.WithZone. The port of a raw socket is its IP protocol number, that of
	// an ICMP socket the identifier of its echo requests (RFC 792).
	Local, Remote netip.AddrPort
	// Interface is the index of the network device to which the socket is bound (SO_BINDTODEVICE, socket(7)); 0: none. The kernel
	// binds a socket with a link-local IPv6 address to the device of its link. [Namespace.InterfaceName] returns the name.
	Interface uint32

	// Inode is the inode number of the socket, as in /proc/<pid>/fd. It is 0 for a socket without a descriptor: TIME_WAIT,
	// SYN_RECV, not yet accepted, or orphaned (closed by the process, but not finished).
	Inode uint64
	// Cookie identifies the socket until the next boot (SO_COOKIE, __sock_gen_cookie in net/core/sock_diag.c).
	Cookie uint64
	// UID is the id of the user who created the socket. If Inode is 0 its value depends on the kernel: 0, that user, or the
	// user of the listener. Unix sockets have it with netlink from Linux 5.3.
	UID uint32
	// CgroupID is the id of the cgroup v2 in which the socket was created; an accepted connection has that of its listener. For
	// a closed socket it is the cgroup of the initiator of the connection, if known.
	CgroupID uint64
	// Namespace is the network namespace of the socket.
	Namespace *Namespace
	// NetNS is the inode number of the network namespace of the socket; 0 if it is unknown.
	NetNS uint64

	// RecvQueue is, for TCP, the number of received bytes that the process has not read; for other transports the memory of
	// received datagrams in bytes. It is 0 for a listening socket (see AcceptQueue) and for a unix socket from procfs.
	RecvQueue uint32
	// SendQueue is, for TCP, the number of bytes that are not sent or not acknowledged; for other transports the memory of
	// unsent datagrams in bytes.
	SendQueue uint32
	// AcceptQueue is the number of connections waiting for accept(2).
	AcceptQueue uint32
	// AcceptQueueLimit is the backlog. The queue holds one connection more (sk_acceptq_is_full, include/net/sock.h;
	// unix_recvq_full, net/unix/af_unix.c).
	AcceptQueueLimit uint32
	// Drops is the number of packets dropped by the socket (sk_drops); it wraps at 2^32. For a listening TCP socket it counts
	// connection attempts that were dropped, because of a full accept queue for example.
	Drops uint32

	// Path is the name of a unix socket, if [ScannerConfig].UnixPaths is set: a path, or @ and an abstract name, in which @ also
	// replaces NUL bytes (see unix(7)); empty if it has none. It can contain any byte.
	Path string

	// TCP has the details of a TCP connection, if [ScannerConfig].TCPInfo is set.
	TCP TCPInfo

	// fields are the optional fields that are present. See [Socket.Has].
	fields Field

	scan      *currentSocket // finds the owners and the initiator until the next iteration; nil: use the fields below
	number    uint64
	owners    []*Process
	initiator *initiator // of a clone; nil: unknown
}

// TCPInfo is a part of struct tcp_info (include/uapi/linux/tcp.h), filled by tcp_get_info (net/ipv4/tcp.c).
type TCPInfo struct {
	RTT    uint32 // smoothed round-trip time in microseconds (RFC 6298)
	RTTVar uint32 // mean deviation of the round-trip time in microseconds
	MinRTT uint32 // minimum round-trip time in microseconds (sysctl tcp_min_rtt_wlen); 0: no sample, or before Linux 4.6
	CWnd   uint32 // congestion window in segments
	SndMSS uint32 // segment size in bytes

	Retransmits  uint8  // consecutive retransmissions of the oldest unacknowledged segment (icsk_retransmits)
	TotalRTO     uint16 // timeouts of the retransmission timer, of SYNs too (tcpi_total_rto, tcp_update_rto_stats); wraps; from Linux 6.7
	Lost         uint32 // segments currently considered lost (lost_out)
	NotsentBytes uint32 // bytes in the send queue that have never been sent (write_seq - snd_nxt); from Linux 4.6, but see FieldTCPLimits

	// LastDataSent and LastDataRecv are the milliseconds since the connection last sent and received data; if it never did, since it
	// was established (lsndtime, icsk_ack.lrcvtime). ACKs without data and keepalive probes do not count, retransmissions do. The
	// resolution is a tick of the kernel (1 to 10 ms: CONFIG_HZ). They wrap after 2^32 ms, 49.7 days.
	LastDataSent uint32
	LastDataRecv uint32

	BytesAcked    uint64 // bytes acknowledged by the peer, SYN and FIN included (RFC 4898 tcpEStatsAppHCThruOctetsAcked)
	BytesReceived uint64 // bytes received in order (RFC 4898 tcpEStatsAppHCThruOctetsReceived)
	SegsOut       uint32 // segments sent, retransmitted ones included (RFC 4898 tcpEStatsPerfSegsOut)
	SegsIn        uint32 // segments received (RFC 4898 tcpEStatsPerfSegsIn)
	BytesSent     uint64 // bytes of data sent, retransmitted ones included (RFC 4898 tcpEStatsPerfHCDataOctetsOut)
	RetransSegs   uint32 // segments retransmitted (tcpi_total_retrans; RFC 4898 tcpEStatsPerfSegsRetrans)
	DSACKDups     uint32 // DSACK blocks received: spurious retransmissions (RFC 4898 tcpEStatsStackDSACKDups); from Linux 4.19
	RcvOOOPack    uint32 // segments received out of order (rcv_ooopack); from Linux 5.4

	// The times below are sums in microseconds, in steps of a tick of the kernel (1 to 10 ms: CONFIG_HZ). They wrap after 2^32 ticks,
	// and continue if the socket is disconnected and connected again (tcp_get_info_chrono_stats). From Linux 4.10.

	BusyTime      uint64 // with data that is unsent or unacknowledged; includes the two below (TCP_CHRONO_BUSY)
	RwndLimited   uint64 // not sending because of the receive window of the peer (TCP_CHRONO_RWND_LIMITED)
	SndbufLimited uint64 // not sending because the send buffer was too small to hold more data (TCP_CHRONO_SNDBUF_LIMITED)
}

// Has reports whether the socket has all of the fields. The value of an absent field is zero.
func (s *Socket) Has(f Field) bool { return s.fields&f == f }

// Having returns the subset of the fields that the socket has.
func (s *Socket) Having(f Field) Field { return s.fields & f }

// Set marks the fields as present. It is for code that constructs sockets, such as tests.
func (s *Socket) Set(f Field) { s.fields |= f }

// Owners returns the processes that hold a descriptor of the socket, in ascending order of pids. It is empty if there are none,
// if the lookup failed, and with OwnersOff. For a closed socket, and one that was opened after the owner lookup, it is the
// initiator of the connection, if known. The slice is valid until the next iteration; the processes remain valid.
func (s *Socket) Owners() []*Process {
	if s.scan == nil {
		return s.owners
	}
	return s.scan.ownersOf(s)
}

// Initiator returns the process that initiated the TCP connection, by connect(2) or sendto(2), and the id of the cgroup v2 in
// which it did. The process can have ended. It is nil for an accepted connection, and if the initiator is unknown: a BPF program
// records the last 65,536 connections of the host, from NewScanner on, with [ScannerConfig].Closed and OwnersBPF if
// [ScanStats].Initiators is true. A connection in TIME_WAIT, or one that no process holds any more, still has its initiator. The
// lookup happens at the call. The result is valid until the next iteration; the process remains valid.
func (s *Socket) Initiator() (process *Process, cgroupID uint64) {
	found := s.attempted()
	if found == nil {
		return nil, 0
	}
	return found.process, found.cgroupID
}

// Attempt returns the attempt to connect that made the TCP connection, or the one that failed. It is false for an accepted connection, and
// if it is unknown: see [Socket.Initiator]. Of an attempt whose process is a kernel thread, only the process is unknown. The result
// of a socket that still tries, or has just been established, can be later than its State.
func (s *Socket) Attempt() (attempt Attempt, ok bool) {
	found := s.attempted()
	if found == nil {
		return Attempt{}, false
	}
	return found.attempt, true
}

// attempted returns the initiator and its attempt; nil if that is unknown.
func (s *Socket) attempted() *initiator {
	if s.scan != nil {
		return s.scan.initiatorOf(s)
	}
	return s.initiator
}

// Clone returns a copy, with its owners, its initiator and its attempt, that the next iteration does not change.
func (s *Socket) Clone() *Socket {
	kept := *s
	kept.owners = slices.Clone(s.Owners())
	if found := s.attempted(); found != nil {
		copied := *found
		kept.initiator = &copied
	}
	kept.scan, kept.number = nil, 0
	return &kept
}

// reset clears s for the next socket, except for the fields that belong to the scan.
func (s *Socket) reset(transport Transport, family Family) {
	namespace, netNS, scan := s.Namespace, s.NetNS, s.scan
	*s = Socket{} // a literal with the fields below would be built on the stack and copied
	s.Transport, s.Family, s.Namespace, s.NetNS, s.scan = transport, family, namespace, netNS, scan
	if scan != nil {
		s.number = scan.next()
	}
}

// setDiagQueues sets the queues from the two numbers in a message of sock_diag. For a listening socket they are the length of the
// accept queue and its limit (tcp_diag_get_info, net/ipv4/tcp_diag.c; sk_diag_show_rqlen, net/unix/diag.c).
func (s *Socket) setDiagQueues(recv, send uint32) {
	s.setQueues(recv, send)
	if s.Has(FieldAcceptQueue) {
		s.AcceptQueueLimit = send
		s.fields |= FieldAcceptQueueLimit
	}
}

// setQueues sets the queues from the two numbers in a row. For a listening socket the first is the length of the accept queue, and
// the second means nothing.
func (s *Socket) setQueues(recv, send uint32) {
	if s.State == TCPListen && (s.Transport == TransportTCP || s.Transport == TransportUnix) {
		s.AcceptQueue = recv
		s.fields |= FieldAcceptQueue
		return
	}
	s.RecvQueue, s.SendQueue = recv, send
}

// currentSocket has the owners and the initiator of the current socket of a scan. Each socket has a number; a copy with an older
// number has neither.
type currentSocket struct {
	table     *ownerTable // nil: no owner lookup
	connects  *connects
	processes *processCache

	number    uint64
	owners    []*Process // from the table, or set otherwise
	initiator initiator  // from connects, or set otherwise
	initiated uint64     // the number of the socket that initiator belongs to
}

// initiator is the process that initiated a connection, and its attempt.
type initiator struct {
	process  *Process // nil: unknown
	cgroupID uint64
	attempt  Attempt
}

// next advances to the next socket and returns its number.
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

func (c *currentSocket) initiatorOf(s *Socket) *initiator {
	if s.number != c.number {
		return nil
	}
	// A closed socket has what the record had when the kernel destroyed it. A socket that listens can have tried to connect
	// before.
	if c.initiated != c.number && !s.Closed && s.Transport == TransportTCP && s.State != TCPListen && s.Has(FieldCookie) {
		if connect, known := c.connects.Lookup(s.Cookie); known {
			c.setConnect(&connect)
		}
	}
	if c.initiated != c.number {
		return nil
	}
	return &c.initiator
}

func (c *currentSocket) setConnect(connect *bpf.Connect) {
	c.initiator, c.initiated = initiator{nil, connect.CgroupID, attemptOf(&connect.Attempt)}, c.number
	if connect.Initiator.PID != 0 {
		c.initiator.process = c.processes.ofConnect(connect)
	}
}

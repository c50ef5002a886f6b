package netstat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Messages of NETLINK_SOCK_DIAG, see sock_diag(7): what is asked of the kernel, and what it answers. Numbers are in the
// host's byte order, but ports and addresses in network order.

// Numbers of include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h and unix_diag.h; they are the same on every
// architecture.
const (
	nlmsgHeaderLen  = 16
	nlmsgError      = 2
	nlmsgDone       = 3
	nlmFlagRequest  = 0x1
	nlmFlagDumpIntr = 0x10
	nlmFlagDump     = 0x300

	tcpDiagGetSock   = 18
	sockDiagByFamily = 20

	inetDiagInfo      = 2
	inetDiagSKMemInfo = 7
	inetDiagCgroupID  = 21

	unixDiagName  = 0
	unixDiagRQLen = 4
	unixDiagUID   = 7
	unixShowName  = 0x1
	unixShowRQLen = 0x10
	unixShowUID   = 0x40
)

// Address families, include/linux/socket.h.
const (
	afUnix  = 1
	afInet  = 2
	afInet6 = 10
)

// IP protocol numbers (RFC 5237). Ping sockets are not in sock_diag.
var ipProtocols = map[Transport]uint8{
	TransportTCP:     6,
	TransportUDP:     17,
	TransportUDPLite: 136,
	TransportRaw:     255,
}

// stateSet is a set of states, as idiag_states and udiag_states want it: bit n stands for state n.
type stateSet uint32

const (
	// statesAll leaves out the pseudo state TCP_BOUND_INACTIVE (13, Linux 6.8): sockets that are neither listening nor
	// connected, which no other reader shows.
	statesAll       stateSet = 1<<(TCPNewSynRecv+1) - 2
	statesListen    stateSet = 1 << TCPListen
	statesConnected          = statesAll &^ statesListen
)

// dumpRequest asks for the sockets of one transport and family; of both families, where that is zero: TCP only.
type dumpRequest struct {
	transport Transport
	family    Family
	states    stateSet
	tcpInfo   bool   // INET_DIAG_INFO
	memInfo   bool   // INET_DIAG_SKMEMINFO, which has the drops
	paths     bool   // UNIX_DIAG_NAME
	bytecode  []byte // INET_DIAG_REQ_BYTECODE: a filter
}

// String names the sockets.
func (r dumpRequest) String() string {
	if r.family == 0 || r.family == FamilyUnix {
		return r.transport.String()
	}
	return r.family.String() + " " + r.transport.String()
}

// appendTo appends the netlink message to b.
func (r dumpRequest) appendTo(b []byte, sequence uint32) []byte {
	start := len(b)
	b = append(b, make([]byte, nlmsgHeaderLen)...)
	kind := uint16(sockDiagByFamily)
	switch {
	case r.transport == TransportUnix:
		b = r.appendUnixRequest(b)
	case r.family == 0:
		kind = tcpDiagGetSock
		b = r.appendTCPRequest(b)
		b = r.appendBytecode(b)
	default:
		b = r.appendInetRequest(b)
		b = r.appendBytecode(b)
	}
	header := b[start:]
	binary.NativeEndian.PutUint32(header[0:], uint32(len(header)))
	binary.NativeEndian.PutUint16(header[4:], kind)
	binary.NativeEndian.PutUint16(header[6:], nlmFlagRequest|nlmFlagDump)
	binary.NativeEndian.PutUint32(header[8:], sequence)
	return b
}

// appendInetRequest appends struct inet_diag_req_v2 (include/uapi/linux/inet_diag.h): sdiag_family, sdiag_protocol,
// idiag_ext, pad, idiag_states, id; an id of zeros asks for all sockets.
func (r dumpRequest) appendInetRequest(b []byte) []byte {
	family := uint8(afInet)
	if r.family == FamilyIPv6 {
		family = afInet6
	}
	b = append(b, family, ipProtocols[r.transport], r.extensions(), 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(r.states))
	return append(b, make([]byte, inetDiagSockIDLen)...)
}

// appendTCPRequest appends struct inet_diag_req: idiag_family, idiag_src_len, idiag_dst_len, idiag_ext, id, idiag_states,
// idiag_dbs. It is the request of before Linux 3.3, and the only one that gets both families: the kernel goes through its
// table of connections once, and not once for each.
func (r dumpRequest) appendTCPRequest(b []byte) []byte {
	b = append(b, 0, 0, 0, r.extensions())
	b = append(b, make([]byte, inetDiagSockIDLen)...)
	b = binary.NativeEndian.AppendUint32(b, uint32(r.states))
	return binary.NativeEndian.AppendUint32(b, 0)
}

// extensions is the set of attributes that are asked for.
func (r dumpRequest) extensions() (ext uint8) {
	if r.tcpInfo {
		ext |= 1 << (inetDiagInfo - 1)
	}
	if r.memInfo {
		ext |= 1 << (inetDiagSKMemInfo - 1)
	}
	return ext
}

// appendBytecode appends the filter as an attribute.
func (r dumpRequest) appendBytecode(b []byte) []byte {
	const header = 4
	if len(r.bytecode) == 0 {
		return b
	}
	b = binary.NativeEndian.AppendUint16(b, uint16(header+len(r.bytecode)))
	b = binary.NativeEndian.AppendUint16(b, diagReqBytecode)
	return append(b, r.bytecode...)
}

// appendUnixRequest appends struct unix_diag_req (include/uapi/linux/unix_diag.h): sdiag_family, sdiag_protocol, pad,
// udiag_states, udiag_ino, udiag_show, udiag_cookie[2].
func (r dumpRequest) appendUnixRequest(b []byte) []byte {
	show := uint32(unixShowRQLen | unixShowUID)
	if r.paths {
		show |= unixShowName
	}
	b = append(b, afUnix, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(r.states))
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, show)
	return append(b, make([]byte, 8)...)
}

// netlinkMessage is one message of the kernel's: struct nlmsghdr (include/uapi/linux/netlink.h) and its payload.
type netlinkMessage struct {
	kind     uint16
	flags    uint16
	sequence uint32
	port     uint32 // the port ID of who asked; 0: nobody
	payload  []byte
}

var errShortMessage = errors.New("message is cut off")

// nextMessage decodes the first message in b and returns what follows it.
func nextMessage(b []byte) (m netlinkMessage, rest []byte, err error) {
	if len(b) < nlmsgHeaderLen {
		return netlinkMessage{}, nil, errShortMessage
	}
	length := binary.NativeEndian.Uint32(b)
	if length < nlmsgHeaderLen || uint64(length) > uint64(len(b)) {
		return netlinkMessage{}, nil, errShortMessage
	}
	m.kind = binary.NativeEndian.Uint16(b[4:])
	m.flags = binary.NativeEndian.Uint16(b[6:])
	m.sequence = binary.NativeEndian.Uint32(b[8:])
	m.port = binary.NativeEndian.Uint32(b[12:])
	m.payload = b[nlmsgHeaderLen:length]
	return m, b[min(align4(int(length)), len(b)):], nil
}

// align4 is NLMSG_ALIGN and NLA_ALIGN.
func align4(n int) int { return (n + 3) &^ 3 }

// errno returns the error number that NLMSG_ERROR and NLMSG_DONE carry as a negative int; 0 for none.
func (m netlinkMessage) errno() (int, error) {
	if m.kind == nlmsgDone && len(m.payload) == 0 {
		return 0, nil
	}
	if len(m.payload) < 4 {
		return 0, errShortMessage
	}
	return -int(int32(binary.NativeEndian.Uint32(m.payload))), nil
}

// attributes goes through the netlink attributes in b, struct nlattr (include/uapi/linux/netlink.h): nla_len, nla_type.
// The two top bits of the type are flags.
func attributes(b []byte, attribute func(kind uint16, value []byte)) error {
	const header, typeMask = 4, 0x3fff
	for len(b) >= header {
		length := int(binary.NativeEndian.Uint16(b))
		if length < header || length > len(b) {
			return errShortMessage
		}
		attribute(binary.NativeEndian.Uint16(b[2:])&typeMask, b[header:length])
		b = b[min(align4(length), len(b)):]
	}
	return nil
}

const (
	inetDiagSockIDLen = 48 // struct inet_diag_sockid
	inetDiagMsgLen    = 72 // struct inet_diag_msg
)

// decodeInetMsg decodes struct inet_diag_msg (include/uapi/linux/inet_diag.h) and the attributes behind it:
//
//	0 idiag_family, 1 idiag_state, 2 idiag_timer, 3 idiag_retrans,
//	4 idiag_sport, 6 idiag_dport, 8 idiag_src[4], 24 idiag_dst[4], 40 idiag_if, 44 idiag_cookie[2],
//	52 idiag_expires, 56 idiag_rqueue, 60 idiag_wqueue, 64 idiag_uid, 68 idiag_inode
//
// On an error s is not to be used.
func decodeInetMsg(b []byte, transport Transport, s *Socket) error {
	if len(b) < inetDiagMsgLen {
		return fmt.Errorf("inet_diag_msg of %d bytes: %w", len(b), errShortMessage)
	}
	switch b[0] {
	case afInet:
		s.reset(transport, FamilyIPv4)
	case afInet6:
		s.reset(transport, FamilyIPv6)
	default:
		return fmt.Errorf("inet_diag_msg of unknown address family %d", b[0])
	}
	s.State = TCPState(b[1])
	s.Local = addrPort(s.Family, b[8:], b[4:])
	s.Remote = addrPort(s.Family, b[24:], b[6:])
	s.Interface = binary.NativeEndian.Uint32(b[40:])
	s.Cookie = uint64(binary.NativeEndian.Uint32(b[44:])) | uint64(binary.NativeEndian.Uint32(b[48:]))<<32
	s.fields |= FieldInterface | FieldCookie
	recv, send := binary.NativeEndian.Uint32(b[56:]), binary.NativeEndian.Uint32(b[60:])
	s.setQueues(recv, send)
	if s.Has(FieldAcceptQueue) {
		s.AcceptQueueLimit = send
		s.fields |= FieldAcceptQueueLimit
	}
	s.UID = binary.NativeEndian.Uint32(b[64:])
	s.Inode = uint64(binary.NativeEndian.Uint32(b[68:]))
	err := attributes(b[inetDiagMsgLen:], s.inetAttribute)
	if err != nil {
		return fmt.Errorf("attributes of inet_diag_msg: %w", err)
	}
	return nil
}

// inodeInMsg returns the inode in struct inet_diag_msg; false if it is none.
func inodeInMsg(b []byte) (inode uint32, ok bool) {
	if len(b) < inetDiagMsgLen {
		return 0, false
	}
	return binary.NativeEndian.Uint32(b[68:]), true
}

func addrPort(family Family, addr, port []byte) netip.AddrPort {
	p := binary.BigEndian.Uint16(port)
	if family == FamilyIPv4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr)), p)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(addr)), p)
}

// inetAttribute takes one attribute of an inet_diag_msg; one that is shorter than expected is left out.
func (s *Socket) inetAttribute(kind uint16, value []byte) {
	switch kind {
	case inetDiagInfo:
		if s.Transport == TransportTCP && s.State != TCPListen {
			s.fields |= s.TCP.decode(value)
		}
	case inetDiagSKMemInfo:
		const drops = 8 * 4 // SK_MEMINFO_DROPS (include/uapi/linux/sock_diag.h), Linux 4.7
		if len(value) >= drops+4 {
			s.Drops = binary.NativeEndian.Uint32(value[drops:])
			s.fields |= FieldDrops
		}
	case inetDiagCgroupID:
		if len(value) >= 8 {
			s.CgroupID = binary.NativeEndian.Uint64(value)
			s.fields |= FieldCgroupID
		}
	}
}

// decode decodes struct tcp_info (include/uapi/linux/tcp.h), which every few kernels grow at its end, as far as b goes,
// and returns what was there.
func (i *TCPInfo) decode(b []byte) Field {
	const (
		retransmits   = 2
		sndMSS        = 16
		lost          = 32
		rtt           = 68
		rttVar        = 72
		cwnd          = 80
		totalRetrans  = 100
		bytesAcked    = 120
		bytesReceived = 128
		segsOut       = 136
		segsIn        = 140
		minRTT        = 148
		bytesSent     = 200

		noRTT = 1<<32 - 1 // before the first sample
	)
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(b[at:]) }
	*i = TCPInfo{}
	if len(b) < totalRetrans+4 {
		return 0
	}
	i.SndMSS, i.RTT, i.RTTVar, i.CWnd, i.RetransSegs = u32(sndMSS), u32(rtt), u32(rttVar), u32(cwnd), u32(totalRetrans)
	i.Retransmits, i.Lost = b[retransmits], u32(lost)
	fields := FieldTCPInfo
	if len(b) >= bytesReceived+8 {
		i.BytesAcked, i.BytesReceived = u64(bytesAcked), u64(bytesReceived)
		fields |= FieldTCPBytes
	}
	if len(b) >= segsIn+4 {
		i.SegsOut, i.SegsIn = u32(segsOut), u32(segsIn)
		fields |= FieldTCPSegs
	}
	if len(b) >= minRTT+4 && u32(minRTT) != noRTT {
		i.MinRTT = u32(minRTT)
	}
	if len(b) >= bytesSent+8 {
		i.BytesSent = u64(bytesSent)
		fields |= FieldTCPBytesSent
	}
	return fields
}

const unixDiagMsgLen = 16

// decodeUnixMsg decodes struct unix_diag_msg (include/uapi/linux/unix_diag.h) and the attributes behind it:
//
//	0 udiag_family, 1 udiag_type, 2 udiag_state, 3 pad, 4 udiag_ino, 8 udiag_cookie[2]
//
// On an error s is not to be used.
func decodeUnixMsg(b []byte, s *Socket) error {
	if len(b) < unixDiagMsgLen {
		return fmt.Errorf("unix_diag_msg of %d bytes: %w", len(b), errShortMessage)
	}
	if b[0] != afUnix {
		return fmt.Errorf("unix_diag_msg of unknown address family %d", b[0])
	}
	s.reset(TransportUnix, FamilyUnix)
	s.State = TCPState(b[2])
	s.Inode = uint64(binary.NativeEndian.Uint32(b[4:]))
	s.Cookie = uint64(binary.NativeEndian.Uint32(b[8:])) | uint64(binary.NativeEndian.Uint32(b[12:]))<<32
	s.fields |= FieldCookie
	if err := attributes(b[unixDiagMsgLen:], s.unixAttribute); err != nil {
		return fmt.Errorf("attributes of unix_diag_msg: %w", err)
	}
	return nil
}

// unixAttribute takes one attribute of a unix_diag_msg.
func (s *Socket) unixAttribute(kind uint16, value []byte) {
	switch kind {
	case unixDiagName: // sun_path without the NUL at its end
		s.Path = unixPath(value)
	case unixDiagRQLen: // struct unix_diag_rqlen: udiag_rqueue, udiag_wqueue; backlog and limit of a listening socket
		if len(value) >= 8 && s.State != TCPListen {
			s.RecvQueue = binary.NativeEndian.Uint32(value)
			s.SendQueue = binary.NativeEndian.Uint32(value[4:])
		}
	case unixDiagUID:
		if len(value) >= 4 {
			s.UID = binary.NativeEndian.Uint32(value)
		}
	}
}

var (
	// errStopped says that the reader of a dump wanted no more of it.
	errStopped = errors.New("stopped")
	// errNoAnswer says that the kernel is silent.
	errNoAnswer = errors.New("no answer from the kernel")
)

// exchange identifies a request and the answers to it.
type exchange struct{ port, sequence uint32 }

// answers tells whether the message answers the request.
func (m *netlinkMessage) answers(to exchange) bool {
	return m.port == to.port && m.sequence == to.sequence
}

// eachAnswer calls message with the payload of each socket in what was received at once. Answers to another request are passed
// over. done says that the dump has ended, interrupted that the table changed while it was dumped
// (NLM_F_DUMP_INTR): sockets may be missing or doubled.
func eachAnswer(b []byte, to exchange, message func(payload []byte) bool) (done, interrupted bool, err error) {
	for len(b) > 0 {
		var m netlinkMessage
		if m, b, err = nextMessage(b); err != nil {
			return false, interrupted, err
		}
		if !m.answers(to) {
			continue
		}
		interrupted = interrupted || m.flags&nlmFlagDumpIntr != 0
		switch m.kind {
		case nlmsgDone, nlmsgError:
			number, err := m.errno()
			if err == nil && number != 0 {
				err = errnoError(number)
			}
			return true, interrupted, err
		case sockDiagByFamily, tcpDiagGetSock:
			if !message(m.payload) {
				return false, interrupted, errStopped
			}
		}
	}
	return false, interrupted, nil
}

// unixPath shows a name as /proc/net/unix does: an abstract one begins with a NUL.
func unixPath(name []byte) string {
	if len(name) == 0 || name[0] != 0 {
		return string(bytes.TrimRight(name, "\x00"))
	}
	return string(bytes.ReplaceAll(name, []byte{0}, []byte("@")))
}

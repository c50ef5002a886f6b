package sockdiag

import "encoding/binary"

// IP protocol numbers (RFC 5237). Ping sockets are not in sock_diag.
const (
	ProtocolTCP     = 6
	ProtocolUDP     = 17
	ProtocolUDPLite = 136
	ProtocolRaw     = 255
)

// TCP states, include/net/tcp_states.h.
const (
	tcpListen     = 10 // TCP_LISTEN
	tcpNewSynRecv = 12 // TCP_NEW_SYN_RECV
)

// StateSet is a set of states, as in idiag_states and udiag_states: bit n is state n.
type StateSet uint32

// Sets of states.
const (
	// StatesAll excludes the pseudo state TCP_BOUND_INACTIVE (13, Linux 6.8): bound sockets that neither listen nor connect,
	// which /proc/net does not show either.
	StatesAll       StateSet = 1<<(tcpNewSynRecv+1) - 2
	StatesListen    StateSet = 1 << tcpListen
	StatesConnected          = StatesAll &^ StatesListen
)

// Request is a request for the sockets of an address family and protocol.
type Request struct {
	Family   uint8 // AFInet, AFInet6 or AFUnix; 0: TCP of both IP families
	Protocol uint8 // 0 for AFUnix
	States   StateSet
	TCPInfo  bool   // INET_DIAG_INFO
	MemInfo  bool   // INET_DIAG_SKMEMINFO, which has the drops
	Names    bool   // UNIX_DIAG_NAME
	Bytecode []byte // INET_DIAG_REQ_BYTECODE: see [Conditions]
}

// appendTo appends the netlink message to b.
func (r *Request) appendTo(b []byte, sequence uint32) []byte {
	start := len(b)
	kind := uint16(typeByFamily)
	if r.Family == 0 {
		kind = typeTCP
	}
	b = appendHeader(b, kind, flagRequest|flagDump, sequence)
	switch r.Family {
	case AFUnix:
		b = r.appendUnix(b)
	case 0:
		b = r.appendBytecode(r.appendTCP(b))
	default:
		b = r.appendBytecode(r.appendInet(b))
	}
	setLength(b[start:])
	return b
}

// appendInet appends struct inet_diag_req_v2 (include/uapi/linux/inet_diag.h). An id of zeros selects all sockets:
//
//	0 __u8 sdiag_family, 1 __u8 sdiag_protocol, 2 __u8 idiag_ext, 3 __u8 pad, 4 __u32 idiag_states,
//	8 struct inet_diag_sockid id
func (r *Request) appendInet(b []byte) []byte {
	b = append(b, r.Family, r.Protocol, r.extensions(), 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(r.States))
	return append(b, make([]byte, inetSockIDLen)...)
}

// appendTCP appends struct inet_diag_req, the request before Linux 3.3. It is the only one that returns both families in one walk
// through the kernel's table of connections.
//
//	0 __u8 idiag_family, 1 __u8 idiag_src_len, 2 __u8 idiag_dst_len, 3 __u8 idiag_ext, 4 struct inet_diag_sockid id,
//	52 __u32 idiag_states, 56 __u32 idiag_dbs
func (r *Request) appendTCP(b []byte) []byte {
	b = append(b, 0, 0, 0, r.extensions())
	b = append(b, make([]byte, inetSockIDLen)...)
	b = binary.NativeEndian.AppendUint32(b, uint32(r.States))
	return binary.NativeEndian.AppendUint32(b, 0)
}

// extensions returns the set of requested attributes.
func (r *Request) extensions() (ext uint8) {
	if r.TCPInfo {
		ext |= 1 << (InetInfo - 1)
	}
	if r.MemInfo {
		ext |= 1 << (InetSKMemInfo - 1)
	}
	return ext
}

// appendBytecode appends the bytecode as an attribute.
func (r *Request) appendBytecode(b []byte) []byte {
	const header, reqBytecode = 4, 1 // INET_DIAG_REQ_BYTECODE
	if len(r.Bytecode) == 0 {
		return b
	}
	b = binary.NativeEndian.AppendUint16(b, uint16(header+len(r.Bytecode)))
	b = binary.NativeEndian.AppendUint16(b, reqBytecode)
	return append(b, r.Bytecode...)
}

// appendUnix appends struct unix_diag_req (include/uapi/linux/unix_diag.h):
//
//	0 __u8 sdiag_family, 1 __u8 sdiag_protocol, 2 __u16 pad, 4 __u32 udiag_states, 8 __u32 udiag_ino, 12 __u32 udiag_show,
//	16 __u32 udiag_cookie[2]
func (r *Request) appendUnix(b []byte) []byte {
	const showName, showRQLen, showUID = 0x1, 0x10, 0x40 // UDIAG_SHOW_NAME, UDIAG_SHOW_RQLEN, UDIAG_SHOW_UID
	show := uint32(showRQLen | showUID)
	if r.Names {
		show |= showName
	}
	b = append(b, AFUnix, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(r.States))
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, show)
	return append(b, make([]byte, 8)...)
}

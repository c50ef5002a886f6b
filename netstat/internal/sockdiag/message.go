// Package sockdiag reads the kernel's sockets through NETLINK_SOCK_DIAG: see sock_diag(7).
//
// The codec does no I/O: it encodes a [Request], compiles [Conditions], and decodes answers with [EachAnswer]. [InetMessage],
// [UnixMessage] and [TCPInfo] are views of the received bytes, without a copy. A [Conn] dumps tables, and a [Subscription]
// receives destroyed TCP sockets.
//
// Ports and addresses are in network byte order, other numbers in host byte order.
package sockdiag

import (
	"encoding/binary"
	"errors"
)

// Numbers of include/uapi/linux/netlink.h, sock_diag.h and inet_diag.h; they are the same on every architecture.
const (
	typeNoop     = 1  // NLMSG_NOOP
	typeError    = 2  // NLMSG_ERROR
	typeDone     = 3  // NLMSG_DONE
	typeTCP      = 18 // TCPDIAG_GETSOCK
	typeByFamily = 20 // SOCK_DIAG_BY_FAMILY

	flagRequest  = 0x1   // NLM_F_REQUEST
	flagAck      = 0x4   // NLM_F_ACK
	flagDumpIntr = 0x10  // NLM_F_DUMP_INTR
	flagDump     = 0x300 // NLM_F_DUMP
)

// Address families, include/linux/socket.h.
const (
	AFUnix  = 1
	AFInet  = 2
	AFInet6 = 10
)

// ErrShort means that a message or attribute is shorter than its length field says.
var ErrShort = errors.New("message is cut off")

const headerLen = 16

// message is a view of a message: struct nlmsghdr (include/uapi/linux/netlink.h) and its payload.
//
//	0 __u32 nlmsg_len, 4 __u16 nlmsg_type, 6 __u16 nlmsg_flags, 8 __u32 nlmsg_seq, 12 __u32 nlmsg_pid
type message []byte

func (m message) kind() uint16    { return binary.NativeEndian.Uint16(m[4:]) }
func (m message) flags() uint16   { return binary.NativeEndian.Uint16(m[6:]) }
func (m message) payload() []byte { return m[headerLen:] }

// exchange returns the exchange to which the message belongs.
func (m message) exchange() Exchange {
	return Exchange{Sequence: binary.NativeEndian.Uint32(m[8:]), Port: binary.NativeEndian.Uint32(m[12:])}
}

// appendHeader appends a header. setLength sets its length later.
func appendHeader(b []byte, kind, flags uint16, sequence uint32) []byte {
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	return append(b, 0, 0, 0, 0) // the kernel fills in the port ID of the sender
}

// setLength sets the length in the header of a message.
func setLength(m message) { binary.NativeEndian.PutUint32(m, uint32(len(m))) }

// nextMessage returns the first message in b and what follows it.
func nextMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < headerLen {
		return nil, nil, ErrShort
	}
	length := binary.NativeEndian.Uint32(b)
	if length < headerLen || uint64(length) > uint64(len(b)) {
		return nil, nil, ErrShort
	}
	return b[:length], b[min(align4(int(length)), len(b)):], nil
}

// align4 is NLMSG_ALIGN and NLA_ALIGN.
func align4(n int) int { return (n + 3) &^ 3 }

// errno returns the error number that NLMSG_ERROR and NLMSG_DONE carry as a negative int; 0 for none.
func (m message) errno() (int, error) {
	payload := m.payload()
	if m.kind() == typeDone && len(payload) == 0 {
		return 0, nil
	}
	if len(payload) < 4 {
		return 0, ErrShort
	}
	return -int(int32(binary.NativeEndian.Uint32(payload))), nil
}

// Attributes iterates over the attributes of a message, struct nlattr (include/uapi/linux/netlink.h): 0 __u16 nla_len,
// 2 __u16 nla_type.
//
//	attributes := m.Attributes()
//	for attributes.Next() {
//		switch attributes.Type { … }
//	}
//	return attributes.Err()
type Attributes struct {
	Type  uint16
	Value []byte // part of the message
	rest  []byte
	short bool
}

// Next advances to the next attribute. It returns false at the end, or if the next attribute is truncated.
func (a *Attributes) Next() bool {
	const header, typeMask = 4, 0x3fff // the two top bits of the type are flags: NLA_TYPE_MASK
	if len(a.rest) < header {
		return false
	}
	length := int(binary.NativeEndian.Uint16(a.rest))
	if length < header || length > len(a.rest) {
		a.rest, a.short = nil, true
		return false
	}
	a.Type, a.Value = binary.NativeEndian.Uint16(a.rest[2:])&typeMask, a.rest[header:length]
	a.rest = a.rest[min(align4(length), len(a.rest)):]
	return true
}

// Err returns ErrShort if an attribute was truncated.
func (a *Attributes) Err() error {
	if a.short {
		return ErrShort
	}
	return nil
}

// Package sockdiagtest encodes NETLINK_SOCK_DIAG messages of the kernel, for tests. It does not use the codec under test.
package sockdiagtest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

// Attribute is a struct nlattr with its padding.
func Attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return pad(append(b, value...))
}

func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

// Uint32s are numbers of 32 bits, one after the other.
func Uint32s(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

// Port is the port ID of the requesting socket.
const Port = 4711

// Answer is a message to Port, with padding.
func Answer(kind, flags uint16, sequence uint32, payload []byte) []byte {
	return message(kind, flags, sequence, Port, payload)
}

// Event is a multicast message about a destroyed socket.
func Event(payload []byte) []byte {
	const sockDiagByFamily = 20
	return message(sockDiagByFamily, 0, 0, 0, payload)
}

func message(kind, flags uint16, sequence, port uint32, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = binary.NativeEndian.AppendUint32(b, port)
	return pad(append(b, payload...))
}

// Inet is a struct inet_diag_msg.
type Inet struct {
	Family, State uint8
	Local, Remote string // in the format of netip.ParseAddrPort
	Interface     uint32
	Cookie        uint64
	RecvQueue     uint32
	SendQueue     uint32
	UID, Inode    uint32
	Attributes    []byte
}

// Bytes returns the payload of a message.
func (m Inet) Bytes() []byte {
	b := make([]byte, 72, 72+len(m.Attributes))
	b[0], b[1] = m.Family, m.State
	local, remote := netip.MustParseAddrPort(m.Local), netip.MustParseAddrPort(m.Remote)
	binary.BigEndian.PutUint16(b[4:], local.Port())
	binary.BigEndian.PutUint16(b[6:], remote.Port())
	copy(b[8:24], local.Addr().AsSlice())
	copy(b[24:40], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(b[40:], m.Interface)
	binary.NativeEndian.PutUint32(b[44:], uint32(m.Cookie))
	binary.NativeEndian.PutUint32(b[48:], uint32(m.Cookie>>32))
	binary.NativeEndian.PutUint32(b[56:], m.RecvQueue)
	binary.NativeEndian.PutUint32(b[60:], m.SendQueue)
	binary.NativeEndian.PutUint32(b[64:], m.UID)
	binary.NativeEndian.PutUint32(b[68:], m.Inode)
	return append(b, m.Attributes...)
}

// Unix is a struct unix_diag_msg of the socket with inode number 4711 and cookie 0x0123456789abcdef.
func Unix(state uint8, attributes ...[]byte) []byte {
	b := []byte{1, 1, state, 0}
	b = append(b, Uint32s(4711, 0x89abcdef, 0x01234567)...)
	return append(b, bytes.Join(attributes, nil)...)
}

package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

const (
	inetSockIDLen  = 48 // struct inet_diag_sockid
	inetMessageLen = 72 // struct inet_diag_msg
)

// Attributes of an [InetMessage], include/uapi/linux/inet_diag.h.
const (
	InetInfo      = 2  // INET_DIAG_INFO: of TCP a [TCPInfo]
	InetSKMemInfo = 7  // INET_DIAG_SKMEMINFO, Linux 3.6: see [Drops]
	InetCgroupID  = 21 // INET_DIAG_CGROUP_ID, Linux 5.8: see [CgroupID]
)

// InetMessage is a view of struct inet_diag_msg (include/uapi/linux/inet_diag.h) and its attributes:
//
//	 0 __u8   idiag_family
//	 1 __u8   idiag_state
//	 2 __u8   idiag_timer
//	 3 __u8   idiag_retrans
//	 4 struct inet_diag_sockid id:
//	 4 __be16 idiag_sport
//	 6 __be16 idiag_dport
//	 8 __be32 idiag_src[4]
//	24 __be32 idiag_dst[4]
//	40 __u32  idiag_if
//	44 __u32  idiag_cookie[2]
//	52 __u32  idiag_expires
//	56 __u32  idiag_rqueue
//	60 __u32  idiag_wqueue
//	64 __u32  idiag_uid
//	68 __u32  idiag_inode
type InetMessage struct {
	header     *[inetMessageLen]byte
	attributes []byte
}

// ParseInet returns a view of the payload of an answer or event. The payload must not change while the view is used.
func ParseInet(payload []byte) (InetMessage, error) {
	if len(payload) < inetMessageLen {
		return InetMessage{}, fmt.Errorf("inet_diag_msg of %d bytes: %w", len(payload), ErrShort)
	}
	if family := payload[0]; family != AFInet && family != AFInet6 {
		return InetMessage{}, fmt.Errorf("inet_diag_msg of unknown address family %d", family)
	}
	return InetMessage{(*[inetMessageLen]byte)(payload), payload[inetMessageLen:]}, nil
}

// InetInode is [InetMessage.Inode] of a payload; ok is false if it is not an inet_diag_msg. It does not allocate an error.
func InetInode(payload []byte) (inode uint32, ok bool) {
	if len(payload) < inetMessageLen || payload[0] == AFUnix {
		return 0, false
	}
	return binary.NativeEndian.Uint32(payload[68:]), true
}

// Family returns AFInet or AFInet6.
func (m InetMessage) Family() uint8 { return m.header[0] }

// State returns the TCP state; sockets of other protocols are TCP_ESTABLISHED or TCP_CLOSE.
func (m InetMessage) State() uint8 { return m.header[1] }

// Local returns the local address.
func (m InetMessage) Local() netip.AddrPort {
	return m.addrPort((*[16]byte)(m.header[8:]), binary.BigEndian.Uint16(m.header[4:]))
}

// Remote returns the address of the peer.
func (m InetMessage) Remote() netip.AddrPort {
	return m.addrPort((*[16]byte)(m.header[24:]), binary.BigEndian.Uint16(m.header[6:]))
}

func (m InetMessage) addrPort(addr *[16]byte, port uint16) netip.AddrPort {
	if m.Family() == AFInet {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr[:])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(*addr), port)
}

// Interface returns the index of the device to which the socket is bound; 0: none.
func (m InetMessage) Interface() uint32 { return binary.NativeEndian.Uint32(m.header[40:]) }

// Cookie returns the socket's cookie.
func (m InetMessage) Cookie() uint64 {
	return uint64(binary.NativeEndian.Uint32(m.header[44:])) | uint64(binary.NativeEndian.Uint32(m.header[48:]))<<32
}

// RecvQueue returns the receive queue in bytes; for a listening TCP socket the length of the accept queue.
func (m InetMessage) RecvQueue() uint32 { return binary.NativeEndian.Uint32(m.header[56:]) }

// SendQueue returns the send queue in bytes; for a listening TCP socket the backlog.
func (m InetMessage) SendQueue() uint32 { return binary.NativeEndian.Uint32(m.header[60:]) }

// UID returns the user id of the owner.
func (m InetMessage) UID() uint32 { return binary.NativeEndian.Uint32(m.header[64:]) }

// Inode returns the inode number; 0: no process has a descriptor.
func (m InetMessage) Inode() uint32 { return binary.NativeEndian.Uint32(m.header[68:]) }

// Attributes returns an iterator over the attributes.
func (m InetMessage) Attributes() Attributes { return Attributes{rest: m.attributes} }

// Drops returns SK_MEMINFO_DROPS (include/uapi/linux/sock_diag.h), the ninth __u32 in INET_DIAG_SKMEMINFO; false before
// Linux 4.7.
func Drops(skMemInfo []byte) (drops uint32, ok bool) {
	const at = 8 * 4
	if len(skMemInfo) < at+4 {
		return 0, false
	}
	return binary.NativeEndian.Uint32(skMemInfo[at:]), true
}

// CgroupID returns the __u64 in INET_DIAG_CGROUP_ID; ok is false if it is truncated.
func CgroupID(value []byte) (id uint64, ok bool) {
	if len(value) < 8 {
		return 0, false
	}
	return binary.NativeEndian.Uint64(value), true
}

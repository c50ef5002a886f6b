package sockdiag

import (
	"encoding/binary"
	"fmt"
)

const unixMessageLen = 16

// Attributes of a [UnixMessage], include/uapi/linux/unix_diag.h.
const (
	UnixName  = 0 // UNIX_DIAG_NAME: sun_path without the NUL at its end; an abstract name begins with a NUL
	UnixRQLen = 4 // UNIX_DIAG_RQLEN: see [Queues]
	UnixUID   = 7 // UNIX_DIAG_UID, Linux 5.3: see [UID]
)

// UnixMessage is a view of struct unix_diag_msg (include/uapi/linux/unix_diag.h) and its attributes:
//
//	0 __u8  udiag_family
//	1 __u8  udiag_type
//	2 __u8  udiag_state
//	3 __u8  pad
//	4 __u32 udiag_ino
//	8 __u32 udiag_cookie[2]
type UnixMessage struct {
	header     *[unixMessageLen]byte
	attributes []byte
}

// ParseUnix returns a view of the payload of an answer. The payload must not change while the view is used.
func ParseUnix(payload []byte) (UnixMessage, error) {
	if len(payload) < unixMessageLen {
		return UnixMessage{}, fmt.Errorf("unix_diag_msg of %d bytes: %w", len(payload), ErrShort)
	}
	if family := payload[0]; family != AFUnix {
		return UnixMessage{}, fmt.Errorf("unix_diag_msg of unknown address family %d", family)
	}
	return UnixMessage{(*[unixMessageLen]byte)(payload), payload[unixMessageLen:]}, nil
}

// State returns the state: TCP_ESTABLISHED, TCP_CLOSE or TCP_LISTEN.
func (m UnixMessage) State() uint8 { return m.header[2] }

// Inode returns the inode number.
func (m UnixMessage) Inode() uint32 { return binary.NativeEndian.Uint32(m.header[4:]) }

// Cookie returns the socket's cookie.
func (m UnixMessage) Cookie() uint64 {
	return uint64(binary.NativeEndian.Uint32(m.header[8:])) | uint64(binary.NativeEndian.Uint32(m.header[12:]))<<32
}

// Attributes returns an iterator over the attributes.
func (m UnixMessage) Attributes() Attributes { return Attributes{rest: m.attributes} }

// Queues decodes struct unix_diag_rqlen, in UNIX_DIAG_RQLEN: 0 __u32 udiag_rqueue, 4 __u32 udiag_wqueue, both in bytes; for a
// listening socket they are the length of the accept queue and the backlog. ok is false if it is truncated.
func Queues(rqLen []byte) (recv, send uint32, ok bool) {
	if len(rqLen) < 8 {
		return 0, 0, false
	}
	return binary.NativeEndian.Uint32(rqLen), binary.NativeEndian.Uint32(rqLen[4:]), true
}

// UID returns the __u32 in UNIX_DIAG_UID; ok is false if it is truncated.
func UID(value []byte) (uid uint32, ok bool) {
	if len(value) < 4 {
		return 0, false
	}
	return binary.NativeEndian.Uint32(value), true
}

package testnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// A SocketState identifies a socket in one of its states.
type SocketState struct {
	Protocol string // tcp or udp, for both IPv4 and IPv6
	State    string // as in [Socket]
	Cookie   uint64
}

// SocketStates counts the TCP and UDP sockets of this network namespace by state. It sends the requests of "ss -tuna", and is fast
// enough to repeat with ten thousand sockets. It shares no code with the library under test.
func SocketStates(tb testing.TB) map[SocketState]int {
	tb.Helper()
	seen := map[SocketState]int{}
	for protocol, name := range map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			err := dumpSockets(family, protocol, func(state uint8, cookie uint64) {
				seen[SocketState{name, stateNames[state], cookie}]++
			})
			if err != nil {
				tb.Fatalf("dumping %s sockets of family %d: %v", name, family, err)
			}
		}
	}
	return seen
}

// dumpSockets sends a struct inet_diag_req_v2 and decodes each struct inet_diag_msg (include/uapi/linux/inet_diag.h).
func dumpSockets(family, protocol uint8, each func(state uint8, cookie uint64)) error {
	const (
		headerLen, requestLen, answerLen = 16, 56, 72

		sockDiagByFamily = 20
		stateAt          = 1
		cookieAt         = 44
	)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request := binary.NativeEndian.AppendUint32(nil, headerLen+requestLen)
	request = binary.NativeEndian.AppendUint16(request, sockDiagByFamily)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	request = append(request, make([]byte, 8)...)
	request = append(request, family, protocol, 0, 0)
	request = binary.NativeEndian.AppendUint32(request, 0xfff)
	request = append(request, make([]byte, headerLen+requestLen-len(request))...)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= headerLen; {
			length := int(binary.NativeEndian.Uint32(b))
			switch kind := binary.NativeEndian.Uint16(b[4:]); {
			case kind == unix.NLMSG_DONE:
				return nil
			case kind != sockDiagByFamily, length < headerLen+answerLen, length > len(b):
				return fmt.Errorf("unexpected message of type %d with %d bytes", kind, length)
			}
			answer := b[headerLen:length]
			each(answer[stateAt], binary.NativeEndian.Uint64(answer[cookieAt:]))
			b = b[min((length+3)&^3, len(b)):]
		}
	}
}

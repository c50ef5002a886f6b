package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// The floors are the system calls that no program can do without, and nothing made of the answers. They make no garbage.
var floors = []subject{
	dumpFloor(floorDump, 0, byFamily),
	dumpFloor(floorInfoDump, askInfo, byFamily),
	dumpFloor("bare dump of both families at once", 0, atOnce),
	dumpFloor("bare dump of both families at once with INFO", askInfo, atOnce),
	{name: floorWalk, group: groupFloors, note: ofAllProcesses, start: startWalk},
	{name: floorRead, group: groupFloors, start: startRead},
	{name: floorBPF, group: groupFloors, note: ofAllProcesses, start: startBPF},
}

const ofAllProcesses = "sockets of any kind, of all processes"

// bufferSize is how much is read at once, at most.
const bufferSize = 64 << 10

const (
	sizeofNlMsghdr = 16
	askInfo        = 1 << (2 - 1) // INET_DIAG_INFO of include/uapi/linux/inet_diag.h
	// allStates leaves out TCP_BOUND_INACTIVE, for which the kernel would go through all ports.
	allStates = 1<<(unix.BPF_TCP_NEW_SYN_RECV+1) - 1
)

// dump asks sock_diag for all TCP sockets.
type dump struct {
	socket   int
	requests [][]byte
	buffer   []byte
}

func dumpFloor(name string, extensions byte, requests func(extensions byte) [][]byte) subject {
	return subject{name: name, group: groupFloors, start: func(task) (gather, error) {
		socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return nil, fmt.Errorf("opening a sock_diag socket: %w", err)
		}
		if err := unix.Connect(socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return nil, fmt.Errorf("connecting a sock_diag socket: %w", err)
		}
		d := &dump{socket, requests(extensions), make([]byte, bufferSize)}
		return inProcess(d.all), nil
	}}
}

// byFamily is what sock_diag is usually asked: for the sockets of one family, and then for those of the other. The body is
// struct inet_diag_req_v2.
func byFamily(extensions byte) (requests [][]byte) {
	const sockDiagByFamily = 20
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		body := make([]byte, 56)
		body[0], body[1], body[2] = family, unix.IPPROTO_TCP, extensions
		binary.NativeEndian.PutUint32(body[4:], allStates)
		requests = append(requests, dumpRequest(sockDiagByFamily, body))
	}
	return requests
}

// atOnce asks for both families in the older way, with struct inet_diag_req, by which the kernel goes through its table of
// connections once and not twice.
func atOnce(extensions byte) [][]byte {
	const tcpDiagGetSock = 18
	body := make([]byte, 60)
	body[3] = extensions
	binary.NativeEndian.PutUint32(body[52:], allStates)
	return [][]byte{dumpRequest(tcpDiagGetSock, body)}
}

func dumpRequest(kind uint16, body []byte) []byte {
	request := slices.Concat(make([]byte, sizeofNlMsghdr), body)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], kind)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	return request
}

func (d *dump) all() (sockets int, err error) {
	for _, request := range d.requests {
		if _, err := unix.Write(d.socket, request); err != nil {
			return 0, fmt.Errorf("asking sock_diag: %w", err)
		}
		for done := false; !done; {
			n, err := unix.Read(d.socket, d.buffer)
			if err != nil {
				return 0, fmt.Errorf("reading from sock_diag: %w", err)
			}
			var messages int
			if messages, done, err = countMessages(d.buffer[:n]); err != nil {
				return 0, err
			}
			sockets += messages
		}
	}
	return sockets, nil
}

// countMessages goes from message to message, as one has to in order to see the end.
func countMessages(b []byte) (sockets int, done bool, err error) {
	for len(b) >= sizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < sizeofNlMsghdr || size > len(b) {
			return 0, false, fmt.Errorf("sock_diag sent a message of %d bytes in %d", size, len(b))
		}
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			done = true
		case unix.NLMSG_ERROR:
			return 0, false, errors.New("sock_diag refused to answer")
		default:
			sockets++
		}
		b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return sockets, done, nil
}

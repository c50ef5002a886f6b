package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// The floors are the system calls that every program needs. They do not decode the replies, and allocate nothing.
var floors = []subject{
	dumpFloor(floorDump, 0, perFamilyRequests),
	dumpFloor(floorInfoDump, infoExtension, perFamilyRequests),
	dumpFloor("bare dump of both families at once", 0, combinedRequest),
	dumpFloor("bare dump of both families at once with INFO", infoExtension, combinedRequest),
	{name: floorWalk, group: groupFloors, note: noteAllProcesses, start: startFDWalk},
	{name: floorRead, group: groupFloors, start: startProcNetRead},
	{name: floorBPF, group: groupFloors, note: noteAllProcesses, start: startBPFIterator},
}

const noteAllProcesses = "sockets of any kind, of all processes"

// bufferSize is the size of the buffer of each read.
const bufferSize = 64 << 10

const (
	sizeofNlMsghdr = 16
	infoExtension  = 1 << (2 - 1) // INET_DIAG_INFO of include/uapi/linux/inet_diag.h
	// allStates excludes TCP_BOUND_INACTIVE, for which the kernel walks the table of all bound ports.
	allStates = 1<<(unix.BPF_TCP_NEW_SYN_RECV+1) - 1
)

// dump requests all TCP sockets from sock_diag.
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
		return measureInProcess(d.run), nil
	}}
}

// perFamilyRequests returns a request for each address family, as most programs send them. The body is struct
// inet_diag_req_v2.
func perFamilyRequests(extensions byte) (requests [][]byte) {
	const sockDiagByFamily = 20
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		body := make([]byte, 56)
		body[0], body[1], body[2] = family, unix.IPPROTO_TCP, extensions
		binary.NativeEndian.PutUint32(body[4:], allStates)
		requests = append(requests, dumpRequest(sockDiagByFamily, body))
	}
	return requests
}

// combinedRequest returns the older request for both families, with struct inet_diag_req. The kernel then walks its table of
// connections once, not twice.
func combinedRequest(extensions byte) [][]byte {
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

func (d *dump) run() (sockets int, err error) {
	for _, request := range d.requests {
		if _, err := unix.Write(d.socket, request); err != nil {
			return 0, fmt.Errorf("sending a sock_diag request: %w", err)
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

// countMessages walks the messages of a read, which is necessary to find NLMSG_DONE.
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
			return 0, false, errors.New("sock_diag replied with an error")
		default:
			sockets++
		}
		b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return sockets, done, nil
}

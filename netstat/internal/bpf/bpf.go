// Package bpf loads the BPF programs of netstat and decodes their output:
//
//   - owners.c is an iterator over the descriptors of all processes, which finds those that are sockets;
//   - connects.c records attempts to connect by TCP: the process that makes one, and how it ends.
//
// They need Linux with BTF (5.11 and 5.12), CAP_BPF and CAP_PERFMON, and amd64 or arm64. Otherwise the error is
// errors.ErrUnsupported and names the missing requirement. "make generate" compiles them and generates the Go types of their
// structs.
package bpf

import (
	"bytes"
	"net/netip"
)

// Process is a process as a program saw it.
type Process struct {
	StartBootTime uint64 // ns after boot: start_boottime of struct task_struct
	PID           uint32
	UID           uint32   // effective user id
	Comm          [16]byte // ends with a NUL
}

// Name returns comm without the NUL.
func (p *Process) Name() []byte {
	name, _, _ := bytes.Cut(p.Comm[:], []byte{0})
	return name
}

// Connect is an attempt to connect by TCP. It has no pointers.
type Connect struct {
	CgroupID  uint64  // cgroup v2 of the initiator
	Initiator Process // PID 0: a kernel thread
	Port      uint16  // of the peer; the kernel clears it when a connection is refused or aborted
	Attempt
}

// Attempt identifies an attempt to connect, and says how long it took. It has no pointers.
type Attempt struct {
	Number      uint32 // of the attempts of the host, modulo 2^32; 0: not recorded
	ConnectTime uint32 // µs from the first SYN until it was established or failed, at least 1; 0: neither
	SynRetrans  uint32 // SYN segments that were sent again until then
}

// End is an attempt that failed, or an established connection that the kernel has ended because of an error. The socket can still
// exist.
type End struct {
	Connect       // Number is 0 if the attempt is not recorded, or the connection was accepted
	Cookie        uint64
	Local, Remote netip.AddrPort // IPv4 of a socket of AF_INET
	NetNS         uint64         // inode number of the network namespace
	Device        uint32         // that the socket is bound to; 0: none
	// SegsOut and SegsIn count the segments of a failed attempt.
	SegsOut, SegsIn uint32
	Failed          bool // an attempt; else an established connection
	// Error is the error of the socket (sk_err of struct sock), SoftError the last one that ICMP reported (sk_err_soft, or in the error
	// queue).
	Error, SoftError uint16
	// NoPort: the attempt got no local port.
	NoPort bool
}

// Package bpf loads the BPF programs of netstat, and decodes what they write:
//
//   - owners.c is an iterator over the descriptors of all processes, which finds those that are sockets;
//   - connects.c records the process that initiates a TCP connection.
//
// They take Linux with BTF (5.11 and 5.12), CAP_BPF and CAP_PERFMON, and amd64 or arm64. An error that is
// errors.ErrUnsupported says what is missing. make generate compiles them, and makes the Go types of their structs.
package bpf

import "bytes"

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

// Connect says which process initiated a TCP connection, and where to. It holds no pointers.
type Connect struct {
	CgroupID  uint64 // cgroup v2 of the initiator
	Initiator Process
	Port      uint16 // of the peer: the kernel forgets it when a connection is refused or aborted
}

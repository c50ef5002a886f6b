// Package bpf loads the BPF programs of netstat and decodes their output:
//
//   - owners.c is an iterator over the descriptors of all processes, which finds those that are sockets;
//   - connects.c records the process that initiates a TCP connection.
//
// They need Linux with BTF (5.11 and 5.12), CAP_BPF and CAP_PERFMON, and amd64 or arm64. Otherwise the error is
// errors.ErrUnsupported and names the missing requirement. "make generate" compiles them and generates the Go types of their
// structs.
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

// Connect is the initiator of a TCP connection, and the port of the peer. It has no pointers.
type Connect struct {
	CgroupID  uint64 // cgroup v2 of the initiator
	Initiator Process
	Port      uint16 // of the peer; the kernel clears it when a connection is refused or aborted
}

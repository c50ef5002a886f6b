package netstat

import (
	"context"
	"fmt"
	"strings"
)

// OwnerMethod is a way to find the processes behind the sockets.
type OwnerMethod uint8

// The ways to find the processes behind the sockets.
const (
	// OwnersAuto is the first of OwnersBPF and OwnersProcfs that works. Where BPF was refused, it is tried again every five minutes.
	OwnersAuto OwnerMethod = iota
	// OwnersBPF has the kernel go through the descriptors of all processes (a BPF iterator, iter/task_file), which costs
	// less than a tenth of reading the links. It takes Linux 5.11 with BTF, CAP_BPF and CAP_PERFMON, amd64 or arm64, and
	// a ScannerConfig.ProcRoot of the initial PID namespace, in which the reader is too. It is required: [NewScanner] fails where
	// it does not work.
	OwnersBPF
	// OwnersProcfs reads the links in /proc/<pid>/fd, and in /proc/<pid>/task/<tid>/fd of threads with descriptors of their own.
	// To see those of other users it takes CAP_SYS_PTRACE and
	// CAP_DAC_READ_SEARCH.
	OwnersProcfs
	// OwnersNone does not look for them.
	OwnersNone
)

var ownerMethodNames = [...]string{
	OwnersAuto: "auto", OwnersBPF: "bpf", OwnersProcfs: "procfs", OwnersNone: "none",
}

// String returns the method's name, and OwnerMethod(n) for a number that is no method.
func (m OwnerMethod) String() string { return enumName("OwnerMethod", int(m), ownerMethodNames[:]) }

// ParseOwnerMethod returns the method with the name.
func ParseOwnerMethod(name string) (OwnerMethod, error) {
	i, err := parseEnum(name, ownerMethodNames[:])
	return OwnerMethod(i), err
}

// ownerFinder finds the processes behind the sockets of the host, in all network namespaces at once.
type ownerFinder interface {
	// refresh fills the table anew. The end of ctx is an error.
	refresh(context.Context, *ownerTable) (ownerStats, error)
	close()
}

// ownerStats tells how a refresh went.
type ownerStats struct {
	processes int // that hold a socket
	denied    int // processes whose descriptors may not be read
}

// noOwners is the way to find no processes.
type noOwners struct{}

var _ ownerFinder = noOwners{}

func (noOwners) refresh(context.Context, *ownerTable) (ownerStats, error) { return ownerStats{}, nil }
func (noOwners) close()                                                   {}

// enumName returns the name of value i of the type.
func enumName(typeName string, i int, names []string) string {
	if i >= len(names) {
		return fmt.Sprintf("%s(%d)", typeName, i)
	}
	return names[i]
}

// parseEnum returns the index of the name in names.
func parseEnum(name string, names []string) (int, error) {
	for i, n := range names {
		if n == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q is not one of %s", name, strings.Join(names, ", "))
}

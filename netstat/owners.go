package netstat

import "context"

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
	// OwnersOff does not look for them.
	OwnersOff
)

var ownerMethodNames = [...]string{
	OwnersAuto: "auto", OwnersBPF: "bpf", OwnersProcfs: "procfs", OwnersOff: "none",
}

// String returns the method's name, and OwnerMethod(n) for a number that is no method.
func (m OwnerMethod) String() string { return enumName("OwnerMethod", m, ownerMethodNames[:]) }

// MarshalText returns the method's name.
func (m OwnerMethod) MarshalText() ([]byte, error) {
	return marshalEnum("OwnerMethod", m, ownerMethodNames[:])
}

// UnmarshalText sets the method to the one with the name.
func (m *OwnerMethod) UnmarshalText(name []byte) error {
	return unmarshalEnum(m, name, ownerMethodNames[:])
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

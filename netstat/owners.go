package netstat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// OwnerMethod selects how a [Scanner] finds the processes that hold sockets.
type OwnerMethod uint8

// The owner methods.
const (
	// OwnersAuto uses OwnersBPF where it works and OwnersProcfs otherwise. It retries BPF every five minutes.
	OwnersAuto OwnerMethod = iota
	// OwnersBPF iterates over the descriptors of all processes in the kernel (BPF iterator task_file, kernel/bpf/task_iter.c). It
	// costs less than a tenth of OwnersProcfs. It needs Linux 5.11 with BTF, CAP_BPF and CAP_PERFMON, amd64 or arm64; the reader
	// and ScannerConfig.ProcRoot must be in the initial PID namespace. [NewScanner] fails if it does not work.
	OwnersBPF
	// OwnersProcfs reads the links in /proc/<pid>/fd, and in /proc/<pid>/task/<tid>/fd for threads with a descriptor table of
	// their own. Other users' processes need CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
	OwnersProcfs
	// OwnersOff does not look up owners.
	OwnersOff
)

var ownerMethodNames = [...]string{
	OwnersAuto: "auto", OwnersBPF: "bpf", OwnersProcfs: "procfs", OwnersOff: "none",
}

// String returns the method's name, or OwnerMethod(n) for an invalid value.
func (m OwnerMethod) String() string { return enumName("OwnerMethod", m, ownerMethodNames[:]) }

// MarshalText returns the method's name. It fails for an invalid value.
func (m OwnerMethod) MarshalText() ([]byte, error) {
	return marshalEnum("OwnerMethod", m, ownerMethodNames[:])
}

// UnmarshalText sets the method by its name: "auto", "bpf", "procfs" or "none". Any other name is an error.
func (m *OwnerMethod) UnmarshalText(name []byte) error {
	return unmarshalEnum(m, name, ownerMethodNames[:])
}

// ownerFinder finds the processes that hold sockets, in all network namespaces at once.
type ownerFinder interface {
	// refresh clears and refills the table. It returns the error of ctx if that ends.
	refresh(context.Context, *ownerTable) (ownerStats, error)
	close()
}

// ownerStats describes a refresh.
type ownerStats struct {
	processes int // that hold a socket
	denied    int // processes whose descriptors cannot be read
}

// noOwners implements OwnersOff.
type noOwners struct{}

var _ ownerFinder = noOwners{}

func (noOwners) refresh(context.Context, *ownerTable) (ownerStats, error) { return ownerStats{}, nil }
func (noOwners) close()                                                   {}

// bpfOwners implements OwnersBPF: the kernel runs a BPF program for every descriptor.
type bpfOwners struct {
	processes *processCache
	owners    *bpf.Owners
}

var _ ownerFinder = (*bpfOwners)(nil)

// newBPFOwners loads the program. The error is errors.ErrUnsupported if the kernel or the privileges do not suffice.
func newBPFOwners(processes *processCache) (ownerFinder, error) {
	owners, err := bpf.OpenOwners(processes.root)
	if err != nil {
		return nil, err
	}
	return &bpfOwners{processes, owners}, nil
}

func (w *bpfOwners) close() { w.owners.Close() }

func (w *bpfOwners) refresh(ctx context.Context, table *ownerTable) (ownerStats, error) {
	table.clear()
	records, err := w.owners.Start()
	if err != nil {
		return ownerStats{}, err
	}
	defer records.Close()
	w.processes.begin()
	defer w.processes.end()
	err = w.owners.Each(ctx, records, func(p *bpf.Process, inodes []uint64) {
		process := w.processes.see(int(p.PID), w.processes.clock.Ticks(p.StartBootTime), p.Name())
		process.setUID(p.UID, w.processes.now)
		table.add(process, inodes)
	})
	return ownerStats{processes: w.processes.count}, err
}

// fdWalk implements OwnersProcfs.
type fdWalk struct {
	processes *processCache
	sockets   *procfs.SocketWalk
}

var _ ownerFinder = (*fdWalk)(nil)

func newFDWalk(processes *processCache) *fdWalk {
	return &fdWalk{processes: processes, sockets: procfs.NewSocketWalk(processes.root)}
}

func (w *fdWalk) close() { w.sockets.Close() }

func (w *fdWalk) refresh(ctx context.Context, table *ownerTable) (ownerStats, error) {
	table.clear()
	w.processes.begin()
	defer w.processes.end()
	var (
		stats  ownerStats
		failed error
	)
	err := w.sockets.Each(ctx, func(pid int, inodes []uint64, err error) {
		switch {
		case err == nil, vanished(err):
		case errors.Is(err, fs.ErrPermission):
			// Kernel threads have no descriptors.
			if !w.processes.isKernelThread(w.sockets.Dir(), pid) {
				stats.denied++
			}
		case failed == nil:
			failed = fmt.Errorf("reading the descriptors of process %d: %w", pid, err)
		}
		if len(inodes) == 0 {
			return
		}
		process := w.processes.get(w.sockets.Dir(), pid)
		if process == nil {
			return
		}
		table.add(process, inodes)
	})
	stats.processes = w.processes.count
	return stats, errors.Join(err, failed)
}

// lateSockets are the sockets of a namespace that do not listen and have no known owner. Most were opened after the owner lookup,
// so that a second lookup can find their owners.
type lateSockets struct {
	held     []Socket
	before   int  // sockets yielded before those of the namespace
	lookedUp bool // this scan has done the second lookup, which covers all namespaces
}

// maxLate bounds the memory for late sockets: without privileges most sockets have no known owner.
const maxLate = 8192

// begin starts a namespace.
func (l *lateSockets) begin(handedOut int) {
	clear(l.held) // releases the names
	l.held, l.before = l.held[:0], handedOut
}

// hold keeps a late socket, and reports whether the socket is one.
func (l *lateSockets) hold(s *Socket) bool {
	if s.Inode == 0 || s.State == TCPListen || len(l.held) == maxLate || len(s.Owners()) > 0 {
		return false
	}
	l.held = append(l.held, *s)
	return true
}

// worthLookup reports whether to look up the owners again: if more than 1 % of the sockets of the namespace are late, not
// counting as many as were without an owner after the last lookup. One second lookup per scan is enough: it covers all
// namespaces.
func (l *lateSockets) worthLookup(n *trackedNamespace, handedOut int) bool {
	n.unowned = min(n.unowned, len(l.held))
	const oneIn = 100
	return !l.lookedUp && (len(l.held)-n.unowned)*oneIn > handedOut-l.before
}

// handOutLate looks up the owners again if that is worth it, and yields the late sockets.
func (s *Scanner) handOutLate(ctx context.Context, yield func(*Socket, error) bool) bool {
	look := s.late.worthLookup(s.reading, s.stats.Sockets+len(s.late.held))
	if look {
		s.late.lookedUp = true
		switch err := s.findOwners(ctx); {
		case ctx.Err() != nil:
			yield(nil, ctx.Err())
			return false
		case err != nil && !yield(nil, err):
			return false
		}
	}
	unowned := 0
	for i := range s.late.held {
		s.socket = s.late.held[i]
		s.socket.number = s.current.next()
		if len(s.socket.Owners()) == 0 {
			unowned++
		}
		s.setOwnerByConnect()
		s.stats.Sockets++
		if !yield(&s.socket, nil) {
			return false
		}
	}
	if look {
		s.reading.unowned = unowned
	}
	return true
}

// setOwnerByConnect makes the initiator of a connection its owner if it has no other: the connection was opened after the owner
// lookup.
func (s *Scanner) setOwnerByConnect() {
	if len(s.socket.Owners()) > 0 {
		return
	}
	if initiator, _ := s.socket.Initiator(); initiator != nil {
		s.current.owners = append(s.current.owners, initiator)
	}
}

package netstat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
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

// bpfOwners finds the processes behind the sockets by a BPF program that the kernel calls for every descriptor.
type bpfOwners struct {
	processes *processCache
	owners    *bpf.Owners
}

var _ ownerFinder = (*bpfOwners)(nil)

// newBPFOwners loads the program. An error that is errors.ErrUnsupported says that it cannot work here, or not for this user.
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

// fdWalk finds the processes behind the sockets by reading every link in /proc/<pid>/fd, and in the directories of threads that have
// other descriptors.
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
			// Kernel threads have no descriptors that could be missed.
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

// lateSockets are the sockets of a namespace, but for those that listen, of which no process was known when the kernel told of
// them. Most were opened since the processes were looked at: for them it is worth to look once more.
type lateSockets struct {
	held   []Socket
	before int  // sockets handed out before those of the namespace
	looked bool // in this scan, for whichever namespace
}

// mostLate bounds the memory for late sockets, and so what a reader costs who may not look at processes.
const mostLate = 8192

// begin opens the sockets of a namespace.
func (l *lateSockets) begin(handedOut int) {
	clear(l.held) // or names would be kept
	l.held, l.before = l.held[:0], handedOut
}

// hold keeps the socket for later, and tells whether it did.
func (l *lateSockets) hold(s *Socket) bool {
	if s.Inode == 0 || s.State == TCPListen || len(l.held) == mostLate || len(s.Owners()) > 0 {
		return false
	}
	l.held = append(l.held, *s)
	return true
}

// worth tells whether the late sockets of a namespace are so many that looking for the owners once more is worth what it costs:
// more than one in a hundred. Those that have no owner that could be found, as the time before, do not count. Once a scan is
// enough: it is for all namespaces.
func (l *lateSockets) worth(n *trackedNamespace, handedOut int) bool {
	n.unowned = min(n.unowned, len(l.held))
	const oneIn = 100
	return !l.looked && (len(l.held)-n.unowned)*oneIn > handedOut-l.before
}

// handOutLate looks for the owners of the late sockets once more, if that is worth it, and hands them out.
func (s *Scanner) handOutLate(ctx context.Context, yield func(*Socket, error) bool) bool {
	look := s.late.worth(s.reading, s.stats.Sockets+len(s.late.held))
	if look {
		s.late.looked = true
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

// setOwnerByConnect has a connection of which no process is known be of the one that began it, if that is known: it was opened since
// the processes were looked at.
func (s *Scanner) setOwnerByConnect() {
	if s.socket.Transport != TransportTCP || !s.socket.Has(FieldCookie) || len(s.socket.Owners()) > 0 {
		return
	}
	if connect, known := s.connects.Lookup(s.socket.Cookie); known {
		s.current.owners = append(s.current.owners, s.processes.ofConnect(&connect))
	}
}

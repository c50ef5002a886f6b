//go:build amd64 || arm64

package netstat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

// bpfOwners finds the processes behind the sockets by a BPF program that the kernel calls for every descriptor. See
// internal/bpf/owners.c.
type bpfOwners struct {
	processes *processCache
	programs  bpf.OwnersPrograms // without the variables, whose memory would stay mapped until it is garbage
	iterator  *link.Iter
	records   ownerRecords
}

var _ ownerFinder = (*bpfOwners)(nil)

const ownersLinux = "5.11"

// newBPFOwners loads the program. An error that is errors.ErrUnsupported says that it cannot work here, or not for this user.
func newBPFOwners(processes *processCache) (ownerFinder, error) {
	if err := inInitialPIDNamespace(processes.root); err != nil {
		return nil, err
	}
	w := &bpfOwners{processes: processes}
	if err := bpf.LoadOwnersObjects(&w.programs, nil); err != nil {
		return nil, bpfError("the BPF program", ownersLinux, err)
	}
	var err error
	if w.iterator, err = link.AttachIter(link.IterOptions{Program: w.programs.Owners}); err != nil {
		_ = w.programs.Close()
		return nil, bpfError("attaching the BPF program", ownersLinux, err)
	}
	return w, nil
}

func (w *bpfOwners) close() {
	_ = w.iterator.Close()
	_ = w.programs.Close()
}

// inInitialPIDNamespace tells whether this process and the proc file system are in it: the pids that a BPF program sees are
// of no use in another. Where this process is in it, only a proc file system of the same namespace has an entry for it.
func inInitialPIDNamespace(root string) error {
	const initial = "pid:[4026531836]" // PROC_PID_INIT_INO (include/linux/proc_ns.h)
	self := filepath.Join(root, "self", "ns", "pid")
	namespace, err := os.Readlink(self)
	if errors.Is(err, fs.ErrNotExist) || err == nil && namespace != initial {
		return fmt.Errorf("%s is not of the initial PID namespace, whose pids BPF programs see: %w", root, errors.ErrUnsupported)
	}
	return err
}

// bpfError says what is missing: that version of Linux, or capabilities.
func bpfError(doing, linux string, err error) error {
	takes := "Linux " + linux + " with BTF"
	var log *ebpf.VerifierError
	rejected := errors.As(err, &log) && len(log.Log) > 0 // by the verifier, whose EACCES is no want of a capability
	if errors.Is(err, fs.ErrPermission) && !rejected {
		takes = "CAP_BPF and CAP_PERFMON"
		if errno := unix.Errno(0); errors.As(err, &errno) {
			err = errno // what is around it speaks of other causes
		}
	}
	if isScarce(err) { // nothing is missing but for now
		return fmt.Errorf("%s: %w: %w", doing, errors.ErrUnsupported, err)
	}
	return fmt.Errorf("%s takes %s: %w: %w", doing, takes, errors.ErrUnsupported, err)
}

func (w *bpfOwners) refresh(ctx context.Context, table *ownerTable) (ownerStats, error) {
	table.clear()
	sockets, err := w.iterator.Open()
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return ownerStats{}, bpfError("starting the BPF iterator", ownersLinux, err)
		}
		return ownerStats{}, fmt.Errorf("starting the BPF iterator: %w", notSupported(err))
	}
	defer sockets.Close()
	w.processes.begin()
	defer w.processes.end()
	err = w.records.each(ctx, sockets, func(p *ownerRecord, inodes []uint64) {
		process := w.processes.see(int(p.pid), w.processes.clock.Ticks(p.startBootTime), p.name())
		process.setUID(p.uid, w.processes.now)
		table.add(process, inodes)
	})
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("reading from the BPF iterator: %w", err)
	}
	return ownerStats{processes: w.processes.count}, err
}

// ownerRecords decodes what the BPF program writes: all numbers have eight bytes, in the host's byte order.
type ownerRecords struct {
	buf    [64 << 10]byte // the kernel writes eight pages at a time (bpf_seq_read, kernel/bpf/bpf_iter.c)
	inodes []uint64
}

// ownerRecord is struct process of internal/bpf/owners.c: mark, start_boottime, tgid, euid, comm.
type ownerRecord struct {
	startBootTime uint64 // ns
	pid           uint32
	uid           uint32 // effective user id
	comm          [16]byte
}

const ownerRecordLen = 40

func decodeOwnerRecord(b []byte) (r ownerRecord) {
	r.startBootTime = binary.NativeEndian.Uint64(b[8:])
	r.pid = binary.NativeEndian.Uint32(b[16:])
	r.uid = binary.NativeEndian.Uint32(b[20:])
	copy(r.comm[:], b[24:])
	return r
}

func (r *ownerRecord) name() []byte { return untilNUL(r.comm[:]) }

var errNoProcess = errors.New("a socket of no process")

// each calls visit with every process, and the inodes of its sockets: all of them, or those that were read before the error.
// A process that has threads with descriptors of their own can come more than once.
func (o *ownerRecords) each(ctx context.Context, from io.Reader, visit func(p *ownerRecord, inodes []uint64)) error {
	var process ownerRecord
	flush := func() {
		if len(o.inodes) > 0 {
			visit(&process, o.inodes)
		}
		o.inodes = o.inodes[:0]
	}
	rest := 0 // bytes of a record that is not complete
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := from.Read(o.buf[rest:])
		b := o.buf[:rest+n]
		for len(b) >= 8 {
			if inode := binary.NativeEndian.Uint64(b); inode != 0 {
				if process.pid == 0 {
					return errNoProcess
				}
				o.inodes = append(o.inodes, inode)
				b = b[8:]
				continue
			}
			if len(b) < ownerRecordLen {
				break
			}
			flush()
			process = decodeOwnerRecord(b)
			b = b[ownerRecordLen:]
		}
		rest = copy(o.buf[:], b)
		if err == nil || errors.Is(err, unix.EAGAIN) { // a million descriptors, and no socket among them
			continue
		}
		flush()
		if !errors.Is(err, io.EOF) {
			return err
		}
		if rest > 0 {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
}

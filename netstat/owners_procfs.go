package netstat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// fdWalk finds the processes behind the sockets by reading every link in /proc/<pid>/fd, and in the directories of threads that have
// other descriptors.
type fdWalk struct {
	processes *processCache
	sockets   socketWalk
}

var _ ownerFinder = (*fdWalk)(nil)

func newFDWalk(processes *processCache) *fdWalk {
	return &fdWalk{processes: processes, sockets: socketWalk{root: processes.root}}
}

func (w *fdWalk) close() { w.sockets.dir.close() }

func (w *fdWalk) refresh(ctx context.Context, table *ownerTable) (ownerStats, error) {
	table.clear()
	w.processes.begin()
	defer w.processes.end()
	var (
		stats  ownerStats
		failed error
	)
	err := w.sockets.each(ctx, func(pid int, inodes []uint64, err error) {
		switch {
		case err == nil, vanished(err):
		case errors.Is(err, fs.ErrPermission):
			// Kernel threads have no descriptors that could be missed.
			if !w.processes.isKernelThread(&w.sockets.dir, pid) {
				stats.denied++
			}
		case failed == nil:
			failed = fmt.Errorf("reading the descriptors of process %d: %w", pid, err)
		}
		if len(inodes) == 0 {
			return
		}
		process := w.processes.get(&w.sockets.dir, pid)
		if process == nil {
			return
		}
		table.add(process, inodes)
	})
	stats.processes = w.processes.count
	return stats, errors.Join(err, failed)
}

// socketWalk goes through the processes and the sockets that they have descriptors of.
type socketWalk struct {
	root   string
	dir    procDir
	pids   []int
	inodes []uint64

	before, now []walked // in the order of pids
	at          int      // in before
	tables      sharedTables
	isOrdered   bool // tables.compare is known
	stat        [512]byte
}

// each calls visit with every process, in the order of their pids, and the inodes of its sockets: all of them, or those
// that were found before the error. It stops with ctx.
func (w *socketWalk) each(ctx context.Context, visit func(pid int, inodes []uint64, err error)) error {
	if err := w.dir.open(w.root); err != nil {
		return fmt.Errorf("opening the proc file system: %w", err)
	}
	var err error
	if w.pids, err = w.dir.appendPIDs(w.pids[:0]); err != nil {
		return fmt.Errorf("listing the processes in %s: %w", w.root, err)
	}
	if !w.isOrdered {
		w.tables.compare, w.isOrdered = tableOrder(w.root)
	}
	w.now, w.at = w.now[:0], 0
	for _, pid := range w.pids {
		w.inodes, err = w.appendSockets(ctx, w.inodes[:0], pid)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		visit(pid, w.inodes, err)
	}
	w.before, w.now = w.now, w.before
	return nil
}

// vanished tells whether a process or a descriptor has gone while it was looked at.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// parseSocketLink returns the inode in the target of a descriptor's link: socket:[inode], written by sockfs_dname
// (net/socket.c), or [0000]:inode, as kernels before 2.6 wrote it. It is false for descriptors of other kinds.
func parseSocketLink(target []byte) (inode uint64, isSocket bool) {
	digits, ok := bytes.CutPrefix(target, socketPrefix)
	if ok {
		digits, ok = bytes.CutSuffix(digits, socketSuffix)
	} else {
		digits, ok = bytes.CutPrefix(target, oldSocketPrefix)
	}
	if !ok {
		return 0, false
	}
	inode, err := parseDecimal(digits, 64)
	return inode, err == nil
}

var (
	socketPrefix    = []byte("socket:[")
	socketSuffix    = []byte("]")
	oldSocketPrefix = []byte("[0000]:")
)

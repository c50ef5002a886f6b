package procfs

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"math/bits"
	"slices"
	"syscall"
)

// The threads of a process share one descriptor table, and /proc/<pid>/fd shows that of the main thread. There are two
// exceptions: a thread that called unshare(CLONE_FILES), and a process whose main thread has ended: its /proc/<pid>/fd is empty
// while other threads still hold the descriptors. /proc/<pid>/task/<tid>/fd shows both.
//
// A process can have hundreds of threads: comparing their tables in each walk would cost too much. A walk compares them when the
// process is new, then at growing intervals, and in every walk after one that found a thread with a table of its own.

// fdState is the state of a process that a walk keeps for the next one. A process with a reused pid inherits it until the next
// comparison.
type fdState struct {
	pid      int32
	walks    uint32 // number of walks that found the process
	empty    bool   // the main thread showed no descriptors
	zombie   bool   // the main thread has ended, which makes its descriptors unreadable
	unshared bool   // a thread has a table other than that of the main thread
}

// isDue reports whether to compare the threads: in walks 1, 2, 4, 8, …, because a thread usually unshares its table soon after
// its start; and in every 60th walk, with an offset that differs between processes.
func (s *fdState) isDue() bool {
	const period = 60 // ten minutes, if there is a walk every ten seconds
	return s.unshared || bits.OnesCount32(s.walks) == 1 || (s.walks+uint32(s.pid))%period == 0
}

// fdTables finds the distinct descriptor tables of the threads of a process.
type fdTables struct {
	// compare orders the tables of two threads: 0 is the same table. Nil: the tables cannot be compared.
	compare func(tid, other int) (order int, err error)
	tids    []int
	seen    []int // one thread for each table, in the order of compare
}

// compareTIDs treats every table as distinct, which is always correct and costs the most. It is for copies of a proc file system,
// whose threads the kernel cannot compare.
func compareTIDs(tid, other int) (order int, err error) { return cmp.Compare(tid, other), nil }

// reset starts a process. mainHasTable means that the table of the main thread was read.
func (t *fdTables) reset(pid int, mainHasTable bool) {
	if t.seen = t.seen[:0]; mainHasTable {
		t.seen = append(t.seen, pid)
	}
}

// find reports whether the table of the thread is new, and where to insert the thread into seen.
func (t *fdTables) find(tid int) (at int, isNew bool) {
	if t.compare == nil {
		return 0, len(t.seen) == 0
	}
	low, high := 0, len(t.seen)
	for low < high {
		middle := (low + high) / 2
		order, err := t.compare(t.seen[middle], tid)
		switch {
		case err != nil, order == 0: // error: it has ended, or is not permitted, or the kernel has no kcmp
			return middle, false
		case order < 0:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, true
}

// appendSockets appends the inodes of the sockets in the descriptor tables of all threads of the process.
func (w *SocketWalk) appendSockets(ctx context.Context, inodes []uint64, pid int) ([]uint64, error) {
	inodes, descriptors, err := w.dir.appendSockets(ctx, inodes, pid, w.dir.pathOf(pid, "/fd\x00"))
	denied := errors.Is(err, fs.ErrPermission)
	if err != nil && !denied {
		return inodes, err
	}
	state := w.previousState(pid)
	state.walks++
	empty := descriptors == 0
	isDue := state.isDue() || empty && !state.empty
	state.empty = empty
	if isDue {
		state.zombie = denied && empty && w.isZombie(pid)
	}
	if state.zombie {
		denied, err = false, nil // its directory is root's; those of its threads are not
	}
	if isDue && !denied {
		inodes, state.unshared, err = w.appendThreads(ctx, inodes, pid, !empty)
		state.unshared = state.unshared || err != nil // the next walk tries again
	}
	w.current = append(w.current, state)
	return inodes, err
}

// appendThreads is appendSockets for the threads whose table is not that of the main thread, and reports whether there are any.
func (w *SocketWalk) appendThreads(ctx context.Context, inodes []uint64, pid int, mainHasTable bool) (
	_ []uint64, unshared bool, err error,
) {
	if mainHasTable && w.tables.compare == nil {
		return inodes, false, nil
	}
	if w.tables.tids, err = w.dir.appendTIDs(w.tables.tids[:0], pid); err != nil {
		return inodes, false, unlessEnding(err)
	}
	w.tables.reset(pid, mainHasTable)
	for _, tid := range w.tables.tids {
		if err := ctx.Err(); err != nil {
			return inodes, unshared, err
		}
		if tid == pid {
			continue
		}
		at, isNew := w.tables.find(tid)
		if !isNew {
			continue
		}
		var descriptors int
		inodes, descriptors, err = w.dir.appendSockets(ctx, inodes, pid, w.dir.threadPathOf(pid, tid, "/fd\x00"))
		if err = unlessEnding(err); err != nil {
			return inodes, unshared, err
		}
		if descriptors > 0 { // or the thread is about to end
			w.tables.seen = slices.Insert(w.tables.seen, at, tid)
			unshared = true
		}
	}
	return inodes, unshared, nil
}

// unlessEnding returns nil for the errors of a thread that has ended or is ending: meanwhile its directories belong to root.
func unlessEnding(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// previousState returns the state of the process after the previous walk. It must be called in the order of pids.
func (w *SocketWalk) previousState(pid int) fdState {
	for w.at < len(w.previous) && int(w.previous[w.at].pid) < pid {
		w.at++
	}
	if w.at < len(w.previous) && int(w.previous[w.at].pid) == pid {
		return w.previous[w.at]
	}
	return fdState{pid: int32(pid)}
}

func (w *SocketWalk) isZombie(pid int) bool {
	content, err := w.dir.ReadFile(pid, "stat", w.stat[:])
	return err == nil && IsZombie(content)
}

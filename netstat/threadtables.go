package netstat

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io/fs"
	"math/bits"
	"slices"
)

// The threads of a process share one table of descriptors, of which /proc/<pid>/fd shows the main thread's. There are two
// exceptions: a thread that called unshare(CLONE_FILES), and a process whose main thread has ended, where /proc/<pid>/fd is
// empty while the other threads hold the descriptors. Both are in /proc/<pid>/task/<tid>/fd.
//
// A process can have hundreds of threads, so that to list and compare them in each walk would cost too much. They are compared
// when the process is new, ever more seldom after that, and in each walk only if one had a table of its own the last time.

// walked is what a walk keeps of a process for the next one. A process that takes the pid of another one inherits it, until
// the threads are compared again.
type walked struct {
	pid    int32
	walks  uint32 // in which the process was there
	empty  bool   // the main thread showed no descriptors
	zombie bool   // what the main thread has may not be read, but it has ended
	apart  bool   // a thread has a table that is not the main thread's
}

// isDue tells whether the threads are to be compared: in the first walk and in those of the numbers 2, 4, 8, …, as a thread
// leaves the table of the others mostly soon after its start; and in every 60th, for each process in another one.
func (w *walked) isDue() bool {
	const period = 60 // ten minutes, if there is a walk every ten seconds
	return w.apart || bits.OnesCount32(w.walks) == 1 || (w.walks+uint32(w.pid))%period == 0
}

// sharedTables finds the tables of the threads of one process after the other.
type sharedTables struct {
	// compare puts the tables of two threads in an order, in which 0 is the same table; nil if that cannot be known.
	compare func(tid, other int) (order int, err error)
	tids    []int
	seen    []int // threads that have a table each, in the order of compare
}

// compareTIDs takes the table of each thread for one of its own, which costs the most and is never wrong. It is for copies of a
// proc file system, which no kernel can be asked of.
func compareTIDs(tid, other int) (order int, err error) { return cmp.Compare(tid, other), nil }

// begin starts anew with a process, whose main thread has the table that was seen, if hasTable.
func (t *sharedTables) begin(pid int, hasTable bool) {
	if t.seen = t.seen[:0]; hasTable {
		t.seen = append(t.seen, pid)
	}
}

// find tells whether the table of the thread is a new one, and where it would go to in seen.
func (t *sharedTables) find(tid int) (at int, isNew bool) {
	if t.compare == nil {
		return 0, len(t.seen) == 0
	}
	low, high := 0, len(t.seen)
	for low < high {
		middle := (low + high) / 2
		order, err := t.compare(t.seen[middle], tid)
		switch {
		case err != nil, order == 0: // on an error it has gone, may not be looked at, or the kernel does not compare
			return middle, false
		case order < 0:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, true
}

// appendSockets appends the inodes of the sockets that the process has descriptors of, by any of its threads.
func (w *socketWalk) appendSockets(ctx context.Context, inodes []uint64, pid int) ([]uint64, error) {
	inodes, descriptors, err := w.dir.appendSocketsIn(ctx, inodes, pid, w.dir.pathOf(pid, "/fd\x00"))
	denied := errors.Is(err, fs.ErrPermission)
	if err != nil && !denied {
		return inodes, err
	}
	known := w.recall(pid)
	known.walks++
	empty := descriptors == 0
	isDue := known.isDue() || empty && !known.empty
	known.empty = empty
	if isDue {
		known.zombie = denied && empty && w.isZombie(pid)
	}
	if known.zombie {
		denied, err = false, nil // its directory is root's; those of its threads are not
	}
	if isDue && !denied {
		inodes, known.apart, err = w.appendThreads(ctx, inodes, pid, !empty)
		known.apart = known.apart || err != nil // the next walk tries again
	}
	w.now = append(w.now, known)
	return inodes, err
}

// appendThreads is appendSockets for the threads that have a table other than that of the main thread, and tells whether
// there are such.
func (w *socketWalk) appendThreads(ctx context.Context, inodes []uint64, pid int, mainHasTable bool) (
	_ []uint64, apart bool, err error,
) {
	if mainHasTable && w.tables.compare == nil {
		return inodes, false, nil
	}
	if w.tables.tids, err = w.dir.appendTIDs(w.tables.tids[:0], pid); err != nil {
		return inodes, false, unlessGone(err)
	}
	w.tables.begin(pid, mainHasTable)
	for _, tid := range w.tables.tids {
		if err := ctx.Err(); err != nil {
			return inodes, apart, err
		}
		if tid == pid {
			continue
		}
		at, isNew := w.tables.find(tid)
		if !isNew {
			continue
		}
		var descriptors int
		inodes, descriptors, err = w.dir.appendSocketsIn(ctx, inodes, pid, w.dir.threadPathOf(pid, tid, "/fd\x00"))
		if err = unlessGone(err); err != nil {
			return inodes, apart, err
		}
		if descriptors > 0 { // or the thread is about to end
			w.tables.seen = slices.Insert(w.tables.seen, at, tid)
			apart = true
		}
	}
	return inodes, apart, nil
}

// unlessGone returns the error, unless it is of a thread that ends: its directories are root's until it has gone.
func unlessGone(err error) error {
	if vanished(err) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// recall returns what the walk before kept of the process. The processes come in the order of their pids.
func (w *socketWalk) recall(pid int) walked {
	for w.at < len(w.before) && int(w.before[w.at].pid) < pid {
		w.at++
	}
	if w.at < len(w.before) && int(w.before[w.at].pid) == pid {
		return w.before[w.at]
	}
	return walked{pid: int32(pid)}
}

func (w *socketWalk) isZombie(pid int) bool {
	content, err := w.dir.readFile(pid, "stat", w.stat[:])
	return err == nil && isZombie(content)
}

// isZombie tells by /proc/<pid>/stat whether the main thread of the process has ended. The state is the first column after the
// name: see parseStat.
func isZombie(stat []byte) bool {
	return bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" Z"))
}

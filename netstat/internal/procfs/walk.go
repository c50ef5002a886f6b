package procfs

import (
	"context"
	"fmt"
)

// SocketWalk finds the sockets of all processes and threads. It reuses its buffers, and is not safe for concurrent use. Call
// Close when done.
type SocketWalk struct {
	root   string
	dir    Dir
	pids   []int
	inodes []uint64

	previous, current []fdState // of the processes of a walk, in the order of pids
	at                int       // in previous
	tables            fdTables
	isOrdered         bool // tables.compare is set
	stat              [512]byte
}

// NewSocketWalk returns a walk through the proc file system.
func NewSocketWalk(root string) *SocketWalk { return &SocketWalk{root: root} }

// Close closes the files that the walk keeps open.
func (w *SocketWalk) Close() { w.dir.Close() }

// Dir returns the directory that is read. It is open while Each runs.
func (w *SocketWalk) Dir() *Dir { return &w.dir }

// Each calls visit with every process, in ascending order of pids, and the inodes of its sockets: all of them, or those found
// before the error. The inodes are valid until visit returns. Each returns the error of ctx when that ends.
func (w *SocketWalk) Each(ctx context.Context, visit func(pid int, inodes []uint64, err error)) error {
	if err := w.dir.Open(w.root); err != nil {
		return fmt.Errorf("opening the proc file system: %w", err)
	}
	var err error
	if w.pids, err = w.dir.AppendPIDs(w.pids[:0]); err != nil {
		return fmt.Errorf("listing the processes in %s: %w", w.root, err)
	}
	if !w.isOrdered {
		w.tables.compare, w.isOrdered = fdTableOrder(w.root)
	}
	w.current, w.at = w.current[:0], 0
	for _, pid := range w.pids {
		w.inodes, err = w.appendSockets(ctx, w.inodes[:0], pid)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		visit(pid, w.inodes, err)
	}
	w.previous, w.current = w.current, w.previous
	return nil
}

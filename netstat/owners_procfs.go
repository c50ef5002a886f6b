package netstat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

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

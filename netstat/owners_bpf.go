package netstat

import (
	"context"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

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

//go:build amd64 || arm64

package bpf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cilium/ebpf/link"
)

// Owners finds the processes that hold the sockets of the host, in all network namespaces: see owners.c.
type Owners struct {
	programs ownersPrograms // without the variables, whose memory would stay mapped until it is collected
	iterator *link.Iter
	records  ownerRecords
}

const ownersLinux = "5.11"

// OpenOwners loads the program. procRoot must belong to the initial PID namespace, whose pids the program reports.
func OpenOwners(procRoot string) (*Owners, error) {
	if err := requireInitialPIDNamespace(procRoot); err != nil {
		return nil, err
	}
	o := &Owners{}
	if err := loadOwnersObjects(&o.programs, nil); err != nil {
		return nil, missing("the BPF program", ownersLinux, err)
	}
	var err error
	if o.iterator, err = link.AttachIter(link.IterOptions{Program: o.programs.Owners}); err != nil {
		_ = o.programs.Close()
		return nil, missing("attaching the BPF program", ownersLinux, err)
	}
	return o, nil
}

// Start starts an iteration over all descriptors. Each decodes the result.
func (o *Owners) Start() (io.ReadCloser, error) {
	records, err := o.iterator.Open()
	// The process has dropped a capability, or a security module hides the iterator.
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil, missing("starting the BPF iterator", ownersLinux, err)
	}
	if err != nil {
		return nil, fmt.Errorf("starting the BPF iterator: %w", err)
	}
	return records, nil
}

// Each calls visit with every process that holds sockets, and the inode numbers of these: all, or those read before the error.
// The inodes are valid until visit returns. visit is called several times for a process whose threads have descriptor tables of
// their own.
func (o *Owners) Each(ctx context.Context, from io.Reader, visit func(p *Process, inodes []uint64)) error {
	err := o.records.each(ctx, from, visit)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("reading from the BPF iterator: %w", err)
	}
	return err
}

// Close unloads the program.
func (o *Owners) Close() {
	_ = o.iterator.Close()
	_ = o.programs.Close()
}

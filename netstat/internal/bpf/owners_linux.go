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
	programs ownersPrograms // without the variables, whose memory would stay mapped until it is garbage
	iterator *link.Iter
	records  ownerRecords
}

const ownersLinux = "5.11"

// OpenOwners loads the program. The pids that it sees are to be those of the proc file system at procRoot.
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

// Start starts an iteration over the descriptors that there are, which Each decodes.
func (o *Owners) Start() (io.ReadCloser, error) {
	records, err := o.iterator.Open()
	if errors.Is(err, fs.ErrPermission) { // a capability was given up since
		return nil, missing("starting the BPF iterator", ownersLinux, err)
	}
	if err != nil {
		return nil, fmt.Errorf("starting the BPF iterator: %w", err)
	}
	return records, nil
}

// Each calls visit with every process that holds a socket, and the inode numbers of its sockets, which are valid until visit
// returns: all of them, or those that were read before the error. A process whose threads have descriptors of their own can
// come more than once.
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

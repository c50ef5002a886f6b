//go:build amd64 || arm64

package bpf

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ownerRecords decodes the output of owners.c: a struct process, followed by the inode numbers of its sockets as 64-bit numbers
// in host byte order.
type ownerRecords struct {
	buf    [64 << 10]byte // the kernel writes eight pages at a time (bpf_seq_read, kernel/bpf/bpf_iter.c)
	inodes []uint64
}

const (
	inodeLen   = 8
	processLen = int(unsafe.Sizeof(ownersProcess{}))
)

// decodeProcess decodes the struct process at the start of b.
func decodeProcess(b []byte) Process {
	p := (*ownersProcess)(unsafe.Pointer((*[processLen]byte)(b))) // panics if b is too short
	return Process{StartBootTime: p.StartBoottime, PID: p.Tgid, UID: p.Euid, Comm: p.Comm}
}

var errNoProcess = errors.New("a socket of no process")

// each is Owners.Each.
func (r *ownerRecords) each(ctx context.Context, from io.Reader, visit func(p *Process, inodes []uint64)) error {
	var process Process
	flush := func() {
		if len(r.inodes) > 0 {
			visit(&process, r.inodes)
		}
		r.inodes = r.inodes[:0]
	}
	rest := 0 // bytes of an incomplete record
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := from.Read(r.buf[rest:])
		b := r.buf[:rest+n]
		for len(b) >= inodeLen {
			if inode := binary.NativeEndian.Uint64(b); inode != 0 {
				if process.PID == 0 {
					return errNoProcess
				}
				r.inodes = append(r.inodes, inode)
				b = b[inodeLen:]
				continue
			}
			if len(b) < processLen { // its first member, mark, is 0
				break
			}
			flush()
			process = decodeProcess(b)
			b = b[processLen:]
		}
		rest = copy(r.buf[:], b)
		if err == nil || errors.Is(err, unix.EAGAIN) { // a million descriptors without a socket among them
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

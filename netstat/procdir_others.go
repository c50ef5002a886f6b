//go:build !linux

package netstat

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// procDir reads the directories of a copy of a proc file system.
type procDir struct {
	root string
}

func (d *procDir) open(root string) error {
	d.root = root
	return nil
}

func (*procDir) close() {}

// appendPIDs appends the processes that there are to pids, in ascending order.
func (d *procDir) appendPIDs(pids []int) ([]int, error) {
	entries, err := os.ReadDir(d.root)
	for _, entry := range entries {
		if pid, err := parseDecimal([]byte(entry.Name()), 31); err == nil {
			pids = append(pids, int(pid))
		}
	}
	slices.Sort(pids)
	return pids, err
}

// appendSockets appends the inodes of the sockets that the process has descriptors of.
func (d *procDir) appendSockets(_ context.Context, inodes []uint64, pid int) ([]uint64, error) {
	dir := filepath.Join(d.root, strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed meanwhile, or the process has ended
		}
		if inode, isSocket := parseSocketLink([]byte(target)); isSocket {
			inodes = append(inodes, inode)
		}
	}
	return inodes, err
}

// readFile reads the beginning of a file of the process into buf.
func (d *procDir) readFile(pid int, name string, buf []byte) ([]byte, error) {
	file, err := os.Open(filepath.Join(d.root, strconv.Itoa(pid), name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	n, err := io.ReadFull(file, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:n], err
}

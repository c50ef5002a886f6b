//go:build !linux

package procfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// IsMounted reports whether the path is in a mounted proc file system, and not in a copy of one.
func IsMounted(string) bool { return false }

// Dir reads a copy of a proc file system.
type Dir struct {
	root string
}

// Open sets the root.
func (d *Dir) Open(root string) error {
	d.root = root
	return nil
}

// Close does nothing.
func (*Dir) Close() {}

// AppendPIDs appends the pids of all processes to pids, in ascending order.
func (d *Dir) AppendPIDs(pids []int) ([]int, error) {
	pids, err := appendNumbers(pids, d.root)
	slices.Sort(pids)
	return pids, err
}

// appendTIDs appends the threads of the process to tids.
func (d *Dir) appendTIDs(tids []int, pid int) ([]int, error) {
	return appendNumbers(tids, filepath.Join(d.root, strconv.Itoa(pid), "task"))
}

// appendNumbers appends the names in a directory that are numbers.
func appendNumbers(numbers []int, dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if number, err := ParseDecimal([]byte(entry.Name()), 31); err == nil {
			numbers = append(numbers, int(number))
		}
	}
	return numbers, err
}

// appendSockets appends the inodes of the sockets in a directory of descriptors, whose path is from pathOf or threadPathOf, and
// returns the number of descriptors.
func (d *Dir) appendSockets(_ context.Context, inodes []uint64, _ int, path []byte) (_ []uint64, descriptors int, err error) {
	dir := filepath.Join(d.root, string(path))
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed meanwhile, or the process has ended
		}
		if inode, isSocket := ParseSocketLink([]byte(target)); isSocket {
			inodes = append(inodes, inode)
		}
	}
	return inodes, len(entries), err
}

// ReadFile reads the beginning of a file of the process into buf.
func (d *Dir) ReadFile(pid int, name string, buf []byte) ([]byte, error) {
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

// Inode is not supported.
func (*Dir) Inode(int, string) (uint64, error) {
	return 0, fmt.Errorf("inode numbers of a proc file system: %w", errors.ErrUnsupported)
}

// pathOf returns the path of a file of the process, relative to the root, without the NUL that rest ends with.
func (*Dir) pathOf(pid int, rest string) []byte {
	return []byte(strconv.Itoa(pid) + strings.TrimSuffix(rest, "\x00"))
}

// threadPathOf is pathOf for a file of one of the threads.
func (d *Dir) threadPathOf(pid, tid int, rest string) []byte {
	return d.pathOf(pid, "/task/"+strconv.Itoa(tid)+rest)
}

// fdTableOrder returns how to compare the descriptor tables of two threads: see fdTables.compare.
func fdTableOrder(string) (compare func(tid, other int) (int, error), known bool) {
	return compareTIDs, true
}

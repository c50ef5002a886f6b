//go:build !linux

package netstat

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
	pids, err := appendNumbers(pids, d.root)
	slices.Sort(pids)
	return pids, err
}

// appendTIDs appends the threads of the process to tids.
func (d *procDir) appendTIDs(tids []int, pid int) ([]int, error) {
	return appendNumbers(tids, filepath.Join(d.root, strconv.Itoa(pid), "task"))
}

// appendNumbers appends the names in a directory that are numbers.
func appendNumbers(numbers []int, dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if number, err := parseDecimal([]byte(entry.Name()), 31); err == nil {
			numbers = append(numbers, int(number))
		}
	}
	return numbers, err
}

// appendSocketsIn appends the inodes of the sockets in a directory of descriptors, whose path is one of pathOf or threadPathOf, and
// returns how many descriptors there are.
func (d *procDir) appendSocketsIn(_ context.Context, inodes []uint64, _ int, path []byte) (_ []uint64, descriptors int, err error) {
	dir := filepath.Join(d.root, string(path))
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
	return inodes, len(entries), err
}

// pathOf returns the path of a file of the process, relative to the root, without the NUL that rest ends with.
func (*procDir) pathOf(pid int, rest string) []byte {
	return []byte(strconv.Itoa(pid) + strings.TrimSuffix(rest, "\x00"))
}

// threadPathOf is pathOf for a file of one of the threads.
func (d *procDir) threadPathOf(pid, tid int, rest string) []byte {
	return d.pathOf(pid, "/task/"+strconv.Itoa(tid)+rest)
}

// tableOrder returns how to compare the tables of descriptors of two threads: see sharedTables.compare.
func tableOrder(string) (compare func(tid, other int) (int, error), known bool) {
	return compareTIDs, true
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

// inode fails: network namespaces are found by it.
func (*procDir) inode(int, string) (uint64, error) {
	return 0, fmt.Errorf("network namespaces: %w", errors.ErrUnsupported)
}

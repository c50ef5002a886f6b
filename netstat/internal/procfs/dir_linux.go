package procfs

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsMounted reports whether the path is in a mounted proc file system, and not in a copy of one.
func IsMounted(path string) bool {
	var stat unix.Statfs_t
	//nolint:unconvert // the type of Type is not the same on all architectures
	return unix.Statfs(path, &stat) == nil && int64(stat.Type) == unix.PROC_SUPER_MAGIC
}

// Dir reads a proc file system with direct system calls and reused buffers: a busy host has 100,000 descriptors, and os.Readlink
// allocates for each. It is not safe for concurrent use.
type Dir struct {
	root   *os.File
	names  [32 << 10]byte
	target [64]byte // longer than the link of any socket
	path   []byte
}

// Open opens the root, if it is not open. Methods other than Close need an open root.
func (d *Dir) Open(root string) (err error) {
	if d.root == nil {
		d.root, err = os.Open(root)
	}
	return err
}

// Close closes the root. The Dir can be opened again.
func (d *Dir) Close() {
	if d.root != nil {
		_ = d.root.Close()
		d.root = nil
	}
}

// AppendPIDs appends the pids of all processes to pids, in ascending order.
func (d *Dir) AppendPIDs(pids []int) ([]int, error) {
	if _, err := d.root.Seek(0, io.SeekStart); err != nil {
		return pids, err
	}
	pids, err := appendNumbers(pids, d.fd(), d.names[:])
	slices.Sort(pids) // a no-op for procfs; other file systems have no order
	return pids, err
}

// appendNumbers appends the numeric names in a directory.
func appendNumbers(numbers []int, fd int, buf []byte) ([]int, error) {
	err := EachEntry(fd, buf, func(e DirEntry) bool {
		if number, err := ParseDecimal(e.Name[:len(e.Name)-1], 31); err == nil {
			numbers = append(numbers, int(number))
		}
		return true
	})
	return numbers, err
}

// EachEntry reads the directory fd into buf, and calls entry with each entry until it returns false.
func EachEntry(fd int, buf []byte, entry func(DirEntry) bool) error {
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 || !EachDirent(buf[:n], entry) {
			return err
		}
	}
}

const openDirectory = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC

// appendTIDs appends the threads of the process to tids.
func (d *Dir) appendTIDs(tids []int, pid int) ([]int, error) {
	fd, err := openZ(d.fd(), d.pathOf(pid, "/task\x00"), openDirectory)
	if err != nil {
		return tids, err
	}
	defer unix.Close(fd)
	return appendNumbers(tids, fd, d.names[:])
}

// appendSockets appends the inodes of the sockets in a descriptor directory of the process, and returns the number of
// descriptors. path comes from pathOf or threadPathOf. With an error, also that of ctx, it returns what it found before.
func (d *Dir) appendSockets(ctx context.Context, inodes []uint64, pid int, path []byte) (_ []uint64, descriptors int, err error) {
	fd, err := openZ(d.fd(), path, openDirectory)
	if err != nil {
		return inodes, 0, err
	}
	defer unix.Close(fd)
	var denied error
	const checkEvery = 1024 // descriptors
	err = EachEntry(fd, d.names[:], func(e DirEntry) bool {
		if e.Name[0] == '.' {
			return true
		}
		if descriptors++; descriptors%checkEvery == 0 && ctx.Err() != nil {
			return false
		}
		n, err := readlinkZ(fd, e.Name, d.target[:])
		if errors.Is(err, unix.EACCES) { // without CAP_SYS_PTRACE
			denied = err
		}
		if err != nil {
			return true // closed meanwhile, or the process has ended
		}
		if inode, isSocket := ParseSocketLink(d.target[:n]); isSocket {
			inodes = append(inodes, inode)
		}
		return true
	})
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && denied != nil {
		// The kernel also refuses a process that has just ended.
		if _, err = d.ReadFile(pid, "stat", d.target[:]); err == nil {
			err = denied
		}
	}
	return inodes, descriptors, err
}

// ReadFile reads the first len(buf) bytes of a file of the process.
func (d *Dir) ReadFile(pid int, name string, buf []byte) ([]byte, error) {
	fd, err := openZ(d.fd(), d.pathOf(pid, "/"+name+"\x00"), unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return buf[:max(n, 0)], err
	}
}

// Inode returns the inode number of a file of the process.
func (d *Dir) Inode(pid int, name string) (uint64, error) {
	var stat unix.Stat_t
	err := unix.Fstatat(d.fd(), strconv.Itoa(pid)+"/"+name, &stat, 0)
	return stat.Ino, err
}

func (d *Dir) fd() int { return int(d.root.Fd()) }

// pathOf returns the path of a file of the process, relative to the root. It is valid until the next call.
func (d *Dir) pathOf(pid int, rest string) []byte {
	d.path = append(strconv.AppendInt(d.path[:0], int64(pid), 10), rest...)
	return d.path
}

// threadPathOf is pathOf for a file of one of the threads.
func (d *Dir) threadPathOf(pid, tid int, rest string) []byte {
	d.path = strconv.AppendInt(d.pathOf(pid, "/task/"), int64(tid), 10)
	d.path = append(d.path, rest...)
	return d.path
}

// openZ is unix.Openat for a NUL-terminated path, without a copy.
func openZ(at int, path []byte, flags int) (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT,
			uintptr(at), uintptr(unsafe.Pointer(&path[0])), uintptr(flags|unix.O_LARGEFILE), 0, 0, 0)
		if errno == 0 {
			return int(fd), nil
		}
		if errno != unix.EINTR {
			return -1, errno
		}
	}
}

// readlinkZ is unix.Readlinkat for a NUL-terminated name, as a raw system call: notifying the scheduler costs 10 % more CPU
// time for a scan of 72,000 sockets. procfs does not block. If a security module makes the call wait, the goroutines of one P
// wait too.
func readlinkZ(at int, name, target []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(at),
		uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&target[0])), uintptr(len(target)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

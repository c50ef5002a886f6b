package netstat

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

// procDir reads a proc file system by bare system calls: on a busy host there are a hundred thousand descriptors to look
// at, and os.Readlink makes garbage for each.
type procDir struct {
	root   *os.File
	names  [32 << 10]byte
	target [64]byte // longer than the link of any socket
	path   []byte
}

// open opens the root, or goes back to its beginning.
func (d *procDir) open(root string) error {
	if d.root != nil {
		_, err := d.root.Seek(0, io.SeekStart)
		return err
	}
	var err error
	d.root, err = os.Open(root)
	return err
}

func (d *procDir) close() {
	if d.root != nil {
		_ = d.root.Close()
		d.root = nil
	}
}

// appendPIDs appends the processes that there are to pids, in ascending order.
func (d *procDir) appendPIDs(pids []int) ([]int, error) {
	err := eachEntry(d.fd(), d.names[:], func(e dirEntry) bool {
		if pid, err := parseDecimal(e.name[:len(e.name)-1], 31); err == nil {
			pids = append(pids, int(pid))
		}
		return true
	})
	slices.Sort(pids) // a no-op for procfs; other file systems have no order
	return pids, err
}

// appendSockets appends the inodes of the sockets that the process has descriptors of. What was found before an error is
// returned with it; the end of ctx is one.
func (d *procDir) appendSockets(ctx context.Context, inodes []uint64, pid int) ([]uint64, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := openZ(d.fd(), d.pathOf(pid, "/fd\x00"), flags)
	if err != nil {
		return inodes, err
	}
	defer unix.Close(fd)
	var denied error
	const checkEvery = 1024 // descriptors
	seen := 0
	err = eachEntry(fd, d.names[:], func(e dirEntry) bool {
		if e.name[0] == '.' {
			return true
		}
		if seen++; seen%checkEvery == 0 && ctx.Err() != nil {
			return false
		}
		n, err := readlinkZ(fd, e.name, d.target[:])
		if errors.Is(err, unix.EACCES) { // without CAP_SYS_PTRACE
			denied = err
		}
		if err != nil {
			return true // closed meanwhile, or the process has ended
		}
		if inode, isSocket := parseSocketLink(d.target[:n]); isSocket {
			inodes = append(inodes, inode)
		}
		return true
	})
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && denied != nil {
		// A process that has just gone is refused as well.
		if _, err = d.readFile(pid, "stat", d.target[:]); err == nil {
			err = denied
		}
	}
	return inodes, err
}

// readFile reads the beginning of a file of the process into buf.
func (d *procDir) readFile(pid int, name string, buf []byte) ([]byte, error) {
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

func (d *procDir) fd() int { return int(d.root.Fd()) }

// pathOf returns the path of a file of the process, relative to the root; it is valid until the next call.
func (d *procDir) pathOf(pid int, rest string) []byte {
	d.path = append(strconv.AppendInt(d.path[:0], int64(pid), 10), rest...)
	return d.path
}

// openZ is unix.Openat for a path that ends with a NUL, which need not be copied.
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

// readlinkZ is unix.Readlinkat for a name that ends with a NUL. The scheduler is not told of the system call, which takes a tenth
// of the time: procfs does not wait for anything before it answers.
func readlinkZ(at int, name, target []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_READLINKAT, uintptr(at),
		uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&target[0])), uintptr(len(target)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// inode returns the inode number of a file of the process.
func (d *procDir) inode(pid int, name string) (uint64, error) {
	var stat unix.Stat_t
	err := unix.Fstatat(d.fd(), strconv.Itoa(pid)+"/"+name, &stat, 0)
	return stat.Ino, err
}

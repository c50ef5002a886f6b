package netstat

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
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
	pids, err := appendNumbers(pids, d.fd(), d.names[:])
	slices.Sort(pids) // a no-op for procfs; other file systems have no order
	return pids, err
}

// appendNumbers appends the names in a directory that are numbers.
func appendNumbers(numbers []int, fd int, buf []byte) ([]int, error) {
	err := eachEntry(fd, buf, func(e dirEntry) bool {
		if number, err := parseDecimal(e.name[:len(e.name)-1], 31); err == nil {
			numbers = append(numbers, int(number))
		}
		return true
	})
	return numbers, err
}

const openDirectory = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC

// appendTIDs appends the threads of the process to tids.
func (d *procDir) appendTIDs(tids []int, pid int) ([]int, error) {
	fd, err := openZ(d.fd(), d.pathOf(pid, "/task\x00"), openDirectory)
	if err != nil {
		return tids, err
	}
	defer unix.Close(fd)
	return appendNumbers(tids, fd, d.names[:])
}

// appendSocketsIn appends the inodes of the sockets in a directory of descriptors of the process, whose path is one of pathOf or
// threadPathOf, and returns how many descriptors there are. What was found before an error is returned with it; the end of ctx
// is one.
func (d *procDir) appendSocketsIn(ctx context.Context, inodes []uint64, pid int, path []byte) (_ []uint64, descriptors int, err error) {
	fd, err := openZ(d.fd(), path, openDirectory)
	if err != nil {
		return inodes, 0, err
	}
	defer unix.Close(fd)
	var denied error
	const checkEvery = 1024 // descriptors
	err = eachEntry(fd, d.names[:], func(e dirEntry) bool {
		if e.name[0] == '.' {
			return true
		}
		if descriptors++; descriptors%checkEvery == 0 && ctx.Err() != nil {
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
	return inodes, descriptors, err
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

// threadPathOf is pathOf for a file of one of the threads.
func (d *procDir) threadPathOf(pid, tid int, rest string) []byte {
	d.path = strconv.AppendInt(d.pathOf(pid, "/task/"), int64(tid), 10)
	d.path = append(d.path, rest...)
	return d.path
}

// tableOrder returns how to compare the tables of descriptors of two threads: see sharedTables.compare. It is not known yet if this
// process has run out of something.
func tableOrder(root string) (compare func(tid, other int) (int, error), known bool) {
	if !isProcfs(root) {
		return compareTIDs, true
	}
	status, err := os.ReadFile(filepath.Join(root, "self", "status"))
	if err != nil {
		return nil, vanished(err) // another PID namespace, in which this process is not
	}
	if !showsOwnPIDs(status) {
		return nil, true
	}
	return compareTables, true
}

// showsOwnPIDs tells by /proc/self/status whether the proc file system numbers processes as this process does, that is, has the
// PID namespace that it is in: NSpid lists its numbers from that of the proc file system to its own (Linux 4.1).
func showsOwnPIDs(status []byte) bool {
	for line := range bytes.Lines(status) {
		if pids, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			return len(bytes.Fields(pids)) == 1
		}
	}
	return false
}

// compareTables puts the tables of descriptors of two threads in the kernel's order, by kcmp(2): Linux 5.12, or one that was built
// with CONFIG_CHECKPOINT_RESTORE.
func compareTables(tid, other int) (order int, err error) {
	const kcmpFiles = 2 // KCMP_FILES, include/uapi/linux/kcmp.h
	result, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(tid), uintptr(other), kcmpFiles, 0, 0, 0)
	switch {
	case errno != 0:
		return 0, errno
	case result == 0:
		return 0, nil
	case result == 1:
		return -1, nil
	default:
		return 1, nil
	}
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

// readlinkZ is unix.Readlinkat for a name that ends with a NUL. It does not tell Go's scheduler of the system call: to tell it took
// a tenth more CPU time for a whole scan of 72,000 sockets. procfs answers from memory. A security module that makes the call wait
// holds up the goroutines of one processor for that time.
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

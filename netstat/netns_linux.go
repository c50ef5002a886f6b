package netstat

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// netNSOf returns the inode number of the network namespace of the process, or thread, that has the directory, see
// namespaces(7); 0 if the proc file system does not tell.
func netNSOf(procDir string) uint64 { return inodeOf(filepath.Join(procDir, "ns", "net")) }

func inodeOf(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return stat.Ino
}

// netTable is the inode number of a table in a process's directory: it tells namespaces apart for those who may not read
// /proc/<pid>/ns/net.
func netTable(procDir string) uint64 { return inodeOf(filepath.Join(procDir, "net", "dev")) }

// namespaceFile returns the inode number of the namespace that is mounted at a file.
func namespaceFile(path string) (uint64, error) {
	var on unix.Statfs_t
	if err := unix.Statfs(path, &on); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	//nolint:unconvert // the type of Type is not the same on all architectures
	if int64(on.Type) != unix.NSFS_MAGIC {
		return 0, fmt.Errorf("%s: no namespace is mounted there: %w", path, fs.ErrNotExist)
	}
	return inodeOf(path), nil
}

// inNamespace runs f on a thread in the network namespace that the file stands for, if it has the inode number, and returns
// the netTable there.
func inNamespace(file string, inode uint64, f func() error) (table uint64, err error) {
	target, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(target)
	var stat unix.Stat_t
	if err := unix.Fstat(target, &stat); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: file, Err: err}
	}
	if inode != 0 && stat.Ino != inode {
		return 0, fmt.Errorf("%s: %w", file, errMoved)
	}
	onOtherThread(func() (restored bool) {
		own, ownErr := unix.Open(threadDir+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if ownErr != nil {
			err = fmt.Errorf("opening the thread's own network namespace: %w", notSupported(ownErr))
			return true
		}
		defer unix.Close(own)
		if err = unix.Setns(target, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("setns: %w", err)
			return true
		}
		table = netTable(threadDir)
		err = f()
		return unix.Setns(own, unix.CLONE_NEWNET) == nil
	})
	return table, err
}

// onOtherThread runs f on a thread of its own, which ends with it if f could not restore it: who is root in a user namespace only
// can leave the network namespace that this one is in, but not come back. The first thread does not end, and stands for the
// process: it is left alone.
func onOtherThread(f func() (restored bool)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onOtherThread(f)
			runtime.UnlockOSThread()
		} else if f() {
			runtime.UnlockOSThread()
		}
	}()
	<-done
}

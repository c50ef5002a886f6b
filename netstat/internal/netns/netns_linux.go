package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Inode returns the inode number of a file, or of the target of a link; 0 on an error.
func Inode(path string) uint64 {
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

// MountedAt returns the inode number of the namespace mounted at the path.
func MountedAt(path string) (uint64, error) {
	var on unix.Statfs_t
	if err := unix.Statfs(path, &on); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	//nolint:unconvert // the type of Type is not the same on all architectures
	if int64(on.Type) != unix.NSFS_MAGIC {
		return 0, fmt.Errorf("%s: no namespace is mounted there: %w", path, fs.ErrNotExist)
	}
	return Inode(path), nil
}

// Enter runs f on a thread in the network namespace of the file, and returns the TableOf of that namespace. If inode is not 0 and
// the namespace has another inode number, Enter returns ErrMoved and does not run f.
func Enter(file string, inode uint64, f func() error) (table uint64, err error) {
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
		return 0, fmt.Errorf("%s: %w", file, ErrMoved)
	}
	OnNewThread(func() (restored bool) {
		own, ownErr := unix.Open(ThreadDir+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if ownErr != nil {
			err = fmt.Errorf("opening the thread's own network namespace: %w", ownNetnsError(ownErr))
			return true
		}
		defer unix.Close(own)
		if err = unix.Setns(target, unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("setns: %w", err)
			return true
		}
		table = TableOf(ThreadDir)
		err = f()
		return unix.Setns(own, unix.CLONE_NEWNET) == nil
	})
	return table, err
}

// ownNetnsError adds errors.ErrUnsupported to the errors of a /proc that does not contain the thread.
func ownNetnsError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return err
}

// OnNewThread runs f on a thread that no other goroutine uses, and terminates the thread unless f restored it. Root of a user
// namespace can leave the network namespace of this process without being able to return, if that belongs to another user
// namespace. f does not run on the main thread, which cannot terminate before the process.
func OnNewThread(f func() (restored bool)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			OnNewThread(f)
			runtime.UnlockOSThread()
		} else if f() {
			runtime.UnlockOSThread()
		}
	}()
	<-done
}

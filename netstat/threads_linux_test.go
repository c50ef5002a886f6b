package netstat

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
)

// bindUDP opens a socket, which nobody closes, and returns its inode; 0 if that fails. Any goroutine may call it.
func bindUDP(t *testing.T) uint64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	var stat unix.Stat_t
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{})
	}
	if err == nil {
		err = unix.Fstat(fd, &stat)
	}
	assert.NoError(t, err)
	return stat.Ino
}

// startThread runs f on a thread that ends with it. It is not the main thread, and younger than a process, unless the tries end
// before there is such a thread.
func startThread(than, tries int, f func()) {
	locked := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if id := unix.Gettid(); id == unix.Getpid() || id < than && tries > 0 {
			startThread(than, tries-1, f) // while this one is taken
			runtime.UnlockOSThread()
			close(locked)
			return
		}
		close(locked)
		f()
	}()
	<-locked
}

func count(inodes []uint64, inode uint64) (n int) {
	for _, i := range inodes {
		if i == inode {
			n++
		}
	}
	return n
}

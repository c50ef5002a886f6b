package testnet

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
)

// BindUDP opens a socket, which nobody closes, and returns its inode; 0 if that fails. Any goroutine may call it.
func BindUDP(tb testing.TB) uint64 {
	tb.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	var stat unix.Stat_t
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{})
	}
	if err == nil {
		err = unix.Fstat(fd, &stat)
	}
	assert.NoError(tb, err)
	return stat.Ino
}

// StartThread runs f on a thread that ends with it, and that is not the main thread. Its number is at least minTID, unless so many
// tries do not give such a thread.
func StartThread(minTID, tries int, f func()) {
	locked := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if id := unix.Gettid(); id == unix.Getpid() || id < minTID && tries > 0 {
			StartThread(minTID, tries-1, f) // while this one is taken
			runtime.UnlockOSThread()
			close(locked)
			return
		}
		close(locked)
		f()
	}()
	<-locked
}

package testnet

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Thread runs f on a thread that ends with f, so that f can change what the thread is and may do. It returns when the thread runs; ended
// is closed after f returns.
func Thread(f func()) (ended <-chan struct{}) {
	begun, end := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(end)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // the main thread stands for the process, and would not end
			ended := Thread(f)
			runtime.UnlockOSThread()
			close(begun)
			<-ended
			return
		}
		close(begun)
		f()
	}()
	<-begun
	return end
}

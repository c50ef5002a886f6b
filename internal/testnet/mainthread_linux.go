package testnet

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// The main goroutine of a helper stays on the main thread, to end it when that is asked for. Only an init function runs where
// this can be had.
func init() {
	if isHelper() {
		runtime.LockOSThread()
	}
}

// EndMainThread ends the main thread of the process, while the others live on: a zombie that works.
func (p *Proc) EndMainThread() {
	p.tb.Helper()
	p.do(request{Op: opEndMain})
}

// Rename gives the process another name.
func (p *Proc) Rename(name string) {
	p.tb.Helper()
	p.do(request{Op: opRename, Name: []byte(name)})
}

// SetUser makes the process one of another user: setuid(2).
func (p *Proc) SetUser(uid uint32) {
	p.tb.Helper()
	p.do(request{Op: opSetUser, N: int(uid)})
}

// exitThread is exit(2) of this thread alone. To Go it is in a system call for good.
func exitThread() {
	unix.Syscall(unix.SYS_EXIT, 0, 0, 0) //nolint:errcheck // it does not return
}

// waitForMainThread waits until the main thread of this process is a zombie.
func waitForMainThread(end time.Time) error {
	for ; time.Now().Before(end); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", os.Getpid()))
		if err != nil {
			return err
		}
		if state := stat[bytes.LastIndexByte(stat, ')')+1:]; bytes.HasPrefix(state, []byte(" Z")) {
			return nil
		}
	}
	return fmt.Errorf("the main thread lives on: %w", unix.ETIMEDOUT)
}

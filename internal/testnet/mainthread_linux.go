package testnet

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Lock the main goroutine of a helper to the main thread, so that it can end that thread. Only an init function is sure to run on
// the main thread.
func init() {
	if isHelper() {
		runtime.LockOSThread()
	}
}

// EndMainThread ends the main thread of the process; the others continue. /proc shows such a process as a zombie.
func (p *Proc) EndMainThread() {
	p.tb.Helper()
	p.do(request{Op: opEndMain})
}

// Rename changes the name of the process (/proc/<pid>/comm).
func (p *Proc) Rename(name string) {
	p.tb.Helper()
	p.do(request{Op: opRename, Name: []byte(name)})
}

// SetUser changes the user of the process: setuid(2).
func (p *Proc) SetUser(uid uint32) {
	p.tb.Helper()
	p.do(request{Op: opSetUser, N: int(uid)})
}

// exitThread calls exit(2), which ends this thread only. To the Go runtime, the thread stays in the system call.
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
	return fmt.Errorf("the main thread has not ended: %w", unix.ETIMEDOUT)
}

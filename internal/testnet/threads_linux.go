package testnet

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

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

// BecomeNobody changes the user of this thread to nobody, without any capabilities except those in keep. The thread ends with the
// test.
func BecomeNobody(tb testing.TB, keep ...uint) {
	tb.Helper()
	const nobody = 65534
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		tb.Fatal(err)
	}
	// The functions of package unix would change all threads.
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, nobody, nobody, nobody},
		{unix.SYS_SETRESUID, nobody, nobody, nobody},
	} {
		_, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3])
		if errno == unix.EPERM {
			SkipOrFail(tb, "changing the user requires CAP_SETUID and CAP_SETGID: "+errno.Error())
		}
		if errno != 0 {
			tb.Fatal(errno)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	for _, capability := range keep {
		sets[capability/32].Effective |= 1 << (capability % 32)
		sets[capability/32].Permitted |= 1 << (capability % 32)
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		tb.Fatal(err)
	}
}

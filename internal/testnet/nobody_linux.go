package testnet

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

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

package testnet

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SeccompRule has a system call fail.
type SeccompRule struct {
	call     uintptr
	errno    unix.Errno
	argument []int
}

// Fails returns a rule that has a system call fail: every time, or if its first argument, such as a file descriptor, is the given
// one.
func Fails(call uintptr, errno unix.Errno, argument ...int) SeccompRule {
	return SeccompRule{call, errno, argument}
}

// Forbid has a system call fail on the calling thread, which ends with the test, as Fails says.
func Forbid(tb testing.TB, call uintptr, errno unix.Errno, argument ...int) {
	tb.Helper()
	runtime.LockOSThread()
	if err := install([]SeccompRule{Fails(call, errno, argument...)}); err != nil {
		SkipOrFail(tb, fmt.Sprintf("seccomp: %v", err))
	}
}

// Failing runs f on a thread of its own on which system calls fail.
func Failing(tb testing.TB, f func(), rules ...SeccompRule) {
	tb.Helper()
	var err error
	onThread(func() {
		if err = install(rules); err == nil {
			f()
		}
	})
	if err != nil {
		SkipOrFail(tb, fmt.Sprintf("seccomp: %v", err))
	}
}

// onThread runs f on a thread that ends with it. The first thread of the process would not end.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// install has the system calls fail on this thread, from now on.
func install(rules []SeccompRule) error {
	const number, firstArgument, allow, fail = 0, 16, 0x7fff0000, 0x00050000 // struct seccomp_data, SECCOMP_RET_*
	var filter []unix.SockFilter
	load := func(at uint32) {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at})
	}
	unless := func(value uint32, skip uint8) {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip})
	}
	is := func(verdict uint32) {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict})
	}
	for _, rule := range rules {
		load(number)
		if len(rule.argument) == 0 {
			unless(uint32(rule.call), 1)
		} else {
			unless(uint32(rule.call), 3)
			load(firstArgument)
			unless(uint32(rule.argument[0]), 1)
		}
		is(fail | uint32(rule.errno))
	}
	is(allow)
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	runtime.KeepAlive(filter)
	return err
}

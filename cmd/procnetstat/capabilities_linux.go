package main

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raiseCapabilities makes all permitted capabilities effective. The package sets the file capabilities as permitted only ("+p"):
// with effective ones ("+ep") the kernel refuses to execute the program where the bounding set lacks one of them, as in most
// containers (bprm_caps_from_vfs_caps, security/commoncap.c).
func raiseCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	raised := sets
	for i := range raised {
		raised[i].Effective |= raised[i].Permitted
	}
	if slices.Equal(raised[:], sets[:]) {
		return nil
	}
	// Each thread has capabilities of its own, and goroutines move between threads.
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&raised)), 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return errors.New("not built with CGO_ENABLED=0")
	default:
		return fmt.Errorf("capset: %w", errno)
	}
}

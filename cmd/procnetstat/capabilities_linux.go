package main

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// raiseCapabilities makes the capabilities that this program may have those that it has. It may have more than it has where those of
// its file are only permitted, "setcap …+p": the kernel runs such a program also where it cannot have them all, as in most containers,
// and refuses one that is to have them from the start (bprm_caps_from_vfs_caps, security/commoncap.c).
func raiseCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("reading the capabilities: %w", err)
	}
	raised := sets
	for i := range raised {
		raised[i].Effective |= raised[i].Permitted
	}
	if slices.Equal(raised[:], sets[:]) {
		return nil
	}
	// Capabilities are those of a thread, and Go moves between threads.
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&raised)), 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return errors.New("this program is not built with CGO_ENABLED=0: it cannot raise the capabilities that it is only permitted")
	default:
		return fmt.Errorf("raising the capabilities that are permitted: %w", errno)
	}
}

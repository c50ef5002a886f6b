package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespaceEnv says which network namespace the program is in, once it has seen to that.
const namespaceEnv = "BENCH_NETNS"

const (
	ownNamespace     = "own"
	presentNamespace = "present"
)

// enterNamespace has the program run in a network namespace of its own, if it may make one. It starts itself again for
// that, in the same process: a thread that changes its namespace leaves /proc/net as it was for the others.
func enterNamespace() error {
	if os.Getenv(namespaceEnv) == ownNamespace {
		return setUpNamespace()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if errors.Is(err, unix.EPERM) {
		fmt.Fprintln(os.Stderr, "bench: measuring in the present network namespace, as a new one wants CAP_SYS_ADMIN")
		return nil
	}
	if err != nil {
		return fmt.Errorf("making a network namespace: %w", err)
	}
	err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), namespaceEnv+"="+ownNamespace)) //nolint:gosec // itself
	return fmt.Errorf("starting again in a network namespace: %w", err)
}

func setUpNamespace() error {
	if err := setUp("lo"); err != nil {
		return err
	}
	// When half of the ports are in use, the kernel takes long to find another.
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	if err := os.WriteFile(file, []byte("10000 65535"), 0o644); err != nil { //nolint:gosec // the file is there
		return fmt.Errorf("widening the range of ports: %w", err)
	}
	return nil
}

// setUp sets a network interface up. lo gets its addresses by that.
func setUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	defer unix.Close(fd)
	ifreq, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifreq); err != nil {
		return fmt.Errorf("reading the flags of %s: %w", name, err)
	}
	ifreq.SetUint16(ifreq.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq); err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	return nil
}

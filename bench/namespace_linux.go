package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// enterNamespace sets namespaceEnv to ownNamespace before it executes the program again.
const (
	namespaceEnv = "BENCH_NETNS"
	ownNamespace = "own"
)

// enterNamespace moves the program to a new network namespace, if it has the privilege. It executes itself again for that:
// unshare(2) moves only the calling thread, and /proc/net follows the main thread.
func enterNamespace() error {
	if os.Getenv(namespaceEnv) == ownNamespace {
		return configureNamespace()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if errors.Is(err, unix.EPERM) {
		fmt.Fprintln(os.Stderr, "bench: measuring in the current network namespace: a new one requires CAP_SYS_ADMIN")
		return nil
	}
	if err != nil {
		return fmt.Errorf("creating a network namespace: %w", err)
	}
	err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), namespaceEnv+"="+ownNamespace)) //nolint:gosec // itself
	return fmt.Errorf("executing bench again in a network namespace: %w", err)
}

func configureNamespace() error {
	if err := setInterfaceUp("lo"); err != nil {
		return err
	}
	// connect(2) becomes slow when more than half of the local ports are in use.
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	if err := os.WriteFile(file, []byte("10000 65535"), 0o644); err != nil { //nolint:gosec // the file exists
		return fmt.Errorf("widening the range of local ports: %w", err)
	}
	return nil
}

// setInterfaceUp sets a network interface up. The kernel then assigns the loopback addresses to lo.
func setInterfaceUp(name string) error {
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

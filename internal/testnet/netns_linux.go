package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// NetnsDir is the directory in which ip-netns(8) keeps the names of network namespaces.
const NetnsDir = "/run/netns"

// netnsDirIsOwn is true if NetnsDir belongs to a mount namespace that ends with this process.
var netnsDirIsOwn bool

// hideMounts mounts an empty NetnsDir, and with withProc a proc file system of the PID namespace of this process. It requires a
// mount namespace of its own.
func hideMounts(withProc bool) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	at := NetnsDir
	if _, err := os.Stat(at); err != nil {
		at = filepath.Dir(NetnsDir) // do not create a directory that outlives the test
	}
	if err := unix.Mount("testnet", at, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a tmpfs on %s: %w", at, err)
	}
	if err := os.MkdirAll(NetnsDir, 0o755); err != nil {
		return err
	}
	netnsDirIsOwn = true
	if withProc {
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			return fmt.Errorf("mounting the proc file system of a PID namespace: %w", err)
		}
	}
	return nil
}

// Netns creates a named network namespace without a process, as "ip netns add" does, sets lo up there, and returns its file. The
// namespace ends with the test. Netns requires IsolateMounts or IsolatePIDs.
func Netns(tb testing.TB, name string) string {
	tb.Helper()
	path, err := "", error(nil)
	failed := inNewNetns(func() { path, err = nameNetns(tb, name, "/proc/thread-self/ns/net") })
	if err := errors.Join(failed, err); err != nil {
		tb.Fatalf("making network namespace %s: %v", name, err)
	}
	return path
}

// NameNetns gives the network namespace of a file such as /proc/<pid>/ns/net a name until the test ends, and returns the named
// file. It requires IsolateMounts or IsolatePIDs.
func NameNetns(tb testing.TB, name, file string) string {
	tb.Helper()
	path, err := nameNetns(tb, name, file)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func nameNetns(tb testing.TB, name, file string) (path string, err error) {
	if !netnsDirIsOwn {
		return "", errors.New("naming a network namespace requires IsolateMounts or IsolatePIDs")
	}
	path = filepath.Join(NetnsDir, name)
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return "", err
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("mounting %s on %s: %w", file, path, err)
	}
	tb.Cleanup(func() {
		if _, err := os.Stat(path); err == nil {
			UnnameNetns(tb, name)
		}
	})
	return path, nil
}

// inNewNetns runs f on a thread in a new network namespace in which lo is up, and leaves it. The thread does not end: the kernel would
// end the processes that it has started (PR_SET_PDEATHSIG).
func inNewNetns(f func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	defer leaveFor(own)
	if err := setUp("lo"); err != nil {
		return err
	}
	f()
	return nil
}

// leaveFor moves the thread to the network namespace that it was in.
func leaveFor(own *os.File) {
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(fmt.Sprintf("leaving a network namespace: %v", err)) // other goroutines would run in the wrong one
	}
}

// UnnameNetns removes the name of a network namespace, which ends if nothing else refers to it.
func UnnameNetns(tb testing.TB, name string) {
	tb.Helper()
	path := filepath.Join(NetnsDir, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		tb.Errorf("unmounting %s: %v", path, err)
	}
	if err := os.Remove(path); err != nil {
		tb.Error(err)
	}
}

// inNetns runs f on a thread in the network namespace of a file.
func inNetns(file string, f func() error) error {
	target, err := os.Open(file)
	if err != nil {
		return err
	}
	defer target.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering %s: %w", file, err)
	}
	defer leaveFor(own)
	return f()
}

// ThreadsReturn fails the test unless all threads of this process are in its own network namespace; those that are to end may take a
// moment.
func ThreadsReturn(tb testing.TB) {
	tb.Helper()
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		tb.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		links, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil || len(links) == 0 {
			tb.Fatalf("listing the threads: %v", err)
		}
		away := slices.DeleteFunc(links, func(link string) bool {
			target, err := os.Readlink(link)
			return err != nil || target == own // an error: the thread has ended
		})
		if len(away) == 0 {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("threads are in other network namespaces: %v", away)
		}
	}
}

// NetnsChurn creates network namespaces, each with a short-lived process: see [ChurnNetns].
type NetnsChurn struct {
	made, end chan struct{}
	until     time.Time
	running   sync.WaitGroup
}

// ChurnNetns creates network namespaces that end soon, until the churn is stopped. Between two of them it waits for zero to six
// times pause.
func ChurnNetns(tb testing.TB, pause time.Duration) *NetnsChurn {
	tb.Helper()
	const enough = 100
	const limit = 20 * time.Second // creating namespaces is slow on a busy host
	c := &NetnsChurn{made: make(chan struct{}), end: make(chan struct{}), until: time.Now().Add(limit)}
	c.running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-c.end:
				return
			default:
			}
			cmd := exec.Command("sleep", fmt.Sprintf("0.0%d", i%5))
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
			if err := cmd.Start(); err != nil {
				tb.Errorf("starting a process in a network namespace: %v", err)
				return
			}
			c.running.Go(func() { _ = cmd.Wait() })
			time.Sleep(time.Duration(i%7) * pause)
			if i == enough {
				close(c.made)
			}
		}
	})
	return c
}

// InProgress reports whether the churn has created fewer than 100 namespaces and run for less than 20 seconds.
func (c *NetnsChurn) InProgress() bool {
	select {
	case <-c.made:
		return false
	default:
		return time.Now().Before(c.until)
	}
}

// Stop stops the churn, and waits until all of its processes have ended.
func (c *NetnsChurn) Stop() {
	close(c.end)
	c.running.Wait()
}

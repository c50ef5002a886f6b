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

// NetnsDir is where ip-netns(8) keeps the names of network namespaces.
const NetnsDir = "/run/netns"

// netnsDirIsOwn says that NetnsDir is that of a mount namespace that ends with this process.
var netnsDirIsOwn bool

// hideMounts gives this process, which is in a mount namespace of its own, an empty NetnsDir, and a proc file system of its
// PID namespace.
func hideMounts(withProc bool) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts to this mount namespace: %w", err)
	}
	at := NetnsDir
	if _, err := os.Stat(at); err != nil {
		at = filepath.Dir(NetnsDir) // nothing that stays is made there
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

// Netns makes a network namespace in which lo is up, and that has a name and no process, as "ip netns add" does. It returns the
// file that stands for it. It wants IsolateMounts or IsolatePIDs, and ends with the test.
func Netns(tb testing.TB, name string) string {
	tb.Helper()
	path, err := "", error(nil)
	failed := inNewNetns(func() { path, err = nameNetns(tb, name, "/proc/thread-self/ns/net") })
	if err := errors.Join(failed, err); err != nil {
		tb.Fatalf("making network namespace %s: %v", name, err)
	}
	return path
}

// NameNetns gives the network namespace that a file such as /proc/<pid>/ns/net stands for a name, until the test ends, and
// returns the file that stands for it then. It wants IsolateMounts or IsolatePIDs.
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
		return "", errors.New("names of network namespaces want IsolateMounts or IsolatePIDs")
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

// inNewNetns runs f on a thread in a new network namespace in which lo is up. The thread ends with it.
func inNewNetns(f func()) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // it stands for the process, and would not end
			err = inNewNetns(f)
			runtime.UnlockOSThread()
			return
		}
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			return
		}
		if err = setUp("lo"); err == nil {
			f()
		}
	}()
	<-done
	return err
}

// UnnameNetns takes the name from a network namespace, which ends if nothing else keeps it.
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

// inNetns runs f on a thread in the network namespace that the file stands for.
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
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("leaving %s: %v", file, back)) // nothing that runs on this thread would be right any more
	}
	return err
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

// NetnsChurn are network namespaces that come and go, each with a process that ends soon: see [ChurnNetns].
type NetnsChurn struct {
	made, end chan struct{}
	until     time.Time
	running   sync.WaitGroup
}

// ChurnNetns has network namespaces come and go until the churn is stopped, with a pause of up to six times so much before the next.
func ChurnNetns(tb testing.TB, pause time.Duration) *NetnsChurn {
	tb.Helper()
	const most = 100
	const limit = 20 * time.Second // they are slow to make on a host that is busy
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
			if i == most {
				close(c.made)
			}
		}
	})
	return c
}

// GoesOn tells whether there have been fewer than a hundred so far, and time is left.
func (c *NetnsChurn) GoesOn() bool {
	select {
	case <-c.made:
		return false
	default:
		return time.Now().Before(c.until)
	}
}

// Stop returns when all of them have gone.
func (c *NetnsChurn) Stop() {
	close(c.end)
	c.running.Wait()
}

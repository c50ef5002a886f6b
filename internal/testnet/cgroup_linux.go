package testnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup creates a cgroup for [Process.Cgroup] below a cgroup of this test. When the test ends and the processes in the cgroup
// have ended, both are removed. Cgroup returns the directory, and the path in the hierarchy, which ends in name.
func Cgroup(tb testing.TB, name string) (dir, path string) {
	tb.Helper()
	mount, err := cgroup2Mount()
	if err != nil {
		tb.Fatal(err)
	}
	if mount == "" {
		SkipOrFail(tb, "no cgroup2 file system is mounted")
	}
	top := fmt.Sprintf("/testnet-%d-%d", os.Getpid(), time.Now().UnixNano())
	path = filepath.Join(top, name)
	dir = mount + path
	if err := os.MkdirAll(dir, 0o755); errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		SkipOrFail(tb, "creating cgroups requires root: "+err.Error())
	} else if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		for d := dir; d != mount; d = filepath.Dir(d) {
			if err := removeCgroup(d); err != nil {
				tb.Error(err)
			}
		}
	})
	return dir, path
}

// cgroup2Mount returns the mount point of the unified hierarchy, or "" if it is not mounted.
func cgroup2Mount() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", nil
}

// removeCgroup removes a cgroup once all of its processes have ended.
func removeCgroup(dir string) error {
	for end := deadline(); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return fmt.Errorf("removing cgroup %s: %w", dir, err)
		}
	}
}

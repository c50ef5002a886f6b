package testnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup creates a cgroup for [Process.Cgroup] below a cgroup of this test. When the test ends and the processes in the cgroup
// have ended, both are removed. Cgroup returns the directory, and the path in the hierarchy, which ends in name.
func Cgroup(tb testing.TB, name string) (dir, path string) {
	tb.Helper()
	return createCgroup(tb, "cgroup2", "", name)
}

// CgroupV1 is Cgroup in the hierarchy of cgroups v1 that has the controller. Write the pid to cgroup.procs to move a process there.
func CgroupV1(tb testing.TB, controller, name string) (dir, path string) {
	tb.Helper()
	return createCgroup(tb, "cgroup", controller, name)
}

func createCgroup(tb testing.TB, fsType, option, name string) (dir, path string) {
	tb.Helper()
	mount, err := cgroupMount(fsType, option)
	if err != nil {
		tb.Fatal(err)
	}
	if mount == "" {
		SkipOrFail(tb, fmt.Sprintf("no %s file system is mounted (with option %q)", fsType, option))
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

// cgroupMount returns the mount point of a hierarchy, or "" if it is not mounted.
func cgroupMount(fsType, option string) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[2] == fsType && (option == "" || slices.Contains(strings.Split(fields[3], ","), option)) {
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

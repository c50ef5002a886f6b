package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Where the guest finds what it is to run, and its second serial port. The first has the messages of the kernel.
const (
	planFile   = "/plan.json"
	outputPort = "/dev/ttyS1"
)

// Lines around the output of the tests of a package.
const (
	beginMark = "### begin " // and the import path
	endMark   = "### end "   // and the exit status
)

// A plan says what the guest runs.
type plan struct {
	Env  []string
	Runs []run
}

// A run is a test binary, which runs in its directory.
type run struct {
	Package string
	Binary  string
	Args    []string
}

// initGuest is process 1 of the guest: it makes the system that tests expect, runs them, and turns the guest off.
func initGuest() {
	if err := runPlan(); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "init: turning off:", err)
	}
}

func runPlan() error {
	if err := mountAll(); err != nil {
		return err
	}
	// A process that the kernel starts may open 4096 files at most; some tests take 15,200. Others open as many as they may.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 20000}); err != nil {
		return fmt.Errorf("setting the limit of open files: %w", err)
	}
	if out, err := exec.Command("/usr/bin/ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("setting lo up: %w: %s", err, out)
	}
	text, err := os.ReadFile(planFile)
	if err != nil {
		return err
	}
	var p plan
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("%s: %w", planFile, err)
	}
	output, err := openRaw(outputPort)
	if err != nil {
		return err
	}
	defer output.Close()
	for _, r := range p.Runs {
		fmt.Fprintf(output, "\n%s%s\n", beginMark, r.Package)
		status, err := runTests(r, p.Env, output)
		if err != nil {
			return fmt.Errorf("running the tests of %s: %w", r.Package, err)
		}
		fmt.Fprintf(output, "\n%s%d\n", endMark, status)
	}
	return unix.IoctlSetInt(int(output.Fd()), unix.TCSBRK, 1) // waits until all of it is sent, see tcdrain(3)
}

// mountAll mounts what Debian has mounted. /tmp stays a directory of the root file system, which is a tmpfs: tests make hard
// links to their binary there.
func mountAll() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"devpts", "/dev/pts"},
		{"tmpfs", "/dev/shm"},
		{"tmpfs", "/run"},
		{"cgroup2", "/sys/fs/cgroup"},
		{"bpf", "/sys/fs/bpf"},
		{"tracefs", "/sys/kernel/tracing"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID, ""); err != nil {
			return fmt.Errorf("mounting %s on %s: %w", m.kind, m.at, err)
		}
	}
	// Opening the device loads its module.
	const tun = 10<<8 | 200 // MISC_MAJOR and TUN_MINOR (include/linux/miscdevice.h)
	if err := os.MkdirAll("/dev/net", 0o755); err != nil {
		return err
	}
	if err := unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o666, tun); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making /dev/net/tun: %w", err)
	}
	return os.MkdirAll("/run/netns", 0o755)
}

// openRaw opens a serial port that changes nothing of what is written.
func openRaw(path string) (*os.File, error) {
	port, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	settings, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err == nil {
		settings.Oflag &^= unix.OPOST
		err = unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, settings)
	}
	if err != nil {
		_ = port.Close()
		return nil, fmt.Errorf("setting up %s: %w", path, err)
	}
	return port, nil
}

// runTests returns the exit status. It reaps all processes that have lost their parent, as process 1 must: the pid of a zombie
// exists.
func runTests(r run, env []string, output *os.File) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	tests, err := os.StartProcess(r.Binary, append([]string{r.Binary}, r.Args...), &os.ProcAttr{
		Dir: filepath.Dir(r.Binary), Env: env, Files: []*os.File{null, output, output},
	})
	if err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		switch pid, err := unix.Wait4(-1, &status, 0, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case pid == tests.Pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == tests.Pid:
			return status.ExitStatus(), nil
		}
	}
}

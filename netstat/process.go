package netstat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/procnetstat/procnetstat/netstat/cgroup"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// Process is a process that holds sockets. It is the same Process in every scan for as long as the process lives and does
// not change its name. Its methods read /proc at the first call and keep the result, but UID reads it again; what cannot be read
// because a resource is exhausted is read at the next call. It is not for concurrent use, with a scan either.
type Process struct {
	PID int
	// StartTime is when the process started, in clock ticks (USER_HZ, a hundredth of a second) after boot. A process
	// is identified by PID and StartTime.
	StartTime uint64
	// Name is the kernel's command name of the process, comm in proc_pid_comm(5), as ps -o comm prints it: at most 15
	// bytes (64 for kernel threads). The process can change it (PR_SET_NAME), to any bytes but NUL.
	Name string

	root    string
	warn    func(what string, err error) // reports once what may not be read; can be nil
	seen    uint64                       // the last scan that saw it
	exe     *string
	cmdline []string
	uid     userID
	cgroup  *string
}

// userID is an effective user id.
type userID struct {
	id    uint32
	known bool
	until time.Time // it is read again from then on
}

// Exe returns the path of the executable; empty if it may not be read, or if the process has ended. The kernel appends
// " (deleted)" to the path of a file that is no longer there.
func (p *Process) Exe() string {
	if p.exe == nil {
		target, err := os.Readlink(p.path("exe"))
		if err == nil {
			err = p.check()
		}
		if err != nil {
			target = ""
		}
		if errors.Is(err, fs.ErrPermission) && p.warn != nil {
			p.warn("exe", fmt.Errorf("cannot read process executables: requires CAP_SYS_PTRACE: %w", err))
		}
		if err != nil && !isAbsent(err) {
			return ""
		}
		p.exe = &target
	}
	return *p.exe
}

// maxCmdline bounds a command line in bytes. No process is started with a longer one (bprm_stack_limits, fs/exec.c), but it can
// have the kernel show all of its memory as its command line (PR_SET_MM, prctl(2)).
const maxCmdline = 6 << 20

// Cmdline returns the command line, which the process can change, at most 6 MiB of it. It is an empty slice if the process has none
// or has ended.
func (p *Process) Cmdline() []string {
	if p.cmdline == nil {
		content, err := p.readFile("cmdline", maxCmdline)
		if err != nil && !isAbsent(err) {
			return []string{}
		}
		p.cmdline = []string{}
		if content = bytes.TrimRight(content, "\x00"); len(content) > 0 {
			p.cmdline = strings.Split(string(content), "\x00")
		}
	}
	return p.cmdline
}

// UID returns the effective user id of the main thread; false if the process ended before it was read. A process can change it:
// the result is at most 40 seconds old, and after a scan with OwnersBPF that of the scan. Of a process that has ended it is the
// last one.
func (p *Process) UID() (id uint32, known bool) {
	now := time.Now()
	if p.uid.known && now.Before(p.uid.until) {
		return p.uid.id, true
	}
	id, err := p.readUID()
	switch {
	case err == nil:
		p.setUID(id, now)
	case p.uid.known && isAbsent(err): // it has ended, or is hidden
		p.setUID(p.uid.id, now)
	}
	return p.uid.id, p.uid.known
}

func (p *Process) readUID() (uint32, error) {
	status, err := p.readFile("status", maxStatus)
	if err != nil {
		return 0, err
	}
	return procfs.ParseStatusUID(status)
}

// A user id is read again after a random time between these, so that one scan does not read those of all processes.
const (
	minUIDAge = 20 * time.Second
	maxUIDAge = 40 * time.Second
)

func (p *Process) setUID(id uint32, now time.Time) {
	age := minUIDAge + rand.N(maxUIDAge-minUIDAge) //nolint:gosec // it only spreads the reads
	p.uid = userID{id, true, now.Add(age)}
}

// Cgroup returns the path of the cgroup that the process is in, as the reader's cgroup namespace shows it; empty if it may
// not be read, or if the process has ended. It is that of cgroup v2, unless a cgroup of v1 says more: see cgroups(7).
func (p *Process) Cgroup() string {
	if p.cgroup == nil {
		content, err := p.readFile("cgroup", maxStatus)
		if err != nil && !isAbsent(err) {
			return ""
		}
		path, _ := cgroup.ParseProcess(content) // empty on an error
		p.cgroup = &path
	}
	return *p.cgroup
}

// maxStatus bounds files that the kernel itself fills, in bytes.
const maxStatus = 1 << 20

// readFile reads at most limit bytes of a file of the process. With an error it returns nothing.
func (p *Process) readFile(name string, limit int64) ([]byte, error) {
	file, err := os.Open(p.path(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, limit))
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// check returns fs.ErrNotExist if the process has ended: what was read may be of another one with its pid.
func (p *Process) check() error {
	if p.StartTime == 0 {
		return nil // it is not known
	}
	content, err := os.ReadFile(p.path("stat"))
	if err != nil {
		return err
	}
	stat, err := procfs.ParseStat(content)
	if err == nil && stat.StartTime != p.StartTime {
		err = fmt.Errorf("pid %d now belongs to another process: %w", p.PID, fs.ErrNotExist)
	}
	return err
}

func (p *Process) path(name string) string {
	return filepath.Join(p.root, strconv.Itoa(p.PID), name)
}

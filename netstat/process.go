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

// Process is a process that holds sockets. Scans return the same *Process while the process lives and keeps its name. The methods
// read /proc at the first call and cache the result (UID expires); they retry at the next call if a resource was exhausted. It is
// not safe for concurrent use, including use during a scan in another goroutine.
type Process struct {
	PID int
	// StartTime is the start time in clock ticks (USER_HZ: 1/100 s) after boot: starttime in proc_pid_stat(5). PID and StartTime
	// identify a process.
	StartTime uint64
	// Name is the command name: see proc_pid_comm(5). The kernel cuts it at 15 bytes (64 for kernel threads): see FullName. The
	// process can set it to any bytes but NUL (PR_SET_NAME).
	Name string

	root     string
	warn     func(what string, err error) // warns once of a missing privilege; can be nil
	seen     uint64                       // the last scan that saw it
	fullName string                       // empty: not read yet
	exe      *string
	cmdline  []string
	uid      userID
	cgroup   *string
}

// userID is an effective user id.
type userID struct {
	id    uint32
	known bool
	until time.Time // when it expires
}

const (
	maxComm     = 15   // the longest command name: TASK_COMM_LEN - 1, include/linux/sched.h
	maxFileName = 255  // NAME_MAX, include/uapi/linux/limits.h
	maxPath     = 4096 // the longest path and its NUL: PATH_MAX, include/uapi/linux/limits.h
)

// FullName returns the name that Telegraf's procstat gives the process: Name, or, if the kernel can have cut it (15 bytes), the
// base name of the first argument, if that begins with Name. The process can set that argument to any bytes; a base name of more
// than 255 bytes is ignored, as no file has it. If the process has ended, the result is the last known one, else Name.
func (p *Process) FullName() string {
	if len(p.Name) != maxComm {
		return p.Name
	}
	if p.fullName == "" {
		cmdline, err := p.readFile("cmdline", maxPath)
		if err != nil && !isAbsent(err) {
			return p.Name
		}
		// During execve(2) the process has its new name before it has a command line.
		if err == nil && len(cmdline) == 0 {
			return p.Name
		}
		p.fullName = completeName(p.Name, cmdline)
	}
	return p.fullName
}

// completeName returns the base name of the first argument if it begins with the name, else the name. The command line is cut at
// maxPath.
func completeName(name string, cmdline []byte) string {
	argument, _, ended := bytes.Cut(cmdline, []byte{0})
	if !ended && len(cmdline) == maxPath {
		return name // the end is not known
	}
	argument = bytes.TrimRight(argument, "/")
	base := argument[bytes.LastIndexByte(argument, '/')+1:]
	if len(base) > maxFileName || !bytes.HasPrefix(base, []byte(name)) {
		return name
	}
	return string(base)
}

// Exe returns the path of the executable. It is empty if the process has ended or the reader lacks CAP_SYS_PTRACE. The kernel
// appends " (deleted)" to the path of a deleted file.
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

// maxCmdline is the limit for a command line in bytes. execve(2) has the same limit (bprm_stack_limits, fs/exec.c), but a process
// can make the kernel show all of its memory as its command line (PR_SET_MM, prctl(2)).
const maxCmdline = 6 << 20

// Cmdline returns the first 6 MiB of the command line, which the process can change. It is an empty slice if the process has no
// command line or has ended.
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

// UID returns the effective user id of the main thread; known is false if the process ended before it was read. The result is at
// most 40 seconds old; OwnersBPF updates it in every scan. For an ended process it is the last known one.
func (p *Process) UID() (id uint32, known bool) {
	now := time.Now()
	if p.uid.known && now.Before(p.uid.until) {
		return p.uid.id, true
	}
	id, err := p.readUID()
	switch {
	case err == nil:
		p.setUID(id, now)
	case p.uid.known && isAbsent(err): // it has ended or is hidden by hidepid
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

// A user id expires after a random time between these, so that the reads spread over several scans.
const (
	minUIDAge = 20 * time.Second
	maxUIDAge = 40 * time.Second
)

func (p *Process) setUID(id uint32, now time.Time) {
	age := minUIDAge + rand.N(maxUIDAge-minUIDAge) //nolint:gosec // no secret
	p.uid = userID{id, true, now.Add(age)}
}

// Cgroup returns the path of the process's cgroup, relative to the root of the reader's cgroup namespace. It is empty if the file
// cannot be read or the process has ended. [cgroup.ParseProcess] chooses between cgroups v2 and v1.
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

// maxStatus is the limit for files whose content comes from the kernel, in bytes.
const maxStatus = 1 << 20

// readFile reads at most limit bytes of a file of the process.
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

// check returns fs.ErrNotExist if the process has ended: what was read can belong to another process with the same pid.
func (p *Process) check() error {
	if p.StartTime == 0 {
		return nil // unknown
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

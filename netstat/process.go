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

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

// Process is a process that holds sockets. It is the same Process in every scan for as long as the process lives and does
// not change its name. What its methods tell is read when they are first called, and kept, but for UID, which is refreshed; what
// cannot be read because the host has run out of something is asked for again. It is not for concurrent use, with a scan either.
type Process struct {
	PID int
	// StartTime is when the process started, in clock ticks (USER_HZ, a hundredth of a second) after boot. A process
	// is identified by PID and StartTime.
	StartTime uint64
	// Name is the kernel's command name of the process, comm in proc_pid_comm(5), as ps -o comm prints it: at most 15
	// bytes (64 for kernel threads). The process can change it (PR_SET_NAME), to any bytes but NUL.
	Name string

	root    string
	warn    func(what string, err error) // says what may not be read, the first time; can be nil
	seen    uint64                       // the scan that it was seen in last
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

// Exe returns the path of the executable; empty if it may not be read, or if the process has gone. The kernel appends
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
			p.warn("exe", fmt.Errorf("executables of processes are not known: reading them takes CAP_SYS_PTRACE: %w", err))
		}
		if err != nil && !isAbsent(err) {
			return ""
		}
		p.exe = &target
	}
	return *p.exe
}

// mostCmdline bounds a command line in bytes. No process is started with a longer one (bprm_stack_limits, fs/exec.c), but it can
// have the kernel show all of its memory as its command line (PR_SET_MM, prctl(2)).
const mostCmdline = 6 << 20

// Cmdline returns the command line, which the process can change: at most 6 MiB of it; an empty slice if it has none or has gone.
func (p *Process) Cmdline() []string {
	if p.cmdline == nil {
		content, err := p.readFile("cmdline", mostCmdline)
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

// UID returns the effective user id of the main thread; false if the process has gone before it was known. A process can change it:
// what is returned is at most 40 seconds old, and after a scan with OwnersBPF what that saw. Of a process that has gone it is the last.
func (p *Process) UID() (id uint32, known bool) {
	now := time.Now()
	if p.uid.known && now.Before(p.uid.until) {
		return p.uid.id, true
	}
	id, err := p.readUID()
	switch {
	case err == nil:
		p.setUID(id, now)
	case p.uid.known && isAbsent(err): // it has gone, or is hidden
		p.setUID(p.uid.id, now)
	}
	return p.uid.id, p.uid.known
}

func (p *Process) readUID() (uint32, error) {
	status, err := p.readFile("status", mostStatus)
	if err != nil {
		return 0, err
	}
	return parseStatusUID(status)
}

// A user id is read again after a time between these. It is not the same for all processes, or all of them would be read in one
// scan.
const (
	leastUIDAge = 20 * time.Second
	mostUIDAge  = 40 * time.Second
)

func (p *Process) setUID(id uint32, now time.Time) {
	age := leastUIDAge + rand.N(mostUIDAge-leastUIDAge) //nolint:gosec // it only spreads the reads
	p.uid = userID{id, true, now.Add(age)}
}

// Cgroup returns the path of the cgroup that the process is in, as the reader's cgroup namespace shows it; empty if it may
// not be read, or if the process has gone. It is that of cgroup v2, unless a cgroup of v1 says more: see cgroups(7).
func (p *Process) Cgroup() string {
	if p.cgroup == nil {
		content, err := p.readFile("cgroup", mostStatus)
		if err != nil && !isAbsent(err) {
			return ""
		}
		path, _ := parseProcCgroup(content) // empty on an error
		p.cgroup = &path
	}
	return *p.cgroup
}

// mostStatus bounds what the kernel itself writes, in bytes.
const mostStatus = 1 << 20

// readFile reads at most so many bytes of a file of the process; nothing, if there is an error.
func (p *Process) readFile(name string, most int64) ([]byte, error) {
	file, err := os.Open(p.path(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, most))
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// check tells by fs.ErrNotExist that the process has gone, and that what was read may be of another one with its pid.
func (p *Process) check() error {
	if p.StartTime == 0 {
		return nil // it is not known
	}
	content, err := os.ReadFile(p.path("stat"))
	if err != nil {
		return err
	}
	stat, err := parseStat(content)
	if err == nil && stat.startTime != p.StartTime {
		err = fmt.Errorf("process %d is another one now: %w", p.PID, fs.ErrNotExist)
	}
	return err
}

func (p *Process) path(name string) string {
	return filepath.Join(p.root, strconv.Itoa(p.PID), name)
}

// processCache keeps the processes from scan to scan.
type processCache struct {
	root      string
	warn      func(what string, err error)
	clock     bootClock
	processes map[int]*Process
	past      map[processID]*Process // those that hold no socket, and began connections that were closed
	keepsPast bool                   // also those that may have: that is not known until the connections are handed out
	scan      uint64
	now       time.Time // when the scan began
	count     int       // processes that were asked for in this scan
	buf       [4 << 10]byte
}

// processID identifies a process.
type processID struct {
	pid       int
	startTime uint64 // clock ticks after boot
}

func newProcessCache(root string, warn func(what string, err error)) *processCache {
	return &processCache{
		root: root, warn: warn, clock: newBootClock(root), processes: map[int]*Process{}, past: map[processID]*Process{},
	}
}

// begin opens a scan: every process that is not asked for until end is forgotten.
func (c *processCache) begin() {
	c.scan++
	c.now = time.Now()
	c.count = 0
}

func (c *processCache) end() {
	for pid, p := range c.processes {
		if p.seen == c.scan {
			continue
		}
		delete(c.processes, pid)
		if c.keepsPast {
			c.past[processID{pid, p.StartTime}] = p
		}
	}
	const keep = 2 // looks: there may be two for what is handed out at once, see lateSockets
	for id, p := range c.past {
		if p.seen+keep < c.scan {
			delete(c.past, id)
		}
	}
}

// get returns the process with the pid, or nil if it has gone.
func (c *processCache) get(dir *procDir, pid int) *Process {
	stat, err := c.stat(dir, pid)
	if err != nil {
		return nil
	}
	return c.see(pid, stat.startTime, stat.name)
}

// see returns the process with the pid. The kernel gives a pid to another process sooner or later, and a process can become
// another program: both are told by the start time and the name.
func (c *processCache) see(pid int, startTime uint64, name []byte) *Process {
	p := c.processes[pid]
	if p == nil || p.StartTime != startTime || p.Name != string(name) {
		id := processID{pid, startTime}
		if p = c.past[id]; p == nil || p.Name != string(name) {
			p = &Process{PID: pid, StartTime: startTime, Name: string(name), root: c.root, warn: c.warn}
		}
		delete(c.past, id)
		c.processes[pid] = p
	}
	if p.seen != c.scan {
		p.seen = c.scan
		c.count++
	}
	return p
}

// ofConnect returns the process that initiated a connection, which may have gone since. Its name is what it had then, if it holds no
// socket now.
func (c *processCache) ofConnect(connect *bpf.Connect) *Process {
	initiator := &connect.Initiator
	id := processID{int(initiator.PID), c.clock.ticks(initiator.StartBootTime)}
	p := c.processes[id.pid]
	if p == nil || p.StartTime != id.startTime {
		if p = c.past[id]; p == nil {
			p = &Process{
				PID: id.pid, StartTime: id.startTime, Name: string(initiator.Name()), root: c.root, warn: c.warn,
			}
			c.past[id] = p
		}
		p.seen = c.scan
	}
	// The user of then is what is known if the process has gone. While it lives it can have become another one, so that what
	// was seen of it counts for more, and what it is now is read when it is asked for.
	if !p.uid.known || !c.now.Before(p.uid.until) {
		p.uid = userID{id: initiator.UID, known: true}
	}
	return p
}

func (c *processCache) isKernelThread(dir *procDir, pid int) bool {
	const kernelThread = 0x00200000 // PF_KTHREAD (include/linux/sched.h)
	stat, err := c.stat(dir, pid)
	return err == nil && stat.flags&kernelThread != 0
}

func (c *processCache) stat(dir *procDir, pid int) (procStat, error) {
	content, err := dir.readFile(pid, "stat", c.buf[:])
	if err != nil {
		return procStat{}, err
	}
	return parseStat(content)
}

// procStat is what is wanted of /proc/<pid>/stat.
type procStat struct {
	name      []byte
	flags     uint64 // PF_*
	startTime uint64 // clock ticks after boot
}

var errShortStat = errors.New("stat has too few columns")

// parseStat decodes /proc/<pid>/stat, written by do_task_stat (fs/proc/array.c): pid (name) state ppid …. The name can
// hold blanks and parentheses: it ends at the last one.
func parseStat(content []byte) (procStat, error) {
	const flags, startTime = 6, 19 // columns after the name
	open, end := bytes.IndexByte(content, '('), bytes.LastIndexByte(content, ')')
	if open < 0 || end < open {
		return procStat{}, errShortStat
	}
	var columns [startTime + 1][]byte
	if splitFields(content[end+1:], columns[:]) < len(columns) {
		return procStat{}, errShortStat
	}
	stat := procStat{name: content[open+1 : end]}
	var err error
	if stat.flags, err = parseDecimal(columns[flags], 64); err != nil {
		return procStat{}, err
	}
	if stat.startTime, err = parseDecimal(columns[startTime], 64); err != nil {
		return procStat{}, err
	}
	return stat, nil
}

var errNoUID = errors.New("status has no Uid")

// parseStatusUID returns the effective user id in /proc/<pid>/status: Uid: real effective saved filesystem.
func parseStatusUID(status []byte) (uint32, error) {
	for line := range bytes.Lines(status) {
		ids, ok := bytes.CutPrefix(line, []byte("Uid:"))
		if !ok {
			continue
		}
		columns := bytes.Fields(ids)
		if len(columns) < 2 {
			return 0, errNoUID
		}
		uid, err := parseDecimal(columns[1], 32)
		return uint32(uid), err
	}
	return 0, errNoUID
}

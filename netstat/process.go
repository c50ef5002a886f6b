package netstat

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Process is a process that holds sockets. It is the same Process in every scan for as long as the process lives and does
// not change its name. What its methods tell is read when they are first called, and kept.
type Process struct {
	PID int
	// StartTime is when the process started, in clock ticks (USER_HZ, a hundredth of a second) after boot. A process
	// is identified by PID and StartTime.
	StartTime uint64
	// Name is the command name of the process, at most 15 bytes (64 for kernel threads). The process chooses it: it
	// can hold any byte but NUL.
	Name string

	root    string
	seen    uint64 // the scan that it was seen in last
	exe     *string
	cmdline []string
	uid     *uint32
	cgroup  *string
}

// Exe returns the path of the executable; empty if it may not be read, or if the process has gone. The kernel appends
// " (deleted)" to the path of a file that is no longer there.
func (p *Process) Exe() string {
	if p.exe == nil {
		target, err := os.Readlink(p.path("exe"))
		if err != nil {
			target = ""
		}
		p.exe = &target
	}
	return *p.exe
}

// Cmdline returns the command line, which the process can change; an empty slice if it has none or has gone.
func (p *Process) Cmdline() []string {
	if p.cmdline == nil {
		p.cmdline = []string{}
		content, err := os.ReadFile(p.path("cmdline"))
		if content = bytes.TrimRight(content, "\x00"); err == nil && len(content) > 0 {
			p.cmdline = strings.Split(string(content), "\x00")
		}
	}
	return p.cmdline
}

// UID returns the effective user id; false if the process has gone.
func (p *Process) UID() (uid uint32, known bool) {
	if p.uid == nil {
		status, err := os.ReadFile(p.path("status"))
		if err != nil {
			return 0, false
		}
		effective, err := parseStatusUID(status)
		if err != nil {
			return 0, false
		}
		p.uid = &effective
	}
	return *p.uid, true
}

// Cgroup returns the path of the cgroup that the process is in, as the reader's cgroup namespace shows it; empty if it may
// not be read, or if the process has gone. It is that of cgroup v2, unless a cgroup of v1 says more: see cgroups(7).
func (p *Process) Cgroup() string {
	if p.cgroup == nil {
		var path string
		if content, err := os.ReadFile(p.path("cgroup")); err == nil {
			path, _ = parseProcCgroup(content) // empty on an error
		}
		p.cgroup = &path
	}
	return *p.cgroup
}

func (p *Process) path(name string) string {
	return filepath.Join(p.root, strconv.Itoa(p.PID), name)
}

// processCache keeps the processes from scan to scan.
type processCache struct {
	root      string
	processes map[int]*Process
	scan      uint64
	count     int // processes that were asked for in this scan
	buf       [4 << 10]byte
}

func newProcessCache(root string) *processCache {
	return &processCache{root: root, processes: map[int]*Process{}}
}

// begin opens a scan: every process that is not asked for until end is forgotten.
func (c *processCache) begin() {
	c.scan++
	c.count = 0
}

func (c *processCache) end() {
	for pid, p := range c.processes {
		if p.seen != c.scan {
			delete(c.processes, pid)
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
		p = &Process{PID: pid, StartTime: startTime, Name: string(name), root: c.root}
		c.processes[pid] = p
	}
	if p.seen != c.scan {
		p.seen = c.scan
		c.count++
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

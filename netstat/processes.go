package netstat

import (
	"os"
	"path/filepath"
	"time"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// processCache keeps the processes from scan to scan.
type processCache struct {
	root      string
	warn      func(what string, err error)
	clock     procfs.BootClock
	processes map[int]*Process
	past      map[processID]*Process // processes without sockets that initiated closed connections
	keepsPast bool                   // past also has every process that recently held sockets: it may be an initiator
	scan      uint64
	now       time.Time // start of the scan
	count     int       // processes of this scan
	buf       [4 << 10]byte
}

// processID identifies a process.
type processID struct {
	pid       int
	startTime uint64 // clock ticks after boot
}

func newProcessCache(root string, warn func(what string, err error)) *processCache {
	offsets, _ := os.ReadFile(filepath.Join(root, "self", "timens_offsets")) // absent before Linux 5.6
	return &processCache{
		root: root, warn: warn, clock: procfs.ParseBootClock(offsets), processes: map[int]*Process{}, past: map[processID]*Process{},
	}
}

// begin starts an owner lookup. end forgets the processes that it did not see.
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
	const keep = 2 // owner lookups: a scan can have two, see lateSockets
	for id, p := range c.past {
		if p.seen+keep < c.scan {
			delete(c.past, id)
		}
	}
}

// get returns the process with the pid, or nil if it has ended.
func (c *processCache) get(dir *procfs.Dir, pid int) *Process {
	stat, err := c.stat(dir, pid)
	if err != nil {
		return nil
	}
	return c.see(pid, stat.StartTime, stat.Comm)
}

// see returns the process with the pid and marks it as seen. Another start time (a reused pid) or another name (an execve(2))
// makes a new Process.
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

// ofConnect returns the initiator of a connection, which can have ended. If it holds no socket, its name is that in the record.
func (c *processCache) ofConnect(connect *bpf.Connect) *Process {
	initiator := &connect.Initiator
	id := processID{int(initiator.PID), c.clock.Ticks(initiator.StartBootTime)}
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
	// The record has the only user id of a process that has ended. While the process lives UID expires and is read again.
	if !p.uid.known || !c.now.Before(p.uid.until) {
		p.uid = userID{id: initiator.UID, known: true}
	}
	return p
}

func (c *processCache) isKernelThread(dir *procfs.Dir, pid int) bool {
	stat, err := c.stat(dir, pid)
	return err == nil && stat.Flags&procfs.KernelThread != 0
}

func (c *processCache) stat(dir *procfs.Dir, pid int) (procfs.Stat, error) {
	content, err := dir.ReadFile(pid, "stat", c.buf[:])
	if err != nil {
		return procfs.Stat{}, err
	}
	return procfs.ParseStat(content)
}

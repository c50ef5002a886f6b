package procfs

import (
	"bytes"
	"errors"
)

// Stat is a part of /proc/<pid>/stat, written by do_task_stat (fs/proc/array.c):
//
//	pid (comm) state ppid pgrp session tty_nr tpgid flags minflt cminflt majflt cmajflt utime stime cutime cstime priority nice
//	num_threads itrealvalue starttime …
type Stat struct {
	Comm      []byte // part of the content
	Flags     uint64 // PF_*
	StartTime uint64 // clock ticks after boot
}

// KernelThread is the flag of kernel threads: PF_KTHREAD, include/linux/sched.h.
const KernelThread = 0x00200000

var errShortStat = errors.New("stat has too few columns")

// ParseStat decodes /proc/<pid>/stat.
func ParseStat(content []byte) (Stat, error) {
	const flags, startTime = 6, 19 // columns after comm
	comm, rest, ok := cutComm(content)
	if !ok {
		return Stat{}, errShortStat
	}
	var columns [startTime + 1][]byte
	if SplitFields(rest, columns[:]) < len(columns) {
		return Stat{}, errShortStat
	}
	stat := Stat{Comm: comm}
	var err error
	if stat.Flags, err = ParseDecimal(columns[flags], 64); err != nil {
		return Stat{}, err
	}
	if stat.StartTime, err = ParseDecimal(columns[startTime], 64); err != nil {
		return Stat{}, err
	}
	return stat, nil
}

// IsZombie reports whether a stat file, or the first bytes of one, shows state Z: the main thread has ended.
func IsZombie(stat []byte) bool {
	_, rest, _ := cutComm(stat)
	return bytes.HasPrefix(rest, []byte(" Z"))
}

// cutComm splits a stat file at comm, which can contain blanks and parentheses and ends at the last parenthesis.
func cutComm(stat []byte) (comm, rest []byte, ok bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return nil, nil, false
	}
	return stat[open+1 : end], stat[end+1:], true
}

package netstat

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// bootClock turns the kernel's own times after boot into those that /proc/<pid>/stat shows. It is what the reader's time namespace
// adds to them, in nanoseconds: see time_namespaces(7).
type bootClock int64

// newBootClock reads the clock of this process. A kernel without time namespaces, before Linux 5.6, has no file for it.
func newBootClock(root string) bootClock {
	content, err := os.ReadFile(filepath.Join(root, "self", "timens_offsets"))
	if err != nil {
		return 0
	}
	return parseBootClock(content)
}

// parseBootClock decodes /proc/<pid>/timens_offsets, written by proc_timens_show_offsets (kernel/time/namespace.c): for each
// clock its name, seconds and nanoseconds. What it does not understand is no offset.
func parseBootClock(content []byte) bootClock {
	const secondsBits, nsBits = 34, 31 // more than KTIME_SEC_MAX / 2, and less than overflows
	for line := range bytes.Lines(content) {
		columns := bytes.Fields(line)
		if len(columns) != 3 || string(columns[0]) != "boottime" {
			continue
		}
		seconds, errSeconds := strconv.ParseInt(string(columns[1]), 10, secondsBits)
		ns, errNS := strconv.ParseInt(string(columns[2]), 10, nsBits)
		if errSeconds == nil && errNS == nil {
			return bootClock(seconds*1e9 + ns)
		}
	}
	return 0
}

// ticks makes clock ticks of nanoseconds after boot: USER_HZ is 100 on all architectures that the BPF programs are for.
func (c bootClock) ticks(ns uint64) uint64 {
	const tick = 10_000_000 // ns
	return (ns + uint64(c)) / tick
}

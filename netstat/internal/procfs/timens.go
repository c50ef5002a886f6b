package procfs

import (
	"bytes"
	"strconv"
)

// BootClock converts the kernel's boot times into those in /proc/<pid>/stat. Its value is the offset of the reader's time
// namespace in nanoseconds: see time_namespaces(7).
type BootClock int64

// ParseBootClock decodes /proc/<pid>/timens_offsets, written by proc_timens_show_offsets (kernel/time/namespace.c, Linux 5.6):
// for each clock its name, seconds and nanoseconds. The offset is 0 without a valid line for boottime.
func ParseBootClock(content []byte) BootClock {
	const secondsBits, nsBits = 34, 31 // more than KTIME_SEC_MAX / 2, without overflow of the result
	for line := range bytes.Lines(content) {
		columns := bytes.Fields(line)
		if len(columns) != 3 || string(columns[0]) != "boottime" {
			continue
		}
		seconds, errSeconds := strconv.ParseInt(string(columns[1]), 10, secondsBits)
		ns, errNS := strconv.ParseInt(string(columns[2]), 10, nsBits)
		if errSeconds == nil && errNS == nil {
			return BootClock(seconds*1e9 + ns)
		}
	}
	return 0
}

// Ticks converts nanoseconds after boot into clock ticks. USER_HZ is 100 on all architectures that the BPF programs support.
func (c BootClock) Ticks(ns uint64) uint64 {
	const tick = 10_000_000 // ns
	return (ns + uint64(c)) / tick
}

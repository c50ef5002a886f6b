package procfs

import (
	"bytes"
	"errors"
)

var errNoUID = errors.New("status has no Uid")

// ParseStatusUID returns the effective user id in /proc/<pid>/status, written by task_state (fs/proc/array.c):
//
//	Uid: real effective saved filesystem
func ParseStatusUID(status []byte) (uint32, error) {
	ids := statusLine(status, "Uid:")
	if len(ids) < 2 {
		return 0, errNoUID
	}
	uid, err := ParseDecimal(ids[1], 32)
	return uint32(uid), err
}

// showsOwnPIDs reports whether the proc file system of a /proc/self/status is that of the PID namespace that this process is in:
// then both have the same pids. NSpid lists the pids of a process from the namespace of the proc file system to its own
// (Linux 4.1).
func showsOwnPIDs(status []byte) bool { return len(statusLine(status, "NSpid:")) == 1 }

// statusLine returns the columns of the first line that begins with the key.
func statusLine(status []byte, key string) [][]byte {
	for line := range bytes.Lines(status) {
		if columns, ok := bytes.CutPrefix(line, []byte(key)); ok {
			return bytes.Fields(columns)
		}
	}
	return nil
}

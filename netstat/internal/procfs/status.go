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

// showsOwnPIDs reports whether /proc/self/status belongs to the proc file system of this process's PID namespace, so that both
// use the same pids. NSpid (Linux 4.1) lists the pids of a process from the namespace of the proc file system down to its own.
func showsOwnPIDs(status []byte) bool { return len(statusLine(status, "NSpid:")) == 1 }

// statusLine returns the columns of the first line with the key.
func statusLine(status []byte, key string) [][]byte {
	for line := range bytes.Lines(status) {
		if columns, ok := bytes.CutPrefix(line, []byte(key)); ok {
			return bytes.Fields(columns)
		}
	}
	return nil
}

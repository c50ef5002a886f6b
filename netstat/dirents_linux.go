package netstat

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// dirEntry is an entry of a directory.
type dirEntry struct {
	inode uint64
	isDir bool
	name  []byte // ends with a NUL
}

// eachEntry reads a directory into buf and calls entry with each entry, until it returns false.
func eachEntry(fd int, buf []byte, entry func(dirEntry) bool) error {
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 || !eachDirent(buf[:n], entry) {
			return err
		}
	}
}

// eachDirent decodes struct linux_dirent64 (include/linux/dirent.h): d_ino, d_off, d_reclen, d_type, d_name. It tells whether
// entry never returned false.
func eachDirent(entries []byte, entry func(dirEntry) bool) bool {
	const reclenAt, typeAt, nameAt = 16, 18, 19
	for len(entries) > nameAt {
		reclen := int(binary.NativeEndian.Uint16(entries[reclenAt:]))
		if reclen <= nameAt || reclen > len(entries) {
			return true
		}
		name := entries[nameAt:reclen]
		if end := bytes.IndexByte(name, 0); end > 0 {
			e := dirEntry{binary.NativeEndian.Uint64(entries), entries[typeAt] == unix.DT_DIR, name[:end+1]}
			if !entry(e) {
				return false
			}
		}
		entries = entries[reclen:]
	}
	return true
}

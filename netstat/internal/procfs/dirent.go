package procfs

import (
	"bytes"
	"encoding/binary"
)

// DirEntry is an entry of a directory.
type DirEntry struct {
	Inode uint64
	IsDir bool
	Name  []byte // NUL-terminated; part of the buffer
}

// EachDirent decodes the sequence of struct linux_dirent64 (include/linux/dirent.h) that getdents64(2) returns:
//
//	 0 u64            d_ino
//	 8 s64            d_off
//	16 unsigned short d_reclen
//	18 unsigned char  d_type
//	19 char           d_name[]
//
// It stops and returns false when entry returns false.
func EachDirent(entries []byte, entry func(DirEntry) bool) bool {
	const reclenAt, typeAt, nameAt = 16, 18, 19
	const typeDir = 4 // DT_DIR, include/linux/fs_types.h
	for len(entries) > nameAt {
		reclen := int(binary.NativeEndian.Uint16(entries[reclenAt:]))
		if reclen <= nameAt || reclen > len(entries) {
			return true
		}
		name := entries[nameAt:reclen]
		if end := bytes.IndexByte(name, 0); end > 0 {
			e := DirEntry{binary.NativeEndian.Uint64(entries), entries[typeAt] == typeDir, name[:end+1]}
			if !entry(e) {
				return false
			}
		}
		entries = entries[reclen:]
	}
	return true
}

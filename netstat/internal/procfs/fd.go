package procfs

import "bytes"

// ParseSocketLink returns the inode in the target of a link in /proc/<pid>/fd: socket:[inode], written by sockfs_dname
// (net/socket.c), or [0000]:inode, as kernels before 2.6 wrote it. isSocket is false for other descriptors.
func ParseSocketLink(target []byte) (inode uint64, isSocket bool) {
	digits, ok := bytes.CutPrefix(target, socketPrefix)
	if ok {
		digits, ok = bytes.CutSuffix(digits, socketSuffix)
	} else {
		digits, ok = bytes.CutPrefix(target, oldSocketPrefix)
	}
	if !ok {
		return 0, false
	}
	inode, err := ParseDecimal(digits, 64)
	return inode, err == nil
}

var (
	socketPrefix    = []byte("socket:[")
	socketSuffix    = []byte("]")
	oldSocketPrefix = []byte("[0000]:")
)

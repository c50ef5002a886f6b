package netstat

import (
	"os"
	"path/filepath"
	"syscall"
)

// threadNetNS returns the inode number of the calling thread's network namespace, see namespaces(7); 0 if the proc file
// system does not tell.
func threadNetNS(root string) uint64 { return netNSInode(filepath.Join(root, "thread-self")) }

// processNetNS is threadNetNS for the process, which /proc/net is about. The two are the same unless the thread has called
// setns(2) or unshare(2).
func processNetNS(root string) uint64 { return netNSInode(filepath.Join(root, "self")) }

func netNSInode(task string) uint64 {
	info, err := os.Stat(filepath.Join(task, "ns", "net"))
	if err != nil {
		return 0
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return stat.Ino
}

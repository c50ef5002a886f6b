// Package netns identifies network namespaces by stat(2), and enters them by setns(2): see network_namespaces(7).
package netns

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ThreadDir is the directory of the calling thread in this process's proc file system.
const ThreadDir = "/proc/thread-self"

// ErrMoved says that a file leads to another network namespace than it did.
var ErrMoved = fmt.Errorf("refers to another network namespace now: %w", fs.ErrNotExist)

// Of returns the inode number of the network namespace of the process, or thread, that has the directory, see namespaces(7);
// 0 if the proc file system does not tell.
func Of(procDir string) uint64 { return Inode(filepath.Join(procDir, "ns", "net")) }

// TableOf returns the inode number of a table in the directory of a process. It is the same for all processes in a network
// namespace, and tells namespaces apart for a reader who may not see /proc/<pid>/ns/net.
func TableOf(procDir string) uint64 { return Inode(filepath.Join(procDir, "net", "dev")) }

// Dir is the directory in which ip-netns(8) keeps the names of network namespaces: of a proc file system that is not /proc,
// the one in the root directory of its process 1.
func Dir(procRoot string) string {
	const dir = "/run/netns"
	if filepath.Clean(procRoot) == "/proc" {
		return dir
	}
	return filepath.Join(procRoot, "1", "root", dir)
}

// Names returns the names in such a directory, sorted. On an error it returns those that it could read.
func Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

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

// ErrMoved means that a file refers to another network namespace than before.
var ErrMoved = fmt.Errorf("refers to another network namespace now: %w", fs.ErrNotExist)

// Of returns the inode number of the network namespace of the process or thread with the directory, see namespaces(7); 0 if it
// cannot be read.
func Of(procDir string) uint64 { return Inode(filepath.Join(procDir, "ns", "net")) }

// TableOf returns the inode number of a table in the directory of a process. It is the same for all processes in a network
// namespace, and identifies the namespace if /proc/<pid>/ns/net is not readable.
func TableOf(procDir string) uint64 { return Inode(filepath.Join(procDir, "net", "dev")) }

// Dir returns the directory of the names of network namespaces, see ip-netns(8). If procRoot is not /proc, it is the one in the
// root directory of process 1 of that proc file system.
func Dir(procRoot string) string {
	const dir = "/run/netns"
	if filepath.Clean(procRoot) == "/proc" {
		return dir
	}
	return filepath.Join(procRoot, "1", "root", dir)
}

// Names returns the sorted names in dir. With an error it returns those that it could read.
func Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

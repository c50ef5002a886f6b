package netstat

import "golang.org/x/sys/unix"

// isProcfs tells whether the path is in a proc file system, and not in a copy of one.
func isProcfs(path string) bool {
	var stat unix.Statfs_t
	//nolint:unconvert // the type of Type is not the same on all architectures
	return unix.Statfs(path, &stat) == nil && int64(stat.Type) == unix.PROC_SUPER_MAGIC
}

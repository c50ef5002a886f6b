package procfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fdTableOrder returns the value for fdTables.compare. known is false if a resource is exhausted.
func fdTableOrder(root string) (compare func(tid, other int) (int, error), known bool) {
	if !IsMounted(root) {
		return compareTIDs, true
	}
	status, err := os.ReadFile(filepath.Join(root, "self", "status"))
	if err != nil {
		return nil, errors.Is(err, fs.ErrNotExist) // /proc of a PID namespace that does not contain this process
	}
	if !showsOwnPIDs(status) {
		return nil, true
	}
	return compareFDTables, true
}

// compareFDTables compares the descriptor tables of two threads with kcmp(2), which needs Linux 5.12 or
// CONFIG_CHECKPOINT_RESTORE.
func compareFDTables(tid, other int) (order int, err error) {
	const kcmpFiles = 2 // KCMP_FILES, include/uapi/linux/kcmp.h
	result, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(tid), uintptr(other), kcmpFiles, 0, 0, 0)
	switch {
	case errno != 0:
		return 0, errno
	case result == 0:
		return 0, nil
	case result == 1:
		return -1, nil
	default:
		return 1, nil
	}
}

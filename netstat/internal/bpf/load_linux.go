//go:build amd64 || arm64

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// requireInitialPIDNamespace returns an error unless this process and the proc file system belong to the initial PID namespace:
// BPF programs see pids of that namespace only. If this process is in it, a proc file system has an entry "self" for this
// process only if it belongs to it too.
func requireInitialPIDNamespace(procRoot string) error {
	const initial = "pid:[4026531836]" // PROC_PID_INIT_INO (include/linux/proc_ns.h)
	namespace, err := os.Readlink(filepath.Join(procRoot, "self", "ns", "pid"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && namespace != initial {
		return fmt.Errorf("%s is not of the initial PID namespace, whose pids BPF programs see: %w", procRoot, errors.ErrUnsupported)
	}
	return err
}

// missing names the missing requirement: the given version of Linux, or capabilities.
func missing(doing, linux string, err error) error {
	requirement := "Linux " + linux + " with BTF"
	var log *ebpf.VerifierError
	rejected := errors.As(err, &log) && len(log.Log) > 0 // by the verifier, whose EACCES does not mean a missing capability
	if errors.Is(err, fs.ErrPermission) && !rejected {
		requirement = "CAP_BPF and CAP_PERFMON"
		if errno := unix.Errno(0); errors.As(err, &errno) {
			err = errno // the text around it names other causes
		}
	}
	for _, scarce := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS} {
		if errors.Is(err, scarce) { // temporary: no requirement is missing
			return fmt.Errorf("%s: %w: %w", doing, errors.ErrUnsupported, err)
		}
	}
	return fmt.Errorf("%s requires %s: %w: %w", doing, requirement, errors.ErrUnsupported, err)
}

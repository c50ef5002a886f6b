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

// requireInitialPIDNamespace returns an error unless this process and the proc file system are in it: the pids that a BPF
// program sees are of no use in another. Where this process is in it, only a proc file system of the same namespace has an
// entry for it.
func requireInitialPIDNamespace(procRoot string) error {
	const initial = "pid:[4026531836]" // PROC_PID_INIT_INO (include/linux/proc_ns.h)
	namespace, err := os.Readlink(filepath.Join(procRoot, "self", "ns", "pid"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && namespace != initial {
		return fmt.Errorf("%s is not of the initial PID namespace, whose pids BPF programs see: %w", procRoot, errors.ErrUnsupported)
	}
	return err
}

// missing says what is missing: that version of Linux, or capabilities.
func missing(doing, linux string, err error) error {
	takes := "Linux " + linux + " with BTF"
	var log *ebpf.VerifierError
	rejected := errors.As(err, &log) && len(log.Log) > 0 // by the verifier, whose EACCES does not mean a missing capability
	if errors.Is(err, fs.ErrPermission) && !rejected {
		takes = "CAP_BPF and CAP_PERFMON"
		if errno := unix.Errno(0); errors.As(err, &errno) {
			err = errno // the text around it names other causes
		}
	}
	for _, scarce := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, scarce) { // nothing is missing but for now
			return fmt.Errorf("%s: %w: %w", doing, errors.ErrUnsupported, err)
		}
	}
	return fmt.Errorf("%s takes %s: %w: %w", doing, takes, errors.ErrUnsupported, err)
}

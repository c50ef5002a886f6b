//go:build amd64 || arm64

package bpf

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Only EPERM outside the verifier names a missing capability. A rejection by the verifier and a lack of resources do not.
func TestMissing(t *testing.T) {
	const notPermitted = "unsupported operation: operation not permitted"
	lacks := "the BPF program requires Linux 5.11 with BTF: unsupported operation: "
	for _, test := range []struct {
		err  error
		want string
	}{
		{unix.EMFILE, "the BPF program: unsupported operation: too many open files"},
		{fmt.Errorf("map create: %w", unix.ENOMEM), "the BPF program: unsupported operation: map create: cannot allocate memory"},
		{unix.ENOBUFS, "the BPF program: unsupported operation: no buffer space available"},
		{unix.EINVAL, lacks + "invalid argument"},
		{ebpf.ErrNotSupported, lacks + "not supported"},
		{unix.EPERM, "the BPF program requires CAP_BPF and CAP_PERFMON: " + notPermitted},
		{
			fmt.Errorf("map create: %w (MEMLOCK may be too low)", unix.EPERM),
			"the BPF program requires CAP_BPF and CAP_PERFMON: " + notPermitted,
		},
		{
			&ebpf.VerifierError{Cause: unix.EPERM}, // without a log
			"the BPF program requires CAP_BPF and CAP_PERFMON: " + notPermitted,
		},
		{
			fmt.Errorf("program owners: %w", &ebpf.VerifierError{Cause: unix.EACCES, Log: []string{"0: R1=ctx()", "bad access", "processed 1 insns"}}),
			lacks + "program owners: : permission denied: bad access (2 line(s) omitted)",
		},
	} {
		err := missing("the BPF program", "5.11", test.err)
		require.EqualError(t, err, test.want)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}

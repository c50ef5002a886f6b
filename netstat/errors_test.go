package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestErrorSummary(t *testing.T) {
	var s errorSummary
	require.NoError(t, s.err())
	first := errors.New("first")
	s.add(first)
	require.Same(t, first, s.err())
	s.add(errors.New("second"))
	require.EqualError(t, s.err(), "first (and 1 more)")
	s.add(errors.New("third"))
	require.ErrorIs(t, s.err(), first)
	require.EqualError(t, s.err(), "first (and 2 more)")
}

func TestErrorSummaryAddUnlessAbsent(t *testing.T) {
	var (
		s      errorSummary
		denied []error
	)
	for _, err := range []error{nil, fs.ErrNotExist, syscall.ESRCH, syscall.EACCES, syscall.EMFILE} {
		s.addUnlessAbsent(err, func(err error) { denied = append(denied, err) })
	}
	require.Equal(t, []error{syscall.EACCES}, denied)
	require.Equal(t, syscall.EMFILE, s.err())
}

func TestErrorKinds(t *testing.T) {
	for err, want := range map[error][3]bool{ // vanished, absent, scarce
		syscall.ENOENT: {true, true, false},
		syscall.ESRCH:  {true, true, false},
		syscall.EACCES: {false, true, false},
		syscall.EPERM:  {false, true, false},
		syscall.EMFILE: {false, false, true},
		syscall.ENFILE: {false, false, true},
		syscall.ENOMEM: {false, false, true},
		syscall.EINVAL: {false, false, false},
	} {
		wrapped := fmt.Errorf("reading it: %w", err)
		require.Equal(t, want, [3]bool{vanished(wrapped), isAbsent(wrapped), isExhausted(wrapped)}, err)
	}
}

package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// errorSummary is the first of several similar errors and the number of the others.
type errorSummary struct {
	first error
	more  int
}

func (s *errorSummary) add(err error) {
	if s.first != nil {
		s.more++
		return
	}
	s.first = err
}

// addUnlessAbsent adds an error unless it is vanished, and passes a permission error to denied instead.
func (s *errorSummary) addUnlessAbsent(err error, denied func(error)) {
	switch {
	case err == nil, vanished(err):
	case errors.Is(err, fs.ErrPermission):
		denied(err)
	default:
		s.add(err)
	}
}

// err returns nil if no error was added.
func (s *errorSummary) err() error {
	if s.more == 0 {
		return s.first
	}
	return fmt.Errorf("%w (and %d more)", s.first, s.more)
}

// vanished reports whether the error means that a process, thread or descriptor no longer exists. read(2) on a file of an ended
// process returns ESRCH.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// isAbsent reports whether the error means that something does not exist or must not be read; an exhausted resource is not that.
func isAbsent(err error) bool { return vanished(err) || errors.Is(err, fs.ErrPermission) }

// isExhausted reports whether the error means that a resource of the host or the process is exhausted.
func isExhausted(err error) bool {
	for _, scarce := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS} {
		if errors.Is(err, scarce) {
			return true
		}
	}
	return false
}

// requiredError returns the error of a method that the configuration requires and that does not work.
func requiredError(option, name string, err error) error {
	return fmt.Errorf("%s %q is required: %w", option, name, err)
}

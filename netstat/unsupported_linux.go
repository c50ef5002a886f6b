package netstat

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// notSupported marks the errors by which a kernel says that it cannot, or that we may not.
func notSupported(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT),
		errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return err
}

//go:build !linux

package netstat

import (
	"errors"
	"fmt"
	"runtime"
)

func diagOpener(func([]byte)) func() (diagConn, error) {
	return func() (diagConn, error) {
		return nil, fmt.Errorf("sock_diag on %s: %w", runtime.GOOS, errors.ErrUnsupported)
	}
}

func errnoError(number int) error { return fmt.Errorf("error number %d", number) }

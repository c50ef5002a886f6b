//go:build !linux

package netstat

import (
	"errors"
	"fmt"
	"runtime"
)

func openClosedConn(connectRecorder) (closedConn, error) {
	return nil, fmt.Errorf("sockets that are destroyed on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

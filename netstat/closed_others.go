//go:build !linux

package netstat

import (
	"errors"
	"fmt"
	"runtime"
)

const closedRoom = 0

func openClosedConn(connectLookup, *closedBudget, int) (closedConn, error) {
	return nil, fmt.Errorf("sockets that are destroyed on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

//go:build !linux || !(amd64 || arm64)

package netstat

import (
	"errors"
	"fmt"
	"runtime"
)

func newBPFOwners(*processCache) (ownerFinder, error) {
	return nil, errNoBPF
}

var errNoBPF = fmt.Errorf("no BPF program for %s on %s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)

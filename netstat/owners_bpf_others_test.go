//go:build linux && !amd64 && !arm64

package netstat

import (
	"errors"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// cacheOf returns the process cache of a finder, or nil.
func cacheOf(finder ownerFinder) *processCache {
	if walk, ok := finder.(*fdWalk); ok {
		return walk.processes
	}
	return nil
}

// ownerMethods are the methods that this architecture supports.
var ownerMethods = []OwnerMethod{OwnersProcfs}

func TestNoBPFOwners(t *testing.T) {
	_, err := newBPFOwners(newProcessCache("/proc", nil))
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.EqualError(t, err, "no BPF program for linux on "+runtime.GOARCH+": unsupported operation")
}

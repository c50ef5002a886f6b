//go:build linux && !amd64 && !arm64

package netstat

import (
	"errors"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// cacheOf returns the processes that a finder keeps; nil if it keeps none.
func cacheOf(finder ownerFinder) *processCache {
	if walk, ok := finder.(*fdWalk); ok {
		return walk.processes
	}
	return nil
}

// ownerMethods are those that a kernel of this architecture can have.
var ownerMethods = []OwnerMethod{OwnersProcfs}

func TestNoBPFOwners(t *testing.T) {
	_, err := newBPFOwners(newProcessCache("/proc", nil))
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.EqualError(t, err, "no BPF program for linux on "+runtime.GOARCH+": unsupported operation")
}

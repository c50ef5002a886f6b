//go:build linux && !amd64 && !arm64

package netstat

// cacheOf returns the processes that a finder keeps; nil if it keeps none.
func cacheOf(finder ownerFinder) *processCache {
	if walk, ok := finder.(*fdWalk); ok {
		return walk.processes
	}
	return nil
}

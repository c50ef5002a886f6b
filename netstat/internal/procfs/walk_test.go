package procfs

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

func TestSocketWalk(t *testing.T) {
	walk := NewSocketWalk(proctree.Materialize(t, "../../testdata/proc/broken"))
	defer walk.Close()
	found := map[int][]uint64{}
	require.NoError(t, walk.Each(t.Context(), func(pid int, inodes []uint64, _ error) { found[pid] = append([]uint64{}, inodes...) }))
	slices.Sort(found[1001])
	require.Equal(t, map[int][]uint64{1001: {0, 1<<64 - 1}, 1002: {}, 1003: {1}}, found)
}

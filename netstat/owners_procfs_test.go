package netstat

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

func TestFDWalk(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	walk := newFDWalk(newProcessCache(root, nil))
	defer walk.close()
	var (
		table  ownerTable
		before = map[int]*Process{}
	)
	for range 2 { // the second time with cached processes
		stats, err := walk.refresh(t.Context(), &table)
		require.NoError(t, err)
		require.Equal(t, ownerStats{processes: 7}, stats)
		for inode, want := range map[uint64][]int{
			20010: {1, 700}, 20011: {700}, 20020: {1001, 1002}, 20021: {1002}, 20040: {1004}, 30001: {1}, 20050: nil, 0: nil,
		} {
			var pids []int
			for _, p := range table.appendOwners(nil, inode) {
				pids = append(pids, p.PID)
				if before[p.PID] != nil {
					require.Same(t, before[p.PID], p)
				}
				before[p.PID] = p
			}
			require.Equal(t, want, pids, "inode %d", inode)
		}
	}

	require.NoError(t, os.RemoveAll(filepath.Join(root, "1001")))
	stats, err := walk.refresh(t.Context(), &table)
	require.NoError(t, err)
	require.Equal(t, 6, stats.processes)
	require.Equal(t, 1002, table.first(20020).PID)
}

func TestFDWalkBroken(t *testing.T) {
	walk := newFDWalk(newProcessCache(proctree.Materialize(t, brokenTree), nil))
	defer walk.close()
	var table ownerTable
	stats, err := walk.refresh(t.Context(), &table)
	require.ErrorContains(t, err, "reading the descriptors of process 1002: not a directory")
	require.Equal(t, ownerStats{}, stats, "no process has a readable stat")
}

func TestFDWalkMissing(t *testing.T) {
	walk := newFDWalk(newProcessCache(filepath.Join(t.TempDir(), "missing"), nil))
	defer walk.close()
	_, err := walk.refresh(t.Context(), &ownerTable{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "opening the proc file system: ")
}

// All threads of a process are one owner, even if their descriptor tables differ.
func TestFDWalkThreads(t *testing.T) {
	root := t.TempDir()
	process := filepath.Join(root, "70")
	for dir, inodes := range map[string][]int{"fd": {1}, "task/70/fd": {1}, "task/71/fd": {1, 2}} {
		require.NoError(t, os.MkdirAll(filepath.Join(process, dir), 0o755))
		for fd, inode := range inodes {
			require.NoError(t, os.Symlink(fmt.Sprintf("socket:[%d]", inode), filepath.Join(process, dir, strconv.Itoa(fd))))
		}
	}
	table := ownerTable{}
	finder := newFDWalk(newProcessCache(root, nil))
	defer finder.close()
	require.NoError(t, os.WriteFile(filepath.Join(process, "stat"), []byte("70 (name) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0\n"), 0o600))
	_, err := finder.refresh(t.Context(), &table)
	require.NoError(t, err)
	for _, inode := range []uint64{1, 2} {
		owners := table.appendOwners(nil, inode)
		require.Len(t, owners, 1, "the threads of a process are one owner")
		require.Equal(t, 70, owners[0].PID)
	}
}

func TestFDWalkDoesNotAllocate(t *testing.T) {
	walk := newFDWalk(newProcessCache(proctree.Materialize(t, smallTree), nil))
	defer walk.close()
	var table ownerTable
	allocs := testing.AllocsPerRun(10, func() {
		if _, err := walk.refresh(t.Context(), &table); err != nil {
			t.Fatal(err)
		}
	})
	require.Zero(t, allocs)
}

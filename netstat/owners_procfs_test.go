package netstat

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

func TestParseSocketLink(t *testing.T) {
	for _, test := range []struct {
		target   string
		inode    uint64
		isSocket bool
	}{
		{"socket:[12345]", 12345, true},
		{"socket:[0]", 0, true},
		{"socket:[18446744073709551615]", 1<<64 - 1, true},
		{"[0000]:12345", 12345, true},
		{"[0000]:18446744073709551615", 1<<64 - 1, true},

		{"", 0, false},
		{"/dev/null", 0, false},
		{"pipe:[12345]", 0, false},
		{"anon_inode:[eventpoll]", 0, false},
		{"/tmp/socket:[12345]", 0, false},
		{"socket:[]", 0, false},
		{"socket:[", 0, false},
		{"socket:[12345", 0, false},
		{"socket:12345]", 0, false},
		{"socket:[12345] ", 0, false},
		{"socket:[-1]", 0, false},
		{"socket:[0x1]", 0, false},
		{"socket:[18446744073709551616]", 0, false},
		{"[0000]:", 0, false},
		{"[0000]:[12345]", 0, false},
		{"[0001]:12345", 0, false},
	} {
		inode, isSocket := parseSocketLink([]byte(test.target))
		require.Equal(t, test.isSocket, isSocket, "%q", test.target)
		require.Equal(t, test.inode, inode, "%q", test.target)
	}
}

func TestFDWalk(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	walk := newFDWalk(newProcessCache(root, nil))
	defer walk.close()
	var (
		table  ownerTable
		before = map[int]*Process{}
	)
	for range 2 { // the second time it has the processes still
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
	require.Equal(t, ownerStats{}, stats, "no process with a stat that can be read")
}

func TestFDWalkMissing(t *testing.T) {
	walk := newFDWalk(newProcessCache(filepath.Join(t.TempDir(), "missing"), nil))
	defer walk.close()
	_, err := walk.refresh(t.Context(), &ownerTable{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "opening the proc file system: ")
}

func TestSocketWalk(t *testing.T) {
	walk := socketWalk{root: proctree.Materialize(t, brokenTree)}
	defer walk.dir.close()
	found := map[int][]uint64{}
	require.NoError(t, walk.each(t.Context(), func(pid int, inodes []uint64, _ error) { found[pid] = append([]uint64{}, inodes...) }))
	slices.Sort(found[1001])
	require.Equal(t, map[int][]uint64{1001: {0, 1<<64 - 1}, 1002: {}, 1003: {1}}, found)
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

func FuzzParseSocketLink(f *testing.F) {
	f.Fuzz(func(t *testing.T, target []byte) {
		inode, isSocket := parseSocketLink(target)
		if !isSocket {
			require.Zero(t, inode, "of %q", target)
			return
		}
		for _, again := range []string{fmt.Sprintf("socket:[%d]", inode), fmt.Sprintf("[0000]:%d", inode)} {
			got, isSocket := parseSocketLink([]byte(again))
			require.True(t, isSocket)
			require.Equal(t, inode, got)
		}
	})
}

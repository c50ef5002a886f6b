package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// descriptors creates the links of a fd directory.
func descriptors(t *testing.T, dir string, targets ...string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for fd, target := range targets {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, strconv.Itoa(fd))))
	}
}

// walkOnce returns the result of a walk for one process.
func walkOnce(t *testing.T, walk *SocketWalk, pid int) (inodes []uint64, err error) {
	t.Helper()
	require.NoError(t, walk.Each(t.Context(), func(of int, found []uint64, failed error) {
		if of == pid {
			inodes, err = append([]uint64(nil), found...), failed
		}
	}))
	return inodes, err
}

func TestThreadScanSchedule(t *testing.T) {
	const period, walks = 60, 600
	due := func(pid int) (numbers []uint32) {
		for n := uint32(1); n <= walks; n++ {
			if w := (fdState{pid: int32(pid), walks: n}); w.isDue() {
				numbers = append(numbers, n)
			}
		}
		return numbers
	}
	require.Equal(t, []uint32{1, 2, 4, 8, 10, 16, 32, 64, 70, 128, 130, 190, 250}, due(1010)[:13])
	perWalk := map[uint32]int{}
	for pid := range 10 * period {
		numbers := due(pid)
		require.Less(t, len(numbers), walks/period+11)
		last := uint32(0)
		for _, n := range numbers {
			require.LessOrEqual(t, n-last, uint32(period))
			last = n
			perWalk[n]++
		}
	}
	require.Equal(t, 10, perWalk[599], "processes take turns")
	unshared := fdState{walks: 3, unshared: true}
	require.True(t, unshared.isDue())
}

// Threads with the same number share a table.
func TestFDTables(t *testing.T) {
	errGone := errors.New("gone")
	table := map[int]int{7: 50, 8: 50, 9: 10, 10: 90, 11: 10, 12: 50, 13: 90, 14: 70}
	tables := fdTables{compare: func(tid, other int) (int, error) {
		if tid == 666 || other == 666 {
			return 0, errGone
		}
		return table[tid] - table[other], nil
	}}
	find := func(tids ...int) (isNew []int) {
		for _, tid := range tids {
			if at, ok := tables.find(tid); ok {
				isNew = append(isNew, tid)
				tables.seen = append(tables.seen[:at], append([]int{tid}, tables.seen[at:]...)...)
			}
		}
		return isNew
	}
	for range 2 { // nothing of the previous use remains
		tables.reset(7, true)
		require.Equal(t, []int{9, 10, 14}, find(8, 9, 666, 10, 11, 12, 13, 14, 7))
		require.Equal(t, []int{9, 7, 14, 10}, tables.seen)
	}
	tables.reset(7, false)
	require.Equal(t, []int{8, 9}, find(8, 9, 11, 12))

	tables.compare = nil
	tables.reset(7, true)
	require.Empty(t, find(8, 9))
	tables.reset(7, false)
	require.Equal(t, []int{8}, find(8, 9, 10), "one thread represents all others")
}

// In a copy of a proc file system there is no kernel that compares the tables of threads.
func TestThreadsInCopy(t *testing.T) {
	root := t.TempDir()
	process := filepath.Join(root, "70")
	descriptors(t, filepath.Join(process, "fd"), "/dev/null", "socket:[1]")
	descriptors(t, filepath.Join(process, "task", "70", "fd"), "/dev/null", "socket:[1]")
	descriptors(t, filepath.Join(process, "task", "71", "fd"), "socket:[1]", "socket:[2]")
	descriptors(t, filepath.Join(process, "task", "72", "fd"))
	descriptors(t, filepath.Join(process, "task", "no number", "fd"), "socket:[3]")
	walk := NewSocketWalk(root)
	defer walk.Close()
	for range 5 {
		inodes, err := walkOnce(t, walk, 70)
		require.NoError(t, err)
		require.ElementsMatch(t, []uint64{1, 1, 2}, inodes) // in the order of the directory
	}
}

// The walk searches the threads again as soon as the main thread has no descriptors.
func TestMainThreadEndsInCopy(t *testing.T) {
	root := t.TempDir()
	process := filepath.Join(root, "70")
	descriptors(t, filepath.Join(process, "fd"), "socket:[1]")
	walk := NewSocketWalk(root)
	defer walk.Close()
	for range 4 { // the fifth walk does not search threads by schedule
		inodes, err := walkOnce(t, walk, 70)
		require.NoError(t, err)
		require.Equal(t, []uint64{1}, inodes)
	}
	descriptors(t, filepath.Join(process, "task", "71", "fd"), "socket:[1]")
	require.NoError(t, os.Remove(filepath.Join(process, "fd", "0")))
	for range 20 {
		inodes, err := walkOnce(t, walk, 70)
		require.NoError(t, err)
		require.Equal(t, []uint64{1}, inodes)
	}
}

// An exiting thread has no table, and does not stand for the others.
func TestThreadWithoutTableInCopy(t *testing.T) {
	root := t.TempDir()
	threads := filepath.Join(root, "70", "task")
	descriptors(t, filepath.Join(root, "70", "fd"))
	descriptors(t, filepath.Join(threads, "71", "fd"))
	descriptors(t, filepath.Join(threads, "72", "fd"), "socket:[1]")
	descriptors(t, filepath.Join(threads, "73", "fd"), "socket:[1]")
	walk := &SocketWalk{root: root, isOrdered: true}
	defer walk.Close()
	for range 5 {
		inodes, err := walkOnce(t, walk, 70)
		require.NoError(t, err)
		require.Equal(t, []uint64{1}, inodes)
	}
}

// Each table is read once, however many threads share it.
func TestTablesAreReadOnce(t *testing.T) {
	const threads, tables = 60, 10
	tableOf := func(tid int) int { return tid * 7 % tables }
	root := t.TempDir()
	process := filepath.Join(root, "70")
	descriptors(t, filepath.Join(process, "fd"), "socket:[100]") // the table of thread 70
	for tid := 70; tid < 70+threads; tid++ {
		descriptors(t, filepath.Join(process, "task", strconv.Itoa(tid), "fd"), fmt.Sprintf("socket:[%d]", 100+tableOf(tid)))
	}
	walk := &SocketWalk{root: root, isOrdered: true}
	walk.tables.compare = func(tid, other int) (int, error) { return tableOf(tid) - tableOf(other), nil }
	defer walk.Close()
	for range 5 {
		inodes, err := walkOnce(t, walk, 70)
		require.NoError(t, err)
		slices.Sort(inodes)
		require.Equal(t, []uint64{100, 101, 102, 103, 104, 105, 106, 107, 108, 109}, inodes)
	}
}

// The state of one process is not used for another, however processes start and end.
func TestWalkKeepsStatePerProcess(t *testing.T) {
	root := t.TempDir()
	walk := NewSocketWalk(root)
	defer walk.Close()
	walks := map[int]uint32{}
	for round := range 40 {
		for pid := 1; pid <= 6; pid++ {
			dir := filepath.Join(root, strconv.Itoa(pid))
			require.NoError(t, os.RemoveAll(dir))
			if (round/pid)%2 == 1 {
				delete(walks, pid)
				continue
			}
			descriptors(t, filepath.Join(dir, "fd"), "socket:[1]")
			walks[pid]++
		}
		require.NoError(t, walk.Each(t.Context(), func(int, []uint64, error) {}))
		got := map[int]uint32{}
		for _, w := range walk.previous {
			got[int(w.pid)] = w.walks
		}
		require.Equal(t, walks, got, "round %d", round)
	}
}

// Threads that share one table cost nothing, except when they are compared.
func TestThreadsWithSharedTable(t *testing.T) {
	const threads, walks = 500, 600
	root := t.TempDir()
	process := filepath.Join(root, "70")
	descriptors(t, filepath.Join(process, "fd"), "socket:[1]")
	for tid := 70; tid < 70+threads; tid++ {
		require.NoError(t, os.MkdirAll(filepath.Join(process, "task", strconv.Itoa(tid)), 0o755))
	}
	compared := 0
	walk := &SocketWalk{root: root, isOrdered: true}
	walk.tables.compare = func(int, int) (int, error) { compared++; return 0, nil }
	defer walk.Close()
	for range walks {
		inodes, err := walkOnce(t, walk, 70)
		require.NoError(t, err)
		require.Equal(t, []uint64{1}, inodes)
	}
	require.LessOrEqual(t, compared, threads*(walks/60+10))
	require.GreaterOrEqual(t, compared, threads*walks/60)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := walk.Each(t.Context(), func(int, []uint64, error) {}); err != nil {
			t.Fatal(err)
		}
	}))
}

// Threads that cannot be read cause an error, and are read again in the next walk.
func TestThreadErrors(t *testing.T) {
	root := t.TempDir()
	process := filepath.Join(root, "70")
	descriptors(t, filepath.Join(process, "fd"), "socket:[1]")
	file := filepath.Join(process, "task")
	require.NoError(t, os.WriteFile(file, nil, 0o600)) // not a directory
	walk := NewSocketWalk(root)
	defer walk.Close()
	for range 3 {
		inodes, err := walkOnce(t, walk, 70)
		require.ErrorContains(t, err, "not a directory")
		require.Equal(t, []uint64{1}, inodes)
	}
	require.NoError(t, os.Remove(file))
	descriptors(t, filepath.Join(file, "71", "fd"), "socket:[2]")
	inodes, err := walkOnce(t, walk, 70)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2}, inodes)

	require.NoError(t, os.Rename(filepath.Join(file, "71"), filepath.Join(file, "72")))
	require.NoError(t, os.RemoveAll(filepath.Join(file, "72", "fd")))
	require.NoError(t, os.WriteFile(filepath.Join(file, "72", "fd"), nil, 0o600))
	inodes, err = walkOnce(t, walk, 70)
	require.ErrorContains(t, err, "not a directory")
	require.NotErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, []uint64{1}, inodes)
}

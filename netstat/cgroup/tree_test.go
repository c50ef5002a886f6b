package cgroup

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeFS is a cgroup2 file system that counts its walks.
type fakeFS struct {
	paths map[uint64]string
	err   error
	takes time.Duration
	walks int
}

func (f *fakeFS) each(visit func(id uint64, path string) bool) error {
	f.walks++
	time.Sleep(f.takes)
	for id, path := range f.paths {
		if !visit(id, path) {
			return nil
		}
	}
	return f.err
}

var _ fileSystem = (*fakeFS)(nil)

func requirePath(t *testing.T, tree *Tree, id uint64, want string) {
	t.Helper()
	path, ok := tree.Path(id)
	require.True(t, ok, "cgroup %d", id)
	require.Equal(t, want, path)
}

func requireNoPath(t *testing.T, tree *Tree, id uint64) {
	t.Helper()
	path, ok := tree.Path(id)
	require.False(t, ok, "cgroup %d", id)
	require.Empty(t, path)
}

func TestTree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &fakeFS{paths: map[uint64]string{1: "/", 20: "/a"}}
		tree := newTree(fs)
		requirePath(t, tree, 1, "/")
		requirePath(t, tree, 20, "/a")
		require.Equal(t, 1, fs.walks, "read once")

		requireNoPath(t, tree, 30)
		requireNoPath(t, tree, 30)
		require.Equal(t, 2, fs.walks, "not read again for an unknown id")

		fs.paths = map[uint64]string{1: "/", 40: "/b\xff\\x2d"}
		requirePath(t, tree, 40, "/b\xff\\x2d")
		requirePath(t, tree, 20, "/a") // already removed
		require.Equal(t, 3, fs.walks)

		fs.paths = map[uint64]string{1: "/", 20: "/c", 50: "/d"} // kernels with 32-bit ids reuse them
		requirePath(t, tree, 50, "/d")
		requirePath(t, tree, 20, "/c")
		require.Equal(t, 4, fs.walks)
		require.NoError(t, tree.Err())
	})
}

// An error is reported by Err, does not prove that a cgroup does not exist, and is retried.
func TestTreeError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		fs := &fakeFS{paths: map[uint64]string{1: "/"}, err: broken}
		tree := newTree(fs)
		requireNoPath(t, tree, 20)
		require.ErrorIs(t, tree.Err(), broken)
		requirePath(t, tree, 1, "/")

		fs.paths[20], fs.err = "/a", nil
		requirePath(t, tree, 20, "/a")
		require.NoError(t, tree.Err())
	})
}

// However many unknown ids there are, walks take no more than their share of the time.
func TestTreeTimeIsBounded(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := &fakeFS{takes: takes}
				tree := newTree(fs)
				start, id := time.Now(), uint64(0)
				for time.Since(start) < time.Hour {
					for range 100 {
						id++
						requireNoPath(t, tree, id)
					}
					time.Sleep(10 * time.Second)
				}
				spent := time.Duration(fs.walks) * takes
				require.Less(t, spent, time.Since(start)/walkShare+walkCredit+takes)
				require.Greater(t, spent, min(time.Since(start)/walkShare, 360*walkCredit)*8/10, "walks use their share")

				time.Sleep(time.Hour)
				fs.paths = map[uint64]string{id + 1: "/new"}
				requirePath(t, tree, id+1, "/new")
				require.LessOrEqual(t, len(tree.missing), maxMissing)
			})
		})
	}
}

// A long time without unknown ids permits no more walks than a short one.
func TestTreeTimeIsNotSavedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &fakeFS{takes: walkCredit / 10}
		tree := newTree(fs)
		time.Sleep(time.Hour)
		for id := range uint64(100) {
			requireNoPath(t, tree, id)
		}
		require.InDelta(t, 10, fs.walks, 1)
	})
}

// Of removed cgroups those looked up last are kept, up to a limit.
func TestTreeMemoryIsBounded(t *testing.T) {
	const generations, each = 10, maxRemoved / 4
	synctest.Test(t, func(t *testing.T) {
		fs := &fakeFS{paths: map[uint64]string{1: "/", 2: "/asked for"}}
		tree := newTree(fs)
		requirePath(t, tree, 2, "/asked for")
		for generation := range generations {
			fs.paths = map[uint64]string{1: "/"}
			for i := range each {
				fs.paths[uint64(1000*(generation+1)+i)] = fmt.Sprintf("/%d/%d", generation, i)
			}
			requirePath(t, tree, uint64(1000*(generation+1)), fmt.Sprintf("/%d/0", generation))
			requirePath(t, tree, 2, "/asked for")
			require.LessOrEqual(t, len(tree.known), maxRemoved+1+each)
		}
		requirePath(t, tree, 1000*generations-1000+7, "/8/7") // never looked up, but removed recently
		requireNoPath(t, tree, 1007)
	})
}

// Of a tree that is too big, as many cgroups as fit are kept, from the top.
func TestTreeTooBig(t *testing.T) {
	tree := newTree(endlessFS{})
	requirePath(t, tree, 1, endlessFS{}.path(1))
	requireNoPath(t, tree, 1<<30)
	require.ErrorIs(t, tree.Err(), errTooMany)
	require.Less(t, len(tree.known), maxBytes/4096+1)
}

type endlessFS struct{}

func (endlessFS) path(id uint64) string { return fmt.Sprintf("/%04000d", id) }

func (e endlessFS) each(visit func(id uint64, path string) bool) error {
	for id := uint64(1); visit(id, e.path(id)); id++ {
	}
	return nil
}

func TestTreePathDoesNotAllocate(t *testing.T) {
	tree := newTree(&fakeFS{paths: map[uint64]string{1: "/"}})
	requireNoPath(t, tree, 2)
	require.Zero(t, testing.AllocsPerRun(10, func() {
		_, known := tree.Path(1)
		_, unknown := tree.Path(2)
		if !known || unknown {
			t.Fatal("wrong")
		}
	}))
}

func TestNewTreeErrors(t *testing.T) {
	root := t.TempDir()
	_, err := NewTree(root)
	require.ErrorIs(t, err, ErrNotMounted)
	if runtime.GOOS == "linux" {
		require.EqualError(t, err, "no cgroup2 file system is mounted: "+root+" is not a proc file system but a copy of one")
	}
}

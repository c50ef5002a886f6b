package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

func mustTree(tb testing.TB) *Tree {
	tb.Helper()
	tree, err := NewTree("")
	require.NoError(tb, err)
	return tree
}

// The ids of cgroups are the inode numbers in their file handles, at every depth.
func TestCgroup2(t *testing.T) {
	testnet.SkipIfShort(t)
	dir, path := testnet.Cgroup(t, "a/b/c")
	mount := strings.TrimSuffix(dir, path)
	ids, want := map[string]uint64{}, []string{}
	for ; ; path = filepath.Dir(path) {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, mount+path, 0)
		require.NoError(t, err)
		ids[path] = binary.NativeEndian.Uint64(handle.Bytes())
		want = append([]string{path}, want...)
		if path == "/" {
			break
		}
	}
	fs, got := mustTree(t).fs, []string{}
	require.NoError(t, fs.each(func(id uint64, path string) bool {
		if _, wanted := ids[path]; wanted {
			require.Equal(t, ids[path], id, path)
			got = append(got, path)
		}
		return true
	}))
	require.Equal(t, want, got, "parents before children")

	calls := 0
	require.NoError(t, fs.each(func(uint64, string) bool { calls++; return calls < 2 }))
	require.Equal(t, 2, calls)
}

// inNamespaces runs f on a thread in new namespaces: a mount namespace and those in the flags others. The trees that open returns
// see the mounts of that thread.
func inNamespaces(t *testing.T, others int, f func(open func() (*Tree, error))) {
	t.Helper()
	denied, done := false, make(chan struct{})
	testnet.StartThread(0, 0, func() {
		defer close(done)
		err := unix.Unshare(unix.CLONE_NEWNS | others)
		if denied = errors.Is(err, unix.EPERM); denied {
			return
		}
		require.NoError(t, err)
		require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		f(func() (*Tree, error) {
			fs := &cgroup2{mountinfo: "/proc/thread-self/mountinfo"}
			fd, err := fs.open()
			if err != nil {
				return nil, err
			}
			return newTree(fs), unix.Close(fd)
		})
	})
	<-done
	if denied {
		testnet.SkipOrFail(t, "another mount namespace requires CAP_SYS_ADMIN")
	}
}

// The id of an already removed cgroup is searched for once.
func TestTreeRemovedCgroup(t *testing.T) {
	testnet.SkipIfShort(t)
	dir, _ := testnet.Cgroup(t, "removed")
	id, tree := directoryInode(t, dir), mustTree(t)
	require.NoError(t, unix.Rmdir(dir))
	t.Cleanup(func() { _ = os.Mkdir(dir, 0o755) }) // testnet.Cgroup removes it
	for range 3 {
		requireNoPath(t, tree, id)
		require.NoError(t, tree.Err())
	}
	require.Equal(t, uint64(1), tree.walks)
}

// The file system is found at any mount point, even if only a part is mounted or another mount hides it, and again after it has
// moved.
func TestCgroup2IsFound(t *testing.T) {
	testnet.SkipIfShort(t)
	dir, path := testnet.Cgroup(t, "a/b")
	id, outer := directoryInode(t, dir), directoryInode(t, filepath.Dir(dir))
	mount, scratch := strings.TrimSuffix(dir, path), t.TempDir()
	inNamespaces(t, 0, func(open func() (*Tree, error)) {
		require.NoError(t, unix.Mount("tmpfs", scratch, "tmpfs", 0, ""))
		part, whole := filepath.Join(scratch, "part"), filepath.Join(scratch, "a whole\n\\040")
		for to, from := range map[string]string{whole: mount, part: filepath.Dir(dir)} {
			require.NoError(t, os.Mkdir(to, 0o755))
			require.NoError(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
		}
		at := func(c *Tree) string { return c.fs.(*cgroup2).mount.point }
		c, err := open()
		require.NoError(t, err)
		require.Equal(t, mount, at(c))
		require.NoError(t, unix.Mount("tmpfs", mount, "tmpfs", 0, ""))
		requirePath(t, c, id, path)
		require.Equal(t, whole, at(c), "the first mount is hidden")

		require.NoError(t, unix.Unmount(whole, 0), "it is not kept busy")
		c, err = open()
		require.NoError(t, err)
		require.Equal(t, part, at(c))
		requirePath(t, c, id, path)
		requirePath(t, c, outer, filepath.Dir(path))
		requireNoPath(t, c, 1)
		require.NoError(t, c.Err())

		require.NoError(t, unix.Unmount(part, 0))
		requireNoPath(t, c, 2)
		require.ErrorIs(t, c.Err(), ErrNotMounted)
		require.EqualError(t, c.Err(), ErrNotMounted.Error()+"; another file system is mounted over "+mount)
		requirePath(t, c, id, path) // back to the initial state
		_, err = open()
		require.ErrorIs(t, err, ErrNotMounted)
	})
}

// File systems mounted within the tree are not read as cgroups.
func TestCgroup2WithMounts(t *testing.T) {
	testnet.SkipIfShort(t)
	dir, path := testnet.Cgroup(t, "a")
	inNamespaces(t, 0, func(open func() (*Tree, error)) {
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
		require.NoError(t, os.Mkdir(filepath.Join(dir, "b"), 0o755))
		c, err := open()
		require.NoError(t, err)
		var below []string
		require.NoError(t, c.fs.each(func(_ uint64, p string) bool {
			if strings.HasPrefix(p, path) {
				below = append(below, p)
			}
			return true
		}))
		require.Equal(t, []string{path}, below)
	})
}

// Cgroups that are created and removed while the tree is read cause no errors, and hide no others.
func TestCgroup2Churn(t *testing.T) {
	testnet.SkipIfShort(t)
	dir, path := testnet.Cgroup(t, "a")
	churn := filepath.Join(filepath.Dir(dir), "churn")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			_ = os.MkdirAll(filepath.Join(churn, "b", "c"), 0o755)
			for dir := filepath.Join(churn, "b", "c"); dir != filepath.Dir(churn); dir = filepath.Dir(dir) {
				_ = unix.Rmdir(dir)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	defer func() { close(stop); <-done }()
	c := mustTree(t)
	for range 500 {
		found := false
		require.NoError(t, c.fs.each(func(_ uint64, p string) bool {
			found = found || p == path
			return true
		}))
		require.True(t, found)
	}
}

// In a cgroup namespace the paths are those in /proc/<pid>/cgroup, unless the root of the hierarchy is visible.
func TestCgroup2InCgroupNamespace(t *testing.T) {
	testnet.Isolate(t, func() {
		dir, path := testnet.Cgroup(t, "a/b")
		id, outer := directoryInode(t, dir), directoryInode(t, filepath.Dir(dir))
		mount := strings.TrimSuffix(dir, path)
		moveTo := func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o600))
		}
		moveTo(filepath.Dir(dir))
		defer moveTo(mount)
		inNamespaces(t, unix.CLONE_NEWCGROUP, func(open func() (*Tree, error)) {
			c, err := open()
			require.NoError(t, err)
			require.Equal(t, "/../..", c.fs.(*cgroup2).mount.root)
			requirePath(t, c, id, path)

			require.NoError(t, unix.Unmount(mount, unix.MNT_DETACH))
			require.NoError(t, unix.Mount("cgroup2", mount, "cgroup2", 0, ""))
			c, err = open()
			require.NoError(t, err)
			requirePath(t, c, id, "/b")
			requirePath(t, c, outer, "/")
			requireNoPath(t, c, 1)
			require.NoError(t, c.Err())
		})
	})
}

func directoryInode(t *testing.T, dir string) uint64 {
	t.Helper()
	var stat unix.Stat_t
	require.NoError(t, unix.Stat(dir, &stat))
	return stat.Ino
}

// subdirent is a struct linux_dirent64.
func subdirent(inode uint64, kind byte, name string) []byte {
	const header, alignment = 19, 8
	reclen := (header + len(name) + 1 + alignment - 1) / alignment * alignment
	b := binary.NativeEndian.AppendUint64(make([]byte, 0, reclen), inode)
	b = binary.NativeEndian.AppendUint64(b, 0)
	b = binary.NativeEndian.AppendUint16(b, uint16(reclen))
	b = append(append(b, kind), name...)
	return append(b, make([]byte, reclen-len(b))...)
}

func TestEachSubdir(t *testing.T) {
	a, b := subdirent(20, unix.DT_DIR, "a"), subdirent(1<<40, unix.DT_DIR, "b c\xff")
	for _, test := range []struct {
		name    string
		entries [][]byte
		want    string
	}{
		{"nothing", nil, ""},
		{"two", [][]byte{a, b}, "20=a 1099511627776=b c\xff "},
		{"others", [][]byte{
			subdirent(1, unix.DT_DIR, "."), subdirent(1, unix.DT_DIR, ".."), subdirent(3, unix.DT_REG, "cgroup.procs"),
			subdirent(4, unix.DT_LNK, "link"), subdirent(5, unix.DT_DIR, ""), a,
		}, "20=a "},
		{"cut off", [][]byte{a, b[:20]}, "20=a "},
		{"length 0", [][]byte{a, make([]byte, 24), b}, "20=a "},
	} {
		t.Run(test.name, func(t *testing.T) {
			entries, got := bytes.Join(test.entries, nil), ""
			require.True(t, procfs.EachDirent(entries, subdir(func(inode uint64, name string) bool {
				got += fmt.Sprintf("%d=%s ", inode, name)
				return true
			})))
			require.Equal(t, test.want, got)
		})
	}
	calls := 0
	require.False(t, procfs.EachDirent(append(a, b...), subdir(func(uint64, string) bool { calls++; return false })))
	require.Equal(t, 1, calls)
}

// A name lies within the entries, is not empty, and is that of a child.
func FuzzEachSubdir(f *testing.F) {
	f.Add(bytes.Join([][]byte{subdirent(1, unix.DT_DIR, ".."), subdirent(20, unix.DT_DIR, "a"), subdirent(3, unix.DT_REG, "b")}, nil))
	f.Fuzz(func(t *testing.T, entries []byte) {
		procfs.EachDirent(entries, subdir(func(inode uint64, name string) bool {
			require.NotContains(t, []string{"", ".", ".."}, name)
			require.NotContains(t, name, "\x00")
			require.Contains(t, string(entries), string(binary.NativeEndian.AppendUint64(nil, inode)))
			require.Contains(t, string(entries), name+"\x00")
			return true
		}))
	})
}

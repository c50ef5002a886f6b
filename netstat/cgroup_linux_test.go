package netstat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

func mustCgroups(tb testing.TB) *Cgroups {
	tb.Helper()
	c, err := NewCgroups("")
	require.NoError(tb, err)
	return c
}

// cgroupPaths returns the path of the cgroup of each socket that has one, by its cookie.
func cgroupPaths(t *testing.T, s *Scanner, c *Cgroups) map[uint64]string {
	t.Helper()
	paths := map[uint64]string{}
	mustScan(t, s, func(s *Socket) any {
		if s.Has(FieldCgroupID) {
			path, ok := c.Path(s.CgroupID)
			require.True(t, ok, "cgroup %d", s.CgroupID)
			paths[s.Cookie] = path
		}
		return nil
	})
	require.NoError(t, c.Err())
	return paths
}

// connectAll makes a listener, a connection to it and its other end, all of the process.
func connectAll(p *testnet.Proc) []testnet.Socket {
	listener := p.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 5)
	sockets := append(p.Connect(listener.Local, 1), listener)
	return append(sockets, p.Accept(listener, 1)...)
}

// The scanner, the tree, the process and ss agree on the cgroup of every socket.
func TestCgroupsOfSockets(t *testing.T) {
	testnet.Isolate(t, func() {
		scanner, cgroups := newScanner(t, ScannerConfig{OwnerMethod: OwnersOff}), mustCgroups(t)
		want := map[uint64]string{}
		start := func(name string) (proc *testnet.Proc, dir, path string) {
			dir, path = testnet.Cgroup(t, name)
			proc = testnet.Start(t, testnet.Process{Name: "in a cgroup", Cgroup: dir})
			for _, socket := range connectAll(proc) {
				want[socket.Cookie] = path
			}
			require.Equal(t, path, (&Process{PID: proc.PID, root: "/proc"}).Cgroup())
			return proc, dir, path
		}
		start("a.service")
		start(`b c\x2d:` + "\xff")
		paths := cgroupPaths(t, scanner, cgroups)
		require.Subset(t, paths, want)

		rows := 0
		for _, row := range testnet.SS(t, "-t", "--cgroup") {
			if path, ok := want[row.Cookie]; ok {
				require.Contains(t, row.Line, "cgroup:"+path)
				rows++
			}
		}
		require.Equal(t, len(want), rows)

		// One that is made when the tree was read already.
		proc, dir, path := start("later/below.scope")
		require.Subset(t, cgroupPaths(t, scanner, cgroups), want)

		// One that is removed while its sockets live on, held by a process elsewhere.
		mount := strings.TrimSuffix(dir, path)
		require.NoError(t, os.WriteFile(filepath.Join(mount, "cgroup.procs"), []byte(strconv.Itoa(proc.PID)), 0o600))
		require.NoError(t, unix.Rmdir(dir))
		t.Cleanup(func() { _ = os.Mkdir(dir, 0o755) }) // for Cgroup to remove
		start("even later")
		require.Subset(t, cgroupPaths(t, scanner, cgroups), want)

		// Who did not know it while it was there cannot know it, and does not look again and again.
		late := mustCgroups(t)
		for range 3 {
			unknown := 0
			mustScan(t, scanner, func(s *Socket) any {
				if _, ok := late.Path(s.CgroupID); s.Has(FieldCgroupID) && !ok {
					require.Equal(t, path, want[s.Cookie])
					unknown++
				}
				return nil
			})
			require.Equal(t, 3, unknown)
			require.NoError(t, late.Err())
		}
		require.LessOrEqual(t, late.walks, uint64(2))
	})
}

// Any user may know the cgroups of all sockets.
func TestCgroupsAsUser(t *testing.T) {
	testnet.Isolate(t, func() {
		if os.Getuid() != 0 {
			testnet.SkipOrFail(t, "becoming another user wants root")
		}
		dir, path := testnet.Cgroup(t, "of root/with others' sockets.service")
		want := map[uint64]string{}
		proc := testnet.Start(t, testnet.Process{Name: "server", Cgroup: dir})
		for _, socket := range connectAll(proc) {
			want[socket.Cookie] = path
		}
		// Of all threads. The saved user id allows to come back.
		require.NoError(t, syscall.Setresuid(65534, 65534, 0))
		defer func() { require.NoError(t, syscall.Setresuid(0, 0, 0)) }()
		paths := cgroupPaths(t, newScanner(t, ScannerConfig{}), mustCgroups(t))
		require.Subset(t, paths, want)
		require.Equal(t, path, (&Process{PID: proc.PID, root: "/proc"}).Cgroup())
	})
}

// The ids are those that the kernel tells in a file handle too, at every depth.
func TestCgroupFS(t *testing.T) {
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
	tree, got := mustCgroups(t).tree, []string{}
	require.NoError(t, tree.each(func(id uint64, path string) bool {
		if _, wanted := ids[path]; wanted {
			require.Equal(t, ids[path], id, path)
			got = append(got, path)
		}
		return true
	}))
	require.Equal(t, want, got, "those of a level before those below")

	calls := 0
	require.NoError(t, tree.each(func(uint64, string) bool { calls++; return calls < 2 }))
	require.Equal(t, 2, calls)
}

// inNamespaces runs f on a thread in a mount namespace and others of its own, with the cgroups as that thread sees them.
func inNamespaces(t *testing.T, others int, f func(open func() (*Cgroups, error))) {
	t.Helper()
	denied := false
	onThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNS | others)
		if denied = errors.Is(err, unix.EPERM); denied {
			return
		}
		require.NoError(t, err)
		require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		f(func() (*Cgroups, error) {
			tree := &cgroupFS{mountinfo: "/proc/thread-self/mountinfo"}
			fd, err := tree.open()
			if err != nil {
				return nil, err
			}
			return newCgroups(tree), unix.Close(fd)
		})
	})
	if denied {
		testnet.SkipOrFail(t, "another mount namespace wants CAP_SYS_ADMIN")
	}
}

// The file system is found where it is mounted, in part or under another one, and again when it has moved.
func TestCgroupFSIsFound(t *testing.T) {
	dir, path := testnet.Cgroup(t, "a/b")
	id, outer := directoryInode(t, dir), directoryInode(t, filepath.Dir(dir))
	mount, scratch := strings.TrimSuffix(dir, path), t.TempDir()
	inNamespaces(t, 0, func(open func() (*Cgroups, error)) {
		require.NoError(t, unix.Mount("tmpfs", scratch, "tmpfs", 0, ""))
		part, whole := filepath.Join(scratch, "part"), filepath.Join(scratch, "a whole\n\\040")
		for to, from := range map[string]string{whole: mount, part: filepath.Dir(dir)} {
			require.NoError(t, os.Mkdir(to, 0o755))
			require.NoError(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
		}
		at := func(c *Cgroups) string { return c.tree.(*cgroupFS).mount.point }
		c, err := open()
		require.NoError(t, err)
		require.Equal(t, mount, at(c))
		require.NoError(t, unix.Mount("tmpfs", mount, "tmpfs", 0, ""))
		requirePath(t, c, id, path)
		require.Equal(t, whole, at(c), "the other is hidden now")

		require.NoError(t, unix.Unmount(whole, 0), "nothing keeps it from being unmounted")
		c, err = open()
		require.NoError(t, err)
		require.Equal(t, part, at(c))
		requirePath(t, c, id, path)
		requirePath(t, c, outer, filepath.Dir(path))
		requireNoPath(t, c, 1)
		require.NoError(t, c.Err())

		require.NoError(t, unix.Unmount(part, 0))
		requireNoPath(t, c, 2)
		require.ErrorIs(t, c.Err(), ErrNoCgroup2)
		require.EqualError(t, c.Err(), ErrNoCgroup2.Error()+"; another file system is mounted over "+mount)
		requirePath(t, c, id, path) // as it was
		_, err = open()
		require.ErrorIs(t, err, ErrNoCgroup2)
	})
}

// What is mounted within the tree is not taken for cgroups.
func TestCgroupFSWithMounts(t *testing.T) {
	dir, path := testnet.Cgroup(t, "a")
	inNamespaces(t, 0, func(open func() (*Cgroups, error)) {
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
		require.NoError(t, os.Mkdir(filepath.Join(dir, "b"), 0o755))
		c, err := open()
		require.NoError(t, err)
		var below []string
		require.NoError(t, c.tree.each(func(_ uint64, p string) bool {
			if strings.HasPrefix(p, path) {
				below = append(below, p)
			}
			return true
		}))
		require.Equal(t, []string{path}, below)
	})
}

// Cgroups that come and go while the tree is read are nobody's error, and hide none that stays.
func TestCgroupFSChurn(t *testing.T) {
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
	c := mustCgroups(t)
	for range 500 {
		found := false
		require.NoError(t, c.tree.each(func(_ uint64, p string) bool {
			found = found || p == path
			return true
		}))
		require.True(t, found)
	}
}

// In a cgroup namespace the paths begin as those in /proc/<pid>/cgroup do, unless the root of the hierarchy can be seen.
func TestCgroupFSInCgroupNamespace(t *testing.T) {
	testnet.Isolate(t, func() {
		dir, path := testnet.Cgroup(t, "a/b")
		id, outer := directoryInode(t, dir), directoryInode(t, filepath.Dir(dir))
		mount := strings.TrimSuffix(dir, path)
		moveTo := func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o600))
		}
		moveTo(filepath.Dir(dir))
		defer moveTo(mount)
		inNamespaces(t, unix.CLONE_NEWCGROUP, func(open func() (*Cgroups, error)) {
			c, err := open()
			require.NoError(t, err)
			require.Equal(t, "/../..", c.tree.(*cgroupFS).mount.root)
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

// A name lies within the entries, is not empty and leads no other way than down.
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

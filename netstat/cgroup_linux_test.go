package netstat

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/cgroup"
)

func newTree(tb testing.TB) *cgroup.Tree {
	tb.Helper()
	tree, err := cgroup.NewTree("")
	require.NoError(tb, err)
	return tree
}

// cgroupPaths returns the cgroup path of each socket that has one, by cookie.
func cgroupPaths(t *testing.T, s *Scanner, tree *cgroup.Tree) map[uint64]string {
	t.Helper()
	paths := map[uint64]string{}
	mustScan(t, s, func(s *Socket) any {
		if s.Has(FieldCgroupID) {
			path, ok := tree.Path(s.CgroupID)
			require.True(t, ok, "cgroup %d", s.CgroupID)
			paths[s.Cookie] = path
		}
		return nil
	})
	require.NoError(t, tree.Err())
	return paths
}

// connectAll opens a listener and both ends of a connection to it in the process.
func connectAll(p *testnet.Proc) []testnet.Socket {
	listener := p.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 5)
	sockets := append(p.Connect(listener.Local, 1), listener)
	return append(sockets, p.Accept(listener, 1)...)
}

// The scanner with the tree, /proc and ss agree on the cgroup of every socket.
func TestCgroupsOfSockets(t *testing.T) {
	testnet.Isolate(t, func() {
		scanner, tree := newScanner(t, ScannerConfig{OwnerMethod: OwnersOff}), newTree(t)
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
		paths := cgroupPaths(t, scanner, tree)
		require.Subset(t, paths, want)

		rows := 0
		for _, row := range testnet.SS(t, "-t", "--cgroup") {
			if path, ok := want[row.Cookie]; ok {
				require.Contains(t, row.Line, "cgroup:"+path)
				rows++
			}
		}
		require.Equal(t, len(want), rows)

		// A cgroup created after the tree was read.
		proc, dir, path := start("later/below.scope")
		require.Subset(t, cgroupPaths(t, scanner, tree), want)

		// A cgroup removed while a process of another cgroup holds its sockets.
		mount := strings.TrimSuffix(dir, path)
		require.NoError(t, os.WriteFile(filepath.Join(mount, "cgroup.procs"), []byte(strconv.Itoa(proc.PID)), 0o600))
		require.NoError(t, unix.Rmdir(dir))
		t.Cleanup(func() { _ = os.Mkdir(dir, 0o755) }) // testnet.Cgroup removes it
		start("even later")
		require.Subset(t, cgroupPaths(t, scanner, tree), want)

		// A tree that was created afterwards cannot find its path.
		late := newTree(t)
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
	})
}

// Any user can read the cgroups of all sockets.
func TestCgroupsAsUser(t *testing.T) {
	testnet.Isolate(t, func() {
		if os.Getuid() != 0 {
			testnet.SkipOrFail(t, "becoming another user requires root")
		}
		dir, path := testnet.Cgroup(t, "of root/with others' sockets.service")
		want := map[uint64]string{}
		proc := testnet.Start(t, testnet.Process{Name: "server", Cgroup: dir})
		for _, socket := range connectAll(proc) {
			want[socket.Cookie] = path
		}
		// This applies to all threads. The saved user ID permits the way back.
		require.NoError(t, syscall.Setresuid(65534, 65534, 0))
		defer func() { require.NoError(t, syscall.Setresuid(0, 0, 0)) }()
		paths := cgroupPaths(t, newScanner(t, ScannerConfig{}), newTree(t))
		require.Subset(t, paths, want)
		require.Equal(t, path, (&Process{PID: proc.PID, root: "/proc"}).Cgroup())
	})
}

// On a hybrid host with Docker and cgroups v1, the v2 cgroup of a container's process, and so of its sockets, is that of
// containerd. A named hierarchy stands for those of controllers, which other programs can be using.
func TestCgroupsOfHybridHost(t *testing.T) {
	const container = "/docker/8d3f0c5b9a71e264d3c0b5a49788f6e1d2c3b4a5968778695a4b3c2d1e0f1a2b"
	testnet.IsolateMounts(t, func() {
		dir, v2 := testnet.Cgroup(t, "containerd.service")
		p := testnet.Start(t, testnet.Process{Name: "in a container", Cgroup: dir})
		cgroupOf := func() string { return (&Process{PID: p.PID, root: "/proc"}).Cgroup() }
		require.Equal(t, v2, cgroupOf())

		mount, name := t.TempDir(), fmt.Sprintf("hybrid-%d", os.Getpid())
		mountV1 := func() error { return unix.Mount("cgroup", mount, "cgroup", 0, "none,name="+name) }
		v1 := func() (self []byte, exists bool) {
			self, _ = os.ReadFile("/proc/self/cgroup")
			return self, strings.Contains(string(self), ":name="+name+":/\n")
		}
		if err := mountV1(); errors.Is(err, unix.ENODEV) {
			testnet.SkipOrFail(t, "the kernel has no cgroups v1")
		} else {
			require.NoError(t, err)
		}
		t.Cleanup(func() {
			require.NoError(t, unix.Unmount(mount, 0))
			// The kernel destroys the hierarchy soon, but not if it had not freed the removed cgroups yet: then at the next unmount.
			polls := 0
			require.Eventually(t, func() bool {
				_, exists := v1()
				if polls++; exists && polls%100 == 0 && mountV1() == nil {
					_ = unix.Unmount(mount, 0)
				}
				return !exists
			}, time.Minute, 10*time.Millisecond)
		})
		self, exists := v1()
		require.True(t, exists)
		require.True(t, cgroup.HasV1(self))
		require.Equal(t, v2, cgroupOf(), "the process is in the root of v1")

		require.NoError(t, os.MkdirAll(mount+container, 0o755))
		t.Cleanup(func() {
			p.Stop()
			for dir := mount + container; dir != mount; dir = filepath.Dir(dir) {
				require.NoError(t, unix.Rmdir(dir))
			}
		})
		procs := filepath.Join(mount+container, "cgroup.procs")
		require.NoError(t, os.WriteFile(procs, strconv.AppendInt(nil, int64(p.PID), 10), 0))
		require.Equal(t, container, cgroupOf())
		sockets := connectAll(p)
		paths := cgroupPaths(t, newScanner(t, ScannerConfig{OwnerMethod: OwnersOff}), newTree(t))
		for _, socket := range sockets {
			require.Equal(t, v2, paths[socket.Cookie])
		}
	})
}

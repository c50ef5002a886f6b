package procfs

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A thread that leaves the shared table is found after at most 60 walks, and then in each.
func TestThreadLeavesTable(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		walk := NewSocketWalk("/proc")
		defer walk.Close()
		shared := testnet.BindUDP(t)
		ask, answers, end, tid := make(chan func(), 1), make(chan uint64), make(chan struct{}), 0
		testnet.StartThread(0, 0, func() {
			for f := range ask {
				f()
			}
			close(end)
		})
		walkSelf := func() []uint64 {
			inodes, err := walkOnce(t, walk, os.Getpid())
			require.NoError(t, err)
			return inodes
		}
		for range 5 {
			require.Contains(t, walkSelf(), shared)
		}
		require.NotNil(t, walk.tables.compare, "the kernel can compare tables")

		ask <- func() {
			assert.NoError(t, unix.Unshare(unix.CLONE_FILES))
			tid = unix.Gettid()
			answers <- testnet.BindUDP(t)
		}
		own := <-answers
		walks := 1
		for ; !slices.Contains(walkSelf(), own); walks++ {
			require.Less(t, walks, 60)
		}
		for range 5 {
			inodes := walkSelf()
			require.Contains(t, inodes, own)
			require.Equal(t, 2, count(inodes, shared), "once in each of two tables")
		}
		close(ask)
		<-end
		require.Eventually(t, func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
			return os.IsNotExist(err)
		}, 10*time.Second, time.Millisecond)
		require.Equal(t, 1, count(walkSelf(), shared))
		last := walk.previous[slices.IndexFunc(walk.previous, func(w fdState) bool { return int(w.pid) == os.Getpid() })]
		require.False(t, last.unshared)
	})
}

// If the main thread ends between two walks, each walk finds the sockets: even if the tables of threads cannot be compared, and
// for an unprivileged reader of the same user.
func TestMainThreadEnds(t *testing.T) {
	testnet.SkipIfShort(t)
	const nobody = 65534
	for name, prepare := range map[string]func(*testing.T, *SocketWalk){
		"kcmp": func(t *testing.T, w *SocketWalk) { t.Helper(); require.Nil(t, w.tables.compare) },
		"no kcmp": func(t *testing.T, w *SocketWalk) {
			t.Helper()
			w.isOrdered = true
		},
		"kcmp is refused": func(t *testing.T, w *SocketWalk) {
			t.Helper()
			w.tables.compare, w.isOrdered = func(int, int) (int, error) { return 0, unix.EPERM }, true
		},
		"nobody": func(t *testing.T, _ *SocketWalk) { t.Helper(); testnet.BecomeNobody(t) },
	} {
		t.Run(name, func(t *testing.T) {
			p := testnet.Start(t, testnet.Process{Name: "headless", UID: nobody, GID: nobody})
			sockets := []testnet.Socket{p.UDP("udp4", netip.AddrPort{}, netip.AddrPort{}), p.Listen("tcp4", netip.AddrPort{}, 5)}
			t.Run("walk", func(t *testing.T) {
				walk := NewSocketWalk("/proc")
				defer walk.Close()
				prepare(t, walk)
				buf := make([]byte, 4096)
				for i := range 7 {
					if i == 4 { // before the fifth walk, which does not search threads by schedule
						p.EndMainThread()
					}
					holders := map[uint64][]int{}
					require.NoError(t, walk.Each(t.Context(), func(pid int, inodes []uint64, _ error) {
						for _, inode := range inodes {
							holders[inode] = append(holders[inode], pid)
						}
					}))
					for _, s := range sockets {
						require.Equal(t, []int{p.PID}, slices.Compact(holders[s.Inode]), "walk %d", i)
					}
					content, err := walk.Dir().ReadFile(p.PID, "stat", buf)
					require.NoError(t, err)
					stat, err := ParseStat(content)
					require.NoError(t, err)
					require.Equal(t, "headless", string(stat.Comm))
				}
			})
		})
	}
}

// The directories of an exiting thread belong to root. That does not make its process denied.
func TestUnreadableThread(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(root), 0o755))
	process := filepath.Join(root, "70")
	descriptors(t, filepath.Join(process, "fd"), "socket:[1]")
	for tid := 71; tid <= 73; tid++ {
		descriptors(t, filepath.Join(process, "task", strconv.Itoa(tid), "fd"), fmt.Sprintf("socket:[%d]", tid))
	}
	unreadable := filepath.Join(process, "task", "72", "fd")
	require.NoError(t, os.Chmod(unreadable, 0))
	t.Cleanup(func() { _ = os.Chmod(unreadable, 0o700) }) // so that its owner can remove it
	t.Run("walk", func(t *testing.T) {
		if os.Geteuid() == 0 {
			testnet.BecomeNobody(t)
		}
		walk := NewSocketWalk(root)
		defer walk.Close()
		for range 3 {
			inodes, err := walkOnce(t, walk, 70)
			require.NoError(t, err)
			slices.Sort(inodes)
			require.Equal(t, []uint64{1, 71, 73}, inodes)
		}
	})
}

// If the proc file system numbers this process differently, the kernel cannot compare tables.
func TestFDTableOrder(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		compare, known := fdTableOrder("/proc")
		require.True(t, known)
		require.NotNil(t, compare)
		order, err := compare(unix.Getpid(), unix.Gettid())
		require.NoError(t, err)
		require.Zero(t, order)
		_, err = compare(unix.Getpid(), 1<<22) // beyond the highest pid (PID_MAX_LIMIT)
		require.ErrorIs(t, err, unix.ESRCH)

		dir := t.TempDir()
		p := testnet.Start(t, testnet.Process{Name: "inner", Proc: dir})
		compare, known = fdTableOrder(dir)
		require.True(t, known)
		require.Nil(t, compare, "this process is not visible")
		forward, err := compareFDTables(p.PID, unix.Getpid())
		require.NoError(t, err)
		backward, err := compareFDTables(unix.Getpid(), p.PID)
		require.NoError(t, err)
		require.NotZero(t, forward)
		require.Equal(t, forward, -backward)

		require.NoError(t, unix.Unmount("/proc", unix.MNT_DETACH)) // below it is that of the host
		compare, known = fdTableOrder("/proc")
		require.True(t, known)
		require.Nil(t, compare, "this process has another pid there")
	})
}

func TestFDTableOrderUnknown(t *testing.T) {
	testnet.Isolate(t, func() {
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: limit.Max})) // out of descriptors
		compare, known := fdTableOrder("/proc")
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		require.False(t, known)
		require.Nil(t, compare)
	})
}

func count(inodes []uint64, inode uint64) (n int) {
	for _, i := range inodes {
		if i == inode {
			n++
		}
	}
	return n
}

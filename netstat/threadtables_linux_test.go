package netstat

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

// A thread that leaves the table of the others at any time is found, at the latest after 60 walks, and then in each.
func TestThreadLeavesTable(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		walk := &socketWalk{root: "/proc"}
		defer walk.dir.close()
		shared := bindUDP(t)
		ask, answers, end, tid := make(chan func(), 1), make(chan uint64), make(chan struct{}), 0
		startThread(0, 0, func() {
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
		require.NotNil(t, walk.tables.compare, "the kernel compares")

		ask <- func() {
			assert.NoError(t, unix.Unshare(unix.CLONE_FILES))
			tid = unix.Gettid()
			answers <- bindUDP(t)
		}
		own := <-answers
		walks := 1
		for ; !slices.Contains(walkSelf(), own); walks++ {
			require.Less(t, walks, 60)
		}
		for range 5 {
			inodes := walkSelf()
			require.Contains(t, inodes, own)
			require.Equal(t, 2, count(inodes, shared), "it is in both tables, and the other threads share one")
		}
		close(ask)
		<-end
		require.Eventually(t, func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid))
			return os.IsNotExist(err)
		}, 10*time.Second, time.Millisecond)
		require.Equal(t, 1, count(walkSelf(), shared))
		last := walk.before[slices.IndexFunc(walk.before, func(w walked) bool { return int(w.pid) == os.Getpid() })]
		require.False(t, last.apart)
	})
}

// The sockets of a process whose main thread ends between two walks have their owner in all of them, also where the tables of
// threads cannot be compared, and for a reader who has no privileges but the same user.
func TestMainThreadEnds(t *testing.T) {
	const nobody = 65534
	for name, how := range map[string]func(*testing.T, *fdWalk){
		"kcmp": func(t *testing.T, w *fdWalk) { t.Helper(); require.Nil(t, w.sockets.tables.compare) },
		"no kcmp": func(t *testing.T, w *fdWalk) {
			t.Helper()
			w.sockets.isOrdered = true
		},
		"kcmp is refused": func(t *testing.T, _ *fdWalk) { t.Helper(); testnet.Forbid(t, unix.SYS_KCMP, unix.EPERM) },
		"nobody":          func(t *testing.T, _ *fdWalk) { t.Helper(); testnet.BecomeNobody(t) },
	} {
		t.Run(name, func(t *testing.T) {
			p := testnet.Start(t, testnet.Process{Name: "headless", UID: nobody, GID: nobody})
			sockets := []testnet.Socket{p.UDP("udp4", netip.AddrPort{}, netip.AddrPort{}), p.Listen("tcp4", netip.AddrPort{}, 5)}
			t.Run("walk", func(t *testing.T) {
				walk := newFDWalk(newProcessCache("/proc", nil))
				defer walk.close()
				how(t, walk)
				var table ownerTable
				for i := range 7 {
					if i == 4 { // before the fifth walk, which is none that looks for threads anyway
						p.EndMainThread()
					}
					_, err := walk.refresh(t.Context(), &table)
					require.NoError(t, err)
					for _, s := range sockets {
						owner := table.first(s.Inode)
						require.NotNil(t, owner, "walk %d", i)
						require.Equal(t, p.PID, owner.PID)
						require.Equal(t, "headless", owner.Name)
					}
				}
			})
		})
	}
}

// A zombie has no descriptors that could be missed, though its directory may not be read.
func TestZombieIsNotDenied(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		const nobody = 65534
		other := testnet.Start(t, testnet.Process{Name: "other"}) // of root
		zombie := testnet.Start(t, testnet.Process{Name: "zombie", UID: nobody, GID: nobody})
		require.NoError(t, unix.Kill(zombie.PID, unix.SIGKILL)) // nobody waits for it until the test ends
		require.Eventually(t, func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", zombie.PID))
			return err == nil && isZombie(stat)
		}, 10*time.Second, time.Millisecond)
		walkAsNobody := func(t *testing.T, walks int) {
			t.Helper()
			testnet.BecomeNobody(t)
			walk := newFDWalk(newProcessCache("/proc", nil))
			defer walk.close()
			for range walks {
				stats, err := walk.refresh(t.Context(), &ownerTable{})
				require.NoError(t, err)
				require.Equal(t, 1, stats.denied, "process %d", other.PID)
			}
		}
		t.Run("walk", func(t *testing.T) { walkAsNobody(t, 5) })
	})
}

// Kernel threads have no descriptors that could be missed either.
func TestKernelThreadIsNotDenied(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(root), 0o755))
	for pid, flags := range map[int]int{2: 0x00208040, 3: 0x04208060, 4: 0x00400040, 5: 0x00400140} {
		process := filepath.Join(root, strconv.Itoa(pid))
		require.NoError(t, os.MkdirAll(filepath.Join(process, "fd"), 0o755))
		stat := fmt.Sprintf("%d (name) S 0 0 0 0 -1 %d 0 0 0 0 0 0 0 0 20 0 1 0 %d 0\n", pid, flags, pid)
		require.NoError(t, os.WriteFile(filepath.Join(process, "stat"), []byte(stat), 0o644))
		require.NoError(t, os.Chmod(filepath.Join(process, "fd"), 0))
	}
	t.Run("walk", func(t *testing.T) {
		if os.Geteuid() == 0 {
			testnet.BecomeNobody(t)
		}
		walk := newFDWalk(newProcessCache(root, nil))
		defer walk.close()
		stats, err := walk.refresh(t.Context(), &ownerTable{})
		require.NoError(t, err)
		require.Equal(t, 2, stats.denied, "of processes 4 and 5")
	})
}

// The directories of a thread that is about to end are root's: that is no reason to count its process as denied.
func TestThreadThatMayNotBeRead(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(root), 0o755))
	process := filepath.Join(root, "70")
	descriptors(t, filepath.Join(process, "fd"), "socket:[1]")
	for tid := 71; tid <= 73; tid++ {
		descriptors(t, filepath.Join(process, "task", strconv.Itoa(tid), "fd"), fmt.Sprintf("socket:[%d]", tid))
	}
	require.NoError(t, os.Chmod(filepath.Join(process, "task", "72", "fd"), 0))
	t.Run("walk", func(t *testing.T) {
		if os.Geteuid() == 0 {
			testnet.BecomeNobody(t)
		}
		walk := &socketWalk{root: root}
		defer walk.dir.close()
		for range 3 {
			inodes, err := walkOnce(t, walk, 70)
			require.NoError(t, err)
			slices.Sort(inodes)
			require.Equal(t, []uint64{1, 71, 73}, inodes)
		}
	})
}

// Where the proc file system has other numbers than the kernel takes of this process, it is not asked to compare.
func TestTableOrder(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		compare, known := tableOrder("/proc")
		require.True(t, known)
		require.NotNil(t, compare)
		order, err := compare(unix.Getpid(), unix.Gettid())
		require.NoError(t, err)
		require.Zero(t, order)
		_, err = compare(unix.Getpid(), 1<<22) // beyond the highest pid (PID_MAX_LIMIT)
		require.ErrorIs(t, err, unix.ESRCH)

		dir := t.TempDir()
		p := testnet.Start(t, testnet.Process{Name: "inner", Proc: dir})
		compare, known = tableOrder(dir)
		require.True(t, known)
		require.Nil(t, compare, "it does not show this process")
		forward, err := compareTables(p.PID, unix.Getpid())
		require.NoError(t, err)
		backward, err := compareTables(unix.Getpid(), p.PID)
		require.NoError(t, err)
		require.NotZero(t, forward)
		require.Equal(t, forward, -backward)

		require.NoError(t, unix.Unmount("/proc", unix.MNT_DETACH)) // that of the host is below
		compare, known = tableOrder("/proc")
		require.True(t, known)
		require.Nil(t, compare, "it shows this process by another number")
	})
}

func TestTableOrderIsNotKnown(t *testing.T) {
	testnet.Isolate(t, func() {
		t.Run("out of descriptors", func(t *testing.T) {
			testnet.Forbid(t, unix.SYS_OPENAT, unix.EMFILE)
			compare, known := tableOrder("/proc")
			require.False(t, known)
			require.Nil(t, compare)
		})
	})
}

func TestShowsOwnPIDs(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tx\nNSpid:\t17\nNSpgid:\t17\t1\n": true,
		"NSpid:\t4711\t17\n":                     false,
		"Name:\tNSpid:\t17\nPid:\t17\n":          false, // before Linux 4.1
		"NSpid:\n":                               false,
		"":                                       false,
	} {
		require.Equal(t, want, showsOwnPIDs([]byte(status)), "%q", status)
	}
}

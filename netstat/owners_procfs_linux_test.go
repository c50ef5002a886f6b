package netstat

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// openSocket returns a UDP socket and its inode.
func openSocket(t *testing.T) (*os.File, uint64) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	file := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { _ = file.Close() })
	var stat unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &stat))
	return file, stat.Ino
}

// The walk skips processes that end meanwhile, without an error.
func TestFDWalkVanishingProcesses(t *testing.T) {
	root := t.TempDir()
	process := func(pid int) string { return filepath.Join(root, strconv.Itoa(pid)) }
	for pid := 1; pid <= 4; pid++ {
		require.NoError(t, os.MkdirAll(filepath.Join(process(pid), "fd"), 0o755))
		require.NoError(t, os.Symlink(fmt.Sprintf("socket:[%d]", pid), filepath.Join(process(pid), "fd", "3")))
		stat := fmt.Sprintf("%d (name) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 %d 0\n", pid, pid)
		require.NoError(t, os.WriteFile(filepath.Join(process(pid), "stat"), []byte(stat), 0o600))
	}
	walk := procfs.NewSocketWalk(root)
	defer walk.Close()
	cache := newProcessCache(root, nil)
	var seen []string
	require.NoError(t, walk.Each(t.Context(), func(pid int, inodes []uint64, err error) {
		switch pid {
		case 1:
			require.NoError(t, os.RemoveAll(process(2)))                     // before it is read
			require.NoError(t, os.Remove(filepath.Join(process(3), "fd/3"))) // only a descriptor
		case 4:
			require.NoError(t, os.Remove(filepath.Join(process(4), "stat"))) // after its descriptors were read, before its name
		}
		require.True(t, err == nil || vanished(err), "%v", err)
		seen = append(seen, fmt.Sprint(pid, inodes, cache.get(walk.Dir(), pid) != nil))
	}))
	require.Equal(t, []string{"1 [1] true", "2 [] false", "3 [] true", "4 [4] false"}, seen)
}

// A zombie does not count as denied although its fd directory cannot be read: it has no descriptors.
func TestZombieIsNotDenied(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		const nobody = 65534
		other := testnet.Start(t, testnet.Process{Name: "other"}) // runs as root
		zombie := testnet.Start(t, testnet.Process{Name: "zombie", UID: nobody, GID: nobody})
		require.NoError(t, unix.Kill(zombie.PID, unix.SIGKILL)) // it stays a zombie until the test ends
		require.Eventually(t, func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", zombie.PID))
			return err == nil && procfs.IsZombie(stat)
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

// A kernel thread does not count as denied: it has no descriptors.
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

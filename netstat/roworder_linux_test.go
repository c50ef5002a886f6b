package netstat

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// openCounter counts how often files are opened, by inotify(7).
type openCounter struct {
	t    *testing.T
	fd   int
	name map[int32]string
}

func countOpens(t *testing.T, files ...string) *openCounter {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	c := &openCounter{t, fd, map[int32]string{}}
	for _, file := range files {
		watch, err := unix.InotifyAddWatch(fd, file, unix.IN_OPEN|unix.IN_CLOSE_NOWRITE) // alternate, so that none are merged
		require.NoError(t, err)
		c.name[int32(watch)] = filepath.Base(file)
	}
	return c
}

// since returns the opens since the last call.
func (c *openCounter) since() map[string]int {
	c.t.Helper()
	opens := map[string]int{}
	var buf [4096]byte
	n, err := unix.Read(c.fd, buf[:])
	if err != nil {
		require.Equal(c.t, unix.EAGAIN, err)
	}
	for b := buf[:max(n, 0)]; len(b) > 0; b = b[unix.SizeofInotifyEvent:] { // an event of a file has no name
		if mask := hostOrder.Uint32(b[4:]); mask&unix.IN_OPEN != 0 {
			opens[c.name[int32(hostOrder.Uint32(b))]]++
		}
	}
	return opens
}

// A mounted proc file system is read in two passes by the first scan, then in one. If its rows turn out to have no order, each
// scan takes two passes.
func TestPassesOfMountedProc(t *testing.T) {
	root := t.TempDir()
	ordered := func() {
		writeTCP(t, root, "tcp", 10, "L80", "80")
		writeTCP(t, root, "tcp6", 20, "L90", "90", "broken")
	}
	ordered()
	s := newScanner(t, ScannerConfig{ProcRoot: root, Transports: []Transport{TransportTCP}, OwnerMethod: OwnersOff})
	s.rowOrder.isCopy = false
	opens := countOpens(t, filepath.Join(root, "net", "tcp"), filepath.Join(root, "net", "tcp6"))
	once, twice := map[string]int{"tcp": 1, "tcp6": 1}, map[string]int{"tcp": 2, "tcp6": 2}

	require.Equal(t, "10 20 11 21 error", rowsOf(t, s))
	require.Equal(t, twice, opens.since())
	for range 3 {
		require.Equal(t, "10 11 20 21 error", rowsOf(t, s))
		require.Equal(t, once, opens.since())
	}
	writeNoOrder(t, root)
	opens.since()
	require.Equal(t, "10 11 12 14 15 error 20 21 23 24 error", rowsOf(t, s), "the order is not known before")
	require.Equal(t, once, opens.since())
	for range 2 {
		require.Equal(t, "12 15 20 23 10 11 14 error 21 24 error", rowsOf(t, s))
		require.Equal(t, twice, opens.since())
	}
	ordered()
	opens.since()
	require.Equal(t, "10 20 11 21 error", rowsOf(t, s))
	require.Equal(t, twice, opens.since(), "order once broken is not trusted again")

	s = newScanner(t, ScannerConfig{ProcRoot: root, Transports: []Transport{TransportTCP}, OwnerMethod: OwnersOff})
	s.rowOrder.isCopy = false
	writeNoOrder(t, root)
	opens.since()
	for range 2 { // from the first scan
		require.Equal(t, "12 15 20 23 10 11 14 error 21 24 error", rowsOf(t, s))
		require.Equal(t, twice, opens.since())
	}
}

// Linux keeps the order: the tables of real sockets in every state take one pass after the first scan.
func TestPassesOfLinux(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.States(t, "tcp4")
		testnet.States(t, "tcp6")
		s := newScanner(t, ScannerConfig{Source: SourceProcfs, Transports: []Transport{TransportTCP}, OwnerMethod: OwnersOff})
		require.Equal(t, twoPasses, s.rowOrder.passes(TransportTCP))
		var before []uint64
		for range 3 {
			inodes := mustScan(t, s, inode)
			require.Greater(t, len(inodes), 10)
			if before != nil {
				require.ElementsMatch(t, before, inodes, "in one pass as in two")
			}
			before = inodes
			s.rowOrder.nextScan()
			require.Equal(t, onePass, s.rowOrder.passes(TransportTCP))
		}
	})
}

package netstat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// dirent is a struct linux_dirent64 with a length of its own choice.
func dirent(reclen uint16, rest string) []byte {
	b := make([]byte, 16, 32) // d_ino, d_off
	b = binary.NativeEndian.AppendUint16(b, reclen)
	b = append(b, unix.DT_LNK)
	return append(b, rest...)
}

func names(entries []byte) []string {
	var names []string
	eachDirent(entries, func(e dirEntry) bool { names = append(names, string(e.name)); return true })
	return names
}

func TestEachDirent(t *testing.T) {
	one, two := dirent(24, "3\x00\x00\x00\x00"), dirent(24, "1024\x00")
	for _, test := range []struct {
		name    string
		entries [][]byte
		want    []string
	}{
		{"nothing", nil, nil},
		{"two", [][]byte{one, two}, []string{"3\x00", "1024\x00"}},
		{"garbage after the name", [][]byte{dirent(24, "3\x00xyz")}, []string{"3\x00"}},
		{"no name", [][]byte{dirent(24, "\x00\x00\x00\x00\x00"), one}, []string{"3\x00"}},
		{"no end of the name", [][]byte{dirent(24, "12345"), one}, []string{"3\x00"}},
		{"length 0", [][]byte{one, dirent(0, "4\x00\x00\x00\x00"), two}, []string{"3\x00"}},
		{"length without a name", [][]byte{one, dirent(19, ""), two}, []string{"3\x00"}},
		{"length out of range", [][]byte{one, dirent(25, "4\x00\x00\x00\x00")}, []string{"3\x00"}},
		{"cut off", [][]byte{one, two[:19]}, []string{"3\x00"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, names(bytes.Join(test.entries, nil)))
		})
	}
}

// A name is not empty, lies within its entry and ends with its only NUL.
func FuzzDirents(f *testing.F) {
	dir, err := os.Open("/proc/self")
	if err != nil {
		f.Fatal(err)
	}
	defer dir.Close()
	buf := make([]byte, 2000)
	n, err := unix.Getdents(int(dir.Fd()), buf)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(buf[:n])
	f.Add(dirent(24, "1024\x00"))
	f.Fuzz(func(t *testing.T, entries []byte) {
		before := bytes.Clone(entries)
		size := 0
		eachDirent(entries, func(e dirEntry) bool {
			require.Greater(t, len(e.name), 1)
			require.Equal(t, len(e.name)-1, bytes.IndexByte(e.name, 0))
			size += 19 + len(e.name)
			return true
		})
		require.LessOrEqual(t, size, len(entries))
		require.Equal(t, before, entries)
	})
}

// A directory that one call does not tell all of.
func TestProcDirLongDirectory(t *testing.T) {
	const files = 3000
	root := t.TempDir()
	var want []int
	for pid := 1; pid <= files; pid++ {
		require.NoError(t, os.WriteFile(filepath.Join(root, strconv.Itoa(pid)), nil, 0o600))
		want = append(want, pid)
	}
	for _, name := range []string{"self", "0x1", "99999999999", "-1", "1.0"} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), nil, 0o600))
	}
	dir := openProcDir(t, root)
	for range 2 {
		require.NoError(t, dir.open(root), "opening it again is going back to its beginning")
		pids, err := dir.appendPIDs(nil)
		require.NoError(t, err)
		require.Equal(t, want, pids)
	}
}

// startProcess starts a process that has descriptors of the socket, and ends when it is told to.
func startProcess(t *testing.T, socket *os.File) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = []*os.File{socket, socket}
	require.NoError(t, cmd.Start())
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

// openSocket returns a socket and its inode.
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

// Whatever a process is looked at for when it ends, it is only not there.
func TestProcessEndsWhileLookedAt(t *testing.T) {
	socket, inode := openSocket(t)
	pid, end := startProcess(t, socket)
	dir := openProcDir(t, "/proc")

	inodes, descriptors, err := dir.appendSocketsIn(t.Context(), nil, pid, dir.pathOf(pid, "/fd\x00"))
	require.NoError(t, err)
	require.Equal(t, []uint64{inode, inode}, inodes)
	require.GreaterOrEqual(t, descriptors, 5, "and the standard input, output and error")
	buf := make([]byte, 1000)
	stat, err := dir.readFile(pid, "stat", buf)
	require.NoError(t, err)
	require.Contains(t, string(stat), "(sleep)")

	fds, err := openZ(dir.fd(), dir.pathOf(pid, "/fd\x00"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fds)
	statFile, err := openZ(dir.fd(), dir.pathOf(pid, "/stat\x00"), unix.O_RDONLY|unix.O_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(statFile)
	end()

	err = eachEntry(fds, dir.names[:], func(dirEntry) bool { return true })
	require.True(t, vanished(err), "listing the descriptors: %v", err)
	_, err = unix.Read(statFile, buf)
	require.True(t, vanished(err), "reading stat: %v", err)
	_, err = readlinkZ(fds, []byte("3\x00"), dir.target[:])
	require.True(t, vanished(err), "reading a link: %v", err)
	inodes, descriptors, err = dir.appendSocketsIn(t.Context(), nil, pid, dir.pathOf(pid, "/fd\x00"))
	require.True(t, vanished(err), "opening the descriptors: %v", err)
	require.Empty(t, inodes)
	require.Zero(t, descriptors)
	_, err = dir.appendTIDs(nil, pid)
	require.True(t, vanished(err), "opening the threads: %v", err)
	_, err = dir.readFile(pid, "stat", buf)
	require.True(t, vanished(err), "opening stat: %v", err)
}

// Processes that end during the walk are left out of it, without an error.
func TestFDWalkVanishingProcesses(t *testing.T) {
	root := t.TempDir()
	process := func(pid int) string { return filepath.Join(root, strconv.Itoa(pid)) }
	for pid := 1; pid <= 4; pid++ {
		require.NoError(t, os.MkdirAll(filepath.Join(process(pid), "fd"), 0o755))
		require.NoError(t, os.Symlink(fmt.Sprintf("socket:[%d]", pid), filepath.Join(process(pid), "fd", "3")))
		stat := fmt.Sprintf("%d (name) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 %d 0\n", pid, pid)
		require.NoError(t, os.WriteFile(filepath.Join(process(pid), "stat"), []byte(stat), 0o600))
	}
	walk := socketWalk{root: root}
	defer walk.dir.close()
	cache := newProcessCache(root, nil)
	var seen []string
	require.NoError(t, walk.each(t.Context(), func(pid int, inodes []uint64, err error) {
		switch pid {
		case 1:
			require.NoError(t, os.RemoveAll(process(2)))                     // before it is looked at
			require.NoError(t, os.Remove(filepath.Join(process(3), "fd/3"))) // only a descriptor
		case 4:
			require.NoError(t, os.Remove(filepath.Join(process(4), "stat"))) // before its name is read
		}
		require.True(t, err == nil || vanished(err), "%v", err)
		seen = append(seen, fmt.Sprint(pid, inodes, cache.get(&walk.dir, pid) != nil))
	}))
	require.Equal(t, []string{"1 [1] true", "2 [] false", "3 [] true", "4 [4] false"}, seen)
	require.True(t, slices.IsSorted(walk.pids))
}

package procfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

func openDir(t *testing.T, root string) *Dir {
	t.Helper()
	dir := new(Dir)
	require.NoError(t, dir.Open(root))
	t.Cleanup(dir.Close)
	return dir
}

// A directory that takes several calls of getdents64.
func TestDirWithManyEntries(t *testing.T) {
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
	dir := openDir(t, root)
	for range 2 {
		require.NoError(t, dir.Open(root), "already open")
		pids, err := dir.AppendPIDs(nil)
		require.NoError(t, err)
		require.Equal(t, want, pids)
	}
}

// startProcess starts a process that has two descriptors of the socket, and returns a function that kills it.
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

// hasEnded reports whether the error means that a process has ended.
func hasEnded(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// Whichever file is read, a process that ends meanwhile causes only the errors of hasEnded.
func TestProcessEndsWhileRead(t *testing.T) {
	testnet.SkipIfShort(t)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer conn.Close()
	socket, err := conn.File()
	require.NoError(t, err)
	defer socket.Close()
	var of unix.Stat_t
	require.NoError(t, unix.Fstat(int(socket.Fd()), &of))
	inode := of.Ino
	pid, end := startProcess(t, socket)
	dir := openDir(t, "/proc")

	inodes, descriptors, err := dir.appendSockets(t.Context(), nil, pid, dir.pathOf(pid, "/fd\x00"))
	require.NoError(t, err)
	require.Equal(t, []uint64{inode, inode}, inodes)
	require.GreaterOrEqual(t, descriptors, 5, "two sockets and the standard files")
	buf := make([]byte, 1000)
	stat, err := dir.ReadFile(pid, "stat", buf)
	require.NoError(t, err)
	require.Contains(t, string(stat), "(sleep)")

	fds, err := openZ(dir.fd(), dir.pathOf(pid, "/fd\x00"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fds)
	statFile, err := openZ(dir.fd(), dir.pathOf(pid, "/stat\x00"), unix.O_RDONLY|unix.O_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(statFile)
	end()

	err = EachEntry(fds, dir.names[:], func(DirEntry) bool { return true })
	require.True(t, hasEnded(err), "listing the descriptors: %v", err)
	_, err = unix.Read(statFile, buf)
	require.True(t, hasEnded(err), "reading stat: %v", err)
	_, err = readlinkZ(fds, []byte("3\x00"), dir.target[:])
	require.True(t, hasEnded(err), "reading a link: %v", err)
	inodes, descriptors, err = dir.appendSockets(t.Context(), nil, pid, dir.pathOf(pid, "/fd\x00"))
	require.True(t, hasEnded(err), "opening the descriptors: %v", err)
	require.Empty(t, inodes)
	require.Zero(t, descriptors)
	_, err = dir.appendTIDs(nil, pid)
	require.True(t, hasEnded(err), "opening the threads: %v", err)
	_, err = dir.ReadFile(pid, "stat", buf)
	require.True(t, hasEnded(err), "opening stat: %v", err)
}

// The end of the context stops a walk, even within one process.
func TestSocketWalkContextEnds(t *testing.T) {
	root := t.TempDir()
	for pid, descriptors := range map[int]int{1: 2500, 2: 1, 3: 1} {
		dir := filepath.Join(root, strconv.Itoa(pid), "fd")
		require.NoError(t, os.MkdirAll(dir, 0o755))
		for fd := range descriptors {
			require.NoError(t, os.Symlink(fmt.Sprintf("socket:[%d]", 10000*pid+fd), filepath.Join(dir, strconv.Itoa(fd))))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	walk := NewSocketWalk(root)
	defer walk.Close()
	visited := 0
	require.ErrorIs(t, walk.Each(ctx, func(int, []uint64, error) { visited++; cancel() }), context.Canceled)
	require.Equal(t, 1, visited)

	inodes, err := walk.appendSockets(ctx, nil, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, len(inodes), 2000)
}

package netstat

import (
	"fmt"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// If requested, both sources return the names of unix sockets.
func TestUnixPaths(t *testing.T) {
	testnet.Isolate(t, func() {
		path := filepath.Join(t.TempDir(), "a b")
		for _, name := range []string{path, "@abstract\x00x", ""} {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			t.Cleanup(func() { _ = unix.Close(fd) })
			if name != "" {
				require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: name}))
			}
		}
		for _, source := range []Source{SourceNetlink, SourceProcfs} {
			for _, asked := range []bool{true, false} {
				scanner, err := NewScanner(ScannerConfig{
					Transports: []Transport{TransportUnix}, Source: source, UnixPaths: asked,
				})
				require.NoError(t, err)
				var paths []string
				for socket, err := range scanner.Sockets(t.Context()) {
					require.NoError(t, err)
					paths = append(paths, socket.Path)
				}
				require.NoError(t, scanner.Close())
				want := []string{path, "@abstract@x", ""}
				if !asked {
					want = []string{"", "", ""}
				}
				require.ElementsMatch(t, want, paths, "%s %v", source, asked)
			}
		}
	})
}

// A steady scan allocates nothing for the names of unix sockets.
func TestUnixPathsAllocateNothing(t *testing.T) {
	testnet.Isolate(t, func() {
		dir := t.TempDir()
		const sockets = 300
		var fds []int
		for i := range sockets {
			name := fmt.Sprintf("@abstract\x00%d", i)
			if i%2 == 0 {
				name = filepath.Join(dir, strconv.Itoa(i))
			}
			fds = append(fds, listenUnix(t, name, 1))
		}
		for _, source := range []Source{SourceNetlink, SourceProcfs} {
			config := ScannerConfig{Transports: []Transport{TransportUnix}, Source: source, OwnerMethod: OwnersOff}
			allocs := map[bool]float64{}
			for _, config.UnixPaths = range []bool{false, true} {
				s := newScanner(t, config)
				names := 0
				visit := func() {
					names = 0
					for socket, err := range s.Sockets(t.Context()) {
						if err == nil && socket.Path != "" {
							names++
						}
					}
				}
				visit()
				require.Equal(t, map[bool]int{true: sockets}[config.UnixPaths], names)
				allocs[config.UnixPaths] = testing.AllocsPerRun(10, visit)
			}
			require.InDelta(t, allocs[false], allocs[true], 1, source)
		}

		s := newScanner(t, ScannerConfig{Transports: []Transport{TransportUnix}, UnixPaths: true, OwnerMethod: OwnersOff})
		mustScan(t, s, inode)
		require.Len(t, s.paths.byName, sockets)
		for _, fd := range fds[1:] {
			require.NoError(t, unix.Close(fd))
		}
		mustScan(t, s, inode)
		mustScan(t, s, inode)
		require.Len(t, s.paths.byName, 1, "the names of closed sockets are forgotten")
	})
}

func listenUnix(t *testing.T, name string, backlog int) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: name}))
	require.NoError(t, unix.Listen(fd, backlog))
	return fd
}

// A listening unix socket has the length and the limit of its accept queue, as ss -xl shows them, for any user.
func TestUnixAcceptQueue(t *testing.T) {
	testnet.Isolate(t, func() {
		full, empty := filepath.Join(t.TempDir(), "full"), "@empty"
		const backlog = 2
		listenUnix(t, full, backlog)
		listenUnix(t, empty, 4096)
		connected := 0
		for range backlog + 3 {
			client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			t.Cleanup(func() { _ = unix.Close(client) })
			if err := unix.Connect(client, &unix.SockaddrUnix{Name: full}); err == nil {
				connected++
			} else {
				require.Equal(t, unix.EAGAIN, err)
			}
		}
		require.Equal(t, backlog+1, connected)

		line := func(path string, queue, limit uint32) string { return fmt.Sprint(path, " ", queue, " of ", limit) }
		rows := []string{}
		for _, row := range testnet.SS(t, "-x", "-l") {
			if row.State == "LISTEN" {
				rows = append(rows, line(row.Path, row.RecvQ, row.SendQ))
			}
		}
		require.ElementsMatch(t, []string{line(full, backlog+1, backlog), line(empty, 0, 4096)}, rows)
		queues := func(source Source) (listening []string) {
			s := newScanner(t, ScannerConfig{
				Transports: []Transport{TransportUnix}, Source: source, UnixPaths: true, OwnerMethod: OwnersOff,
			})
			mustScan(t, s, func(s *Socket) any {
				isQueue := s.State == TCPListen && source == SourceNetlink
				require.Equal(t, isQueue, s.Has(FieldAcceptQueue|FieldAcceptQueueLimit))
				require.False(t, s.State == TCPListen && s.RecvQueue|s.SendQueue != 0)
				if s.State == TCPListen {
					listening = append(listening, line(s.Path, s.AcceptQueue, s.AcceptQueueLimit))
				}
				return nil
			})
			return listening
		}
		require.ElementsMatch(t, rows, queues(SourceNetlink))
		require.ElementsMatch(t, []string{line(full, 0, 0), line(empty, 0, 0)}, queues(SourceProcfs))
		done := make(chan struct{})
		onNewThread(func() {
			defer close(done)
			testnet.BecomeNobody(t)
			require.ElementsMatch(t, rows, queues(SourceNetlink))
		})
		<-done
	})
}

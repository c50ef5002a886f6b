package netstat

import (
	"path/filepath"
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

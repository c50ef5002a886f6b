//go:build amd64 || arm64

package netstat

import (
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A daemon that drops its privileges gets its new user: with BPF in the next scan and without reading a file, from procfs after a
// while.
func TestUIDOfDaemon(t *testing.T) {
	for _, method := range []OwnerMethod{OwnersBPF, OwnersProcfs} {
		t.Run(method.String(), func(t *testing.T) {
			testnet.Isolate(t, func() {
				daemon := testnet.Start(t, testnet.Process{Name: "daemon"})
				socket := daemon.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})
				s := newScanner(t, ScannerConfig{OwnerMethod: method})
				if method == OwnersBPF {
					s = newBPFScanner(t, ScannerConfig{})
				}
				var process *Process
				user := func() uint32 {
					found := 0
					mustScan(t, s, func(s *Socket) any {
						if s.Inode == socket.Inode {
							found++
							process = s.Owners()[0]
						}
						return nil
					})
					require.Equal(t, 1, found)
					if method == OwnersBPF {
						process.root = filepath.Join(t.TempDir(), "missing")
					}
					uid, known := process.UID()
					require.True(t, known)
					return uid
				}
				require.Zero(t, user())
				before := process
				daemon.SetUser(65534)
				if method == OwnersProcfs {
					process.uid.until = time.Now().Add(time.Hour)
					require.Zero(t, user(), "not read in each scan")
					process.uid.until = time.Now()
				}
				require.Equal(t, uint32(65534), user())
				require.Same(t, before, process)
				status, err := (&Process{PID: daemon.PID, root: "/proc"}).readUID()
				require.NoError(t, err)
				require.Equal(t, uint32(65534), status)
			})
		})
	}
}

//go:build amd64 || arm64

package netstat

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// In a time namespace, BPF and the proc file system agree on the start time of a process.
func TestBootClockAhead(t *testing.T) {
	testnet.IsolateTime(t, 100_000*time.Second, func() { requireOneBootClock(t, 100_000*time.Second) })
}

func TestBootClockBehind(t *testing.T) {
	testnet.IsolateTime(t, -5*time.Second, func() { requireOneBootClock(t, -5*time.Second) })
}

func requireOneBootClock(t *testing.T, more time.Duration) {
	t.Helper()
	require.EqualValues(t, more, newProcessCache("/proc", nil).clock)
	connects := openBPFConnects(t)
	server := testnet.Start(t, testnet.Process{Name: "server", UID: 65534, GID: 65534})
	listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 1)
	client := testnet.Start(t, testnet.Process{Name: "client"})
	socket := client.Connect(listener.Local, 1)[0]

	want := holders{}
	want.set(listener, server.PID)
	want.set(socket, client.PID)
	s := newBPFScanner(t, ScannerConfig{})
	requireOwners(t, want.describe(t), scanOwners(t, s))
	requireOwners(t, want.describe(t), scanOwners(t, newScanner(t, ScannerConfig{OwnerMethod: OwnersProcfs})))
	users := map[string]uint32{}
	mustScan(t, s, func(s *Socket) any {
		for _, p := range s.Owners() {
			uid, known := p.UID()
			require.True(t, known, "%s", p.Name)
			require.NotEmpty(t, p.Exe(), "%s", p.Name)
			users[p.Name] = uid
		}
		return nil
	})
	require.Equal(t, map[string]uint32{"server": 65534, "client": 0}, users)

	ids := cgroupIDs(t)
	require.Equal(t, initiated(processFromProc(t, client.PID), 0, listener.Local.Port(), ids[socket.Cookie]), known(connects, socket.Cookie))
}

//go:build amd64 || arm64

package bpf

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

func openConnects(tb testing.TB) *Connects {
	tb.Helper()
	testnet.RequireBPF(tb)
	connects, err := OpenConnects("/proc", 0)
	require.NoError(tb, err)
	tb.Cleanup(connects.Close)
	return connects
}

// refusedConnections makes connects that are refused at once, and returns the cookies of the sockets.
func refusedConnections(t testing.TB, n int) []uint64 {
	t.Helper()
	unused, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(unused)
	require.NoError(t, unix.Bind(unused, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})) // bound, but not listening
	to, err := unix.Getsockname(unused)
	require.NoError(t, err)
	cookies := make([]uint64, 0, n)
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		if err := unix.Connect(fd, to); !errors.Is(err, unix.ECONNREFUSED) {
			require.NoError(t, err)
		}
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		require.NoError(t, err)
		cookies = append(cookies, cookie)
		require.NoError(t, unix.Close(fd))
	}
	return cookies
}

// If there are more connections than room, the most recent ones are found.
func TestConnectsOverflow(t *testing.T) {
	testnet.Isolate(t, func() {
		connects := openConnects(t)
		room := int(connects.objects.Records.MaxEntries())
		cookies := refusedConnections(t, room+room/2)
		last := cookies[len(cookies)-room/2:] // other processes of this machine also connect
		for _, cookie := range last {
			_, ok := connects.Lookup(cookie)
			require.True(t, ok, "the socket with the cookie %d, of those from %d on", cookie, last[0])
		}
		for _, cookie := range cookies[:len(cookies)-room] {
			_, ok := connects.Lookup(cookie)
			require.False(t, ok, "replaced record")
		}
	})
}

func TestConnectsDoNotAllocate(t *testing.T) {
	testnet.Isolate(t, func() {
		connects := openConnects(t)
		cookie := refusedConnections(t, 1)[0]
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if _, ok := connects.Lookup(cookie); !ok {
				t.Error("not known")
			}
			if _, ok := connects.Lookup(1 << 63); ok {
				t.Error("known")
			}
		}))
	})
}

func BenchmarkConnectsLookup(b *testing.B) {
	testnet.Isolate(b, func() {
		connects := openConnects(b)
		cookies := refusedConnections(b, 10_000)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			connects.Lookup(cookies[i%len(cookies)])
		}
	})
}

package netstat

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// For ping sockets with the same identifier, the kernel shows one of them in both tables.
func TestPingSocketsWithSameIdentifier(t *testing.T) {
	testnet.Isolate(t, func() {
		require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0o600))
		const identifier = 77
		bind := func(family, protocol int, addr unix.Sockaddr) {
			fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
			require.NoError(t, err)
			t.Cleanup(func() { _ = unix.Close(fd) })
			require.NoError(t, unix.Bind(fd, addr))
		}
		bind(unix.AF_INET, unix.IPPROTO_ICMP, &unix.SockaddrInet4{Port: identifier, Addr: [4]byte{127, 0, 0, 1}})
		bind(unix.AF_INET6, unix.IPPROTO_ICMPV6, &unix.SockaddrInet6{Port: identifier, Addr: [16]byte{15: 1}})

		scanner, err := NewScanner(ScannerConfig{Transports: []Transport{TransportICMP}})
		require.NoError(t, err)
		defer scanner.Close()
		for range 2 {
			var locals []string
			for socket, err := range scanner.Sockets(t.Context()) {
				require.NoError(t, err)
				locals = append(locals, socket.Local.String())
			}
			require.ElementsMatch(t, []string{"127.0.0.1:77", "[::1]:77"}, locals)
		}
	})
}

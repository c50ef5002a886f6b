package netstat

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/netns"
)

// netNS returns the inode number of the network namespace that the link refers to.
func netNS(t *testing.T, link string) uint64 {
	t.Helper()
	target, err := os.Readlink(link)
	require.NoError(t, err)
	var inode uint64
	_, err = fmt.Sscanf(target, "net:[%d]", &inode)
	require.NoError(t, err)
	return inode
}

// onNewThread runs f on a thread that ends afterwards.
func onNewThread(f func()) {
	netns.OnNewThread(func() (restored bool) {
		f()
		return false
	})
}

// Netlink reads the namespace in which the scanner was created, procfs that of the process. Each socket has the namespace that it
// is in.
func TestScannerNetNS(t *testing.T) {
	testnet.Isolate(t, func() {
		process := testnet.Ping(t).Sockets
		var netlink, procfs *Scanner
		var thread uint64
		onNewThread(func() {
			err := unix.Unshare(unix.CLONE_NEWNET)
			if errors.Is(err, unix.EPERM) {
				return
			}
			require.NoError(t, err)
			thread = netNS(t, "/proc/thread-self/ns/net")
			socket, _ := openSocket(t)
			require.NoError(t, unix.Bind(int(socket.Fd()), &unix.SockaddrInet4{}))
			transports := []Transport{TransportUDP, TransportICMP}
			netlink = newScanner(t, ScannerConfig{Transports: transports})
			procfs = newScanner(t, ScannerConfig{Source: SourceProcfs, Transports: transports})
		})
		if netlink == nil {
			testnet.SkipOrFail(t, "another network namespace requires CAP_SYS_ADMIN")
		}
		own := netNS(t, "/proc/self/ns/net")
		require.NotEqual(t, own, thread)

		seen := func(s *Scanner) (counts map[string]int) {
			counts = map[string]int{}
			mustScan(t, s, func(s *Socket) struct{} {
				counts[fmt.Sprint(s.Transport, s.NetNS)]++
				return struct{}{}
			})
			return counts
		}
		// There are no ping sockets in sock_diag.
		require.Equal(t, map[string]int{
			fmt.Sprint(TransportUDP, thread): 1,
			fmt.Sprint(TransportICMP, own):   len(process),
		}, seen(netlink))
		require.Equal(t, map[string]int{fmt.Sprint(TransportICMP, own): len(process)}, seen(procfs))
	})
}

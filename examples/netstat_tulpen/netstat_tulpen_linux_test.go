package main

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

func TestLikeNetstat(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.Require(t, "netstat", "ip")
		const longAddress = "2001:db8:1234:5678:9abc:def0:1234:5678"
		addAddress(t, longAddress)

		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			testnet.States(t, network) // listeners and connections
		}
		testnet.UDP(t) // connected and not

		daemon := testnet.Start(t, testnet.Process{Name: "a daemon with a long name", UID: 65534, GID: 65534})
		anyAddress, noPeer := netip.AddrPort{}, netip.AddrPort{}
		long := netip.AddrPortFrom(netip.MustParseAddr(longAddress), 0)
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			daemon.Listen(network, anyAddress, 5)
		}
		daemon.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:1234"), 5)
		daemon.Listen("tcp4in6", netip.MustParseAddrPort("[::ffff:127.1.2.3]:2345"), 5)
		daemon.Listen("tcp6", long, 5)
		daemon.Fork(2)
		for _, network := range []string{"udp4", "udp6", "udp4in6"} {
			daemon.UDP(network, anyAddress, noPeer)
		}
		daemon.UDP("udp6", long, noPeer)
		for _, argv0 := range []string{"plain", "", "/", "bin/daemon", "nginx: master process /usr/sbin/nginx", "/usr/sbin/x -D /etc/conf"} {
			startAs(t, argv0)
		}

		want, err := exec.Command("netstat", "-tulpen").Output()
		require.NoError(t, err)
		got, stderr, exitCode := run(t, "/proc")
		require.Empty(t, stderr)
		require.Zero(t, exitCode)
		require.Equal(t, strings.Split(string(want), "\n"), strings.Split(got, "\n"))

		const made = 3*4 + 3*2 + 6 + 4 + 6
		require.Greater(t, strings.Count(got, "\n"), made, got)
	})
}

// addAddress adds an address to lo.
func addAddress(t *testing.T, address string) {
	t.Helper()
	out, err := exec.Command("ip", "address", "add", address+"/128", "dev", "lo", "nodad").CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// startAs starts a process that has a listening socket, with argv0 as its first command-line argument.
func startAs(t *testing.T, argv0 string) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	file, err := listener.(*net.TCPListener).File()
	require.NoError(t, err)

	cmd := exec.Command("cat")
	cmd.Args = []string{argv0}
	cmd.ExtraFiles = []*os.File{file}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	require.NoError(t, file.Close())
	require.NoError(t, listener.Close())
}

package procnetstat

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// holders starts n processes of different names, each of which holds the client's end of a connection. The other end is held
// by this process.
func holders(t *testing.T, n int) {
	t.Helper()
	testnet.Require(t, "sleep")
	program, err := exec.LookPath("sleep")
	require.NoError(t, err)
	dir := t.TempDir()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	for i := range n {
		client, err := net.Dial("tcp4", listener.Addr().String())
		require.NoError(t, err)
		server, err := listener.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { _ = server.Close() })
		held, err := client.(*net.TCPConn).File()
		require.NoError(t, err)
		require.NoError(t, client.Close())

		path := filepath.Join(dir, fmt.Sprintf("holder%d", i)) // the name that the process gets
		require.NoError(t, os.Symlink(program, path))
		cmd := exec.Command(path, "600")
		cmd.Args[0] = "sleep" // some programs are many, and go by this
		cmd.ExtraFiles = []*os.File{held}
		cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
		require.NoError(t, cmd.Start())
		require.NoError(t, held.Close())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}

// TestSumOverProcesses: however many process names there are, the series of the processes add up to what the host has, and to
// what ss says.
func TestSumOverProcesses(t *testing.T) {
	for _, names := range []int{3, 3000} {
		t.Run(strconv.Itoa(names), func(t *testing.T) {
			testnet.Isolate(t, func() {
				runtime.LockOSThread() // the holders end with the thread that started them
				defer runtime.UnlockOSThread()
				holders(t, names)
				var established int64
				for _, row := range testnet.SS(t, "-t") {
					if row.State == "ESTABLISHED" {
						established++
					}
				}
				require.Equal(t, int64(2*names), established)

				const most = 100
				g := start(t, `
					measurements = ["host", "process", "gather"]
					max_series = 100`).gather()
				require.Equal(t, established, g.one("procnetstat")["tcp_established"])
				require.Equal(t, established, g.sum("procnetstat_process")["tcp_established"])
				all := names + 1 // with this process
				require.Equal(t, int64(all), g.sum("procnetstat_process")["processes"])
				require.Len(t, g.all("procnetstat_process"), min(all, most))
				folded := 0
				if all > most {
					folded = all - (most - 1)
					require.Equal(t, int64(folded), g.one("procnetstat_process", "process_name=other", "user=other")["processes"])
				}
				require.Equal(t, int64(folded), g.one("procnetstat_gather")["folded_series"])
			})
		})
	}
}

package netstat

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// The owners of sockets have their full names, by all ways to find them.
func TestFullNameOfOwners(t *testing.T) {
	testnet.Isolate(t, func() {
		want := map[uint64][2]string{}
		for name, short := range map[string]string{
			"victoria-metrics":     "victoria-metric",
			"systemd-networkd":     "systemd-network",
			"fifteen-bytes-x":      "fifteen-bytes-x",
			"nginx":                "nginx",
			"a \"b\" (c) d,e=f\ng": "a \"b\" (c) d,e=f",
		} {
			p := testnet.Start(t, testnet.Process{Name: name})
			want[p.UDP("udp4", netip.AddrPort{}, netip.AddrPort{}).Inode] = [2]string{short, name}
		}
		for _, method := range ownerMethods {
			s := newScanner(t, ScannerConfig{OwnerMethod: method})
			for range 2 {
				got := map[uint64][2]string{}
				mustScan(t, s, func(s *Socket) struct{} {
					require.Len(t, s.Owners(), 1)
					got[s.Inode] = [2]string{s.Owners()[0].Name, s.Owners()[0].FullName()}
					return struct{}{}
				})
				require.Equal(t, want, got, "owners by %s", method)
			}
		}
	})
}

// A program under a long name with a first argument of its own.
func TestFullNameOfProgram(t *testing.T) {
	testnet.SkipIfShort(t)
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	content, err := os.ReadFile(sleep)
	require.NoError(t, err)
	program := filepath.Join(t.TempDir(), "victoria-metrics")
	require.NoError(t, os.WriteFile(program, content, 0o700))
	for _, test := range []struct{ argument, want string }{
		{program, "victoria-metrics"},
		{"victoria-metrics: primary", "victoria-metrics: primary"},
		{"/a\xff/victoria-metrics \xc3\n,x=y", "victoria-metrics \xc3\n,x=y"},
		{"-sh", "victoria-metric"},
		{"", "victoria-metric"},
	} {
		cmd := &exec.Cmd{Path: program, Args: []string{test.argument, "1000"}}
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
		dir, cache := openProcDir(t, "/proc"), newProcessCache("/proc", nil)
		var p *Process
		require.Eventually(t, func() bool { // Start returns before execve(2) has set the name and the command line
			p = cache.get(dir, cmd.Process.Pid)
			content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "cmdline"))
			return p != nil && p.Name == "victoria-metric" && err == nil && len(content) > 0
		}, time.Minute, time.Millisecond)
		require.Equal(t, test.want, p.FullName(), "first argument %q", test.argument)

		// An ended process that nobody has waited for has no command line.
		require.NoError(t, cmd.Process.Kill())
		cmdline := filepath.Join("/proc", strconv.Itoa(p.PID), "cmdline")
		require.Eventually(t, func() bool {
			content, err := os.ReadFile(cmdline)
			return err == nil && len(bytes.Trim(content, "\x00")) == 0
		}, time.Minute, time.Millisecond)
		require.Equal(t, test.want, p.FullName(), "kept")
		require.Equal(t, "victoria-metric", cache.get(dir, p.PID).Name)
		unread := &Process{PID: p.PID, StartTime: p.StartTime, Name: p.Name, root: "/proc"}
		require.Equal(t, "victoria-metric", unread.FullName())
	}
}

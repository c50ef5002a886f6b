package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
	"github.com/procnetstat/procnetstat/netstat"
)

// procRootEnv makes the test binary run as the example, with this proc root.
const procRootEnv = "NETSTAT_TULPEN_PROC_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(procRootEnv); root != "" {
		netstat.ProcRoot = root
		main()
		return
	}
	testnet.Main(m)
}

// run runs the example in a separate process.
func run(t *testing.T, procRoot string) (stdout, stderr string, exitCode int) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	var out, errOut bytes.Buffer
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), procRootEnv+"="+procRoot, "GOCOVERDIR="+t.TempDir())
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

const header = `Active Internet connections (only servers)
Proto Recv-Q Send-Q Local Address           Foreign Address         State       User       Inode      PID/Program name    
`

func TestSmallTree(t *testing.T) {
	stdout, stderr, exitCode := run(t, proctree.Materialize(t, "../../netstat/testdata/proc/small"))
	require.Equal(t, header+strings.ReplaceAll(`tcp        0      0 127.0.0.1:5432          0.0.0.0:*               LISTEN      113        20050      -                   |
tcp        1      0 0.0.0.0:80              0.0.0.0:*               LISTEN      0          20020      1001/nginx: master  |
tcp6       0      0 :::22                   :::*                    LISTEN      0          20010      1/init              |
tcp6       0      0 ::1:8080                :::*                    LISTEN      1000       20032      1003/java           |
udp      832      0 0.0.0.0:68              0.0.0.0:*                           4294967294 20040      1004/               |
udp6       0      0 :::53                   :::*                                0          20060      1005/coredns        |
udp6       0      0 fe80::1:546             :::*                                0          20061      1005/coredns        |
`, "|", ""), stdout)
	require.Empty(t, stderr)
	require.Zero(t, exitCode)
}

func TestBrokenTable(t *testing.T) {
	root := proctree.Materialize(t, "../../netstat/testdata/proc/small")
	table := filepath.Join(root, "net", "tcp")
	content, err := os.ReadFile(table)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(table, append(content, "garbage\n"...), 0o600))
	require.NoError(t, os.Remove(filepath.Join(root, "net", "udp")))

	stdout, stderr, exitCode := run(t, root)
	require.Equal(t, 8, strings.Count(stdout, "\n"), "want the header and all tables except udp:\n%s", stdout)
	require.Equal(t, table+`:14: row "garbage" has 1 columns, at least 10 expected`+"\n"+
		"opening the udp table: open "+filepath.Join(root, "net", "udp")+": no such file or directory\n", stderr)
	require.Equal(t, 1, exitCode)
}

func TestWithoutIPv6(t *testing.T) {
	root := proctree.Materialize(t, "../../netstat/testdata/proc/small")
	require.NoError(t, os.Remove(filepath.Join(root, "net", "tcp6")))
	require.NoError(t, os.Remove(filepath.Join(root, "net", "udp6")))
	stdout, stderr, exitCode := run(t, root)
	require.Equal(t, 5, strings.Count(stdout, "\n"), stdout)
	require.Empty(t, stderr)
	require.Zero(t, exitCode)
}

func TestProgram(t *testing.T) {
	for _, test := range []struct {
		cmdline []string
		want    string
	}{
		{[]string{}, "7/"},
		{[]string{"", "x"}, "7/"},
		{[]string{"/usr/bin/a b", "x"}, "7/a b"},
		{[]string{"/usr/sbin/x -D /etc/conf"}, "7/conf"},
		{[]string{"bin/x"}, "7/bin/x"},
		{[]string{"/dir/"}, "7/"},
		{[]string{"nginx: master process /usr/sbin/nginx"}, "7/nginx: master pro"},
		{[]string{"\x1b[31m\ncaf\xc3\xa9\x7f"}, "7/.[31m.caf..."},
	} {
		require.Equal(t, test.want, program(&netstat.Connection{Pid: 7, Cmdline: test.cmdline}))
	}
	require.Equal(t, "-", program(&netstat.Connection{Cmdline: []string{}}))
}

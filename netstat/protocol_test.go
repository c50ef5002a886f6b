package netstat_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
	"github.com/procnetstat/procnetstat/netstat"
)

const (
	smallTree  = "testdata/proc/small"
	brokenTree = "testdata/proc/broken"
)

// useProcRoot sets ProcRoot until the test ends.
func useProcRoot(tb testing.TB, root string) {
	tb.Helper()
	old := netstat.ProcRoot
	tb.Cleanup(func() { netstat.ProcRoot = old })
	netstat.ProcRoot = root
}

// writeTable creates a proc file system that has only net/tcp, and returns the path of that file.
func writeTable(tb testing.TB, content string) string {
	tb.Helper()
	root := tb.TempDir()
	path := filepath.Join(root, "net", "tcp")
	require.NoError(tb, os.Mkdir(filepath.Dir(path), 0o755))
	require.NoError(tb, os.WriteFile(path, []byte(content), 0o600))
	useProcRoot(tb, root)
	return path
}

// addProcess adds a process that holds the sockets.
func addProcess(tb testing.TB, root string, pid int, cmdline string, inodes ...int) {
	tb.Helper()
	dir := filepath.Join(root, strconv.Itoa(pid))
	require.NoError(tb, os.MkdirAll(filepath.Join(dir, "fd"), 0o755))
	require.NoError(tb, os.WriteFile(filepath.Join(dir, "cmdline"), []byte(cmdline), 0o600))
	require.NoError(tb, os.Symlink("/usr/bin/program", filepath.Join(dir, "exe")))
	for i, inode := range inodes {
		link := filepath.Join(dir, "fd", strconv.Itoa(i+3))
		require.NoError(tb, os.Symlink(fmt.Sprintf("socket:[%d]", inode), link))
	}
}

// tcpRow formats a row like the kernel.
func tcpRow(n, inode int) string {
	return fmt.Sprintf("%4d: 0100007F:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 %d 2 "+
		"0000000000000000 100 0 0 10 0\n", n, uint16(n), inode)
}

const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// summary describes a connection in one line; a long command line is replaced by its length.
func summary(c *netstat.Connection) string {
	cmdline := fmt.Sprintf("%q", c.Cmdline)
	if len(cmdline) > 100 {
		cmdline = fmt.Sprintf("%d arguments", len(c.Cmdline))
	}
	local := net.JoinHostPort(c.IP.String(), strconv.Itoa(c.Port))
	remote := net.JoinHostPort(c.RemoteIP.String(), strconv.Itoa(c.RemotePort))
	return fmt.Sprintf("%s %s %s %s tx=%d rx=%d uid=%s inode=%d pid=%d %q %s", c.Protocol.Name, local, remote, c.State,
		c.TransmitQueue, c.ReceiveQueue, c.UserID, c.Inode, c.Pid, c.Exe, cmdline)
}

func summaries(connections []*netstat.Connection) []string {
	lines := []string{}
	for _, c := range connections {
		lines = append(lines, summary(c))
	}
	return lines
}

func TestConnections(t *testing.T) {
	netstat.UseLittleEndian(t)
	useProcRoot(t, proctree.Materialize(t, smallTree))
	const (
		nobody = `pid=0 "" []`
		java   = `pid=1003 "/usr/lib/jvm/java-21/bin/java" 8 arguments`
		dns    = `pid=1005 "/coredns (deleted)" ["/coredns" "-conf" "/etc/coredns/Corefile"]`
		sshd   = `pid=700 "/usr/sbin/sshd" ["sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups"]`
	)
	for _, test := range []struct {
		protocol *netstat.Protocol
		want     []string
	}{
		{netstat.TCP, []string{
			"tcp 127.0.0.1:5432 0.0.0.0:0 LISTEN tx=0 rx=0 uid=113 inode=20050 " + nobody,
			"tcp 0.0.0.0:80 0.0.0.0:0 LISTEN tx=0 rx=1 uid=0 inode=20020 " +
				`pid=1001 "/usr/sbin/nginx" ["nginx: master process /usr/sbin/nginx -g daemon on; master_process on;"]`,
			"tcp 192.0.2.10:80 198.51.100.7:50000 ESTABLISHED tx=80 rx=256 uid=33 inode=20021 " +
				`pid=1002 "/usr/sbin/nginx" ["nginx: worker process"]`,
			"tcp 192.0.2.10:80 198.51.100.8:50001 ESTABLISHED tx=0 rx=0 uid=0 inode=0 " + nobody,
			"tcp 192.0.2.10:80 198.51.100.9:50002 SYN_RECV tx=0 rx=0 uid=0 inode=0 " + nobody,
			"tcp 192.0.2.10:80 198.51.100.7:49999 TIME_WAIT tx=0 rx=0 uid=0 inode=0 " + nobody,
			"tcp 192.0.2.10:80 198.51.100.7:49998 FIN_WAIT1 tx=2147483647 rx=0 uid=0 inode=0 " + nobody,
			"tcp 192.0.2.10:80 198.51.100.7:49997 FIN_WAIT2 tx=0 rx=0 uid=0 inode=0 " + nobody,
			"tcp 192.0.2.10:80 198.51.100.7:49996 LAST_ACK tx=1 rx=0 uid=0 inode=0 " + nobody,
			"tcp 192.0.2.10:80 198.51.100.7:49995 CLOSING tx=1 rx=1 uid=0 inode=0 " + nobody,
			"tcp 192.0.2.10:41000 203.0.113.5:443 SYN_SENT tx=1 rx=0 uid=1000 inode=20031 " + java,
			"tcp 192.0.2.10:41001 203.0.113.5:65535 CLOSE_WAIT tx=0 rx=1 uid=4294967294 inode=20041 " + `pid=1004 "" []`,
		}},
		{netstat.TCP6, []string{
			"tcp6 [::]:22 [::]:0 LISTEN tx=0 rx=0 uid=0 inode=20010 " + `pid=1 "/usr/lib/systemd/systemd" ["/sbin/init" "splash"]`,
			"tcp6 [::1]:8080 [::]:0 LISTEN tx=0 rx=0 uid=1000 inode=20032 " + java,
			"tcp6 [2001:db8::10]:22 [2001:db8:1:2:3:4:5:6]:50003 ESTABLISHED tx=36 rx=0 uid=0 inode=20011 " + sshd,
			"tcp6 [::1]:8080 [::1]:50004 ESTABLISHED tx=0 rx=0 uid=1000 inode=20033 " + java,
			"tcp6 192.0.2.10:8443 198.51.100.7:50005 ESTABLISHED tx=0 rx=4294967295 uid=1000 inode=20034 " + java,
			"tcp6 192.0.2.10:8443 198.51.100.7:50006 TIME_WAIT tx=0 rx=0 uid=0 inode=0 " + nobody,
			"tcp6 [2001:db8::10]:22 [2001:db8::11]:50007 SYN_RECV tx=0 rx=0 uid=0 inode=0 " + nobody,
		}},
		{netstat.UDP, []string{
			`udp 0.0.0.0:68 0.0.0.0:0 CLOSE tx=0 rx=832 uid=4294967294 inode=20040 pid=1004 "" []`,
			"udp 192.0.2.10:41002 203.0.113.53:53 ESTABLISHED tx=768 rx=0 uid=1000 inode=20035 " + java,
		}},
		{netstat.UDP6, []string{
			"udp6 [::]:53 [::]:0 CLOSE tx=0 rx=0 uid=0 inode=20060 " + dns,
			"udp6 [fe80::1]:546 [::]:0 CLOSE tx=0 rx=0 uid=0 inode=20061 " + dns,
			"udp6 192.0.2.10:41003 203.0.113.53:53 ESTABLISHED tx=0 rx=0 uid=1000 inode=20038 " + java,
		}},
		{netstat.UDPLite, []string{"udplite 0.0.0.0:9000 0.0.0.0:0 CLOSE tx=0 rx=0 uid=0 inode=20062 " + dns}},
		{netstat.UDPLite6, []string{"udplite6 [::]:9000 [::]:0 CLOSE tx=0 rx=0 uid=0 inode=20063 " + dns}},
		{netstat.Raw, []string{"raw 0.0.0.0:1 0.0.0.0:0 CLOSE tx=0 rx=768 uid=0 inode=20064 " + dns}},
		{netstat.Raw6, []string{"raw6 [::]:58 [::]:0 CLOSE tx=0 rx=0 uid=0 inode=20065 " + dns}},
		{netstat.ICMP, []string{"icmp 192.0.2.10:9493 203.0.113.5:0 ESTABLISHED tx=0 rx=0 uid=1000 inode=20066 " + java}},
		{netstat.ICMP6, []string{"icmp6 [::1]:9494 [::1]:0 ESTABLISHED tx=0 rx=0 uid=1000 inode=20067 " + java}},
	} {
		t.Run(test.protocol.Name, func(t *testing.T) {
			connections, err := test.protocol.Connections()
			require.NoError(t, err)
			require.Equal(t, test.want, summaries(connections))
			for _, c := range connections {
				require.Same(t, test.protocol, c.Protocol)
			}
		})
	}
}

// RelPath can name the table of another network namespace.
func TestConnectionsOfCustomProtocol(t *testing.T) {
	netstat.UseLittleEndian(t)
	useProcRoot(t, proctree.Materialize(t, smallTree))
	protocol := &netstat.Protocol{Name: "tcp of the container", RelPath: "1003/net/tcp"}
	connections, err := protocol.Connections()
	require.NoError(t, err)
	require.Len(t, connections, 2)
	require.Equal(t, net.IP{172, 17, 0, 2}, connections[1].IP)
	require.Equal(t, 1003, connections[1].Pid)
	require.Same(t, protocol, connections[1].Protocol)
}

// Connections can be called concurrently.
func TestConnectionsConcurrently(t *testing.T) {
	useProcRoot(t, proctree.Materialize(t, smallTree))
	want, err := netstat.TCP6.Connections()
	require.NoError(t, err)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			got, err := netstat.TCP6.Connections()
			assert.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
	group.Wait()
}

// The length of an address depends on the protocol. net.IP prints and compares both forms of an IPv4 address alike, so the length
// is checked.
func TestConnectionsAddressLength(t *testing.T) {
	useProcRoot(t, proctree.Materialize(t, smallTree))
	for protocol, want := range map[*netstat.Protocol]int{
		netstat.TCP: net.IPv4len, netstat.UDP: net.IPv4len, netstat.TCP6: net.IPv6len, netstat.UDP6: net.IPv6len,
	} {
		connections, err := protocol.Connections()
		require.NoError(t, err)
		for _, c := range connections {
			require.Len(t, c.IP, want, "local address of %s", summary(c))
			require.Len(t, c.RemoteIP, want, "remote address of %s", summary(c))
		}
	}
}

func TestProcRoot(t *testing.T) {
	// Numbers in the path are not pids.
	above := filepath.Join(t.TempDir(), "1", "2", "some", "deep", "copy", "of")
	root := filepath.Join(above, "proc")
	require.NoError(t, proctree.Copy(root, smallTree))
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(root, link))
	t.Chdir(filepath.Join(above, ".."))

	useProcRoot(t, "") // restores it afterwards
	for _, procRoot := range []string{root, root + "/", "of/proc", "./of/proc", "of/../of//proc/", "../copy/of/proc", link, link + "/"} {
		t.Run(procRoot, func(t *testing.T) {
			netstat.ProcRoot = procRoot
			connections, err := netstat.TCP.Connections()
			require.NoError(t, err)
			require.Len(t, connections, 12)
			require.Equal(t, 1002, connections[2].Pid)
			require.Equal(t, "/usr/sbin/nginx", connections[2].Exe)
			require.Equal(t, []string{"nginx: worker process"}, connections[2].Cmdline)
		})
	}
	t.Run(".", func(t *testing.T) {
		t.Chdir(root)
		netstat.ProcRoot = "."
		connections, err := netstat.TCP.Connections()
		require.NoError(t, err)
		require.Equal(t, 1002, connections[2].Pid)
	})
}

// All connections of a process share its executable and command line, which are read once.
func TestConnectionsShareProcess(t *testing.T) {
	const n = 1000
	writeConnections(t, n, 1)
	connections, err := netstat.TCP.Connections()
	require.NoError(t, err)
	require.Len(t, connections, n)
	first := connections[0]
	for _, c := range connections {
		require.Equal(t, firstPID, c.Pid)
		require.Equal(t, []string{"program", "argument"}, c.Cmdline)
		require.Same(t, &first.Cmdline[0], &c.Cmdline[0])
		require.Same(t, unsafe.StringData(first.Exe), unsafe.StringData(c.Exe))
	}
}

func TestConnectionsCmdline(t *testing.T) {
	root := filepath.Dir(filepath.Dir(writeTable(t, header+tcpRow(0, 1000)+tcpRow(1, 1001))))
	addProcess(t, root, 42, "", 1000)
	long := strings.Repeat("x", 1<<20)
	for name, test := range map[string]struct {
		content string
		want    []string
	}{
		"none":                    {"", []string{}},
		"only NULs":               {"\x00\x00\x00", []string{}},
		"one argument":            {"a\x00", []string{"a"}},
		"no NUL at the end":       {"a\x00b c", []string{"a", "b c"}},
		"empty argument":          {"a\x00\x00b\x00", []string{"a", "", "b"}},
		"empty arguments at end":  {"a\x00\x00\x00", []string{"a"}},
		"empty first argument":    {"\x00b\x00", []string{"", "b"}},
		"bytes that are no UTF-8": {"\xff\n\x1b\x00", []string{"\xff\n\x1b"}},
		"long":                    {"a\x00" + long + "\x00", []string{"a", long}},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(filepath.Join(root, "42", "cmdline"), []byte(test.content), 0o600))
			connections, err := netstat.TCP.Connections()
			require.NoError(t, err)
			require.Equal(t, 42, connections[0].Pid)
			require.Equal(t, test.want, connections[0].Cmdline)
			require.Equal(t, []string{}, connections[1].Cmdline, "socket without a process")
		})
	}
	t.Run("missing", func(t *testing.T) {
		require.NoError(t, os.Remove(filepath.Join(root, "42", "cmdline")))
		connections, err := netstat.TCP.Connections()
		require.NoError(t, err)
		require.Equal(t, 42, connections[0].Pid)
		require.Equal(t, []string{}, connections[0].Cmdline)
	})
}

func TestConnectionsExe(t *testing.T) {
	root := filepath.Dir(filepath.Dir(writeTable(t, header+tcpRow(0, 1000))))
	addProcess(t, root, 42, "program\x00", 1000)
	exe := filepath.Join(root, "42", "exe")
	for name, test := range map[string]struct {
		makeExe func() error
		want    string
	}{
		"link":            {func() error { return os.Symlink("/usr/bin/program", exe) }, "/usr/bin/program"},
		"link to deleted": {func() error { return os.Symlink("/usr/bin/a b (deleted)", exe) }, "/usr/bin/a b (deleted)"},
		"missing":         {func() error { return nil }, ""},
		"no link":         {func() error { return os.WriteFile(exe, nil, 0o600) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.Remove(exe))
			require.NoError(t, test.makeExe())
			connections, err := netstat.TCP.Connections()
			require.NoError(t, err)
			require.Equal(t, 42, connections[0].Pid)
			require.Equal(t, test.want, connections[0].Exe)
			require.Equal(t, []string{"program"}, connections[0].Cmdline)
			if name == "missing" {
				require.NoError(t, os.Symlink("x", exe)) // the next case removes it
			}
		})
	}
}

// Of several holders of a socket the lowest pid is returned: 7, not 10, although a directory lists 10 first.
func TestConnectionsLowestPid(t *testing.T) {
	root := filepath.Dir(filepath.Dir(writeTable(t, header+tcpRow(0, 1000)+tcpRow(1, 1001))))
	for _, pid := range []int{2000, 7, 10, 123456} {
		addProcess(t, root, pid, "", 1000)
	}
	addProcess(t, root, 3, "", 1001, 1001)
	connections, err := netstat.TCP.Connections()
	require.NoError(t, err)
	require.Equal(t, 7, connections[0].Pid)
	require.Equal(t, 3, connections[1].Pid)
}

// A socket without an inode has no process, even if a descriptor refers to inode 0.
func TestConnectionsInodeZero(t *testing.T) {
	root := filepath.Dir(filepath.Dir(writeTable(t, header+tcpRow(0, 0)+tcpRow(1, 1001))))
	addProcess(t, root, 42, "", 0)
	connections, err := netstat.TCP.Connections()
	require.NoError(t, err)
	require.Zero(t, connections[0].Pid)
	require.Zero(t, connections[1].Pid)
}

// The error for broken rows has file and line, and the other rows are returned.
func TestConnectionsBrokenRow(t *testing.T) {
	for name, test := range map[string]struct{ row, want string }{
		"one word":           {"garbage", `row "garbage" has 1 columns, at least 10 expected`},
		"cut":                {"   1: 0100007F:0050 00000000:0000 0A 0000", `row "   1: 0100007F:0050 00000000:0000 0A 0000" has 5 columns, at least 10 expected`},
		"NULs":               {"\x00\x00", `row "\x00\x00" has 1 columns, at least 10 expected`},
		"long":               {strings.Repeat("x", 64<<10), "longer than 65536 bytes"},
		"long columns":       {strings.Repeat("x", 50<<10) + " 0 0A", `row "` + strings.Repeat("x", 100) + `" has 3 columns, at least 10 expected`},
		"narrow address":     {"1: 0100007:0050 00000000:0000 0A 0:0 0:0 0 0 0 2", `local address "0100007:0050": not 8 or 32 hexadecimal digits, a colon and a port`},
		"wide address":       {"1: 00000000:0000 0100007F0:0050 0A 0:0 0:0 0 0 0 2", `remote address "0100007F0:0050": not 8 or 32 hexadecimal digits, a colon and a port`},
		"no port":            {"1: 0100007F 00000000:0000 0A 0:0 0:0 0 0 0 2", `local address "0100007F": not 8 or 32 hexadecimal digits, a colon and a port`},
		"empty port":         {"1: 0100007F: 00000000:0000 0A 0:0 0:0 0 0 0 2", `local address "0100007F:": not a number`},
		"wide port":          {"1: 0100007F:10000 00000000:0000 0A 0:0 0:0 0 0 0 2", `local address "0100007F:10000": out of range`},
		"address of letters": {"1: 0100007F:0050 0000000G:0000 0A 0:0 0:0 0 0 0 2", `remote address "0000000G:0000": not a number`},
		"two families":       {"1: 0100007F:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 2", `addresses "0100007F:0050" and "00000000000000000000000000000000:0000" are of two families`},
		"wide state":         {"1: 0100007F:0050 00000000:0000 100 0:0 0:0 0 0 0 2", `state "100": out of range`},
		"negative state":     {"1: 0100007F:0050 00000000:0000 -1 0:0 0:0 0 0 0 2", `state "-1": not a number`},
		"one queue":          {"1: 0100007F:0050 00000000:0000 0A 00 0:0 0 0 0 2", `queues "00": no colon`},
		"wide tx_queue":      {"1: 0100007F:0050 00000000:0000 0A 100000000:0 0:0 0 0 0 2", `tx_queue "100000000": out of range`},
		"negative rx_queue":  {"1: 0100007F:0050 00000000:0000 0A 0:-1 0:0 0 0 0 2", `rx_queue "-1": not a number`},
		"wide uid":           {"1: 0100007F:0050 00000000:0000 0A 0:0 0:0 0 4294967296 0 2", `uid "4294967296": out of range`},
		"negative uid":       {"1: 0100007F:0050 00000000:0000 0A 0:0 0:0 0 -2147483649 0 2", `uid "-2147483649": out of range`},
		"wide inode":         {"1: 0100007F:0050 00000000:0000 0A 0:0 0:0 0 0 0 18446744073709551616", `inode "18446744073709551616": out of range`},
		"inode of letters":   {"1: 0100007F:0050 00000000:0000 0A 0:0 0:0 0 0 0 a", `inode "a": not a number`},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeTable(t, header+tcpRow(0, 1000)+test.row+"\n"+tcpRow(2, 1002))
			connections, err := netstat.TCP.Connections()
			require.EqualError(t, err, path+":3: "+test.want)
			require.Len(t, connections, 2)
			require.Equal(t, uint64(1000), connections[0].Inode)
			require.Equal(t, uint64(1002), connections[1].Inode)

			writeTable(t, header+strings.Repeat(test.row+"\n", 3)+tcpRow(2, 1002))
			connections, err = netstat.TCP.Connections()
			require.ErrorContains(t, err, "net/tcp:2: "+test.want+" (and 2 more)")
			require.Len(t, connections, 1)
		})
	}
}

func TestConnectionsBrokenTree(t *testing.T) {
	root := proctree.Materialize(t, brokenTree)
	useProcRoot(t, root)
	for _, test := range []struct {
		protocol *netstat.Protocol
		want     []string // inode and pid
		err      string
	}{
		{netstat.TCP, []string{"1 1003", "18446744073709551615 1001"},
			`net/tcp:3: row "   1: 0100007F:0050 00000000:0000 0A" has 4 columns, at least 10 expected (and 19 more)`},
		{netstat.TCP6, nil, "net/tcp6 has no content"},
		{netstat.UDP, nil, `net/udp:2: row "`},
		{netstat.UDP6, []string{"3 0"}, `net/udp6:3: row "  40: 000000000000000000000000000" has 2 columns, at least 10 expected`},
		{netstat.Raw, nil, ""},  // a header without newline
		{netstat.Raw6, nil, ""}, // an empty line
		{netstat.ICMP, []string{"4 0", "5 0"}, "net/icmp:3: longer than 65536 bytes"},
		{netstat.ICMP6, nil, `net/icmp6:4: drops "4294967296": out of range`},
		{netstat.UDPLite, nil, "net/udplite: no such file or directory"},
	} {
		t.Run(test.protocol.Name, func(t *testing.T) {
			connections, err := test.protocol.Connections()
			if test.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, filepath.Join(root, test.err))
			}
			var got []string
			for _, c := range connections {
				got = append(got, fmt.Sprint(c.Inode, " ", c.Pid))
			}
			require.Equal(t, test.want, got)
		})
	}
}

func TestConnectionsWithoutTable(t *testing.T) {
	path := writeTable(t, "")
	t.Run("empty", func(t *testing.T) {
		connections, err := netstat.TCP.Connections()
		require.EqualError(t, err, "reading the tcp table: "+path+" has no content")
		require.Empty(t, connections)
	})
	t.Run("only a header", func(t *testing.T) {
		writeTable(t, header)
		connections, err := netstat.TCP.Connections()
		require.NoError(t, err)
		require.Empty(t, connections)
	})
	t.Run("missing", func(t *testing.T) {
		connections, err := netstat.TCP6.Connections()
		require.EqualError(t, err, "opening the tcp6 table: open "+path+"6: no such file or directory")
		require.True(t, errors.Is(err, fs.ErrNotExist))
		require.Empty(t, connections)
	})
	t.Run("no proc file system", func(t *testing.T) {
		missing := filepath.Join(t.TempDir(), "missing")
		useProcRoot(t, missing)
		_, err := netstat.TCP.Connections()
		require.ErrorContains(t, err, filepath.Join(missing, "net", "tcp"))
		require.True(t, errors.Is(err, fs.ErrNotExist))
	})
	t.Run("a directory", func(t *testing.T) {
		require.NoError(t, os.Mkdir(path+"6", 0o755))
		_, err := netstat.TCP6.Connections()
		require.ErrorContains(t, err, "reading "+path+"6: ")
		require.False(t, errors.Is(err, fs.ErrNotExist))
	})
}

// Without a directory of processes, the sockets are returned with an error.
func TestConnectionsWithoutProcesses(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	useProcRoot(t, filepath.Join(root, "missing"))
	connections, err := (&netstat.Protocol{Name: "tcp", RelPath: "../net/tcp"}).Connections()
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, filepath.Join(root, "missing"))
	require.NotEmpty(t, connections)
}

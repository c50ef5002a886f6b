//go:build linux

package procnetstat

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/plugins/parsers/influx"
	serializer "github.com/influxdata/telegraf/plugins/serializers/influx"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// fuzzedNames are what others choose on a host.
type fuzzedNames struct{ first, second, user, cgroup, path string }

// FuzzIdentities: whatever processes, users, cgroups, network namespaces and unix sockets are called, no two points of a gather have
// the same measurement, tags and field, neither as metrics nor as line protocol.
func FuzzIdentities(f *testing.F) {
	long := strings.Repeat("x", maxTagValue+50)
	for _, n := range []fuzzedNames{
		{"nginx", "nginx", "www", "/system.slice/nginx.service", "/run/a"},
		{"other", "unattributed", "unknown", "other", "other"},
		{"unknown", "other", "unattributed", "/", "@other"},
		{`\x6fther`, "other", `\x6fther`, `\x6fther`, `\x6fther`},
		{"", "(empty)", "", "", ""},
		{"a\nb", "a\\nb", "a,b=c d", "/a\nb\\", "/run/a\nb"},
		{"a\\", "a", "\xff", "/\xff\xfe", "\x01"},
		{long + "a", long + "b", long, "/" + long, "@" + long},
		{"2", "2-2", "self", "/docker/" + strings.Repeat("0123456789abcdef", 4), "0.0.0.0"},
		{"pid:7", "7", "0", "/nomad.slice/x.scope", "tcp"},
	} {
		f.Add(n.first, n.second, n.user, n.cgroup, n.path, uint8(0))
		f.Add(n.second, n.first, n.cgroup, n.path, n.user, uint8(255))
	}
	f.Add("p", "q", "other", "/", "/run/a", uint8(1|2)) // beside the sum of p and q
	f.Fuzz(func(t *testing.T, first, second, user, cgroup, path string, options uint8) {
		names := fuzzedNames{first, second, user, cgroup, path}
		requireDifferentTags(t, names)
		root := t.TempDir()
		t.Setenv("HOST_PROC", filepath.Join(root, "proc"))
		t.Setenv("HOST_ETC", filepath.Join(root, "etc"))
		names.write(t, root)
		plugin := newPlugin()
		plugin.Log = testutil.Logger{Quiet: true}
		plugin.Source, plugin.Owners = "procfs", "procfs"
		plugin.Measurements = allMeasurements
		plugin.Protocols = []string{"tcp", "udp", "unix"}
		plugin.ProcessTags = allProcessTags
		if options&1 != 0 {
			plugin.ProcessTags = []string{tagProcessName}
		}
		if options&2 != 0 {
			plugin.MaxSeries = 3
		}
		if options&4 != 0 {
			plugin.ConnectionTags = []string{"state"}
		}
		if options&8 != 0 {
			plugin.ConnectionTags = allConnectionTags
		}
		plugin.FamilyTag = options&16 != 0
		require.NoError(t, plugin.Init())
		require.NoError(t, plugin.Start(nil))
		defer plugin.Stop()
		for range 2 {
			acc := &testutil.Accumulator{}
			require.NoError(t, plugin.Gather(acc))
			require.Empty(t, acc.Errors)
			metrics := acc.GetTelegrafMetrics()
			require.Equal(t, identities(t, metrics), identities(t, throughLineProtocol(t, metrics)))
			names.first, names.second, names.cgroup = names.second, names.user, names.first // the processes are renamed
			names.write(t, root)
		}
	})
}

// identities returns the identity of each field: its name with measurement and tags. It requires that no two are the same.
func identities(t *testing.T, metrics []telegraf.Metric) map[string]bool {
	t.Helper()
	require.NotEmpty(t, metrics)
	seen := map[string]bool{}
	for _, m := range metrics {
		require.True(t, m.Time().Equal(metrics[0].Time()))
		of := []string{m.Name()}
		for _, tag := range m.TagList() { // sorted
			of = append(of, tag.Key, tag.Value)
		}
		identity := fmt.Sprintf("%q", of)
		for _, field := range m.FieldList() {
			point := fmt.Sprintf("%s %q", identity, field.Key)
			require.False(t, seen[point], "twice: %s", point)
			seen[point] = true
		}
	}
	return seen
}

// throughLineProtocol writes the metrics as line protocol, and returns what is read from that.
func throughLineProtocol(t *testing.T, metrics []telegraf.Metric) (read []telegraf.Metric) {
	t.Helper()
	s := &serializer.Serializer{}
	require.NoError(t, s.Init())
	text, err := s.SerializeBatch(metrics)
	require.NoError(t, err)
	require.Equal(t, len(metrics), bytes.Count(text, []byte{'\n'}))
	parser := &influx.Parser{}
	require.NoError(t, parser.Init())
	read, err = parser.Parse(text)
	require.NoError(t, err)
	return read
}

// requireDifferentTags requires that no two network namespaces have the same tag.
func requireDifferentTags(t *testing.T, names fuzzedNames) {
	t.Helper()
	namespaces := []*netstat.Namespace{
		{ID: 1, Self: true, Inode: 1}, {ID: 2, Inode: 2, Name: names.first}, {ID: 3, Inode: 3, Name: names.second}, {ID: 4, Inode: 2},
		{ID: 5, PID: 7}, {ID: 6, PID: 7}, {ID: 7, Inode: 5, Name: names.user}, {ID: 8, Inode: 7}, {ID: 9, Inode: 3, Name: names.path},
	}
	var all scopes
	for range 2 {
		seen := map[string]bool{}
		for _, tag := range tagsIn(&all, namespaces...) {
			require.NotEmpty(t, tag)
			require.False(t, seen[tag], "twice: %q", tag)
			seen[tag] = true
		}
	}
}

// write writes a proc file system and the users of a host into the directory. Three processes share a port; sockets without a process
// are in each state.
func (n *fuzzedNames) write(t *testing.T, root string) {
	t.Helper()
	file := func(path, content string) {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	file("etc/passwd", fmt.Sprintf("root:x:0:0::/:\n%s:x:1:1::/:\n%s:x:2:2::/:\n", n.user, n.first))
	const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	tcp, udp, unix := header, header, "Num       RefCount Protocol Flags    Type St Inode Path\n"
	row := func(table *string, local, remote string, state, inode int) {
		*table += fmt.Sprintf("   0: %s %s %02X 00000000:00000000 00:00000000 00000000     0        0 %d 1 0000000000000000 20 4 30 10 -1\n",
			local, remote, state, inode)
	}
	unixRow := func(table *string, state string, inode int, path string) {
		*table += fmt.Sprintf("0000000000000000: %s %d%s\n", state, inode, path)
	}
	const at, peer, none = "0100007F:1F90", "0200007F:0050", "00000000:0000"
	for i, name := range []string{n.first, n.second, n.user} {
		pid, inode := 10+i, 1000*(i+1)
		row(&tcp, at, none, int(netstat.TCPListen), inode)
		row(&tcp, at, fmt.Sprintf("0300007F:%04X", inode), int(netstat.TCPEstablished), inode+1)
		row(&tcp, fmt.Sprintf("0100007F:%04X", inode), peer, int(netstat.TCPEstablished), inode+2)
		row(&udp, at, none, int(netstat.TCPClose), inode+3)
		unixRow(&unix, "00000002 00000000 00010000 0001 01", inode+4, " "+printed(n.path))
		unixRow(&unix, "00000003 00000000 00000000 0001 03", inode+5, "")
		dir := fmt.Sprintf("proc/%d/", pid)
		const maxComm = 15
		comm := strings.ReplaceAll(name, "\x00", "")
		file(dir+"stat", fmt.Sprintf("%d (%s) S 1 10 10 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 1 1000000 200 %s\n",
			pid, comm[:min(len(comm), maxComm)], strings.Repeat("0 ", 28)))
		file(dir+"status", fmt.Sprintf("Name:\tx\nUid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", i))
		file(dir+"cmdline", name+"\x00"+n.second+"\x00")
		file(dir+"cgroup", "0::/"+strings.ReplaceAll(n.cgroup, "\n", `\012`)+"\n")
		for fd := range 6 {
			link := filepath.Join(root, dir, "fd", strconv.Itoa(fd))
			require.NoError(t, os.MkdirAll(filepath.Dir(link), 0o755))
			if _, err := os.Lstat(link); err != nil {
				require.NoError(t, os.Symlink(fmt.Sprintf("socket:[%d]", inode+fd), link))
			}
		}
		exe := filepath.Join(root, dir, "exe")
		_ = os.Remove(exe)
		_ = os.Symlink(strings.ReplaceAll("/"+name, "\x00", ""), exe) // fails if it is too long
	}
	for state := range netstat.TCPClosing {
		for range 2 {
			row(&tcp, at, peer, int(state)+1, 0)
		}
	}
	file("proc/net/tcp", tcp)
	file("proc/net/udp", udp)
	file("proc/net/unix", unix)
}

// printed returns the path as the kernel prints it: with NUL as @.
func printed(path string) string { return strings.ReplaceAll(path, "\x00", "@") }

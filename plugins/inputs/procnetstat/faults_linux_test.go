package procnetstat

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/plugins/parsers/influx"
	serializer "github.com/influxdata/telegraf/plugins/serializers/influx"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

// slowTable is a /proc/net/udp that takes as long to read as the test wants. That of TCP is read twice in a copy.
type slowTable struct {
	t    *testing.T
	path string
}

// newSlowTable makes a proc file system with it the one that is read.
func newSlowTable(t *testing.T) slowTable {
	t.Helper()
	root := proctree.Materialize(t, filepath.Join("..", "..", "..", "netstat", "testdata", "proc", "small"))
	path := filepath.Join(root, "net", "udp")
	require.NoError(t, os.Remove(path))
	require.NoError(t, unix.Mkfifo(path, 0o600))
	t.Setenv("HOST_PROC", root)
	return slowTable{t, path}
}

// open returns when the table is being read.
func (s slowTable) open() io.WriteCloser {
	s.t.Helper()
	file, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = file.Close() }) // so that a gather that a Stop did not end does
	_, err = io.WriteString(file, "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n")
	require.NoError(s.t, err)
	return file
}

const slowRow = "   1: 00000000:0050 00000000:0000 07 00000000:00000001 00:00000000 00000000     0        0 20020 2 00000000efe1b6ae 0\n"

// inBackground gathers, and returns what is sent when the gather has ended.
func inBackground(plugin *ProcNetStat) (acc *testutil.Accumulator, ended chan error) {
	acc, ended = &testutil.Accumulator{}, make(chan error, 1)
	go func() { ended <- plugin.Gather(acc) }()
	return acc, ended
}

// stopInTime stops the plugin, and wants that to be done within a second.
func stopInTime(t *testing.T, plugin *ProcNetStat) {
	t.Helper()
	stopped := make(chan time.Duration, 1)
	go func() {
		start := time.Now()
		plugin.Stop()
		stopped <- time.Since(start)
	}()
	require.Less(t, receive(t, stopped, "Stop"), time.Second)
}

// receive returns what a channel has, and fails the test if that does not come.
func receive[T any](t *testing.T, from <-chan T, what string) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(10 * time.Second):
		require.Fail(t, what+" does not end")
	}
	return value
}

// Stop ends a gather that is reading a table, which then emits nothing.
func TestStopWhileTableIsRead(t *testing.T) {
	table := newSlowTable(t)
	l := start(t, "")
	acc, ended := inBackground(l.plugin)
	file := table.open()
	go func() {
		for rows := strings.Repeat(slowRow, 100); ; { // for ever
			if _, err := io.WriteString(file, rows); err != nil {
				return
			}
		}
	}()
	time.Sleep(50 * time.Millisecond)
	stopInTime(t, l.plugin)
	require.NoError(t, receive(t, ended, "the gather"))
	require.Empty(t, acc.GetTelegrafMetrics())
	require.Empty(t, acc.Errors)
	require.NoError(t, file.Close())

	// What still asks for a gather gets nothing, and opens nothing.
	before := descriptors(t)
	require.NoError(t, l.plugin.Gather(acc))
	require.Empty(t, acc.GetTelegrafMetrics())
	require.Empty(t, acc.Errors)
	require.Equal(t, before, descriptors(t))
	l.plugin.Stop() // once more is no harm
}

// descriptors are the open files of this process, by number.
func descriptors(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	open := map[string]string{}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name())); err == nil {
			open[entry.Name()] = target
		}
	}
	return open
}

// Stop comes at any moment of a gather: it returns at once, gives back what the plugin has open, and the gather emits all or nothing.
func TestStopAtAnyMoment(t *testing.T) {
	testnet.Isolate(t, func() {
		const connections = 2000
		testnet.ConnectedPairs(t, 1, connections)
		var before map[string]string
		var most [3]time.Duration // the longest wait before the stop, so that about half of the gathers of each kind are stopped
		stopped, whole := 0, 0
		for i := range 60 {
			options := []string{"", `owners = "procfs"`, `source = "procfs"`}[i%3]
			plugin := configure(t, options)
			plugin.Log = testutil.Logger{Quiet: true}
			require.NoError(t, plugin.Init())
			require.NoError(t, plugin.Start(nil))
			start := time.Now()
			acc, ended := inBackground(plugin)
			wait := &most[i%3]
			if i < 3 { // of each kind, to its end
				ended <- receive(t, ended, "a gather that is not stopped")
				*wait = time.Since(start)
			} else {
				time.Sleep(rand.N(*wait))
			}
			stopInTime(t, plugin)
			require.NoError(t, receive(t, ended, "the gather"))
			require.Empty(t, acc.Errors)
			switch g := (gathered{t, acc.GetTelegrafMetrics()}); {
			case len(g.metrics) == 0:
				stopped++
				*wait += *wait / 4
			default:
				whole++
				*wait -= *wait / 4
				require.EqualValues(t, 2*connections, g.one("procnetstat")["tcp_established"])
				require.EqualValues(t, 2*connections+1, g.sum("procnetstat_gather")["sockets"])
			}
			if before == nil {
				before = descriptors(t)
			}
			require.Equal(t, before, descriptors(t))
		}
		t.Logf("%d gathers were stopped, %d were not", stopped, whole)
		require.GreaterOrEqual(t, stopped, 10)
	})
}

// A gather that is due while another one runs waits for it, and neither counts what the other does.
func TestGatherStillRunning(t *testing.T) {
	table := newSlowTable(t)
	l := start(t, "")
	first, firstEnded := inBackground(l.plugin)
	file := table.open()
	_, err := io.WriteString(file, slowRow)
	require.NoError(t, err)
	second, secondEnded := inBackground(l.plugin)
	time.Sleep(50 * time.Millisecond)
	require.Empty(t, first.GetTelegrafMetrics())
	require.Empty(t, second.GetTelegrafMetrics())
	require.NoError(t, file.Close())
	require.NoError(t, receive(t, firstEnded, "the first gather"))

	file = table.open()
	for range 2 {
		_, err = io.WriteString(file, slowRow)
		require.NoError(t, err)
	}
	require.NoError(t, file.Close())
	require.NoError(t, receive(t, secondEnded, "the second gather"))
	for bound, acc := range map[int64]*testutil.Accumulator{1: first, 2: second} {
		require.Empty(t, acc.Errors)
		g := gathered{t, acc.GetTelegrafMetrics()}
		require.Equal(t, bound, g.one("procnetstat_listener", "local_port=80", "protocol=udp")["udp_socket"])
		require.Positive(t, g.one("procnetstat_gather")["duration_ns"])
	}
}

// A process that has run out of descriptors emits fewer metrics and an error in each gather, and all metrics once it has descriptors again.
func TestOutOfDescriptors(t *testing.T) {
	testnet.Isolate(t, func() {
		p := testnet.Start(t, testnet.Process{Name: "holder"})
		listener := p.Listen("tcp4", netip.AddrPort{}, 5)
		l := start(t, "")
		whole := l.gather()
		late := testnet.Start(t, testnet.Process{Name: "late"})
		late.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})

		acc := &testutil.Accumulator{}
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}))
		err := l.plugin.Gather(acc)
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		require.NoError(t, err)
		require.Len(t, acc.Errors, 3, "the owners, the socket counts and the kernel's counters: %v", acc.Errors)
		for _, err := range acc.Errors {
			require.ErrorIs(t, err, unix.EMFILE)
		}
		without := gathered{t, acc.GetTelegrafMetrics()}
		require.EqualValues(t, 1, without.one("procnetstat")["tcp_listen"])
		require.EqualValues(t, 1, without.one("procnetstat")["udp_socket"])
		require.NotContains(t, without.one("procnetstat"), "sockets_used")
		require.EqualValues(t, 2, without.one("procnetstat_gather")["unattributed"])
		port := fmt.Sprintf("local_port=%d", listener.Local.Port())
		require.EqualValues(t, 1, without.one("procnetstat_listener", port, "process_name=unattributed")["tcp_listen"])

		again := l.gather()
		require.EqualValues(t, 0, again.one("procnetstat_gather")["unattributed"])
		require.Equal(t, whole.one("procnetstat_listener", port), again.one("procnetstat_listener", port))
		require.EqualValues(t, 1, again.one("procnetstat_process", "process_name=late")["udp_socket"])
		require.Contains(t, again.one("procnetstat"), "sockets_used")
		require.Empty(t, l.log.Errors())
	})
}

// A process whose user could not be read is judged by its user as soon as that can be.
func TestUserThatCannotBeReadAtFirst(t *testing.T) {
	root := proctree.Materialize(t, filepath.Join("..", "..", "..", "netstat", "testdata", "proc", "small"))
	t.Setenv("HOST_PROC", root)
	status, away := filepath.Join(root, "1002", "status"), filepath.Join(root, "1002", "away")
	require.NoError(t, os.Rename(status, away))
	l := start(t, `user_exclude = ["33", "www-data"]`)
	for range 2 {
		require.Len(t, l.gather().all("procnetstat_process", "process_name=nginx", "user=unknown"), 1)
	}
	require.NoError(t, os.Rename(away, status))
	for range 2 {
		g := l.gather()
		require.Empty(t, g.all("procnetstat_process", "process_name=nginx", "user=unknown"))
		require.Empty(t, g.all("procnetstat_process", "process_name=nginx", "user=www-data"))
		require.NotEmpty(t, g.all("procnetstat_process", "process_name=nginx"), "that of root")
	}
}

// Without a cgroup2 file system, from the start or from some time on, the cgroups are those of the processes. One log line reports it.
func TestCgroupMountMissing(t *testing.T) {
	testnet.IsolateMounts(t, func() {
		dir, path := testnet.Cgroup(t, "a.service")
		mount := strings.TrimSuffix(dir, path)
		p := testnet.Start(t, testnet.Process{Name: "service", Cgroup: dir})
		p.Listen("tcp4", netip.AddrPort{}, 5)
		series := fmt.Sprintf("cgroup=%s,systemd_unit=a.service", path)
		hide := func() { require.NoError(t, unix.Mount("hidden", mount, "tmpfs", 0, "")) }
		show := func() { require.NoError(t, unix.Unmount(mount, unix.MNT_DETACH)) }

		l := start(t, "")
		require.EqualValues(t, 1, l.gather().all("procnetstat_cgroup")[series]["tcp_listen"])
		newDir, newPath := testnet.Cgroup(t, "new.service")
		testnet.Start(t, testnet.Process{Name: "new", Cgroup: newDir}).Listen("tcp4", netip.AddrPort{}, 5)
		newSeries := fmt.Sprintf("cgroup=%s,systemd_unit=new.service", newPath)
		hide()
		for range 3 {
			g := l.gather()
			require.EqualValues(t, 1, g.all("procnetstat_cgroup")[series]["tcp_listen"], "it is known still")
			require.EqualValues(t, 1, g.all("procnetstat_cgroup")[newSeries]["tcp_listen"], "by the process")
		}
		require.Len(t, messagesWith(l, "no cgroup2 file system is mounted"), 1)
		show()
		require.EqualValues(t, 1, l.gather().all("procnetstat_cgroup")[newSeries]["tcp_listen"])

		hide()
		l = start(t, "")
		for range 3 {
			require.EqualValues(t, 1, l.gather().all("procnetstat_cgroup")[series]["tcp_listen"], "by the process")
		}
		groups := l.plugin.pass.cgroups
		show()
		_ = l.gather()
		require.Nil(t, groups.tree, "it is not time")
		now := time.Now().Add(cgroupRetryInterval)
		groups.now = func() time.Time { return now }
		require.EqualValues(t, 1, l.gather().all("procnetstat_cgroup")[series]["tcp_listen"])
		require.NotNil(t, groups.tree)
		require.Len(t, messagesWith(l, "Cannot look up the cgroups of sockets; using those of their processes"), 1)
		require.Empty(t, l.log.Errors())
	})
}

// messagesWith returns what was logged with the text in it.
func messagesWith(l *live, text string) (found []string) {
	for _, m := range l.log.Messages() {
		if strings.Contains(m.Text, text) {
			found = append(found, m.Text)
		}
	}
	return found
}

// stepped returns the time on a clock that was stepped by so many seconds. The monotonic time stays the same.
func stepped(t *testing.T, now time.Time, seconds int64) time.Time {
	t.Helper()
	after := now
	// A time that was read from the clock has a wall clock reading and a monotonic one: see package time. The
	// first is in wall, with the seconds from bit 30 on.
	wall := (*uint64)(unsafe.Pointer(&after))
	*wall = uint64(int64(*wall) + seconds<<30)
	require.Equal(t, now.Unix()+seconds, after.Unix())
	require.Zero(t, after.Sub(now))
	return after
}

// Steps of the clock, by a year in either direction, neither lose a counter nor keep it longer.
func TestClockSteps(t *testing.T) {
	const year = 365 * 24 * 3600
	for _, step := range []int64{-year, year} {
		s := newScene(t, 10)
		s.now = time.Now()
		require.Equal(t, map[string]int64{"80": 0}, s.gather(0, socket(80, 1, 0)))
		require.Equal(t, map[string]int64{"80": 5}, s.gather(interval, socket(80, 1, 5)))
		s.now = stepped(t, s.now, step)
		require.Equal(t, map[string]int64{"80": 6}, s.gather(interval, socket(80, 1, 6)))
		s.now = stepped(t, s.now, step)
		require.Empty(t, s.gather(interval))
		require.Equal(t, map[string]int64{"80": 7}, s.gather(interval, socket(80, 1, 7)), "it is remembered")
		s.now = stepped(t, s.now, step)
		s.gather(counterMemory + interval)
		require.Empty(t, s.measurement.series.byKey, "it is forgotten after its time")
	}
	// The plugin's own times are such.
	testnet.Isolate(t, func() {
		testnet.Start(t, testnet.Process{Name: "holder"}).Listen("tcp4", netip.AddrPort{}, 5)
		l := start(t, `measurements = ["process"]`)
		l.gather()
		for _, s := range l.plugin.measurements[0].(*processMeasurement).series.byKey {
			require.Contains(t, s.lastEmitted.String(), " m=+", "read from the clock that is not stepped")
		}
	})
}

// Two instances with different options that gather at the same time count what each counts alone, also when one of them has stopped.
func TestTwoInstances(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.States(t, "tcp4")
		testnet.ConnectedPairs(t, 2, 100)
		var instances []*live
		var alone []map[string]map[string]int64
		for _, options := range []string{
			"",
			`owners = "procfs"` + "\n" + `process_include = ["server"]` + "\n" + `measurements = ["process", "listener"]`,
			`source = "procfs"` + "\n" + `family_tag = true` + "\n" + `exclude_loopback = true` + "\n" + `max_series = 2`,
			`owners = "none"` + "\n" + `measurements = ["host", "connection"]` + "\n" + `protocols = ["tcp"]`,
		} {
			l := start(t, options)
			l.gather()
			instances, alone = append(instances, l), append(alone, countsOf(l.gather()))
		}
		var wg sync.WaitGroup
		for i, l := range instances {
			wg.Go(func() {
				for range 5 + 3*i { // the first stops first
					acc := &testutil.Accumulator{}
					assert.NoError(t, l.plugin.Gather(acc))
					assert.Empty(t, acc.Errors)
					assert.Equal(t, alone[i], countsOf(gathered{t, acc.GetTelegrafMetrics()}))
				}
				l.plugin.Stop()
			})
		}
		wg.Wait()
	})
}

// countsOf returns the series, and the numbers of sockets in each, which stay the same where nobody does anything.
func countsOf(g gathered) map[string]map[string]int64 {
	counts := map[string]map[string]int64{}
	for _, m := range g.metrics {
		of := []string{m.Name()}
		for _, tag := range m.TagList() {
			of = append(of, tag.Key+"="+tag.Value)
		}
		series := strings.Join(of, ",")
		if counts[series] == nil {
			counts[series] = map[string]int64{}
		}
		for _, field := range m.FieldList() {
			if value, isNumber := field.Value.(int64); isNumber &&
				(slices.Contains(stateFields, field.Key) || strings.HasSuffix(field.Key, "_socket") || field.Key == "inode") {
				counts[series][field.Key] = value
			}
		}
	}
	return counts
}

// everyByte returns names with all the bytes but those that are left out, none longer than so many.
func everyByte(most int, without string) (names []string) {
	var name []byte
	for b := range 256 {
		if strings.IndexByte(without, byte(b)) < 0 {
			name = append(name, byte(b))
		}
	}
	for part := range slices.Chunk(name, most) {
		names = append(names, string(part))
	}
	return names
}

// Names of processes, cgroups, network namespaces and unix sockets, and command lines, with every byte that they can have: each is a
// tag value that the line protocol brings over as it is, and tells them apart.
func TestSlowNamesOfEveryByte(t *testing.T) {
	testnet.SkipUnlessSlow(t)
	testnet.IsolateMounts(t, func() {
		var cmdline []string
		for _, part := range everyByte(1000, "\x00") {
			cmdline = append(cmdline, strings.Repeat(part, 64<<10/len(part)+1))
		}
		want := map[string]int{} // series of each tag, at least
		var dirs []string
		for _, name := range everyByte(200, "\x00/\n") {
			dir, _ := testnet.Cgroup(t, name)
			dirs = append(dirs, dir)
			want["cgroup"]++
		}
		for _, name := range everyByte(200, "\x00/") {
			file := testnet.Netns(t, name)
			testnet.Start(t, testnet.Process{Name: "in namespace", In: file}).Listen("tcp4", netip.AddrPort{}, 1)
			want["netns"]++
		}
		for _, name := range everyByte(15, "\x00") {
			p := testnet.Start(t, testnet.Process{Name: name, Args: cmdline, Cgroup: dirs[want["process_name"]%len(dirs)]})
			p.Listen("tcp4", netip.AddrPort{}, 1)
			want["process_name"]++
		}
		want["cmdline"] = want["process_name"] // their programs have different names
		for _, name := range everyByte(100, "") {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			defer unix.Close(fd)
			require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + name}))
			want["name"]++
		}
		for _, source := range []string{"netlink", "procfs"} {
			l := start(t, fmt.Sprintf("source = %q\n", source)+`namespaces = ["self", "all"]
				measurements = ["process", "cgroup", "connection"]
				process_tags = ["process_name", "exe", "cmdline", "cgroup"]
				connection_tags = ["process_name", "inode", "name", "cgroup"]
				protocols = ["tcp", "unix"]
				max_series = 5000`)
			g := l.gather()
			values := map[string]map[string]bool{}
			for _, m := range g.metrics {
				for _, tag := range m.TagList() {
					if values[tag.Key] == nil {
						values[tag.Key] = map[string]bool{}
					}
					values[tag.Key][tag.Value] = true
					require.LessOrEqual(t, len(tag.Value), maxTagValue)
				}
			}
			for tag, n := range want {
				require.GreaterOrEqual(t, len(values[tag]), n, "%s: %q", tag, slices.Collect(maps.Keys(values[tag])))
			}
			requireSameAfterLineProtocol(t, g.metrics)
			require.Empty(t, l.log.Errors())
		}
	})
}

// requireSameAfterLineProtocol writes metrics as outputs do, and reads them again.
func requireSameAfterLineProtocol(t *testing.T, metrics []telegraf.Metric) {
	t.Helper()
	s := &serializer.Serializer{}
	require.NoError(t, s.Init())
	text, err := s.SerializeBatch(metrics)
	require.NoError(t, err)
	require.Equal(t, len(metrics), strings.Count(string(text), "\n"), "a line each")
	parser := &influx.Parser{}
	require.NoError(t, parser.Init())
	again, err := parser.Parse(text)
	require.NoError(t, err)
	testutil.RequireMetricsEqual(t, metrics, again, testutil.IgnoreType(), testutil.SortMetrics())
}

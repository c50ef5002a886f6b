package procnetstat

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// withRemote are the default measurements and procnetstat_remote.
const withRemote = `measurements = ["host", "process", "listener", "cgroup", "remote", "gather"]
`

// live is a plugin that reads the real kernel.
type live struct {
	*testing.T
	plugin *ProcNetStat
	log    *testutil.CaptureLogger
}

// start starts a plugin, which stops with the test.
func start(t *testing.T, options string) *live {
	t.Helper()
	l := &live{T: t, plugin: configure(t, options), log: &testutil.CaptureLogger{}}
	l.plugin.Log = l.log
	require.NoError(t, l.plugin.Init())
	require.NoError(t, l.plugin.Start(nil))
	t.Cleanup(l.plugin.Stop)
	return l
}

// gather returns what one gather emits, and wants no error.
func (l *live) gather() gathered {
	l.Helper()
	acc := &testutil.Accumulator{}
	require.NoError(l, l.plugin.Gather(acc))
	require.Empty(l, acc.Errors)
	return gathered{l.T, acc.GetTelegrafMetrics()}
}

// gatherWhole returns the gauges of a gather and the counters of the next one, in which those of new series are whole.
func (l *live) gatherWhole() gathered {
	l.Helper()
	return l.gather().withCountersOf(l.gather())
}

type gathered struct {
	*testing.T
	metrics []telegraf.Metric
}

// withCountersOf returns the gauges of a gather and the counters of the next one. A series that the next one does not emit had
// nothing left to count.
func (g gathered) withCountersOf(next gathered) gathered {
	key := func(m telegraf.Metric) string { return fmt.Sprint(m.Name(), m.Tags(), m.Type()) }
	later := map[string]telegraf.Metric{}
	for _, m := range next.metrics {
		later[key(m)] = m
	}
	whole := gathered{T: g.T}
	for _, m := range g.metrics {
		if l := later[key(m)]; l != nil && m.Type() == telegraf.Counter {
			m = l
		}
		whole.metrics = append(whole.metrics, m)
	}
	return whole
}

// all returns the series of the measurement that have the tags, which are given as name=value: the fields of each, by its
// tags.
func (g gathered) all(measurement string, tags ...string) map[string]map[string]int64 {
	g.Helper()
	found := map[string]map[string]int64{}
	for _, m := range g.metrics {
		if m.Name() != measurement {
			continue
		}
		var has []string
		for _, tag := range m.TagList() {
			has = append(has, tag.Key+"="+tag.Value)
		}
		if slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(has, tag) }) {
			continue
		}
		key := strings.Join(has, ",")
		if found[key] == nil {
			found[key] = map[string]int64{}
		}
		for _, field := range m.FieldList() {
			value, ok := field.Value.(int64)
			require.True(g, ok, "%s is a %T", field.Key, field.Value)
			require.NotContains(g, found[key], field.Key, "emitted twice for %s", key)
			found[key][field.Key] = value
		}
	}
	return found
}

// one returns the fields of the only series that has the tags.
func (g gathered) one(measurement string, tags ...string) map[string]int64 {
	g.Helper()
	found := g.all(measurement, tags...)
	require.Len(g, found, 1, "%s with %v", measurement, tags)
	for _, fields := range found {
		return fields
	}
	return nil
}

// sum returns the sums of the fields over the series that have the tags, without round-trip times, of which there is no sum.
func (g gathered) sum(measurement string, tags ...string) map[string]int64 {
	g.Helper()
	sums := map[string]int64{}
	for _, fields := range g.all(measurement, tags...) {
		for name, value := range fields {
			if !strings.Contains(name, "_rtt_") {
				sums[name] += value
			}
		}
	}
	return sums
}

// expectation is what ss reports for the sockets of a series.
type expectation map[string]int64

// expectations are by the tags of the series.
type expectations map[string]expectation

// count adds a row of ss to a series.
func (e expectations) count(row testnet.Row, tags string) {
	of := e[tags]
	if of == nil {
		of = expectation{}
		if !strings.Contains(tags, "protocol=udp") {
			of["tcp_rx_queue"], of["tcp_tx_queue"] = 0, 0
			for _, name := range stateFields {
				if isListener := strings.Contains(tags, "protocol=tcp"); isListener && name == "tcp_syn_sent" {
					continue // can only be 0
				}
				of[name] = 0
			}
		}
		e[tags] = of
	}
	if row.Netid == "udp" {
		of["udp_socket"]++
		of["udp_rx_queue"] += int64(row.RecvQ)
		of["udp_tx_queue"] += int64(row.SendQ)
		return
	}
	of["tcp_"+strings.ToLower(row.State)]++
	if row.State != "LISTEN" {
		of["tcp_rx_queue"] += int64(row.RecvQ)
		of["tcp_tx_queue"] += int64(row.SendQ)
	}
}

// requireIn requires that the measurement has these series and no other, with at least these fields.
func (e expectations) requireIn(g gathered, measurement string) {
	g.Helper()
	got := expectations{}
	for tags, fields := range g.all(measurement) {
		got[tags] = expectation{}
		for name, value := range fields {
			if _, wanted := e[tags][name]; wanted || e[tags] == nil {
				got[tags][name] = value
			}
		}
	}
	require.Equal(g, e, got, measurement)
}

// eventually waits until it is done. It runs done in this goroutine, which can end the test.
func eventually(tb testing.TB, done func() bool) {
	tb.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatal("what was waited for did not happen in 10 seconds")
		}
	}
}

// await waits until sockets are in a state and all that they sent is acknowledged: a FIN takes a moment.
func await(t *testing.T, state string, sockets ...testnet.Socket) {
	t.Helper()
	eventually(t, func() bool {
		left := len(sockets)
		for _, row := range testnet.SS(t, "-t") {
			if row.State == state && row.SendQ == 0 && slices.ContainsFunc(sockets, func(s testnet.Socket) bool {
				return s.Local == row.Local && s.Remote == row.Remote
			}) {
				left--
			}
		}
		return left == 0
	})
}

// fromSS makes of what ss says what the measurements should say.
func fromSS(t *testing.T, users map[string]string) (host, processes, listeners expectations) {
	t.Helper()
	return fromRows(t, testnet.SS(t, "-t", "-u", "-p"), users)
}

// tagged is a key of expectations. A tag is name=value.
func tagged(tags ...string) string { return strings.Join(slices.Sorted(slices.Values(tags)), ",") }

// listenersOf returns a function that finds, among the rows, the listener of a connection.
func listenersOf(t *testing.T, rows []testnet.Row) func(testnet.Row) (listener testnet.Row, found bool) {
	t.Helper()
	listening := map[netip.AddrPort]testnet.Row{}
	for _, row := range rows {
		if row.State == "LISTEN" {
			require.NotContains(t, listening, row.Local)
			listening[row.Local] = row
		}
	}
	return func(row testnet.Row) (listener testnet.Row, found bool) {
		if row.Netid != "tcp" {
			return listener, false
		}
		if listener, found = listening[row.Local]; found {
			return listener, true
		}
		wildcard := netip.IPv6Unspecified()
		if row.Local.Addr().Is4() {
			wildcard = netip.IPv4Unspecified()
		}
		listener, found = listening[netip.AddrPortFrom(wildcard, row.Local.Port())]
		return listener, found
	}
}

// namesOf returns the names of the processes that hold the socket.
func namesOf(row testnet.Row) (names []string) {
	for _, process := range row.Processes {
		if name := wholeName(process.PID, process.Name); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// wholeName returns the name of a process that ss shows at most 15 bytes of.
func wholeName(pid int, name string) string {
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	first, _, _ := strings.Cut(string(cmdline), "\x00")
	if base := filepath.Base(first); len(name) == 15 && strings.HasPrefix(base, name) {
		return base
	}
	return name
}

// fromRows is fromSS for rows of ss, and series that have further tags.
func fromRows(t *testing.T, rows []testnet.Row, users map[string]string, tags ...string) (host, processes, listeners expectations) {
	t.Helper()
	listenerOf := listenersOf(t, rows)
	host, processes, listeners = expectations{}, expectations{}, expectations{}
	for _, row := range rows {
		host.count(row, tagged(tags...))
		names := namesOf(row)
		listener, cameIn := listenerOf(row)
		if len(names) == 0 && cameIn {
			names = namesOf(listener)
		}
		if len(names) == 0 {
			processes.count(row, tagged(slices.Concat(tags, []string{"process_name=unattributed", "user=unattributed"})...))
		}
		for _, name := range names {
			processes.count(row, tagged(slices.Concat(tags, []string{"process_name=" + name, "user=" + users[name]})...))
		}
		if row.Netid == "udp" && row.State == "CLOSE" {
			cameIn, listener = true, row
		}
		if !cameIn {
			continue
		}
		if len(names) == 0 {
			names = []string{unattributed}
		}
		for _, name := range names {
			key := tagged(slices.Concat(tags, []string{
				"protocol=" + row.Netid, "local_address=" + listener.Local.Addr().String(),
				"local_port=" + strconv.Itoa(int(listener.Local.Port())), "process_name=" + name,
			})...)
			listeners.count(row, key)
			if row.State == "LISTEN" {
				listeners[key]["accept_queue"] = int64(listener.RecvQ)
				listeners[key]["accept_queue_limit"] = int64(listener.SendQ)
			}
		}
	}
	return host, processes, listeners
}

// TestAgreesWithSS: in every state, from both sources, with queues, and with sockets that no process holds.
func TestAgreesWithSS(t *testing.T) {
	testnet.Isolate(t, func() {
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			testnet.States(t, network)
		}
		testnet.UDP(t)
		server := testnet.Start(t, testnet.Process{Name: "a server", UID: 65534, GID: 65534})
		client := testnet.Start(t, testnet.Process{Name: "a client"})
		listener := server.Listen("tcp4in6", netip.AddrPort{}, 10)
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listener.Local.Port())
		ends := client.Connect(to, 5)
		accepted := server.Accept(listener, 3)
		client.Send(ends[0], 1000)
		client.Close(ends[1])
		server.Close(accepted[2])
		await(t, "ESTABLISHED", ends[0])
		await(t, "FIN_WAIT2", ends[1], accepted[2])

		self := namesOf(testnet.SS(t, "-t", "-l", "-p")[0])[0]
		users := map[string]string{self: "root", "a server": "nobody", "a client": "root"}
		host, processes, listeners := fromSS(t, users)
		for _, state := range []string{"established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait", "close_wait", "last_ack", "listen", "closing"} {
			require.Positive(t, host[""]["tcp_"+state], state)
		}
		require.Len(t, processes, 4, "with those that are unattributed")

		for _, source := range []string{"netlink", "procfs"} {
			t.Run(source, func(t *testing.T) {
				l := start(t, fmt.Sprintf("source = %q", source))
				g := l.gather()
				host.requireIn(g, "procnetstat")
				processes.requireIn(g, "procnetstat_process")
				for _, of := range listeners {
					if source == "procfs" {
						delete(of, "accept_queue_limit") // it does not have it
					}
				}
				listeners.requireIn(g, "procnetstat_listener")
				for tags, fields := range g.all("procnetstat_listener", "protocol=tcp") {
					require.Equal(t, source == "netlink", has(fields, "accept_queue_limit"), tags)
					require.Equal(t, source == "netlink", has(fields, "drops"), tags)
				}
				report := g.one("procnetstat_gather", "source="+source)
				require.Equal(t, host[""].sockets(), report["sockets"])
				require.Equal(t, processes["process_name=unattributed,user=unattributed"].sockets(), report["unattributed"])
			})
		}
	})
}

func has(fields map[string]int64, name string) bool {
	_, ok := fields[name]
	return ok
}

// sockets is the number of sockets of the series.
func (e expectation) sockets() int64 {
	n := e["udp_socket"]
	for _, name := range stateFields {
		n += e[name]
	}
	return n
}

func TestListenerThatWorkersShare(t *testing.T) {
	testnet.Isolate(t, func() {
		master := testnet.Start(t, testnet.Process{Name: "master"})
		listener := master.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		workers := master.Fork(8)
		client := testnet.Start(t, testnet.Process{Name: "client"})
		client.Connect(listener.Local, 10)
		for _, worker := range workers {
			worker.Accept(listener, 1)
		}
		g := start(t, "").gather()

		tags := []string{"local_address=127.0.0.1", "local_port=" + strconv.Itoa(int(listener.Local.Port())), "process_name=master"}
		of := g.one("procnetstat_listener", tags...)
		require.Equal(t, int64(1), of["tcp_listen"])
		require.Equal(t, int64(10), of["tcp_established"], "eight accepted and two that are not")
		require.Equal(t, int64(2), of["accept_queue"])
		require.Equal(t, int64(16), of["accept_queue_limit"])
		require.Len(t, g.all("procnetstat_listener"), 1)

		of = g.one("procnetstat_process", "process_name=master")
		require.Equal(t, int64(1), of["tcp_listen"])
		require.Equal(t, int64(10), of["tcp_established"])
		require.Equal(t, int64(9), of["processes"])
	})
}

// dropsOfListener returns the drops that ss reports for the only listener of the namespace with this port.
func dropsOfListener(t *testing.T, at uint16) int64 {
	t.Helper()
	for _, row := range testnet.SS(t, "-t", "-l", "-m") {
		if row.Local.Port() == at {
			return int64(row.Drops)
		}
	}
	t.Fatalf("ss shows no listener at port %d", at)
	return 0
}

func TestListenerOverflow(t *testing.T) {
	testnet.Isolate(t, func() {
		at := testnet.Overflow(t, "tcp4").Sockets[0].Local.Port()
		l := start(t, `measurements = ["listener"]`)
		before := dropsOfListener(t, at)
		require.Positive(t, before)
		of := l.gather().one("procnetstat_listener")
		require.Equal(t, int64(testnet.OverflowQueued), of["accept_queue"])
		require.Equal(t, int64(testnet.OverflowBacklog), of["accept_queue_limit"])
		require.Zero(t, of["drops"], "those before the start are not replayed")
		require.Equal(t, before, dropsOfListener(t, at), "the clients try again a second after the last time")

		eventually(t, func() bool { return dropsOfListener(t, at) > before })
		for {
			least := dropsOfListener(t, at) - before
			drops := l.gather().one("procnetstat_listener")["drops"]
			most := dropsOfListener(t, at) - before
			require.GreaterOrEqual(t, drops, least)
			require.LessOrEqual(t, drops, most)
			if least == most {
				break
			}
		}
	})
}

// TestRemoteIsOutgoing: of a connection of which both ends are in the namespace, the client's end is under remote.
func TestRemoteIsOutgoing(t *testing.T) {
	testnet.Isolate(t, func() {
		server := testnet.Start(t, testnet.Process{Name: "server"})
		client := testnet.Start(t, testnet.Process{Name: "client"})
		want := map[string]int64{}
		for network, address := range map[string]string{"tcp4": "127.0.0.1", "tcp6": "::1", "tcp4in6": "127.0.0.2"} {
			listener := server.Listen(network, netip.AddrPort{}, 16)
			to := netip.AddrPortFrom(netip.MustParseAddr(address), listener.Local.Port())
			client.Connect(to, 7)
			server.Accept(listener, 5)
			want[fmt.Sprintf("process_name=client,protocol=tcp,remote_address=%s,remote_port=%d,remote_process_name=server", address, to.Port())] = 7
		}
		datagrams := server.UDP("udp4", netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{})
		client.UDP("udp4", netip.AddrPort{}, datagrams.Local)
		want[fmt.Sprintf("process_name=client,protocol=udp,remote_address=127.0.0.1,remote_port=%d,remote_process_name=server",
			datagrams.Local.Port())] = 1

		for _, source := range []string{"netlink", "procfs"} {
			got := map[string]int64{}
			for tags, fields := range start(t, withRemote+fmt.Sprintf("source = %q", source)).gather().all("procnetstat_remote") {
				got[tags] = fields["tcp_established"] + fields["udp_socket"]
			}
			require.Equal(t, want, got, source)
		}
	})
}

// TestConnections: every socket of all protocols has a point, and unix sockets have their names.
func TestConnections(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.States(t, "tcp4")
		testnet.UDP(t)
		testnet.UDPLite(t)
		testnet.Raw(t)
		testnet.Ping(t)
		units := testnet.Unix(t)

		for _, source := range []string{"auto", "procfs"} {
			g := start(t, fmt.Sprintf(`
				source = %q
				measurements = ["connection", "host"]
				protocols = ["tcp", "udp", "udplite", "raw", "icmp", "unix"]
				max_series = 100000`, source)).gather()
			points := map[string]int64{}
			names, want := map[int64]string{}, map[int64]string{}
			for _, m := range g.metrics {
				if m.Name() != "procnetstat_connection" {
					continue
				}
				protocol, _ := m.GetTag("protocol")
				points[strings.TrimRight(protocol, "46")]++
				if name, named := m.GetField("name"); named {
					require.Equal(t, "unix", protocol)
					names[connectionInode(t, m)] = name.(string)
				}
			}
			for _, u := range units {
				if u.Path != "" {
					want[int64(u.Inode)] = u.Path
				}
			}
			require.NotEmpty(t, want)
			require.Equal(t, want, names, source)

			host := g.one("procnetstat")
			require.Equal(t, expectation(host).sockets()-host["udp_socket"], points["tcp"])
			for _, protocol := range []string{"udp", "udplite", "raw", "icmp", "unix"} {
				require.Equal(t, host[protocol+"_socket"], points[protocol], protocol)
			}
			require.Equal(t, int64(len(units)), points["unix"])
		}
	})
}

// connectionInode returns the inode number in a point of procnetstat_connection: a tag if other points have the same tags, absent if no
// process holds the socket.
func connectionInode(t *testing.T, m telegraf.Metric) (inode int64) {
	t.Helper()
	if tag, ok := m.GetTag("inode"); ok {
		inode, err := strconv.ParseInt(tag, 10, 64)
		require.NoError(t, err)
		return inode
	}
	if field, ok := m.GetField("inode"); ok {
		inode, ok = field.(int64)
		require.True(t, ok, "%v", m)
		require.NotZero(t, inode, "%v", m)
	}
	return inode
}

// counterNames are the fields that only grow.
var counterNames = func() (names []string) {
	for _, m := range schema {
		for _, f := range m.fields {
			if f.isCounter {
				names = append(names, f.name)
			}
		}
	}
	for _, f := range allGroupFields {
		if f.isCounter {
			names = append(names, f.name)
		}
	}
	return names
}()

// shape is what must not change from gather to gather and from series to series: which fields there are, and of which type.
type shape map[string]string

// TestShape: metrics are gauges or counters, a series has the same tags and time in both, fields are integers, and all series
// of a measurement have the same ones in every gather, but for round-trip times: see requireRTTs.
func TestShape(t *testing.T) {
	testnet.Isolate(t, func() {
		server := testnet.Start(t, testnet.Process{Name: "server"})
		client := testnet.Start(t, testnet.Process{Name: "client"})
		testnet.Unix(t)
		for _, source := range []string{"auto", "procfs"} {
			t.Run(source, func(t *testing.T) {
				for _, options := range []string{"", "family_tag = true", "max_series = 2"} {
					l := start(t, fmt.Sprintf(`
						source = %q
						measurements = ["host", "process", "listener", "cgroup", "remote", "client", "connection", "gather"]
						protocols = ["tcp", "udp", "udplite", "raw", "icmp", "unix"]
						%s`, source, options))
					shapes := map[string]shape{}
					l.gather().requireShape(shapes)
					// The more there is, the more series there are.
					listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
					l.gather().requireShape(shapes)
					ends := client.Connect(listener.Local, 3)
					datagrams := server.UDP("udp4", netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{})
					client.UDP("udp4", netip.AddrPort{}, datagrams.Local)
					l.gather().requireShape(shapes)
					accepted := server.Accept(listener, 2)
					client.Close(ends...)
					l.gather().requireShape(shapes)
					server.Close(accepted...)
					server.Close(listener)
					l.gather().requireShape(shapes)
					if source == "auto" { // the kernel reports closed connections a little later
						eventually(t, func() bool {
							l.gather().requireShape(shapes)
							return shapes["tcp_closed_rtt_p95_us"] != nil
						})
					}
					require.Equal(t, source == "auto", shapes["tcp_rtt_max_us"] != nil)
					for _, want := range []string{
						"procnetstat gauge", "procnetstat counter", "procnetstat_process gauge", "procnetstat_process counter",
						"procnetstat_listener gauge", "procnetstat_cgroup gauge", "procnetstat_cgroup counter",
						"procnetstat_connection gauge", "procnetstat_gather gauge", "procnetstat_client gauge",
					} {
						require.Contains(t, shapes, want)
					}
					require.Equal(t, source == "auto", shapes["procnetstat_listener counter"] != nil)
					if options == "" {
						require.Contains(t, shapes, "procnetstat_listener gauge unix")
					}
				}
			})
		}
	})
}

// requireRTTs requires that a metric has the round-trip times of established connections if, and only if, it has such connections, and
// that of closed ones and the time to connect only with a value. It removes them from the shape, and records in shapes those that there were.
func (g gathered) requireRTTs(m telegraf.Metric, of shape, shapes map[string]shape) {
	g.Helper()
	fromNetlink := len(g.all("procnetstat_gather", "source=procfs")) == 0
	established, _ := m.GetField("tcp_established")
	n, _ := established.(int64)
	for _, name := range slices.Concat(fieldsOfDetails["rtt"], connectTimes) {
		value, found := m.GetField(name)
		if strings.HasPrefix(name, "tcp_rtt_") {
			require.Equal(g, fromNetlink && n > 0, found, "%s of %v", name, m)
		}
		if found {
			require.Positive(g, value, "%s of %v", name, m)
			shapes[name] = shape{name: of[name]}
			delete(of, name)
		}
	}
}

func (g gathered) requireShape(shapes map[string]shape) {
	g.Helper()
	times := map[string]time.Time{}
	for _, m := range g.metrics {
		kind := map[telegraf.ValueType]string{telegraf.Gauge: "gauge", telegraf.Counter: "counter"}[m.Type()]
		require.NotEmpty(g, kind, "%v is neither gauge nor counter", m)
		of := shape{}
		for _, field := range m.FieldList() {
			of[field.Key] = fmt.Sprintf("%T", field.Value)
		}
		require.NotEmpty(g, of)
		if m.Name() != "procnetstat_connection" {
			g.requireRTTs(m, of, shapes)
		}
		series := fmt.Sprint(m.Name(), m.Tags())
		if before, seen := times[series]; seen && m.Name() != "procnetstat_connection" {
			require.Equal(g, before, m.Time(), series)
		}
		times[series] = m.Time()

		name := m.Name() + " " + kind
		switch m.Name() {
		case "procnetstat_connection": // sockets of different kinds have different fields
			for field, typ := range of {
				require.Contains(g, []string{"int64", "string"}, typ, field)
			}
			shapes[name] = of
			continue
		case "procnetstat": // of one family
			family, _ := m.GetTag("family")
			if name += " " + family; family == "" || family == "ipv4" {
				shapes[m.Name()+" "+kind] = of
			}
		case "procnetstat_remote": // of one protocol
			protocol, _ := m.GetTag("protocol")
			name += " " + protocol
		case "procnetstat_listener": // of one protocol; queues are of the holders of a listening socket
			protocol, _ := m.GetTag("protocol")
			if name += " " + protocol; protocol == "tcp" {
				shapes[m.Name()+" "+kind] = of
			}
			if listening, ok := m.GetField("tcp_listen"); ok && listening == int64(0) {
				name += " without a listening socket"
			}
		}
		if shapes[name] == nil {
			shapes[name] = of
		}
		require.Equal(g, shapes[name], of, "%s: %v", name, m.Tags())
		for field, typ := range of {
			require.Equal(g, "int64", typ, field)
			require.Equal(g, slices.Contains(counterNames, field), kind == "counter", field)
		}
	}
	for of, names := range map[string][]string{
		"procnetstat_listener": {"tcp_syn_sent"}, "procnetstat_client": {"tcp_syn_sent", "tcp_listen"}, "procnetstat_remote": {"tcp_listen"},
	} {
		for name, shape := range shapes {
			for _, absent := range names {
				require.False(g, strings.HasPrefix(name, of) && shape[absent] != "", "%s has %s, which can only be 0", name, absent)
			}
		}
	}
	for _, m := range g.metrics { // every series has both
		if m.Type() == telegraf.Counter {
			require.True(g, slices.ContainsFunc(g.metrics, func(o telegraf.Metric) bool {
				return o.Type() == telegraf.Gauge && o.Name() == m.Name() && o.Time().Equal(m.Time()) &&
					fmt.Sprint(o.Tags()) == fmt.Sprint(m.Tags())
			}), "%v has no gauges", m)
		}
	}
}

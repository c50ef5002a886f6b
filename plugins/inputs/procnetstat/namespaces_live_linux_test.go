package procnetstat

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// The addresses that are in use in every namespace.
var (
	everywhere  = netip.MustParseAddrPort("127.0.0.1:5000")
	everywhere6 = netip.MustParseAddrPort("[::1]:5000")
)

// readNamespace is a network namespace and what is in it.
type readNamespace struct {
	file           string // that stands for it
	inode          uint64
	server, client *testnet.Proc
	tag            string // its value of netns
	source         string // of its sockets
}

// namespaceSetup is a host with namespaces of all kinds, in which the same addresses are in use.
type namespaceSetup struct {
	own, named, box, nameless *readNamespace
	users                     map[string]string // by the name of the process
	cgroup, container         string            // of box
}

func newNamespaceSetup(t *testing.T) *namespaceSetup {
	t.Helper()
	// Another run of this test on the same host has other names and another container.
	c := &namespaceSetup{users: map[string]string{}, container: fmt.Sprintf("%064x", time.Now().UnixNano())}
	dir, path := testnet.Cgroup(t, "docker-"+c.container+".scope")
	c.cgroup = path
	c.own = c.settle(t, "own", 1, testnet.Process{})
	path = testnet.Netns(t, "blue")
	c.named = c.settle(t, "blue", 2, testnet.Process{In: path, UID: 65534, GID: 65534})
	c.named.file = path
	c.box = c.settle(t, "box", 3, testnet.Process{Netns: true, Cgroup: dir})
	c.nameless = c.settle(t, "other", 4, testnet.Process{Netns: true})
	return c
}

func (c *namespaceSetup) all() []*readNamespace {
	return []*readNamespace{c.own, c.named, c.box, c.nameless}
}

// settle has two processes make sockets in a namespace: in more states, and in each further namespace more of them.
func (c *namespaceSetup) settle(t *testing.T, name string, n int, p testnet.Process) *readNamespace {
	t.Helper()
	p.Name = fmt.Sprintf("s-%s-%d", name, os.Getpid())
	server := testnet.Start(t, p)
	c.users[p.Name] = map[uint32]string{0: "root", 65534: "nobody"}[p.UID]
	p = testnet.Process{Name: fmt.Sprintf("c-%s-%d", name, os.Getpid()), In: server.Netns(), Cgroup: p.Cgroup}
	client := testnet.Start(t, p)
	c.users[p.Name] = "root"

	listener := server.Listen("tcp4", everywhere, 10+n)
	ends := client.Connect(everywhere, 3+n)
	accepted := server.Accept(listener, 2+n) // one waits
	client.Send(ends[0], 100*n)
	client.Close(ends[1])
	client.Close(ends[2])
	closed := accepted[slices.IndexFunc(accepted, func(s testnet.Socket) bool { return s.Remote == ends[2].Local })]
	server.Close(closed)
	listener6 := server.Listen("tcp6", everywhere6, 20+n)
	client.Connect(everywhere6, n)
	server.Accept(listener6, n)
	server.UDP("udp4", everywhere, netip.AddrPort{})
	talker := client.UDP("udp4", netip.AddrPort{}, everywhere)
	for range n {
		client.Send(talker, 10)
	}
	q := &readNamespace{file: server.Netns(), inode: inodeOf(t, server.Netns()), server: server, client: client}
	eventually(t, func() bool { // a FIN takes a moment
		states := map[string]int{}
		for _, row := range q.ss(t, "-t") {
			states[row.State]++
			if row.State != "LISTEN" {
				states["unacknowledged"] += int(row.SendQ)
			}
		}
		return states["FIN_WAIT2"] == 1 && states["CLOSE_WAIT"] == 1 && states["TIME_WAIT"] == 1 && states["unacknowledged"] == 0
	})
	return q
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var stat unix.Stat_t
	require.NoError(t, unix.Stat(path, &stat))
	return stat.Ino
}

// ss returns the output of ss in the namespace.
func (q *readNamespace) ss(t *testing.T, args ...string) []testnet.Row {
	t.Helper()
	if name, named := strings.CutPrefix(q.file, testnet.NetnsDir+"/"); named {
		return testnet.SS(t, append(args, "-N", name)...)
	}
	return testnet.SSIn(t, q.file, args...)
}

// rows returns what ss says of the sockets of the namespace and of the processes that hold them.
func (q *readNamespace) rows(t *testing.T) []testnet.Row {
	t.Helper()
	rows := q.ss(t, "-t", "-u", "-p")
	for i := range rows {
		rows[i].Line = "" // which has timers
	}
	return rows
}

// settled returns what f does, and the rows of the namespaces, which were the same before and after: TIME_WAIT has an end.
func settled[T any](t *testing.T, f func() T, all ...*readNamespace) (result T, rows map[*readNamespace][]testnet.Row) {
	t.Helper()
	look := func() map[*readNamespace][]testnet.Row {
		rows := map[*readNamespace][]testnet.Row{}
		for _, q := range all {
			rows[q] = q.rows(t)
		}
		return rows
	}
	for before := look(); ; before = rows {
		result = f()
		if rows = look(); assert.ObjectsAreEqual(before, rows) {
			return result, rows
		}
	}
}

// expected is what a gather should report of a namespaceSetup.
type expected struct {
	*namespaceSetup
	rows       map[*readNamespace][]testnet.Row
	attributed bool // to processes
	alone      bool // there are no other namespaces
}

// requireIn requires that every measurement has exactly the right series of every namespace.
func (e expected) requireIn(g gathered) {
	g.Helper()
	ours := e.only(&g)
	hosts, processes, listeners, remotes := expectations{}, expectations{}, expectations{}, map[string]int64{}
	var connections []string
	for _, q := range e.all() {
		rows := e.rows[q]
		for i := range rows {
			if !e.attributed {
				rows[i].Processes = nil
			}
		}
		host, ofProcesses, ofListeners := fromRows(g.T, rows, e.users, "netns="+q.tag)
		if q.source == "procfs" {
			for _, of := range ofListeners {
				delete(of, "accept_queue_limit") // it does not have it
			}
		}
		maps.Copy(hosts, host)
		maps.Copy(processes, ofProcesses)
		maps.Copy(listeners, ofListeners)
		e.addRemotes(g.T, rows, q.tag, remotes)
		connections = append(connections, e.connectionsOf(rows, q.tag)...)
		e.requireCgroup(g, q, rows)
	}
	hosts.requireIn(g, "procnetstat")
	processes.requireIn(g, "procnetstat_process")
	listeners.requireIn(g, "procnetstat_listener")
	requireRemotes(g, remotes)
	require.ElementsMatch(g, connections, connectionsIn(g))
	for tags, fields := range g.all("procnetstat_process") {
		require.Equal(g, !strings.Contains(tags, unattributed), fields["processes"] == 1, tags)
	}
	if e.alone {
		var sockets int64
		for _, of := range hosts {
			sockets += of.sockets()
		}
		require.Equal(g, sockets, g.one("procnetstat_gather")["sockets"])
	}
	e.requireDetails(g, ours)
}

// only leaves out the metrics of namespaces that are not the namespaceSetup's, and returns the namespaceSetup's by their tags.
func (e expected) only(g *gathered) (ours map[string]*readNamespace) {
	g.Helper()
	ours = map[string]*readNamespace{}
	for _, q := range e.all() {
		ours[q.tag] = q
	}
	require.Len(g, ours, len(e.all()))
	g.metrics = slices.DeleteFunc(g.metrics, func(m telegraf.Metric) bool {
		netns, has := m.GetTag(tagNetNS)
		require.Equal(g, m.Name() != "procnetstat_gather", has, "%v", m)
		if !has || ours[netns] != nil {
			return false
		}
		require.False(g, e.alone, "%v", m)
		name, _ := m.GetTag(tagProcessName)
		require.NotContains(g, e.users, name, "%v", m)
		return true
	})
	return ours
}

// addRemotes counts the connections that went out.
func (expected) addRemotes(t *testing.T, rows []testnet.Row, netns string, remotes map[string]int64) {
	t.Helper()
	listenerOf := listenersOf(t, rows)
	for _, row := range rows {
		if _, cameIn := listenerOf(row); cameIn || row.Remote.Port() == 0 {
			continue
		}
		names := namesOf(row)
		if len(names) == 0 {
			names = []string{unattributed}
		}
		for _, name := range names {
			tags := []string{
				"netns=" + netns, "process_name=" + name, "protocol=" + row.Netid,
				"remote_address=" + row.Remote.Addr().String(), "remote_port=" + strconv.Itoa(int(row.Remote.Port())),
			}
			if other := listenerNameAt(rows, row); other != "" {
				tags = append(tags, "remote_process_name="+other)
			}
			remotes[tagged(tags...)]++
		}
	}
}

// listenerNameAt returns the name of the process that listens at the remote end of a connection over loopback.
func listenerNameAt(rows []testnet.Row, connection testnet.Row) string {
	for _, row := range rows {
		listens := row.State == "LISTEN" || row.Netid == "udp" && row.State == "CLOSE"
		if listens && row.Netid == connection.Netid && row.Local == connection.Remote && len(row.Processes) > 0 {
			return row.Processes[0].Name
		}
	}
	return ""
}

func requireRemotes(g gathered, want map[string]int64) {
	g.Helper()
	got := map[string]int64{}
	for tags, fields := range g.all("procnetstat_remote") {
		got[tags] = expectation(fields).sockets()
	}
	require.Equal(g, want, got)
}

// connectionsOf describes every row; a socket that no process holds is its listener's.
func (expected) connectionsOf(rows []testnet.Row, netns string) (lines []string) {
	pids := map[netip.AddrPort]int{}
	pidOf := func(row testnet.Row) int {
		if len(row.Processes) == 0 {
			return 0
		}
		return row.Processes[0].PID
	}
	for _, row := range rows {
		if row.State == "LISTEN" {
			pids[row.Local] = pidOf(row)
		}
	}
	for _, row := range rows {
		family := map[bool]string{true: "4", false: "6"}[row.Local.Addr().Is4()]
		state := strings.ReplaceAll(strings.ToLower(row.State), "_", "-")
		if state == "close" {
			state = "closed"
		}
		pid := pidOf(row)
		if pid == 0 && row.Netid == "tcp" {
			pid = pids[row.Local]
		}
		lines = append(lines, fmt.Sprintln(netns, row.Netid+family, state, row.Local, row.Remote, row.Inode, pid))
	}
	return lines
}

func connectionsIn(g gathered) (lines []string) {
	g.Helper()
	for _, m := range g.metrics {
		if m.Name() != "procnetstat_connection" {
			continue
		}
		tags, fields := m.Tags(), m.Fields()
		pid, _ := fields["pid"].(int64)
		local := netip.MustParseAddr(tags["src"])
		remote := netip.MustParseAddr(tags["dest"])
		at := func(addr netip.Addr, port string) string {
			if addr.Is4() {
				return addr.String() + ":" + port
			}
			return "[" + addr.String() + "]:" + port
		}
		lines = append(lines, fmt.Sprintln(tags["netns"], tags["protocol"], fields["state"],
			at(local, tags["src_port"]), at(remote, tags["dest_port"]), connectionInode(g.T, m), pid))
	}
	return lines
}

// requireCgroup: the cgroups of a namespace add up to it, and the container's is in its namespace only.
func (e expected) requireCgroup(g gathered, q *readNamespace, rows []testnet.Row) {
	g.Helper()
	var sockets, ofContainer int64
	for tags, fields := range g.all("procnetstat_cgroup", "netns="+q.tag) {
		sockets += expectation(fields).sockets()
		if strings.Contains(tags, e.cgroup) {
			require.Equal(g, tagged("cgroup="+e.cgroup, "container_id="+e.container, "netns="+q.tag,
				"systemd_unit=docker-"+e.container+".scope"), tags)
			ofContainer += expectation(fields).sockets()
		}
	}
	require.EqualValues(g, len(rows), sockets)
	var want, orphaned int64
	for _, row := range rows {
		if q != e.box || !e.attributed && q.source != "netlink" {
			continue
		}
		switch {
		case len(row.Processes) > 0, row.Local == everywhere:
			want++
		case row.State == "FIN-WAIT-2":
			// Mostly a stub without a cgroup, but the socket itself if the FIN was acknowledged while close(2) held it
			// (tcp_rcv_state_process, net/ipv4/tcp_input.c).
			orphaned++
		}
	}
	require.GreaterOrEqual(g, ofContainer, want, q.tag)
	require.LessOrEqual(g, ofContainer, want+orphaned, q.tag)
}

// requireDetails: what only netlink gives is there where the namespace is read from it, and nowhere else; what the kernel
// counts of its sockets is of the namespace.
func (expected) requireDetails(g gathered, ours map[string]*readNamespace) {
	g.Helper()
	for netns, q := range ours {
		for _, measurement := range []string{"procnetstat", "procnetstat_process", "procnetstat_listener", "procnetstat_cgroup"} {
			series := g.all(measurement, "netns="+netns)
			require.NotEmpty(g, series)
			for tags, fields := range series {
				if strings.Contains(tags, "protocol=udp") {
					continue
				}
				require.Equal(g, q.source == "netlink", has(fields, "tcp_bytes_acked"), tags)
				hasSample := q.source == "netlink" && fields["tcp_established"] > 0
				require.Equal(g, hasSample, has(fields, "tcp_rtt_max_us"), tags)
			}
		}
		fields := g.one("procnetstat", "netns="+netns)
		for _, name := range []string{"sockets_used", "tcp_alloc", "tcp_mem_bytes", "udp_drops"} {
			require.Contains(g, fields, name)
		}
	}
}

func (q *readNamespace) pidTag() string {
	return "pid:" + strconv.Itoa(min(q.server.PID, q.client.PID))
}

func (q *readNamespace) number() string { return strconv.FormatUint(q.inode, 10) }

// allOfAll asks for everything of every namespace.
const allOfAll = `
	namespaces = ["all"]
	measurements = ["host", "process", "listener", "cgroup", "remote", "connection", "gather"]
	max_series = 100000`

// Log lines of a plugin that lacks something.
const (
	noBPF = `^BPF owner lookup unavailable \(the BPF program requires CAP_BPF and ` +
		`CAP_PERFMON: unsupported operation: operation not permitted\); falling back to /proc, which costs more$`
	notInitialPIDs = `^BPF owner lookup unavailable \(/proc is not of the initial PID ` +
		`namespace, whose pids BPF programs see: unsupported operation\); falling back to /proc, which costs more$`
	noNetlink = `^Cannot open netlink in network namespace (blue|of process \d+) \(entering requires CAP_SYS_ADMIN, and CAP_SYS_PTRACE for ` +
		`a namespace without a name: `
	fewerFields = `\); falling back to /proc, which gives fewer fields and costs more$`
	noSetns     = noNetlink + `setns: operation not permitted` + fewerFields
	noPtrace    = noNetlink + `open /proc/\d+/ns/net: permission denied` + fewerFields
	noNames     = `^Cannot read or name some network namespaces: /run/netns/blue: entering requires ` +
		`CAP_SYS_ADMIN, finding a process in it CAP_SYS_PTRACE: permission denied$`
	denied = `^Cannot read the descriptors of \d+ processes; their sockets are reported as "unattributed". Attributing them requires ` +
		`CAP_BPF and CAP_PERFMON, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; a security module can deny it too$`
)

// roleCase is a user and what the plugin reports of all namespaces as that user.
type roleCase struct {
	name         string
	capabilities []uintptr // nil: root
	attributed   bool      // the sockets to processes
	netlink      bool      // in all namespaces
	named        string    // the source of the one that has a name, if it is read by that
	numbers      bool      // it sees those of the others
	messages     []string  // the log, in regular expressions
}

func (c *namespaceSetup) requireWith(t *testing.T, as roleCase, alone bool) {
	t.Helper()
	const noOther = 65533 // a user who has no other process
	r := rights{}
	if as.capabilities != nil {
		r = rights{noOther, as.capabilities}
	}
	for _, q := range c.all() {
		q.source, q.tag = map[bool]string{true: "netlink", false: "procfs"}[as.netlink], q.pidTag()
		if as.numbers {
			q.tag = q.number()
		}
	}
	c.own.tag, c.own.source = "self", "netlink"
	if as.named != "" {
		c.named.tag, c.named.source = "blue", as.named
	}
	c.box.tag = c.container
	o := observe(t, allOfAll, r)
	for range 3 {
		var messages []string
		g, rows := settled(t, func() (g gathered) {
			g, messages = o.gather()
			return g
		}, c.all()...)
		expected{c, rows, as.attributed, alone}.requireIn(g)
		if !slices.Contains(as.messages, denied) { // a host can have processes that deny root too
			messages = slices.DeleteFunc(messages, regexp.MustCompile(denied).MatchString)
		}
		require.Len(t, messages, len(as.messages), "each is logged once")
		for i, pattern := range as.messages {
			require.Regexp(t, pattern, messages[i])
		}
	}
}

// TestAllNamespaces: all sockets of all namespaces are in the right series, in the words of ss, and there are no other series,
// with whichever rights the plugin runs.
func TestAllNamespaces(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		c := newNamespaceSetup(t)
		for _, as := range []roleCase{
			{
				name:       "root",
				attributed: true, netlink: true, named: "netlink", numbers: true,
				messages: []string{notInitialPIDs},
			},
			{
				name: "ptrace", capabilities: []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH},
				attributed: true, named: "procfs", numbers: true,
				messages: []string{notInitialPIDs, noSetns},
			},
			{
				name: "nobody", capabilities: []uintptr{},
				messages: []string{notInitialPIDs, noNames, noPtrace, denied},
			},
			{
				name: "admin", capabilities: []uintptr{unix.CAP_SYS_ADMIN},
				named:    "netlink",
				messages: []string{notInitialPIDs, noPtrace, denied},
			},
		} {
			t.Run(as.name, func(t *testing.T) { c.requireWith(t, as, true) })
		}
	})
}

// TestAllNamespacesOfHost is TestAllNamespaces with BPF. There are the host's own namespaces too.
func TestAllNamespacesOfHost(t *testing.T) {
	testnet.IsolateMounts(t, func() {
		c := newNamespaceSetup(t)
		for _, as := range []roleCase{
			{
				name:       "root",
				attributed: true, netlink: true, named: "netlink", numbers: true,
			},
			{
				name: "ptrace", capabilities: []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH},
				attributed: true, named: "procfs", numbers: true,
				messages: []string{noBPF, noSetns},
			},
			{
				name: "bpf", capabilities: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON},
				attributed: true,
				messages:   []string{noNames, noPtrace},
			},
			{
				name: "nobody", capabilities: []uintptr{},
				messages: []string{noBPF, noNames, noPtrace, denied},
			},
			{
				name: "admin and bpf", capabilities: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_BPF, unix.CAP_PERFMON},
				attributed: true, named: "netlink",
				messages: []string{noPtrace},
			},
		} {
			t.Run(as.name, func(t *testing.T) { c.requireWith(t, as, false) })
		}
	})
}

// TestNamespaceOfOthersAndOwn: where the first process in a namespace does not let it be seen, another one may.
func TestNamespaceOfOthersAndOwn(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		const user = 65533
		first := testnet.Start(t, testnet.Process{Name: "first", Netns: true})
		first.Connect(first.Listen("tcp4", everywhere, 5).Local, 2)
		o := observe(t, `namespaces = ["self", "`+strconv.Itoa(first.PID)+`"]`, rights{user, []uintptr{unix.CAP_SYS_ADMIN}})
		all := observe(t, `namespaces = ["all"]`, rights{user, []uintptr{unix.CAP_SYS_ADMIN}})
		for _, o := range []*observer{o, all} {
			g, messages := o.gather()
			g.requireTags("self", "pid:"+strconv.Itoa(first.PID))
			require.Len(t, messages, 3)
			require.Regexp(t, noPtrace, messages[1])
		}
		own := testnet.Start(t, testnet.Process{Name: "own", In: first.Netns(), UID: user, GID: user})
		own.Connect(everywhere, 1)
		number := "netns=" + strconv.FormatUint(inodeOf(t, first.Netns()), 10)
		for range 2 {
			g, messages := all.gather()
			require.Len(t, messages, 3, "nothing new")
			of := g.one("procnetstat", "netns=pid:"+strconv.Itoa(first.PID)) // it stays what it was called
			require.EqualValues(t, 6, of["tcp_established"])
			require.Contains(t, of, "tcp_bytes_acked", "it is read from netlink now")
			require.Zero(t, of["tcp_bytes_acked"])
			g, messages = observe(t, `namespaces = ["all"]`, rights{user, []uintptr{unix.CAP_SYS_ADMIN}}).gather()
			require.Len(t, messages, 2, "without what is not so any more")
			require.Contains(t, g.one("procnetstat", number), "tcp_bytes_acked")
			require.EqualValues(t, 1, g.one("procnetstat_process", number, "process_name=own")["tcp_established"])
		}
	})
}

// TestSourceOfOneNamespace: the source is that of the namespaces that are read, which the own one need not be.
func TestSourceOfOneNamespace(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		const user = 65533
		other := testnet.Start(t, testnet.Process{Name: "other", Netns: true})
		other.Listen("tcp4", everywhere, 5)
		options := `namespaces = ["` + strconv.Itoa(other.PID) + `"]`
		for source, r := range map[string]rights{"netlink": {}, "procfs": {user, nil}} {
			o := observe(t, options, r)
			for range 2 {
				g, _ := o.gather()
				g.requireTags()
				require.EqualValues(t, 1, g.one("procnetstat")["tcp_listen"])
				require.Len(t, g.all("procnetstat_gather", "source="+source), 1)
			}
		}
	})
}

// TestNamespaceOfContainer: a namespace is called by the container that its first process is in, as soon as it is, and stays so
// when that ends: the containers of a pod share one.
func TestNamespaceOfContainer(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		id := strings.Repeat("abcdef0123456789", 4)
		dir, _ := testnet.Cgroup(t, "docker-"+id+".scope")
		other := strings.Repeat("0123456789abcdef", 4)
		otherDir, _ := testnet.Cgroup(t, "docker-"+other+".scope")
		first := testnet.Start(t, testnet.Process{Name: "pause", Netns: true})
		second := testnet.Start(t, testnet.Process{Name: "server", In: first.Netns(), Cgroup: otherDir})
		number := strconv.FormatUint(inodeOf(t, first.Netns()), 10)
		second.Listen("tcp4", everywhere, 5)
		for _, source := range []string{"netlink", "procfs"} {
			l := start(t, fmt.Sprintf("namespaces = [\"all\"]\nsource = %q", source))
			if source == "netlink" {
				l.gather().requireTags("self", number)
				require.NoError(t, os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(first.PID)), 0))
			}
			for range 2 {
				l.gather().requireTags("self", id)
			}
			if source == "netlink" {
				continue
			}
			first.Stop()
			for range 2 {
				g := l.gather()
				g.requireTags("self", id)
				of := g.one("procnetstat", "netns="+id)
				require.EqualValues(t, 1, of["tcp_listen"])
				require.EqualValues(t, 3, of["sockets_used"], "and the netlink sockets of the other plugin")
			}
		}
		start(t, `namespaces = ["all"]`).gather().requireTags("self", other)
	})
}

// requireTags requires that the metrics but for those of the gather have these values of netns and no other; without any, that
// none has the tag.
func (g gathered) requireTags(want ...string) {
	g.Helper()
	got := map[string]bool{}
	for _, m := range g.metrics {
		netns, has := m.GetTag(tagNetNS)
		if m.Name() == "procnetstat_gather" {
			require.False(g, has)
			continue
		}
		require.Equal(g, len(want) > 0, has, "%v", m)
		if has {
			got[netns] = true
		}
	}
	require.ElementsMatch(g, want, slices.Collect(maps.Keys(got)))
}

// TestNamespacesByWhatTheyAreCalled: the tag netns is there as soon as the option can name several, and each is read once.
func TestNamespacesByWhatTheyAreCalled(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		c := newNamespaceSetup(t)
		c.own.tag, c.named.tag, c.box.tag, c.nameless.tag = "self", "blue", c.container, c.nameless.number()
		pid := func(q *readNamespace) string { return strconv.Itoa(q.server.PID) }
		for _, test := range []struct {
			namespaces []string
			tagged     bool
			want       []*readNamespace
		}{
			{[]string{"self"}, false, []*readNamespace{c.own}},
			{[]string{"host"}, false, []*readNamespace{c.own}},
			{[]string{"blue"}, false, []*readNamespace{c.named}},
			{[]string{pid(c.box)}, false, []*readNamespace{c.box}},
			{[]string{"self", "host"}, true, []*readNamespace{c.own}},
			{[]string{pid(c.own), "self"}, true, []*readNamespace{c.own}},
			{[]string{"blue", pid(c.named)}, true, []*readNamespace{c.named}},
			{[]string{pid(c.named), "self"}, true, []*readNamespace{c.own, c.named}},
			{[]string{"all", "blue", "self", pid(c.nameless)}, true, c.all()},
		} {
			for _, source := range []string{"netlink", "procfs"} {
				t.Run(source+" "+strings.Join(test.namespaces, " "), func(t *testing.T) {
					l := start(t, fmt.Sprintf("namespaces = [\"%s\"]\nsource = %q", strings.Join(test.namespaces, `", "`), source))
					for range 2 {
						g, rows := settled(t, l.gather, test.want...)
						hosts, processes := expectations{}, expectations{}
						var tags []string
						for _, q := range test.want {
							var labels []string
							if test.tagged {
								tags = append(tags, q.tag)
								labels = []string{"netns=" + q.tag}
							}
							host, ofProcesses, _ := fromRows(t, rows[q], c.users, labels...)
							maps.Copy(hosts, host)
							maps.Copy(processes, ofProcesses)
						}
						g.requireTags(tags...)
						hosts.requireIn(g, "procnetstat")
						processes.requireIn(g, "procnetstat_process")
						require.Len(t, g.all("procnetstat_gather", "source="+source), 1)
					}
				})
			}
		}
	})
}

// TestHostOfOtherProc: the host is that of the proc file system that HOST_PROC names.
func TestHostOfOtherProc(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		testnet.Start(t, testnet.Process{Name: "own"}).Listen("tcp4", everywhere, 1)
		proc := t.TempDir()
		host := testnet.Start(t, testnet.Process{Name: "systemd", Netns: true, Proc: proc})
		host.Connect(host.Listen("tcp4", everywhere, 5).Local, 3)
		t.Setenv("HOST_PROC", proc)
		for _, source := range []string{"netlink", "procfs"} {
			l := start(t, fmt.Sprintf("namespaces = [\"host\"]\nsource = %q\nprocess_tags = [\"process_name\", \"pid\"]", source))
			g := l.gather()
			g.requireTags()
			of := g.one("procnetstat_process")
			require.Equal(t, of, g.one("procnetstat_process", "process_name=systemd", "pid=1"))
			require.Equal(t, []int64{1, 6}, []int64{of["tcp_listen"], of["tcp_established"]})
			require.EqualValues(t, 3, g.one("procnetstat_listener")["accept_queue"])
			require.Contains(t, g.one("procnetstat"), "sockets_used")
			require.Len(t, g.all("procnetstat_gather", "source="+source), 1)

			l = start(t, fmt.Sprintf("namespaces = [\"self\", \"host\"]\nsource = %q", source))
			g = l.gather()
			g.requireTags("self", strconv.FormatUint(inodeOf(t, host.Netns()), 10))
			require.EqualValues(t, 1, g.one("procnetstat_process", "netns=self", "process_name=unattributed")["tcp_listen"])
			require.Len(t, g.all("procnetstat_process"), 2)
		}
	})
}

// talk is a client and a server in a namespace, and a connection between them.
type talk struct {
	server, client *testnet.Proc
	listener       testnet.Socket
	ends, accepted []testnet.Socket
}

func newTalk(t *testing.T, connections int, server, client testnet.Process) *talk {
	t.Helper()
	k := &talk{server: testnet.Start(t, server)}
	client.In = k.server.Netns()
	k.client = testnet.Start(t, client)
	k.listener = k.server.Listen("tcp4", everywhere, 100)
	k.connect(connections)
	return k
}

func (k *talk) connect(n int) {
	k.ends = append(k.ends, k.client.Connect(everywhere, n)...)
	k.accepted = append(k.accepted, k.server.Accept(k.listener, n)...)
}

// send sends so many bytes over the first connection.
func (k *talk) send(t *testing.T, bytes int) {
	t.Helper()
	k.client.Send(k.ends[0], bytes)
	at := slices.IndexFunc(k.accepted, func(s testnet.Socket) bool { return s.Remote == k.ends[0].Local })
	k.server.Receive(k.accepted[at], bytes)
	eventually(t, func() bool { // it takes a moment until that is acknowledged
		return !slices.ContainsFunc(testnet.SSIn(t, k.client.Netns(), "-t"), func(row testnet.Row) bool {
			return row.State != "LISTEN" && row.SendQ > 0
		})
	})
}

// hostBytes returns the bytes that the host measurement reports for a namespace.
func (g gathered) hostBytes(netns string) int64 {
	g.Helper()
	return g.one("procnetstat", "netns="+netns)["tcp_bytes_received"]
}

// TestNamespaceComesAndGoes: a new namespace is in the next gather, and counts all that its sockets did since the one before; its
// counters go on when it comes back.
func TestNamespaceComesAndGoes(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := newTalk(t, 1, testnet.Process{Name: "server"}, testnet.Process{Name: "client"})
		own.send(t, 1000)
		l := start(t, `namespaces = ["all"]`)
		g := l.gather()
		g.requireTags("self")
		require.Zero(t, g.hostBytes("self"), "what was before the start is not replayed")
		descriptors := ownDescriptors(t)

		var total, ofOwn int64
		for round := range 2 {
			path := testnet.Netns(t, "blue")
			server := testnet.Process{Name: "blue server", In: path}
			blue := newTalk(t, 1, server, testnet.Process{Name: "blue client"})
			blue.send(t, 5000)
			g = l.gather()
			g.requireTags("self", "blue")
			if round == 0 {
				require.Zero(t, g.hostBytes("blue"), "a counter begins with 0")
			}
			g = g.withCountersOf(l.gather())
			require.Equal(t, ofOwn, g.hostBytes("self"))
			require.Equal(t, total+5000, g.hostBytes("blue"))
			ofServer := g.one("procnetstat_process", "netns=blue", "process_name=blue server")["tcp_bytes_received"]
			require.InDelta(t, total+5000, ofServer, 1, "but for the FIN of the client's end")
			blue.send(t, 300)
			own.send(t, 7)
			g = l.gather()
			total, ofOwn = total+5300, ofOwn+7
			require.Equal(t, total, g.hostBytes("blue"))
			require.Equal(t, ofOwn, g.hostBytes("self"))

			blue.client.Stop()
			blue.server.Stop()
			testnet.UnnameNetns(t, "blue")
			for _, last := range l.gather().all("procnetstat", "netns=blue") { // for what was closed
				require.LessOrEqual(t, last["tcp_bytes_received"]-total, int64(2), "the FIN of each end")
				total = last["tcp_bytes_received"]
			}
			require.Equal(t, descriptors, ownDescriptors(t))
			for range 2 {
				l.gather().requireTags("self")
			}
			require.Len(t, l.plugin.pass.flows.histories, 1)
			require.Len(t, l.plugin.scopes.previous, 1)
		}
		testnet.ThreadsReturn(t)
		require.Empty(t, messagesBut(l, notInitialPIDs))
	})
}

// TestNamespaceOfOneGather: what a namespace did that only one gather saw is in the next one, whole and once, though the namespace has
// ended.
func TestNamespaceOfOneGather(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		l := start(t, withRemote+`namespaces = ["all"]`)
		l.gather().requireTags("self")
		path := testnet.Netns(t, "blue")
		blue := newTalk(t, 1, testnet.Process{Name: "blue server", In: path}, testnet.Process{Name: "blue client"})
		blue.send(t, 5000)
		g := l.gather()
		g.requireTags("self", "blue")
		for _, measurement := range []string{"procnetstat", "procnetstat_process", "procnetstat_listener", "procnetstat_cgroup", "procnetstat_remote"} {
			require.NotEmpty(t, g.all(measurement, "netns=blue"))
			require.Zero(t, g.sum(measurement, "netns=blue")["tcp_bytes_acked"], "%s: counters begin with 0", measurement)
		}
		blue.client.Stop()
		blue.server.Stop()
		testnet.UnnameNetns(t, "blue")

		g = l.gather()
		for measurement, tags := range map[string]string{
			"procnetstat": "netns=blue", "procnetstat_process": "process_name=blue server", "procnetstat_listener": "process_name=blue server",
		} {
			of := g.one(measurement, "netns=blue", tags)
			require.Zero(t, of["tcp_established"], measurement)
			require.InDelta(t, 5000, of["tcp_bytes_received"], 2, "%s: and the FIN of each end", measurement)
		}
		of := g.one("procnetstat_remote", "netns=blue", "process_name=blue client")
		require.InDelta(t, 5000, of["tcp_bytes_acked"], 2, "and the SYN and the FIN")
		l.gather() // of the series that were new in the last gather
		for range 2 {
			l.gather().requireTags("self")
		}
	})
}

// ownDescriptors returns the open descriptors of the kinds that the plugin keeps.
func ownDescriptors(t *testing.T) (open []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && (strings.HasPrefix(target, "socket:") || strings.HasPrefix(target, "net:") || strings.HasPrefix(target, "/proc")) {
			open = append(open, entry.Name()+" "+target)
		}
	}
	return open
}

// messagesBut returns what was logged but for what matches.
func messagesBut(l *live, pattern string) (messages []string) {
	for _, message := range l.log.Messages() {
		if !regexp.MustCompile(pattern).MatchString(message.Text) {
			messages = append(messages, message.Text)
		}
	}
	return messages
}

// TestNamespaceThatIsOld: a namespace that is read late can have had its sockets for long, which is not counted.
func TestNamespaceThatIsOld(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := newTalk(t, 1, testnet.Process{Name: "server", Netns: true}, testnet.Process{Name: "client"})
		l := start(t, `namespaces = ["self", "blue"]`)
		for range 2 {
			l.gather().requireTags("self")
		}
		require.Equal(t, []string{
			`Cannot read network namespace "blue": statfs /run/netns/blue: no such file or directory`,
		}, messagesBut(l, notInitialPIDs))
		other.send(t, 1000)
		testnet.NameNetns(t, "blue", other.server.Netns())
		g := l.gather()
		g.requireTags("self", "blue")
		require.EqualValues(t, 2, g.one("procnetstat", "netns=blue")["tcp_established"])
		require.Zero(t, g.hostBytes("blue"))
		other.connect(1)
		other.send(t, 50)
		require.EqualValues(t, 50, l.gather().hostBytes("blue"))
	})
}

// TestNamespacesComeAndGoAllTheTime: a hundred of them leave nothing behind, and disturb nobody.
func TestNamespacesComeAndGoAllTheTime(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := newTalk(t, 5, testnet.Process{Name: "server"}, testnet.Process{Name: "client"})
		own.send(t, 1000)
		l := start(t, `namespaces = ["all"]`)
		l.gather()
		descriptors := ownDescriptors(t)
		churn := testnet.ChurnNetns(t, 0)
		seen, gathers := map[string]bool{}, 0
		for ; churn.InProgress() || len(seen) < 2; gathers++ {
			g := l.gather()
			of := g.one("procnetstat", "netns=self")
			require.Equal(t, []int64{1, 10, 0}, []int64{of["tcp_listen"], of["tcp_established"], of["tcp_bytes_received"]})
			require.Equal(t, g.all("procnetstat_process", "netns=self"), g.all("procnetstat_process"))
			for tags := range g.all("procnetstat") {
				seen[tags] = true
			}
		}
		churn.Stop()
		t.Logf("%d gathers saw %d namespaces", gathers, len(seen))
		eventually(t, func() bool { return len(l.gather().all("procnetstat")) == 1 })
		l.gather()
		require.Equal(t, descriptors, ownDescriptors(t))
		require.Len(t, l.plugin.scopes.previous, 1)
		require.Len(t, l.plugin.pass.flows.histories, 1)
		testnet.ThreadsReturn(t)
		require.Empty(t, messagesBut(l, notInitialPIDs))
	})
}

// TestSamePortInTwoNamespaces: a connection is that of the listener in its own namespace, or of none.
func TestSamePortInTwoNamespaces(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := newTalk(t, 3, testnet.Process{Name: "own server"}, testnet.Process{Name: "own client"})
		other := newTalk(t, 5, testnet.Process{Name: "other server", Netns: true}, testnet.Process{Name: "other client"})
		// The server in the other namespace no longer listens: its connections count as outgoing. No process holds one of them.
		other.server.Close(other.listener)
		other.client.Close(other.ends[0])
		other.server.Close(other.accepted[slices.IndexFunc(other.accepted, func(s testnet.Socket) bool { return s.Remote == other.ends[0].Local })])
		both := own.server.In(other.server.Netns())
		both.UDP("udp4", everywhere, netip.AddrPort{})
		netns := "netns=" + strconv.FormatUint(inodeOf(t, other.server.Netns()), 10)
		for _, source := range []string{"netlink", "procfs"} {
			g := start(t, withRemote+fmt.Sprintf("namespaces = [\"all\"]\nsource = %q", source)).gather()
			require.Len(t, g.all("procnetstat_listener", "protocol=tcp"), 1)
			of := g.one("procnetstat_listener", "netns=self", "local_port=5000", "process_name=own server")
			require.Equal(t, []int64{1, 3}, []int64{of["tcp_listen"], of["tcp_established"]})

			tcp := func(tags ...string) []int64 {
				of := g.one("procnetstat_process", tags...)
				return []int64{of["tcp_listen"], of["tcp_established"], of["tcp_time_wait"], of["udp_socket"], of["processes"]}
			}
			require.Equal(t, []int64{1, 3, 0, 0, 1}, tcp("netns=self", "process_name=own server"))
			require.Equal(t, []int64{0, 3, 0, 0, 1}, tcp("netns=self", "process_name=own client"))
			require.Equal(t, []int64{0, 0, 0, 1, 1}, tcp(netns, "process_name=own server"), "one process in two namespaces")
			require.Equal(t, []int64{0, 4, 0, 0, 1}, tcp(netns, "process_name=other server"))
			require.Equal(t, []int64{0, 4, 0, 0, 1}, tcp(netns, "process_name=other client"))
			require.Equal(t, []int64{0, 0, 1, 0, 0}, tcp(netns, "process_name=unattributed"))
			require.Len(t, g.all("procnetstat_process"), 6)

			require.EqualValues(t, 3, g.one("procnetstat_remote", "netns=self", "remote_port=5000")["tcp_established"])
			require.EqualValues(t, 4, g.one("procnetstat_remote", netns, "remote_port=5000", "process_name=other client")["tcp_established"])
			require.EqualValues(t, 4, g.sum("procnetstat_remote", netns, "process_name=other server")["tcp_established"])
			require.Empty(t, g.all("procnetstat_remote", "process_name=own server"))
		}
	})
}

// TestFoldedNamespaces: the series that stands for the rest is of other namespaces too. Whichever is folded, no counter goes
// back, and nothing is counted twice or lost.
func TestFoldedNamespaces(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		var talks []*talk
		for n := range 3 {
			talks = append(talks, newTalk(t, 1, testnet.Process{Name: fmt.Sprint("server ", n), Netns: n > 0}, testnet.Process{Name: fmt.Sprint("client ", n)}))
		}
		l := start(t, "namespaces = [\"all\"]\nmax_series = 2\nmeasurements = [\"host\", \"process\", \"listener\", \"remote\", \"gather\"]")
		last := map[string]int64{}
		var sent int64
		for round := range 6 {
			if round > 0 {
				// Another namespace is the busiest in each round.
				talks[round%3].connect(10 * round)
			}
			for n, k := range talks {
				k.send(t, 100*(n+1)+round)
				if round > 0 {
					sent += int64(100*(n+1) + round)
				}
			}
			var g gathered
			for range 2 { // in the second gather the counters of new series are whole
				g = l.gather()
				for measurement, other := range map[string]string{
					"procnetstat_process":  "netns=other,process_name=other,user=other",
					"procnetstat_listener": "local_address=other,local_port=other,netns=other,process_name=other,protocol=other",
					"procnetstat_remote":   "netns=other,process_name=other,protocol=other,remote_address=other,remote_port=other",
				} {
					series := g.all(measurement)
					require.Len(t, series, 2)
					require.Contains(t, series, other)
					for tags, fields := range series {
						for name, value := range fields {
							if slices.Contains(counterNames, name) {
								key := measurement + tags + name
								before, seen := last[key]
								require.GreaterOrEqual(t, value, before, "%s: %s", tags, name)
								require.True(t, seen || value == 0, "%s: %s begins with %d", tags, name, value)
								last[key] = value
							}
						}
					}
				}
				require.EqualValues(t, 6-1+3-1+3-1, g.one("procnetstat_gather")["folded_series"])
			}
			var emitted int64
			for key, value := range last { // of series that are in this gather and others
				if strings.HasPrefix(key, "procnetstat_process") && strings.HasSuffix(key, "tcp_bytes_received") {
					emitted += value
				}
			}
			require.Equal(t, sent, emitted)
			require.Equal(t, sent, g.sum("procnetstat")["tcp_bytes_received"])
			require.Len(t, g.all("procnetstat"), 3, "there is no limit for those")
			require.Equal(t, g.sum("procnetstat")["tcp_established"], g.sum("procnetstat_process")["tcp_established"])
		}
	})
}

// TestNamespacesWithoutDescriptors: a gather without descriptors says so once, emits no zero for what it could not read, and
// does not replay what was missed.
func TestNamespacesWithoutDescriptors(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := newTalk(t, 1, testnet.Process{Name: "server"}, testnet.Process{Name: "client"})
		l := start(t, "namespaces = [\"all\"]\nmeasurements = [\"host\", \"listener\", \"gather\"]\nowners = \"none\"")
		l.gather()
		var tags []string
		var others []*talk
		for range 3 {
			other := newTalk(t, 2, testnet.Process{Name: "server", Netns: true}, testnet.Process{Name: "client"})
			other.send(t, 1000)
			others = append(others, other)
			tags = append(tags, strconv.FormatUint(inodeOf(t, other.server.Netns()), 10))
		}
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 500, Max: limit.Max}))
		var full []int
		for {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				break
			}
			full = append(full, fd)
		}
		gather := func() (gathered, []error) {
			acc := &testutil.Accumulator{}
			require.NoError(t, l.plugin.Gather(acc))
			return gathered{t, acc.GetTelegrafMetrics()}, acc.Errors
		}
		free := func(n int) {
			for _, fd := range full[:n] {
				require.NoError(t, unix.Close(fd))
			}
			full = full[n:]
		}

		none, failed := gather()
		free(2) // it takes three to enter a namespace
		two, once := gather()
		again, onceAgain := gather()
		free(len(full))
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))

		require.NotEmpty(t, failed)
		for _, err := range failed {
			require.ErrorIs(t, err, unix.EMFILE)
		}
		none.requireTags("self")
		require.EqualValues(t, 2, none.one("procnetstat")["tcp_established"], "what is open stays")
		for g, errs := range map[*gathered][]error{&two: once, &again: onceAgain} {
			require.Len(t, errs, 1)
			require.Regexp(t, `^network namespace of process \d+: .*: too many open files \(and 2 more\)$`, errs[0].Error())
			require.Len(t, g.all("procnetstat_listener"), 4)
			for _, tag := range tags {
				require.EqualValues(t, 4, g.one("procnetstat", "netns="+tag)["tcp_established"])
				require.NotContains(t, g.one("procnetstat", "netns="+tag), "tcp_bytes_received")
			}
		}
		for _, tag := range tags {
			require.Zero(t, l.gather().hostBytes(tag))
		}
		for n, other := range others {
			other.send(t, 10+n)
			require.EqualValues(t, 10+n, l.gather().hostBytes(tags[n]))
		}
		own.send(t, 5)
		require.EqualValues(t, 5, l.gather().hostBytes("self"))
	})
}

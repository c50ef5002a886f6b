package procnetstat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/metric"
	"github.com/influxdata/telegraf/testutil"
	"github.com/influxdata/toml"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A reader is a process that runs the plugin as another user, with some capabilities and no way to get others. The test
// binary is one where readerEnv says what it is to read.
const readerEnv = "PROCNETSTAT_TEST_READER"

// task is what a reader does.
type task struct {
	Connect bool     // to itself, first
	Options []string // of each of the plugins that it runs one after the other
	// Waits: after each gather it writes a line, and waits for one.
	Waits bool
}

// readerReport is what a reader reports.
type readerReport struct {
	Status  string // its /proc/self/status
	Plugins []pluginReport
}

type pluginReport struct {
	Log     []string
	Errors  []string
	Gathers [][]toldMetric
}

type toldMetric struct {
	Name   string
	Tags   map[string]string
	Fields map[string]int64
	Type   telegraf.ValueType
}

// gathersOfReader is enough for what is said in every gather to show.
const gathersOfReader = 3

// read is the main function of a reader.
func read(asked string) (exitCode int) {
	log.SetOutput(io.Discard) // the report contains the log
	var r task
	err := json.Unmarshal([]byte(asked), &r)
	if err == nil {
		err = r.writeReports(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reader:", err)
		return 1
	}
	return 0
}

func (r *task) writeReports(to io.Writer) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	if r.Connect {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		defer client.Close()
		server, err := listener.Accept()
		if err != nil {
			return err
		}
		defer server.Close()
	}
	result := readerReport{Status: string(status)}
	for _, options := range r.Options {
		result.Plugins = append(result.Plugins, r.readWith(options, to))
	}
	return json.NewEncoder(to).Encode(result)
}

func (r *task) readWith(options string, to io.Writer) (result pluginReport) {
	plugin, messages, acc := newPlugin(), &testutil.CaptureLogger{}, &testutil.Accumulator{}
	plugin.Log = messages
	defer func() {
		for _, m := range messages.Messages() {
			result.Log = append(result.Log, fmt.Sprintf("%c! %s", m.Level, m.Text))
		}
		for _, err := range acc.Errors {
			result.Errors = append(result.Errors, err.Error())
		}
	}()
	for _, step := range []func() error{
		func() error { return toml.Unmarshal([]byte(options), plugin) },
		plugin.Init,
		func() error { return plugin.Start(acc) },
	} {
		if err := step(); err != nil {
			acc.AddError(err)
			return result
		}
	}
	defer plugin.Stop()
	for range gathersOfReader {
		acc.AddError(plugin.Gather(acc))
		var metrics []toldMetric
		for _, m := range acc.GetTelegrafMetrics() {
			t := toldMetric{Name: m.Name(), Tags: m.Tags(), Fields: map[string]int64{}, Type: m.Type()}
			for name, value := range m.Fields() {
				t.Fields[name] = value.(int64)
			}
			metrics = append(metrics, t)
		}
		result.Gathers = append(result.Gathers, metrics)
		acc.ClearMetrics()
		if r.Waits {
			fmt.Fprintln(to, "gathered")
			if _, err := fmt.Scanln(); err != nil {
				acc.AddError(err)
				return result
			}
		}
	}
	return result
}

// role is what a reader may do.
type role struct {
	name         string
	capabilities []string // as setpriv(1) calls them; those of the user anyUID, who may get no others
	isRoot       bool     // with all capabilities that the test has, and in no user namespace
}

// anyUID is a user that nothing else runs as: what other tests do as nobody does not show here.
const anyUID = 64999

var (
	roleRoot   = role{name: "root", isRoot: true}
	roleAny    = role{name: "any user"}
	roleBPF    = having("bpf", "perfmon")
	roleTracer = having("sys_ptrace", "dac_read_search")
)

func having(capabilities ...string) role {
	return role{name: strings.Join(capabilities, ","), capabilities: capabilities}
}

var capabilityNumbers = map[string]uint{
	"bpf": unix.CAP_BPF, "perfmon": unix.CAP_PERFMON, "sys_ptrace": unix.CAP_SYS_PTRACE,
	"dac_read_search": unix.CAP_DAC_READ_SEARCH, "sys_admin": unix.CAP_SYS_ADMIN,
}

// command is what turns a process of root's into one of the role.
func (r role) command() []string {
	if r.isRoot {
		return nil
	}
	set := strings.Join(append([]string{"-all"}, r.capabilities...), ",+")
	return []string{
		"setpriv", fmt.Sprintf("--reuid=%d", anyUID), fmt.Sprintf("--regid=%d", anyUID), "--clear-groups",
		"--inh-caps=" + set, "--ambient-caps=" + set, "--bounding-set=" + set,
	}
}

// requireIn requires that a process has the user and the capabilities of the role in all of its sets, and no others in any.
func (r role) requireIn(t *testing.T, status string) {
	t.Helper()
	if r.isRoot {
		return
	}
	var mask uint64
	for _, capability := range r.capabilities {
		mask |= 1 << capabilityNumbers[capability]
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		require.Contains(t, status, fmt.Sprintf("\n%s:\t%016x\n", set, mask))
	}
	for _, ids := range []string{"Uid", "Gid"} {
		require.Contains(t, status, fmt.Sprintf("\n%s:\t%d\t%d\t%d\t%d\n", ids, anyUID, anyUID, anyUID, anyUID))
	}
	require.Regexp(t, `\nGroups:\t *\n`, status)
}

// place is where a reader looks from: the mount namespace of the test, after a shell of root's has changed a copy of it.
type place struct {
	name    string
	prepare string   // commands of the shell
	inside  []string // a command that runs the reader, in its role, as root of a user namespace
	procDir string   // HOST_PROC, if it is set
}

var here = place{name: "here"}

// read runs a reader in the role, and returns the reports of its plugins, in the order of their options. It wants no errors of any.
func (p place) read(t *testing.T, r role, asked task) (plugins []readPlugin) {
	t.Helper()
	cmd := p.command(t, r, asked)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		const mountFailed, setprivFailed = 32, 127
		code := failed.ExitCode()
		if code == mountFailed || code == setprivFailed || strings.HasPrefix(stderr.String(), "unshare: ") {
			testnet.SkipOrFail(t, fmt.Sprintf("%s, %s: %s", p.name, r.name, stderr.String()))
		}
	}
	require.NoError(t, err, "%s, %s: %s", p.name, r.name, stderr.String())
	return p.reported(t, r, asked, out)
}

// command returns the command that runs a reader in the role.
func (p place) command(t *testing.T, r role, asked task) *exec.Cmd {
	t.Helper()
	testnet.Require(t, "unshare", "setpriv", "mount")
	text, err := json.Marshal(asked)
	require.NoError(t, err)
	args := []string{"--mount", "--propagation=private", "sh", "-ec", p.prepare + "\n" + `exec "$@"`, "sh"}
	args = slices.Concat(args, r.command(), p.inside, []string{testnet.Program(t, "reader")})
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = append(os.Environ(), readerEnv+"="+string(text), "HOST_PROC="+p.procDir)
	return cmd
}

// reported returns what a reader has reported.
func (p place) reported(t *testing.T, r role, asked task, out []byte) (plugins []readPlugin) {
	t.Helper()
	var result readerReport
	require.NoError(t, json.Unmarshal(out, &result), "%s", out)
	if p.inside == nil {
		r.requireIn(t, result.Status)
	}
	require.Len(t, result.Plugins, len(asked.Options))
	for _, plugin := range result.Plugins {
		require.Empty(t, plugin.Errors, "%s, %s", p.name, r.name)
		require.Len(t, plugin.Gathers, gathersOfReader)
		read := readPlugin{log: plugin.Log}
		for _, metrics := range plugin.Gathers {
			g := gathered{T: t}
			for _, m := range metrics {
				fields := map[string]any{}
				for name, value := range m.Fields {
					fields[name] = value
				}
				g.metrics = append(g.metrics, metric.New(m.Name, m.Tags, fields, time.Time{}, m.Type))
			}
			read.gathers = append(read.gathers, g)
		}
		plugins = append(plugins, read)
	}
	return plugins
}

// readAsRoot is read here and for root, with the options withRemote first: it finds owners by BPF, or the test is skipped.
func readAsRoot(t *testing.T, further ...string) []readPlugin {
	t.Helper()
	plugins := here.read(t, roleRoot, task{Options: append([]string{withRemote}, further...)})
	if len(plugins[0].gathers[0].all("procnetstat_gather", "owners=bpf")) == 0 {
		testnet.SkipOrFail(t, "BPF does not find owners for root here: "+strings.Join(plugins[0].log, "; "))
	}
	return plugins
}

// readPlugin is a plugin that a reader ran.
type readPlugin struct {
	log     []string
	gathers []gathered
}

// The lines that the plugin logs, as patterns.
const (
	logsNoBPF = `W! BPF owner lookup unavailable \(the BPF program requires CAP_BPF and ` +
		`CAP_PERFMON: unsupported operation: operation not permitted\); falling back to /proc, which costs more`
	logsNoBTF = `W! BPF owner lookup unavailable \(the BPF program requires Linux 5\.11 with ` +
		`BTF: .*no BTF found for kernel version .*\); falling back to /proc, which costs more`
	logsDenied = `W! Cannot read the descriptors of \d+ processes; their sockets are reported as "unattributed"\. Attributing them requires ` +
		`CAP_BPF and CAP_PERFMON, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; a security module can deny it too`
	logsHidden = `W! Proc file system /\S+ is mounted with hidepid; other users' processes, with their executables, command lines, cgroups and ` +
		`network namespaces, are hidden; reading them requires CAP_SYS_PTRACE or the group of mount option gid: ` +
		`open /\S+/1/stat: (no such file or directory|operation not permitted)`
	logsNoExe = `W! Cannot read process executables: requires CAP_SYS_PTRACE: readlink /proc/\d+/exe: ` +
		`permission denied`
	logsNoCgroups = `I! Cannot look up the cgroups of sockets; using those of their processes: ` +
		`no cgroup2 file system is mounted; opening /\S+: .*`
	logsNoNetlink = `W! Cannot open netlink in network namespace .* \(entering requires CAP_SYS_ADMIN, and CAP_SYS_PTRACE for a namespace without ` +
		`a name: (open /\S+/ns/net: permission denied|setns: operation not permitted)\); falling back to /proc, ` +
		`which gives fewer fields and costs more`
	logsNoNames = `W! Cannot read or name some network namespaces: `
	logsNoName  = logsNoNames + `/run/netns/blue: entering requires CAP_SYS_ADMIN, finding a process in it CAP_SYS_PTRACE: ` +
		`permission denied`
)

// requireLog requires that these lines were logged, each once, and no others.
func (p readPlugin) requireLog(t *testing.T, patterns ...string) {
	t.Helper()
	unexpected := slices.Clone(p.log)
	for _, line := range p.log {
		require.Regexp(t, `^[EWID]! [A-Z]`, line)
	}
	missing := slices.DeleteFunc(slices.Clone(patterns), func(pattern string) bool {
		i := slices.IndexFunc(unexpected, regexp.MustCompile("^"+pattern+"$").MatchString)
		if i >= 0 {
			unexpected = slices.Delete(unexpected, i, i+1)
		}
		return i >= 0
	})
	require.Empty(t, unexpected, "logged:\n%s", strings.Join(p.log, "\n"))
	require.Empty(t, missing, "logged:\n%s", strings.Join(p.log, "\n"))
}

// ifLogged returns the pattern if the plugin logged such a line: what the host denies to root, it denies to all.
func (p readPlugin) ifLogged(pattern string) []string {
	line := regexp.MustCompile("^" + pattern + "$")
	if slices.ContainsFunc(p.log, line.MatchString) {
		return []string{pattern}
	}
	return nil
}

// sees is what a reader sees: that of its own user's processes, and of the others.
type sees struct {
	own     bool // the sockets of its own
	sockets bool // of others
	exes    bool
	cgroups bool // of others' sockets
}

var (
	ownOnly    = sees{own: true, exes: true, cgroups: true}
	allButExes = sees{own: true, sockets: true, cgroups: true}
	everything = sees{own: true, sockets: true, exes: true, cgroups: true}
)

// tags makes of the tags of a series that root gets those of the series that its sockets are in for the reader.
func (s sees) tags(tags map[string]string) {
	name, ofProcess := tags["process_name"]
	if isOwn := name == "mine"; ofProcess && (!isOwn || !s.own) {
		is := func(tag string, value string) {
			if _, ok := tags[tag]; ok {
				tags[tag] = value
			}
		}
		if !s.exes {
			is("exe", "(empty)")
		}
		if isOwn || !s.sockets {
			is("process_name", unattributed)
			is("user", unattributed)
			is("exe", unattributed)
		}
	}
	if name := tags["remote_process_name"]; name == "mine" && !s.own || name != "mine" && !s.sockets {
		delete(tags, "remote_process_name")
	}
	if unit, ok := tags["systemd_unit"]; ok && unit != "mine.service" && !s.cgroups {
		delete(tags, "systemd_unit")
		tags["cgroup"] = unattributed
	}
}

// ofTheHost are fields that count for the whole host, which others use too.
var ofTheHost = []string{"sockets_used", "tcp_orphan", "tcp_alloc", "tcp_mem_bytes", "udp_mem_bytes"}

// as returns the series of a measurement as a reader should get them that sees this: those that become one are added up. What
// has no sum is left out, if not all is exactly as it is for root.
func (s sees) as(g gathered, measurement string, exactly bool) map[string]map[string]int64 {
	series := map[string]map[string]int64{}
	for _, m := range g.metrics {
		if m.Name() != measurement {
			continue
		}
		tags := maps.Clone(m.Tags())
		s.tags(tags)
		key := fmt.Sprint(tags) // in the order of their names
		if series[key] == nil {
			series[key] = map[string]int64{}
		}
		for _, field := range m.FieldList() {
			hasNoSum := strings.Contains(field.Key, "_rtt_") || field.Key == "processes"
			switch {
			case slices.Contains(ofTheHost, field.Key):
				series[key][field.Key] = 0
			case exactly || !hasNoSum:
				series[key][field.Key] += field.Value.(int64)
			}
		}
	}
	return series
}

// requireSeries requires that the series of the measurements are those that root gets, as far as the reader sees them.
func (s sees) requireSeries(t *testing.T, asRoot, got gathered, measurements ...string) {
	t.Helper()
	exactly := s == everything
	for _, measurement := range measurements {
		want := s.as(asRoot, measurement, exactly)
		require.NotEmpty(t, want, measurement)
		require.Equal(t, want, everything.as(got, measurement, exactly), measurement)
	}
}

// outcome is what a reader is expected to get.
type outcome struct {
	role
	sees
	owners string   // the way to find them
	log    []string // patterns of the lines at the start
	denied refusals // processes
}

// refusals is the number of processes that a reader may not look into.
type refusals int

const (
	noProcess refusals = iota
	likeRoot           // those that deny root too
	moreThanRoot
)

// logWith is all that is logged, with these lines.
func (e outcome) logWith(walkOfRoot readPlugin, further ...string) []string {
	lines := slices.Concat(e.log, further)
	switch e.denied {
	case likeRoot:
		return append(lines, walkOfRoot.ifLogged(logsDenied)...)
	case moreThanRoot:
		return append(lines, logsDenied)
	default:
		return lines
	}
}

// fieldsOf returns the metrics that root gets with the fields that the reader gets of them.
func (e outcome) fieldsOf(asRoot gathered) gathered {
	if e.owners != "bpf" {
		return asRoot.without(connectFields)
	}
	return asRoot
}

// require requires it of a plugin with the options withRemote.
func (e outcome) require(t *testing.T, p, ofRoot, walkOfRoot readPlugin) {
	t.Helper()
	p.requireLog(t, e.logWith(walkOfRoot)...)
	asRoot, toRoot := e.fieldsOf(ofRoot.gathers[0]), walkOfRoot.gathers[0].one("procnetstat_gather")["denied"]
	for _, g := range p.gathers {
		e.requireSeries(t, asRoot, g,
			"procnetstat", "procnetstat_process", "procnetstat_listener", "procnetstat_cgroup", "procnetstat_remote")
		report := g.one("procnetstat_gather", "source=netlink", "owners="+e.owners)
		require.Equal(t, asRoot.one("procnetstat_gather")["sockets"], report["sockets"])
		require.Contains(t, report, "connects_seen")
		require.Equal(t, boolToInt(e.owners == "bpf"), report["connects_seen"])
		var unknown int64
		for _, series := range g.all("procnetstat_process", "process_name=unattributed") {
			unknown += expectation(series).sockets()
		}
		require.Equal(t, unknown, report["unattributed"])
		switch e.denied {
		case noProcess:
			require.Zero(t, report["denied"])
		case likeRoot:
			require.Equal(t, toRoot, report["denied"])
		case moreThanRoot:
			require.Greater(t, report["denied"], toRoot)
		}
		require.Zero(t, report["folded_series"])
		require.Zero(t, report["interrupted"])
	}
}

const daemon = 1 // a user that is neither root nor anyUID

// makeLoad makes processes of three users, in services of their own, and connections between them that stay as they are.
func makeLoad(t *testing.T) {
	t.Helper()
	start := func(name string, uid uint32) *testnet.Proc {
		dir, _ := testnet.Cgroup(t, name+".service")
		return testnet.Start(t, testnet.Process{Name: name, UID: uid, GID: uid, Cgroup: dir})
	}
	server, client, mine := start("server", 0), start("client", daemon), start("mine", anyUID)
	loopback4, loopback6 := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")

	web := server.Listen("tcp4", loopback4, 16)
	client.Connect(web.Local, 9)
	server.Accept(web, 7)
	api := server.Listen("tcp6", loopback6, 16)
	mine.Connect(api.Local, 3)
	server.Accept(api, 3)
	own := mine.Listen("tcp4in6", netip.AddrPort{}, 16)
	toOwn := client.Connect(netip.AddrPortFrom(loopback4.Addr(), own.Local.Port()), 4)
	mine.Accept(own, 4)
	client.Send(toOwn[0], 1000)

	datagrams := server.UDP("udp4", loopback4, netip.AddrPort{})
	client.UDP("udp4", netip.AddrPort{}, datagrams.Local)
	mine.UDP("udp6", loopback6, netip.AddrPort{})
	await(t, "ESTABLISHED", toOwn[0])
}

// requireAsSS requires that what root gets is what ss says.
func requireAsSS(t *testing.T, g gathered) {
	t.Helper()
	users := map[string]string{}
	for name, uid := range map[string]int{"server": 0, "client": daemon, "mine": anyUID} {
		users[name] = strconv.Itoa(uid)
		if u, err := user.LookupId(users[name]); err == nil {
			users[name] = u.Username
		}
	}
	host, processes, listeners := fromSS(t, users)
	require.Len(t, processes, 3)
	host.requireIn(g, "procnetstat")
	processes.requireIn(g, "procnetstat_process")
	listeners.requireIn(g, "procnetstat_listener")
	cgroups := expectations{}
	for _, row := range testnet.SS(t, "-t", "-u") {
		cgroups.count(row, row.Cgroup)
	}
	require.Len(t, cgroups, 3)
	for path, want := range cgroups {
		got := expectation(g.one("procnetstat_cgroup", "cgroup="+path))
		for field, value := range want {
			require.Equal(t, value, got[field], "%s of %s", field, path)
		}
	}
}

// neighbour is another network namespace.
type neighbour struct {
	name string // in /run/netns; empty: it has none
	proc *testnet.Proc
}

// makeNeighbours makes network namespaces with a process of another user each: of root's that has a name, of daemon's, and
// of anyUID's.
func makeNeighbours(t *testing.T) (named, theirs, mine neighbour) {
	t.Helper()
	start := func(name string, uid uint32) neighbour {
		maker := testnet.Start(t, testnet.Process{Name: "maker", Netns: true})
		proc := testnet.Start(t, testnet.Process{Name: name, UID: uid, GID: uid, In: maker.Netns()})
		maker.Stop()
		listener := proc.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		proc.Connect(listener.Local, 2)
		proc.Accept(listener, 1)
		proc.UDP("udp4", netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{})
		return neighbour{proc: proc}
	}
	named, theirs, mine = start("blue", 0), start("theirs", daemon), start("mine", anyUID)
	named.name = "blue"
	testnet.NameNetns(t, named.name, named.proc.Netns())
	return named, theirs, mine
}

// knownBy is what a namespace is known by to a reader, and so the value of the tag netns.
type knownBy int

const (
	asNothing knownBy = iota
	asProcess
	asNumber
	asName // or number, if it has none
)

func (n neighbour) tag(t *testing.T, by knownBy) string {
	t.Helper()
	if by == asProcess {
		return fmt.Sprintf("pid:%d", n.proc.PID)
	}
	if by == asName && n.name != "" {
		return n.name
	}
	var stat unix.Stat_t
	require.NoError(t, unix.Stat(n.proc.Netns(), &stat))
	return strconv.FormatUint(stat.Ino, 10)
}

// in returns the metrics of one network namespace, without the tag that says so.
func (g gathered) in(netNS string) gathered {
	of := gathered{T: g.T}
	for _, m := range g.metrics {
		if tag, _ := m.GetTag(tagNetNS); tag == netNS {
			m = m.Copy()
			m.RemoveTag(tagNetNS)
			of.metrics = append(of.metrics, m)
		}
	}
	return of
}

// fromProcfs returns the metrics without the fields that only netlink gives, and without the limits, which only a process in the
// network namespace sees.
func (g gathered) fromProcfs() gathered {
	return g.without("^tcp_((rtt|bytes|segs|retrans|connect)_|syn_retrans$|opened|closed)|" + limitFields)
}

// connectFields are the fields that only a BPF program gives.
const connectFields = "^tcp_(connect_|closed_(reset|timed_out)$)"

// limitFields are the fields from /proc/sys.
const limitFields = "^(local_ports|tcp_time_wait_limit|tcp_orphan_limit|tcp_mem_limit_bytes)$"

// without returns the metrics without the fields that match.
func (g gathered) without(pattern string) gathered {
	without, fields := gathered{T: g.T}, regexp.MustCompile(pattern)
	for _, m := range g.metrics {
		m = m.Copy()
		for field := range m.Fields() {
			if fields.MatchString(field) {
				m.RemoveField(field)
			}
		}
		without.metrics = append(without.metrics, m)
	}
	return without
}

// expectedOf is what a reader is expected to get of a neighbour.
type expectedOf struct {
	by   knownBy
	from from
}

// from is where the sockets of a neighbour come from.
type from bool

const (
	procfs  from = false
	netlink from = true
)

func (n neighbour) require(t *testing.T, want expectedOf, s sees, asRoot gathered, p readPlugin) {
	t.Helper()
	for _, g := range p.gathers {
		if want.by == asNothing {
			for _, by := range []knownBy{asProcess, asNumber, asName} {
				require.Empty(t, g.in(n.tag(t, by)).metrics)
			}
			continue
		}
		all := asRoot.in(n.tag(t, asName))
		if want.from == procfs {
			all = all.fromProcfs()
		}
		s.requireSeries(t, all, g.in(n.tag(t, want.by)), "procnetstat", "procnetstat_process")
	}
}

const (
	ofEverywhere = `
		namespaces = ["all"]
		max_series = 1000000
		measurements = ["host", "process"]`
	withExes = `
		measurements = ["process"]
		process_tags = ["process_name", "user", "exe"]`
	ofHost = `
		namespaces = ["self", "host"]
		measurements = ["host", "process"]`
	byWalk = `owners = "procfs"`
)

// TestPrivileges: what works with which privileges, as in docs/PRIVILEGES.md.
func TestPrivileges(t *testing.T) {
	testnet.IsolateMounts(t, func() {
		makeLoad(t)
		blue, theirs, mine := makeNeighbours(t)
		ofRoot := readAsRoot(t, ofEverywhere, withExes, byWalk)
		asRoot, everywhere, exes, walk := ofRoot[0], ofRoot[1], ofRoot[2], ofRoot[3]
		for _, g := range asRoot.gathers {
			requireAsSS(t, g)
		}
		asRoot.requireLog(t)
		walk.requireLog(t, walk.ifLogged(logsDenied)...)
		for _, n := range []neighbour{blue, theirs, mine} {
			n.require(t, expectedOf{asName, netlink}, everything, everywhere.gathers[0], everywhere)
		}

		noBPF := []string{logsNoBPF}
		byProcess, byNumber := expectedOf{asProcess, procfs}, expectedOf{asNumber, procfs}
		for _, test := range []struct {
			outcome
			blue, theirs, mine expectedOf
			everywhere         []string // that the plugin that reads all namespaces logs as well
			exes               []string // that the plugin that emits executables logs as well
		}{
			{
				outcome{roleAny, ownOnly, "procfs", noBPF, moreThanRoot},
				byProcess, byProcess, byNumber, []string{logsNoNetlink, logsNoName}, nil,
			},
			{
				outcome{roleBPF, allButExes, "bpf", nil, noProcess},
				byProcess, byProcess, byNumber, []string{logsNoNetlink, logsNoName}, []string{logsNoExe},
			},
			{
				outcome{having("bpf"), ownOnly, "procfs", noBPF, moreThanRoot},
				byProcess, byProcess, byNumber, []string{logsNoNetlink, logsNoName}, nil,
			},
			{
				outcome{having("perfmon"), ownOnly, "procfs", noBPF, moreThanRoot},
				byProcess, byProcess, byNumber, []string{logsNoNetlink, logsNoName}, nil,
			},
			{
				outcome{roleTracer, everything, "procfs", noBPF, likeRoot},
				expectedOf{asName, procfs}, byNumber, byNumber, []string{logsNoNetlink}, nil,
			},
			{
				outcome{having("sys_ptrace"), ownOnly, "procfs", noBPF, moreThanRoot},
				expectedOf{asName, procfs}, byNumber, byNumber, []string{logsNoNetlink}, nil,
			},
			{
				outcome{having("dac_read_search"), ownOnly, "procfs", noBPF, moreThanRoot},
				byProcess, byProcess, byNumber, []string{logsNoNetlink, logsNoName}, nil,
			},
			{ // which the kernel takes for CAP_BPF and CAP_PERFMON too
				outcome{having("sys_admin"), allButExes, "bpf", nil, noProcess},
				expectedOf{asName, netlink}, byProcess, expectedOf{asNumber, netlink}, []string{logsNoNetlink}, []string{logsNoExe},
			},
			{
				outcome{having("sys_admin", "sys_ptrace"), everything, "bpf", nil, noProcess},
				expectedOf{asName, netlink}, expectedOf{asNumber, netlink}, expectedOf{asNumber, netlink},
				everywhere.ifLogged(logsNoNetlink), nil,
			},
			{
				outcome{having("bpf", "perfmon", "sys_ptrace"), everything, "bpf", nil, noProcess},
				expectedOf{asName, procfs}, byNumber, byNumber, []string{logsNoNetlink}, nil,
			},
		} {
			t.Run(test.name, func(t *testing.T) {
				got := here.read(t, test.role, task{Options: []string{withRemote, ofEverywhere, withExes}})
				test.require(t, got[0], asRoot, walk)
				got[1].requireLog(t, test.logWith(walk, test.everywhere...)...)
				blue.require(t, test.blue, test.sees, everywhere.gathers[0], got[1])
				theirs.require(t, test.theirs, test.sees, everywhere.gathers[0], got[1])
				mine.require(t, test.mine, test.sees, everywhere.gathers[0], got[1])
				got[2].requireLog(t, test.logWith(walk, test.exes...)...)
				for _, g := range got[2].gathers {
					test.requireSeries(t, test.fieldsOf(exes.gathers[0]), g, "procnetstat_process")
				}
			})
		}
	})
}

// TestHidepid: a proc file system that hides the processes of others hides them, and no more: what BPF reports is not lost.
func TestHidepid(t *testing.T) {
	testnet.IsolateMounts(t, func() {
		makeLoad(t)
		blue, theirs, mine := makeNeighbours(t)
		ofRoot := readAsRoot(t, ofEverywhere, byWalk)
		asRoot, everywhere, walk := ofRoot[0], ofRoot[1], ofRoot[2]
		var hiddenFromAll []string
		if _, err := os.Readlink("/proc/1/exe"); err != nil { // it denies root too, which is rare
			hiddenFromAll = []string{logsHidden}
		}
		other := t.TempDir()
		require.NoError(t, os.Chmod(filepath.Dir(other), 0o755))
		over := func(options string) place {
			return place{name: options, prepare: "mount -t proc -o " + options + " proc /proc"}
		}
		const cannotLook = `reading process \d+ requires CAP_SYS_PTRACE: operation not permitted`
		const cannotSee = `there is no process 1: no such file or directory`
		for _, test := range []struct {
			place
			host    string   // why a reader that may not look into others' processes does not read process 1's namespace
			visible refusals // of the processes that it may not look into, those that it sees
		}{
			{over("hidepid=1"), cannotLook, moreThanRoot},
			{over("hidepid=2"), cannotSee, noProcess},
			{over("hidepid=4"), cannotSee, noProcess},
			{over(fmt.Sprintf("hidepid=4,gid=%d", anyUID)), cannotSee, noProcess},
			{
				place{name: "HOST_PROC with hidepid=2", prepare: "mount -t proc -o hidepid=2 proc " + other, procDir: other},
				cannotSee, noProcess,
			},
		} {
			t.Run(test.name, func(t *testing.T) {
				ofTracer := outcome{roleTracer, everything, "procfs", append([]string{logsNoBPF}, hiddenFromAll...), noProcess}
				blueIs, unnamed := asName, []string{logsNoName}
				if test.procDir != "" { // names are looked for in the mount namespace of its process 1
					blueIs, unnamed = asNumber, nil
				}
				if test.host == cannotLook {
					unnamed = []string{logsNoNames + cannotLook}
				}
				if test.visible == moreThanRoot {
					ofTracer.denied = likeRoot
				}
				for _, want := range []outcome{
					{roleAny, ownOnly, "procfs", []string{logsNoBPF, logsHidden}, test.visible},
					{roleBPF, sees{own: true, sockets: true, cgroups: true}, "bpf", []string{logsHidden}, noProcess},
				} {
					t.Run(want.name, func(t *testing.T) {
						got := test.read(t, want.role, task{Options: []string{withRemote, ofEverywhere, ofHost}})
						want.require(t, got[0], asRoot, walk)
						got[1].requireLog(t, want.logWith(walk, append(unnamed, logsNoNetlink)...)...)
						blue.require(t, expectedOf{}, want.sees, everywhere.gathers[0], got[1])
						theirs.require(t, expectedOf{}, want.sees, everywhere.gathers[0], got[1])
						mine.require(t, expectedOf{asNumber, procfs}, want.sees, everywhere.gathers[0], got[1])
						got[2].requireLog(t, want.logWith(walk, `W! Cannot read network namespace "host": `+test.host)...)
					})
				}
				for _, want := range []outcome{
					ofTracer,
					{having("bpf", "perfmon", "sys_ptrace"), everything, "bpf", hiddenFromAll, noProcess},
				} {
					t.Run(want.name, func(t *testing.T) {
						got := test.read(t, want.role, task{Options: []string{withRemote, ofEverywhere}})
						want.require(t, got[0], asRoot, walk)
						blue.require(t, expectedOf{blueIs, procfs}, want.sees, everywhere.gathers[0], got[1])
						theirs.require(t, expectedOf{asNumber, procfs}, want.sees, everywhere.gathers[0], got[1])
						mine.require(t, expectedOf{asNumber, procfs}, want.sees, everywhere.gathers[0], got[1])
					})
				}
			})
		}
	})
}

// noSys is the place that has no /proc/sys.
const noSys = "subset=pid"

// placesLikeHere are places that differ from here, and lack nothing but the limits, where there is no /proc/sys.
var placesLikeHere = []place{
	{name: "hidepid with its group", prepare: fmt.Sprintf("mount -t proc -o hidepid=2,gid=%d proc /proc", anyUID)},
	{name: noSys, prepare: "mount -t proc -o subset=pid proc /proc"},
	{name: "read-only proc", prepare: "mount -o remount,bind,ro /proc"},
	{name: "read-only sys", prepare: `
		for point in $(awk '$2 ~ "^/sys" {print $2}' /proc/self/mounts); do
			mount -o remount,bind,ro "$point"
		done`},
}

func TestPlacesLikeHere(t *testing.T) {
	testnet.Isolate(t, func() {
		makeLoad(t)
		const fromProcfs = `source = "procfs"`
		ofRoot := readAsRoot(t, byWalk, fromProcfs)
		asRoot, walk, tables := ofRoot[0], ofRoot[1], ofRoot[2]
		for _, place := range placesLikeHere {
			t.Run(place.name, func(t *testing.T) {
				asRoot, ofTables := asRoot, tables.gathers[0]
				if place.name == noSys {
					asRoot.gathers, ofTables = []gathered{asRoot.gathers[0].without(limitFields)}, ofTables.without(limitFields)
				}
				for _, want := range []outcome{
					{roleAny, ownOnly, "procfs", []string{logsNoBPF}, moreThanRoot},
					{roleBPF, allButExes, "bpf", nil, noProcess},
					{roleTracer, everything, "procfs", []string{logsNoBPF}, likeRoot},
				} {
					t.Run(want.name, func(t *testing.T) {
						got := place.read(t, want.role, task{Options: []string{withRemote, fromProcfs}})
						want.require(t, got[0], asRoot, walk)
						got[1].requireLog(t, want.logWith(walk)...)
						for _, g := range got[1].gathers {
							want.requireSeries(t, ofTables, g, "procnetstat", "procnetstat_process", "procnetstat_listener")
						}
					})
				}
			})
		}
	})
}

// TestWithoutSys: where no cgroup2 file system can be seen, cgroups are those of processes, and a kernel that does not show
// its BTF runs no BPF program that needs it.
func TestWithoutSys(t *testing.T) {
	testnet.Isolate(t, func() {
		makeLoad(t)
		ofRoot := readAsRoot(t, byWalk)
		asRoot, walk := ofRoot[0], ofRoot[1]
		withoutSys := place{name: "without /sys", prepare: "mount -t tmpfs tmpfs /sys"}
		ownByProcess := sees{own: true, exes: true}
		for _, want := range []outcome{
			{roleRoot, everything, "procfs", []string{logsNoBTF, logsNoCgroups}, likeRoot},
			{roleAny, ownByProcess, "procfs", []string{logsNoBPF, logsNoCgroups}, moreThanRoot},
			{roleBPF, ownByProcess, "procfs", []string{logsNoBTF, logsNoCgroups}, moreThanRoot},
			{roleTracer, everything, "procfs", []string{logsNoBPF, logsNoCgroups}, likeRoot},
		} {
			t.Run(want.name, func(t *testing.T) {
				got := withoutSys.read(t, want.role, task{Options: []string{withRemote}})
				want.require(t, got[0], asRoot, walk)
			})
		}
	})
}

// TestUserNamespace: root of a user namespace has all capabilities there, and none that would help.
func TestUserNamespace(t *testing.T) {
	testnet.IsolateMounts(t, func() {
		makeLoad(t)
		ofRoot := readAsRoot(t, byWalk)
		asRoot, walk := ofRoot[0], ofRoot[1]
		const isRoot = `test "$(id -u)" = 0; grep -q "^CapEff:.*[1-9a-f]" /proc/self/status; `

		t.Run("in the network namespace of the host", func(t *testing.T) {
			inside := place{name: "user namespace", inside: []string{"unshare", "-U", "-r", "sh", "-ec", isRoot + `exec "$@"`, "sh"}}
			got := inside.read(t, roleAny, task{Options: []string{withRemote}})
			want := outcome{roleAny, sees{exes: true, cgroups: true}, "procfs", []string{logsNoBPF}, moreThanRoot}
			want.require(t, got[0], asRoot, walk)
		})
		t.Run("in a network namespace of its own", func(t *testing.T) {
			inside := place{name: "user and network namespace", inside: []string{
				"unshare", "-U", "-r", "-n", "sh", "-ec", isRoot + `ip link set lo up; exec "$@"`, "sh",
			}}
			got := inside.read(t, roleAny, task{Connect: true, Options: []string{withRemote, ofEverywhere}})
			got[0].requireLog(t, logsNoBPF, logsDenied)
			got[1].requireLog(t, logsNoBPF, logsNoNetlink, logsDenied)
			for _, g := range append(got[0].gathers, got[1].gathers...) {
				own := g.one("procnetstat_process", "process_name=reader", "user=root")
				require.Equal(t, int64(1), own["tcp_listen"])
				require.Equal(t, int64(2), own["tcp_established"])
				require.Equal(t, int64(3), expectation(own).sockets())
			}
			for _, g := range got[0].gathers {
				require.Len(t, g.all("procnetstat_process"), 1)
				require.Equal(t, int64(3), expectation(g.one("procnetstat")).sockets())
				require.Equal(t, int64(1), g.one("procnetstat_listener", "process_name=reader")["tcp_established"])
				require.Equal(t, int64(1), g.one("procnetstat_remote", "process_name=reader")["tcp_established"])
				report := g.one("procnetstat_gather", "source=netlink", "owners=procfs")
				require.Equal(t, int64(3), report["sockets"])
				require.Zero(t, report["unattributed"])
			}
		})
	})
}

// TestYama: whom a process may attach to is another question.
func TestYama(t *testing.T) {
	const setting = "/proc/sys/kernel/yama/ptrace_scope"
	before, err := os.ReadFile(setting)
	if errors.Is(err, fs.ErrNotExist) {
		t.Logf("this kernel has no yama: %v", err)
		return
	}
	require.NoError(t, err)
	testnet.Isolate(t, func() {
		makeLoad(t)
		ofRoot := readAsRoot(t, byWalk)
		t.Cleanup(func() { require.NoError(t, os.WriteFile(setting, before, 0)) })
		for _, scope := range []string{"0", "1", "2"} { // there is no way back from 3
			if err := os.WriteFile(setting, []byte(scope), 0); err != nil {
				testnet.SkipOrFail(t, "changing yama's scope: "+err.Error())
			}
			for _, want := range []outcome{
				{roleAny, ownOnly, "procfs", []string{logsNoBPF}, moreThanRoot},
				{roleBPF, allButExes, "bpf", nil, noProcess},
				{roleTracer, everything, "procfs", []string{logsNoBPF}, likeRoot},
			} {
				t.Run(scope+"/"+want.name, func(t *testing.T) {
					want.require(t, here.read(t, want.role, task{Options: []string{withRemote}})[0], ofRoot[0], ofRoot[1])
				})
			}
		}
	})
}

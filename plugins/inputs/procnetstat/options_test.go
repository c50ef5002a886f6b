//go:build linux

package procnetstat

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"
)

// configure returns the plugin with these options, not yet initialized.
func configure(t *testing.T, options string) *ProcNetStat {
	t.Helper()
	path := filepath.Join(t.TempDir(), "telegraf.conf")
	require.NoError(t, os.WriteFile(path, []byte("[[inputs.procnetstat]]\n"+options+"\n"), 0o600))
	return load(t, path)
}

func TestInitErrors(t *testing.T) {
	for _, test := range []struct{ options, want string }{
		{`measurements = ["hosts"]`, `measurements: "hosts" is not one of host, process, listener, cgroup, remote, client, connection, gather`},
		{`measurements = []`, `measurements: must contain at least one of host, process, listener, cgroup, remote, client, connection, gather`},
		{`measurements = ["host", "host"]`, `measurements: duplicate "host"`},
		{"measurements = [\"process\"]\nowners = \"none\"", `measurements: "process" has no content with owners = "none"`},
		{"measurements = [\"listener\"]\nprotocols = [\"raw\"]", `measurements: "listener" has no content without "tcp", "udp" or "unix" in protocols`},
		{"measurements = [\"remote\"]\nprotocols = [\"unix\"]", `measurements: "remote" has no content without "tcp", "udp" or "udplite" in protocols`},
		{"measurements = [\"cgroup\"]\nowners = \"none\"\nsource = \"procfs\"", `measurements: "cgroup" has no content with owners = "none" and source = "procfs"`},
		{"details = [\"rtt\"]\nsource = \"procfs\"", `details: "rtt" has no content with source = "procfs"`},
		{"closed_connections = \"on\"\nsource = \"procfs\"", `closed_connections: "on" requires netlink, which source = "procfs" disables`},
		{"owners = \"none\"\nuser_exclude = [\"root\"]", `process_include, process_exclude, user_include, user_exclude: cannot be used with owners = "none"; remove them or change owners`},
		{`protocols = ["tcp6"]`, `protocols: "tcp6" is not one of tcp, udp, udplite, raw, icmp, unix`},
		{`protocols = ["tcp", "tcp"]`, `protocols: duplicate "tcp"`},
		{`protocols = []`, `protocols: must contain at least one of tcp, udp, udplite, raw, icmp, unix`},
		{`source = "sockdiag"`, `source: "sockdiag" is not one of auto, netlink, procfs`},
		{`owners = "yes"`, `owners: "yes" is not one of auto, bpf, procfs, none`},
		{`process_tags = ["name"]`, `process_tags: "name" is not one of process_name, user, pid, exe, cmdline, systemd_unit, container_id, pod_uid, cgroup`},
		{`process_tags = []`, `process_tags: must contain at least one of process_name, user, pid, exe, cmdline, systemd_unit, container_id, pod_uid, cgroup`},
		{`max_series = 0`, `max_series: must be at least 1, got 0`},
		{`connection_tags = ["rtt"]`, `connection_tags: "rtt" is not one of protocol, state, src, src_port, dest, dest_port, inode, name, pid, process_name, user, systemd_unit, container_id, pod_uid, cgroup`},
		{`remote_prefix_v4 = 33`, `remote_prefix_v4: must be from 0 to 32, got 33`},
		{`remote_prefix_v6 = -1`, `remote_prefix_v6: must be from 0 to 128, got -1`},
		{`process_include = ["[a"]`, `process_include: "[a" is not a glob of *, ?, [abc] and [!a-z], where a backslash escapes (unexpected end of input)`},
		{`cgroup_exclude = ["[a"]`, `cgroup_exclude: "[a" is not a glob of *, ?, [abc] and [!a-z], where a backslash escapes (unexpected end of input)`},
		{`user_exclude = ["root", "www-*", "[a-"]`, `user_exclude: "[a-" is not a glob of *, ?, [abc] and [!a-z], where a backslash escapes (unexpected end of input)`},
		{`local_ports_include = ["80", "90-80"]`, `local_ports_include: "90-80" is not a port from 0 to 65535 or a range like "8000-8100"`},
		{`remote_ports_exclude = ["http"]`, `remote_ports_exclude: "http" is not a port from 0 to 65535 or a range like "8000-8100"`},
		{`remote_ports_exclude = [-1]`, `remote_ports_exclude: "-1" is not a port from 0 to 65535 or a range like "8000-8100"`},
		{`remote_ports_exclude = [65536]`, `remote_ports_exclude: "65536" is not a port from 0 to 65535 or a range like "8000-8100"`},
		{`remote_ports_exclude = ["65536"]`, `remote_ports_exclude: "65536" is not a port from 0 to 65535 or a range like "8000-8100"`},
		{`remote_cidrs_include = ["10.0.0.0/33"]`, `remote_cidrs_include: "10.0.0.0/33" is not an address or a network like "10.0.0.0/8" or "2001:db8::/32"`},
		{`remote_cidrs_exclude = ["::ffff:10.0.0.0/104"]`, `remote_cidrs_exclude: "::ffff:10.0.0.0/104" is not an address or a network like "10.0.0.0/8" or "2001:db8::/32"`},
		{`namespaces = []`, `namespaces: must contain at least one of self, host, all, a name in /run/netns, a pid`},
		{`namespaces = [""]`, `namespaces: "" is not one of self, host, all, a name in /run/netns, a pid`},
		{`namespaces = ["self", "a/b"]`, `namespaces: "a/b" is not one of self, host, all, a name in /run/netns, a pid`},
		{`namespaces = ["."]`, `namespaces: "." is not one of self, host, all, a name in /run/netns, a pid`},
		{`namespaces = [".."]`, `namespaces: ".." is not one of self, host, all, a name in /run/netns, a pid`},
		{`namespaces = ["/run/netns/blue"]`, `namespaces: "/run/netns/blue" is not one of self, host, all, a name in /run/netns, a pid`},
		{`namespaces = ["blue", "self", "blue"]`, `namespaces: duplicate "blue"`},
		{`max_series = -5`, `max_series: must be at least 1, got -5`},
		{`details = ["rtt", "latency"]`, `details: "latency" is not one of rtt, traffic, lifecycle, connects, stalls`},
		{`details = ["rtt", "traffic", "rtt"]`, `details: duplicate "rtt"`},
		{"details = [\"lifecycle\"]\nclosed_connections = \"off\"", `details: "lifecycle" has no content with closed_connections = "off"`},
		{"details = [\"rtt\"]\nprotocols = [\"udp\"]", `details: "rtt" has no content without "tcp" in protocols`},
		{"details = [\"traffic\"]\nprotocols = [\"udp\"]", `details: "traffic" has no content without "tcp" in protocols`},
		{"details = [\"lifecycle\"]\nprotocols = [\"udp\", \"unix\"]", `details: "lifecycle" has no content without "tcp" in protocols`},
		{"details = []\nclosed_connections = \"on\"", `closed_connections: "on" requires "rtt", "traffic", "lifecycle", "connects" or "stalls" in details`},
		{"details = [\"stalls\"]\nsource = \"procfs\"", `details: "stalls" has no content with source = "procfs"`},
		{"details = [\"stalls\"]\nprotocols = [\"udp\"]", `details: "stalls" has no content without "tcp" in protocols`},
		{"details = [\"stalls\"]\nidle_after = \"0s\"", `idle_after: must be from 1ms to 1176h (49 days), got 0s`},
		{"details = [\"stalls\"]\nidle_after = \"-1m\"", `idle_after: must be from 1ms to 1176h (49 days), got -1m0s`},
		{"details = [\"stalls\"]\nidle_after = \"1176h1s\"", `idle_after: must be from 1ms to 1176h (49 days), got 1176h0m1s`},
		{`idle_after = "1m"`, `idle_after: has no effect without "stalls" in details`},
		{"details = [\"rtt\"]\nidle_after = 60", `idle_after: has no effect without "stalls" in details`},
		{"protocols = [\"udp\"]\nclosed_connections = \"on\"", `closed_connections: "on" requires "tcp" in protocols`},
	} {
		t.Run(test.options, func(t *testing.T) {
			require.EqualError(t, configure(t, test.options).Init(), test.want)
		})
	}
}

// TestMeasurementsOfProtocols: a measurement is refused if none of the protocols can be in it.
func TestMeasurementsOfProtocols(t *testing.T) {
	all := "tcp udp udplite raw icmp unix"
	for measurement, protocols := range map[string]string{
		"host": all, "process": all, "cgroup": all, "connection": all, "gather": all,
		"listener": "tcp udp unix", "remote": "tcp udp udplite", "client": "tcp",
	} {
		for _, protocol := range allProtocols {
			err := configure(t, fmt.Sprintf("measurements = [%q]\nprotocols = [%q]", measurement, protocol)).Init()
			if slices.Contains(strings.Fields(protocols), protocol) {
				require.NoError(t, err, "%s of %s", measurement, protocol)
			} else {
				require.ErrorContains(t, err, fmt.Sprintf("measurements: %q has no content without ", measurement))
			}
		}
	}
}

func TestUnknownOptionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "telegraf.conf")
	require.NoError(t, os.WriteFile(path, []byte("[[inputs.procnetstat]]\n  mesurements = [\"host\"]\n"), 0o600))
	require.ErrorContains(t, config.NewConfig().LoadConfig(path), `"mesurements"`)
}

// TestDefaultsWithoutContent: a default list leaves out what the other options leave no content for, and logs nothing of it.
func TestDefaultsWithoutContent(t *testing.T) {
	for options, want := range map[string]struct{ measurements, details []string }{
		``:                                       {[]string{"host", "process", "listener", "cgroup", "gather"}, []string{"rtt", "traffic", "lifecycle", "connects"}},
		`owners = "none"`:                        {[]string{"host", "listener", "cgroup", "gather"}, []string{"rtt", "traffic", "lifecycle", "connects"}},
		`protocols = ["udp"]`:                    {[]string{"host", "process", "listener", "cgroup", "gather"}, []string{}},
		`protocols = ["raw"]`:                    {[]string{"host", "process", "cgroup", "gather"}, []string{}},
		`closed_connections = "off"`:             {[]string{"host", "process", "listener", "cgroup", "gather"}, []string{"rtt", "traffic", "connects"}},
		`closed_connections = "on"`:              {[]string{"host", "process", "listener", "cgroup", "gather"}, []string{"rtt", "traffic", "lifecycle", "connects"}},
		`source = "procfs"`:                      {[]string{"host", "process", "listener", "cgroup", "gather"}, []string{}},
		"source = \"procfs\"\nowners = \"none\"": {[]string{"host", "listener", "gather"}, []string{}},
		`details = []`:                           {[]string{"host", "process", "listener", "cgroup", "gather"}, []string{}},
		`details = ["traffic"]`:                  {[]string{"host", "process", "listener", "cgroup", "gather"}, []string{"traffic"}},
	} {
		plugin, log := configure(t, options), &testutil.CaptureLogger{}
		plugin.Log = log
		require.NoError(t, plugin.Init())
		require.Equal(t, want.measurements, plugin.Measurements, options)
		require.Equal(t, want.details, plugin.Details, options)
		require.Empty(t, log.Messages(), options)
	}
}

func TestProcRootThatIsNotThere(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "proc")
	t.Setenv("HOST_PROC", missing)
	plugin := configure(t, "")
	require.NoError(t, plugin.Init())
	err := plugin.Start(&testutil.Accumulator{})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "HOST_PROC")
	require.ErrorContains(t, err, missing)
}

// A directory that is no proc file system, such as a mount point where nothing is mounted, has the start fail. A copy need not be
// complete.
func TestProcRootThatIsNone(t *testing.T) {
	for name, test := range map[string]struct {
		entries []string
		isProc  bool
	}{
		"empty":              {nil, false},
		"the root directory": {[]string{"proc", "etc", "1a", "-1", "network"}, false},
		"tables":             {[]string{"net"}, true},
		"no tables":          {[]string{"version"}, true},
		"subset=pid":         {[]string{"self", "thread-self"}, true},
		"a process":          {[]string{"4711"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, entry := range test.entries {
				require.NoError(t, os.Mkdir(filepath.Join(root, entry), 0o755))
			}
			t.Setenv("HOST_PROC", root)
			plugin := configure(t, "")
			require.NoError(t, plugin.Init())
			err := plugin.Start(&testutil.Accumulator{})
			if test.isProc {
				require.NoError(t, err)
				plugin.Stop()
				return
			}
			require.EqualError(t, err, "proc file system (HOST_PROC): "+root+" is not a proc file system: "+
				"it has none of net, self, version and processes")
		})
	}
}

var commentedOption = regexp.MustCompile(`(?m)^  # ([a-z_0-9]+) = (.*)$`)

// TestSampleShowsDefaults: what sample.conf shows in comments is what the plugin does without them.
func TestSampleShowsDefaults(t *testing.T) {
	shown := commentedOption.FindAllStringSubmatch(sampleConfig, -1)
	byDefault, asShown := configure(t, ""), configure(t, commentedOption.ReplaceAllString(sampleOptions(t), "  $1 = $2"))
	for _, plugin := range []*ProcNetStat{byDefault, asShown} {
		require.NoError(t, plugin.Init())
	}
	options := func(p *ProcNetStat) map[string]any {
		given := map[string]any{}
		v := reflect.ValueOf(p).Elem()
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("toml")
			if name == "" || name == "-" {
				continue
			}
			given[name] = v.Field(i).Interface()
			if field := v.Field(i); field.Kind() == reflect.Slice && field.Len() == 0 {
				given[name] = nil // an empty list and none are the same for those that may be empty
			}
		}
		return given
	}
	require.Equal(t, options(byDefault), options(asShown))
	var names []string
	for _, option := range shown {
		names = append(names, option[1])
	}
	require.ElementsMatch(t, names, keys(options(byDefault)), "every option is shown, once")
}

func keys(m map[string]any) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	return names
}

// sampleOptions returns sample.conf without the line that begins the table.
func sampleOptions(t *testing.T) string {
	t.Helper()
	_, options, ok := strings.Cut(sampleConfig, "[[inputs.procnetstat]]\n")
	require.True(t, ok)
	return options
}

// TestSampleIsTheSameEverywhere: the README and the configuration at the root show the plugin's sample.conf.
func TestSampleIsTheSameEverywhere(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), "```toml @sample.conf\n"+sampleConfig+"```\n")

	whole, err := os.ReadFile(filepath.Join("..", "..", "..", "sample.conf"))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(whole), "[[inputs.procnetstat]]"))
	require.True(t, strings.HasSuffix(string(whole), "\n"+sampleConfig), "sample.conf at the root ends with the plugin's")
}

//go:build linux

package procnetstat

import (
	"os"
	"path/filepath"
	"regexp"
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
		{`measurements = ["hosts"]`, `measurements: "hosts" is not one of host, process, listener, gather`},
		{`measurements = []`, `measurements: an empty list given, at least one of host, process, listener, gather is needed`},
		{`measurements = ["host", "host"]`, `measurements: "host" given twice`},
		{"measurements = [\"process\"]\nowners = \"none\"", `measurements: "process" given, which has no content with owners = "none"`},
		{"measurements = [\"listener\"]\nprotocols = [\"udp\"]", `measurements: "listener" given, which has no content without "tcp" in protocols`},
		{`protocols = ["tcp6"]`, `protocols: "tcp6" is not one of tcp, udp, udplite, raw, icmp, unix`},
		{`protocols = ["tcp", "tcp"]`, `protocols: "tcp" given twice`},
		{`protocols = []`, `protocols: an empty list given, at least one of tcp, udp, udplite, raw, icmp, unix is needed`},
		{`source = "sockdiag"`, `source: "sockdiag" is not one of auto, netlink, procfs`},
		{`owners = "yes"`, `owners: "yes" is not one of auto, procfs, none`},
		{`process_tags = ["name"]`, `process_tags: "name" is not one of process_name, user, pid, exe, cmdline`},
		{`process_tags = []`, `process_tags: an empty list given, at least one of process_name, user, pid, exe, cmdline is needed`},
		{`max_series = 0`, `max_series: 0 given, 1 or more allowed`},
		{`max_series = -5`, `max_series: -5 given, 1 or more allowed`},
	} {
		t.Run(test.options, func(t *testing.T) {
			require.EqualError(t, configure(t, test.options).Init(), test.want)
		})
	}
}

func TestUnknownOptionIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "telegraf.conf")
	require.NoError(t, os.WriteFile(path, []byte("[[inputs.procnetstat]]\n  mesurements = [\"host\"]\n"), 0o600))
	require.ErrorContains(t, config.NewConfig().LoadConfig(path), `"mesurements"`)
}

// TestDefaultsWithoutContent: a default list leaves out what the other options leave no content for.
func TestDefaultsWithoutContent(t *testing.T) {
	for options, want := range map[string][]string{
		``:                    {"host", "process", "listener", "gather"},
		`owners = "none"`:     {"host", "listener", "gather"},
		`protocols = ["udp"]`: {"host", "process", "gather"},
	} {
		plugin := configure(t, options)
		require.NoError(t, plugin.Init())
		require.Equal(t, want, plugin.Measurements, options)
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

var commentedOption = regexp.MustCompile(`(?m)^  # ([a-z_]+) = (.*)$`)

// TestSampleShowsDefaults: what sample.conf shows in comments is what the plugin does without them.
func TestSampleShowsDefaults(t *testing.T) {
	shown := commentedOption.FindAllStringSubmatch(sampleConfig, -1)
	byDefault, asShown := configure(t, ""), configure(t, commentedOption.ReplaceAllString(sampleOptions(t), "  $1 = $2"))
	for _, plugin := range []*ProcNetStat{byDefault, asShown} {
		require.NoError(t, plugin.Init())
	}
	options := func(p *ProcNetStat) map[string]any {
		return map[string]any{
			"measurements": p.Measurements,
			"protocols":    p.Protocols,
			"source":       p.Source,
			"owners":       p.Owners,
			"process_tags": p.ProcessTags,
			"family_tag":   p.FamilyTag,
			"max_series":   p.MaxSeries,
		}
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

//go:build linux

package procnetstat

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

// optionNames are the names of the plugin's options.
func optionNames() (names []string) {
	of := reflect.TypeFor[ProcNetStat]()
	for i := range of.NumField() {
		if name := of.Field(i).Tag.Get("toml"); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// FuzzConfiguration: whatever stands in the table, it is refused by an error that names an option, or it gathers.
func FuzzConfiguration(f *testing.F) {
	names := optionNames()
	f.Setenv("HOST_PROC", proctree.Materialize(f, filepath.Join("..", "..", "..", "netstat", "testdata", "proc", "small")))
	f.Add("")
	_, sample, _ := strings.Cut(sampleConfig, "[[inputs.procnetstat]]\n")
	f.Add(commentedOption.ReplaceAllString(sample, "  $1 = $2"))
	for _, options := range []string{
		`measurements = ["connection", "gather"]` + "\nprotocols = ['tcp', 'udp', 'udplite', 'raw', 'icmp', 'unix']\nmax_series = 1",
		`namespaces = ["all", "7", "a b"]`,
		"process_tags = [\"pid\", \"exe\", \"cmdline\", \"cgroup\"]\nfamily_tag = true\ndetails = []",
		"local_ports_include = [80, \"90-100\"]\nremote_cidrs_exclude = [\"::1\"]\nexclude_loopback = true\ncgroup_exclude = [\"*\"]",
		"process_include = [\"[a\"]\nsource = \"procfs\"\nowners = \"procfs\"\nremote_prefix_v6 = 129",
		"remote_ports_include = 80\nuser_include = \"root\"", "mesurements = []", "max_series = 1e3", "a = {b = [[1]]}", "[inputs.procnetstat.x]\n",
	} {
		f.Add(options)
	}
	f.Fuzz(func(t *testing.T, options string) {
		cfg := config.NewConfig()
		if cfg.LoadConfigData([]byte("[[inputs.procnetstat]]\n"+options+"\n"), "telegraf.conf") != nil {
			return
		}
		for _, input := range cfg.Inputs {
			plugin := input.Input.(*ProcNetStat)
			plugin.Log = testutil.Logger{Quiet: true}
			if err := plugin.Init(); err != nil {
				require.True(t, nameAnOption(err, names), "%v", err)
				continue
			}
			require.NoError(t, plugin.Start(nil))
			acc := &testutil.Accumulator{}
			for range 2 {
				require.NoError(t, plugin.Gather(acc))
			}
			plugin.Stop()
			for _, m := range acc.GetTelegrafMetrics() {
				require.True(t, strings.HasPrefix(m.Name(), "procnetstat"), m.Name())
				for _, tag := range m.TagList() {
					require.False(t, strings.ContainsFunc(tag.Value, func(r rune) bool { return !unicode.IsPrint(r) }), "%q", tag.Value)
				}
			}
		}
	})
}

// nameAnOption reports whether an error begins with the name of an option.
func nameAnOption(err error, names []string) bool {
	for _, name := range names {
		if strings.HasPrefix(err.Error(), name) {
			return true
		}
	}
	return false
}

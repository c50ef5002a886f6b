//go:build linux

package procnetstat

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/plugins/parsers/influx"
	serializer "github.com/influxdata/telegraf/plugins/serializers/influx"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

var update = flag.Bool("update", false, "write what the plugin emits to testcases/*/expected.out")

// TestCases runs every directory in testcases: telegraf.conf over the proc file system in proc must emit expected.out
// and report the errors in expected.err, where <proc> stands for the path of the proc file system.
func TestCases(t *testing.T) {
	cases, err := os.ReadDir("testcases")
	require.NoError(t, err)
	require.NotEmpty(t, cases)
	for _, c := range cases {
		t.Run(c.Name(), func(t *testing.T) {
			dir := filepath.Join("testcases", c.Name())
			root := proctree.Materialize(t, filepath.Join(dir, "proc"))
			t.Setenv("HOST_PROC", root)

			acc := &testutil.Accumulator{}
			gatherOnce(t, load(t, filepath.Join(dir, "telegraf.conf")), acc)

			var reported []string
			for _, err := range acc.Errors {
				reported = append(reported, strings.ReplaceAll(err.Error(), root, "<proc>"))
			}
			require.Equal(t, readLines(t, filepath.Join(dir, "expected.err")), reported)

			emitted := acc.GetTelegrafMetrics()
			out := filepath.Join(dir, "expected.out")
			if *update {
				writeMetrics(t, out, emitted)
			}
			testutil.RequireMetricsEqual(t, readMetrics(t, out), emitted,
				testutil.SortMetrics(), testutil.IgnoreTime(), testutil.IgnoreType(), testutil.IgnoreFields("duration_ns"))
		})
	}
}

// load returns the plugin as Telegraf configures it.
func load(t *testing.T, path string) *ProcNetStat {
	t.Helper()
	cfg := config.NewConfig()
	require.NoError(t, cfg.LoadConfig(path))
	require.Len(t, cfg.Inputs, 1)
	plugin, ok := cfg.Inputs[0].Input.(*ProcNetStat)
	require.True(t, ok)
	plugin.Log = testutil.Logger{Quiet: true}
	return plugin
}

func gatherOnce(t *testing.T, plugin *ProcNetStat, acc *testutil.Accumulator) {
	t.Helper()
	require.NoError(t, plugin.Init())
	require.NoError(t, plugin.Start(acc))
	defer plugin.Stop()
	require.NoError(t, plugin.Gather(acc))
}

// readLines returns the lines of a file; none if it is not there.
func readLines(t *testing.T, path string) []string {
	t.Helper()
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	defer file.Close()
	var lines []string
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
	}
	require.NoError(t, scanner.Err())
	return lines
}

func readMetrics(t *testing.T, path string) []telegraf.Metric {
	t.Helper()
	parser := &influx.Parser{}
	require.NoError(t, parser.Init())
	metrics, err := testutil.ParseMetricsFromFile(path, parser)
	require.NoError(t, err)
	return metrics
}

func writeMetrics(t *testing.T, path string, metrics []telegraf.Metric) {
	t.Helper()
	s := &serializer.Serializer{SortFields: true}
	require.NoError(t, s.Init())
	var out []byte
	for _, m := range metrics {
		m = m.Copy()
		m.RemoveField("duration_ns")
		line, err := s.Serialize(m)
		require.NoError(t, err)
		i := bytes.LastIndexByte(line, ' ')
		out = append(append(out, line[:i]...), '\n')
	}
	require.NoError(t, os.WriteFile(path, out, 0o644))
}

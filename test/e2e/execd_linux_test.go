package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// With the stanza of the packages in a stock Telegraf, the interval, round_interval and collection_offset of Telegraf decide when
// the program gathers.
func TestPackagedStanzaFollowsInterval(t *testing.T) {
	const interval = 3 * time.Second
	for _, test := range []struct {
		option string
		offset time.Duration // of the gathers from the multiples of the interval
	}{
		{"round_interval = true", 0},
		{`collection_offset = "1s"`, time.Second},
	} {
		t.Run(test.option, func(t *testing.T) {
			setUp(t)
			program, procnetstat := stockTelegraf(t), execdProgram(t)
			testnet.Isolate(t, func() {
				agent := fmt.Sprintf("interval = %q\n  %s", interval, test.option)
				tg := startWithPackagedStanza(t, program, procnetstat, agent, "../../plugins/inputs/procnetstat/sample.conf", "")
				// The first gather is late by the start of the program.
				previous := tg.gatherAfter(0, lastMeasurement)
				for range 4 {
					at := tg.gatherAfter(previous, lastMeasurement)
					due := time.Unix(0, at).Add(-test.offset).Truncate(interval)
					if late := time.Unix(0, at).Add(-test.offset).Sub(due); late > 2*interval/3 { // a busy machine is late too
						t.Errorf("a gather is %v after a multiple of %v and %v", late, interval, test.offset)
					}
					if last := time.Unix(0, previous).Add(-test.offset).Truncate(interval); due.Sub(last) != interval {
						t.Errorf("gathers are %v apart, want %v", time.Duration(at-previous), interval)
					}
					previous = at
				}
				tg.requireNoErrors()
			})
		})
	}
}

// If the program fails to start, Telegraf runs on, and starts it again after restart_delay, until the options are right.
func TestFailedProgramIsRestarted(t *testing.T) {
	setUp(t)
	program, procnetstat := stockTelegraf(t), execdProgram(t)
	testnet.Isolate(t, func() {
		options := filepath.Join(t.TempDir(), "procnetstat.conf")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(options, []byte("[[inputs.procnetstat]]\n"+text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("  source = \"netlink\"\n  protocols = [\"icmp\"]\n")
		tg := startWithPackagedStanza(t, program, procnetstat, `interval = "1s"`, options, "  restart_delay = \"100ms\"\n")
		waitFor(t, "second failure in the log", func() bool {
			tg.check()
			return strings.Count(tg.log(), "E! [inputs.execd::procnetstat] running input failed: failed to start input: source ") >= 2
		})
		write("")
		tg.gatherAfter(0, lastMeasurement)
	})
}

// startWithPackagedStanza starts a Telegraf that runs the program as the stanza of the packages says, with options of the agent, a
// file with options of the plugin, and more options of inputs.execd.
func startWithPackagedStanza(t *testing.T, program, procnetstat, agent, options, more string) *telegraf {
	t.Helper()
	dir := t.TempDir()
	metricsFile, configFile := filepath.Join(dir, "metrics"), filepath.Join(dir, "telegraf.conf")
	stanza := readFile(t, "../../packaging/execd.conf")
	for installed, path := range map[string]string{
		`"` + installedProgram + `"`: procnetstat,
		`"` + installedOptions + `"`: options,
	} {
		if !strings.Contains(stanza, installed) {
			t.Fatalf("the stanza has no %s", installed)
		}
		stanza = strings.ReplaceAll(stanza, installed, fmt.Sprintf("%q", path))
	}
	config := fmt.Sprintf("[agent]\n  %s\n  skip_processors_after_aggregators = true\n[[outputs.file]]\n  files = [%q]\n"+
		"  data_format = \"influx\"\n  flush_interval = \"50ms\"\n", agent, metricsFile)
	if err := os.WriteFile(configFile, []byte(config+stanza+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return follow(t, metricsFile, func() *server { return startServer(t, program, "--config", configFile) })
}

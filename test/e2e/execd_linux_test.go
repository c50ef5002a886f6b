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
				tg := startWithPackagedStanza(t, program, procnetstat, fmt.Sprintf("interval = %q\n  %s", interval, test.option))
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

// startWithPackagedStanza starts a Telegraf that runs the program as the stanza of the packages says, with options of the agent.
func startWithPackagedStanza(t *testing.T, program, procnetstat, agent string) *telegraf {
	t.Helper()
	dir := t.TempDir()
	metricsFile, configFile := filepath.Join(dir, "metrics"), filepath.Join(dir, "telegraf.conf")
	stanza := readFile(t, "../../packaging/execd.conf")
	for installed, path := range map[string]string{
		`"` + installedProgram + `"`: procnetstat,
		`"` + installedOptions + `"`: "../../plugins/inputs/procnetstat/sample.conf",
	} {
		if !strings.Contains(stanza, installed) {
			t.Fatalf("the stanza has no %s", installed)
		}
		stanza = strings.ReplaceAll(stanza, installed, fmt.Sprintf("%q", path))
	}
	config := fmt.Sprintf("[agent]\n  %s\n  skip_processors_after_aggregators = true\n[[outputs.file]]\n  files = [%q]\n"+
		"  data_format = \"influx\"\n  flush_interval = \"50ms\"\n", agent, metricsFile)
	if err := os.WriteFile(configFile, []byte(config+stanza), 0o600); err != nil {
		t.Fatal(err)
	}
	return follow(t, metricsFile, func() *server { return startServer(t, program, "--config", configFile) })
}

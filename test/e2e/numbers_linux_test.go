package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// The plugin in our Telegraf: what InfluxDB has is what ss says, whatever the source.
func TestCustomTelegraf(t *testing.T) {
	for _, source := range []string{"netlink", "procfs"} {
		t.Run(source, func(t *testing.T) {
			setUp(t)
			program := customTelegraf(t)
			testnet.Isolate(t, func() {
				followLoad(t, source, startPipeline(t, program, pluginConfig(source), lastMeasurement))
			})
		})
	}
}

// The program in inputs.execd of a stock Telegraf, which asks it for each gather or lets it gather by itself.
func TestStockTelegraf(t *testing.T) {
	for _, signal := range []string{"none", "STDIN", "SIGHUP", "SIGUSR1", "SIGUSR2"} {
		t.Run(signal, func(t *testing.T) {
			setUp(t)
			program, procnetstat := stockTelegraf(t), execdProgram(t)
			testnet.Isolate(t, func() {
				inputs := execdConfig(t, procnetstat, signal, pluginConfig("netlink"))
				p := startPipeline(t, program, inputs, lastMeasurement)
				// If Telegraf happens to start just before a gather is due, its signal comes before our program can have
				// asked for it, and ends it.
				p.telegraf.forgetErrors()
				followLoad(t, "netlink", p)
			})
		})
	}
}

func pluginConfig(source string) string {
	return fmt.Sprintf("[[inputs.procnetstat]]\n  source = %q\n", source)
}

// lastMeasurement is the one that the plugin writes last.
const lastMeasurement = "procnetstat_gather"

const restartDelay = 2 * time.Second

// execdConfig makes Telegraf run our program with a configuration.
func execdConfig(t *testing.T, program, signal, config string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "procnetstat.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	arguments := `"-poll_interval_disabled"`
	if signal == "none" {
		arguments = `"-poll_interval", "1s"`
	}
	return fmt.Sprintf(`
[[inputs.execd]]
  command = [%q, "-config", %q, %s]
  signal = %q
  restart_delay = "%v"
  data_format = "influx"
`, program, file, arguments, signal, restartDelay)
}

// followLoad compares what InfluxDB has with what ss says: of a load, and when it has changed.
func followLoad(t *testing.T, source string, p *pipeline) {
	t.Helper()
	empty := takeSnapshot(t).states()
	l := startLoad(t)
	m := p.measure()
	requireStates(t, m.before.states(), empty, l.tcpStates())
	requireNumbers(t, source, m)
	requireDrops(t, source, m)
	requireFields(t, m.stored, l.serverSeries, fields{
		"processes": 1, "tcp_listen": 1, "tcp_established": connections, // those that it has not accepted count too
	})
	requireFields(t, m.stored, l.clientSeries, fields{"processes": 1, "tcp_established": connections})
	requireFields(t, m.stored, l.workersSeries, fields{"processes": 1 + forks, "tcp_listen": 1})
	requireFields(t, m.stored, l.serverListenerSeries, fields{
		"accept_queue": connections - accepted, "tcp_established": connections,
	})

	l.change()
	m = p.measure()
	requireNumbers(t, source, m)
	requireDrops(t, source, m)
	requireFields(t, m.stored, l.serverSeries, fields{
		"tcp_established": connections - closed + newWaiting, "tcp_close_wait": closed,
	})
	requireFields(t, m.stored, l.serverListenerSeries, fields{
		"accept_queue": connections - accepted - newAccepted + newWaiting, "tcp_close_wait": closed,
	})
	requireFields(t, m.stored, l.clientSeries, fields{"tcp_established": connections - closed + newWaiting})
	if series := l.workersSeries; m.stored[series] != nil {
		t.Errorf("the processes have ended, but there is a series %s: %v", series, m.stored[series])
	}
	p.end()
}

// requireStates wants ss to say what is known of the load, and every state to be there.
func requireStates(t *testing.T, said, empty, added map[string]int) {
	t.Helper()
	for _, state := range []string{
		"ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING",
	} {
		if added[state] == 0 || said[state] != empty[state]+added[state] {
			t.Errorf("ss says that %d sockets are in %s; the load has %d, and there were %d without it",
				said[state], state, added[state], empty[state])
		}
	}
}

// requireNumbers wants InfluxDB to have what ss says.
func requireNumbers(t *testing.T, source string, m measurement) {
	t.Helper()
	want := m.before.expect()
	if source == "procfs" { // it does not tell the limits of accept queues
		for series, f := range want.measurement("procnetstat_listener") {
			delete(f, "accept_queue_limit")
			requireNoField(t, m.stored, series, "accept_queue_limit")
		}
	}
	for _, name := range []string{hostSeries, "procnetstat_process", "procnetstat_listener"} {
		requireSeries(t, m.stored, name, want)
	}
	requireNothingLost(t, m.stored)
	requireGather(t, source, m.stored, want[lastMeasurement])
}

// requireDrops wants the drops of listeners that were made since procnetstat runs. They may grow at any time, so they are to
// be between what ss says before and after.
func requireDrops(t *testing.T, source string, m measurement) {
	t.Helper()
	before, after := m.before.drops(), m.after.drops()
	for _, series := range slices.Sorted(maps.Keys(before)) {
		if source == "procfs" { // which does not tell them
			requireNoField(t, m.stored, series, "drops")
			continue
		}
		drops, found := m.stored[series]["drops"]
		if !found || drops < before[series] || drops > after[series] {
			t.Errorf("%s has the drops %d (%t); ss says %d before and %d after", series, drops, found, before[series], after[series])
		}
	}
}

func requireNoField(t *testing.T, g gather, series, field string) {
	t.Helper()
	if value, found := g[series][field]; found {
		t.Errorf("%s has %s=%d", series, field, value)
	}
}

// requireNothingLost wants every socket of the host to be in the series of a process: none of the load has two names.
func requireNothingLost(t *testing.T, g gather) {
	t.Helper()
	processes := g.measurement("procnetstat_process")
	for _, field := range slices.Concat(tcpFields, udpFields) {
		if sum, all := processes.sum(field), g[hostSeries][field]; sum != all {
			t.Errorf("%s is %d, but %d in all processes together", field, all, sum)
		}
	}
}

// requireGather compares what the gather tells of itself.
func requireGather(t *testing.T, source string, g gather, want fields) {
	t.Helper()
	all := slices.Collect(maps.Keys(g.measurement(lastMeasurement)))
	if len(all) != 1 || !strings.Contains(all[0], fmt.Sprintf("source=%q", source)) {
		t.Errorf("there are the series %v; expected one of the source %s", all, source)
		return
	}
	requireFields(t, g, all[0], want)
}

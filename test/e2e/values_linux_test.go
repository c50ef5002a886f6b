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
				requireFollowsLoad(t, source, startPipeline(t, program, pluginConfig(source), lastMeasurement))
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
				requireFollowsLoad(t, "netlink", p)
			})
		})
	}
}

// pluginConfig leaves out connections that have ended, of which ss says nothing.
func pluginConfig(source string) string {
	return fmt.Sprintf("[[inputs.procnetstat]]\n  source = %q\n  closed_connections = \"off\"\n", source)
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
func requireFollowsLoad(t *testing.T, source string, p *pipeline) {
	t.Helper()
	empty := p.measure()
	var l *load
	// A gather meanwhile would count what connections send last, such as a FIN, until they are but stubs, of which ss does not tell it.
	p.telegraf.pauseFor(func() { l = startLoad(t) })
	m := p.measure()
	requireStates(t, m.before.states(), empty.before.states(), l.tcpStates())
	requireMatchesSS(t, source, m)
	requireTraffic(t, source, p, empty, m)
	requireFields(t, m.stored, l.serverSeries, fields{
		"processes": 1, "tcp_listen": 1, "tcp_established": connections, // those that it has not accepted count too
		"tcp_rx_queue": accepted * (requestBytes - readBytes),
	})
	requireFields(t, m.stored, l.clientSeries, fields{"processes": 1, "tcp_established": connections})
	requireFields(t, m.stored, l.workersSeries, fields{"processes": 1 + forks, "tcp_listen": 1})
	requireFields(t, m.stored, l.serverListenerSeries, fields{
		"accept_queue": connections - accepted, "tcp_established": connections,
	})
	requireFields(t, m.stored, l.serverCgroupSeries, fields{"tcp_listen": 1, "tcp_established": connections})
	requireFields(t, m.stored, l.clientRemoteSeries, fields{"tcp_established": connections})
	received := fields{"tcp_bytes_received": accepted * requestBytes}
	for _, series := range l.allServerSeries() {
		requireNetlinkFields(t, source, m.stored, series, received)
	}
	for _, series := range l.allClientSeries() {
		requireNetlinkFields(t, source, m.stored, series, fields{"tcp_bytes_received": accepted * responseBytes})
	}

	p.telegraf.pauseFor(l.change) // as above
	earlier, m := m, p.measure()
	requireMatchesSS(t, source, m)
	requireTraffic(t, source, p, earlier, m)
	requireFields(t, m.stored, l.serverSeries, fields{
		"tcp_established": connections - closedConnections + newWaiting, "tcp_close_wait": closedConnections,
	})
	requireFields(t, m.stored, l.serverListenerSeries, fields{
		"accept_queue": connections - accepted - newAccepted + newWaiting, "tcp_close_wait": closedConnections,
	})
	requireFields(t, m.stored, l.clientSeries, fields{"tcp_established": connections - closedConnections + newWaiting})
	for _, series := range l.allServerSeries() {
		received := accepted*requestBytes + closedConnections + newRequestBytes // a FIN counts as a byte
		requireNetlinkFields(t, source, m.stored, series, fields{"tcp_bytes_received": int64(received)})
	}
	if series := l.workersSeries; m.stored[series] != nil {
		t.Errorf("the processes have ended, but there is a series %s: %v", series, m.stored[series])
	}
	p.end()
}

// requireFieldsOfNetlink compares fields that a series should not have from another source.
func requireNetlinkFields(t *testing.T, source string, g gather, series string, want fields) {
	t.Helper()
	if source == "netlink" {
		requireFields(t, g, series, want)
		return
	}
	for field := range want {
		if value, found := g[series][field]; found {
			t.Errorf("%s has %s=%d", series, field, value)
		}
	}
}

// requireStates wants ss to say what is known of the load, and every state to be there.
func requireStates(t *testing.T, output, empty, added map[string]int) {
	t.Helper()
	for _, state := range []string{
		"ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING",
	} {
		if added[state] == 0 || output[state] != empty[state]+added[state] {
			t.Errorf("ss says that %d sockets are in %s; the load has %d, and there were %d without it",
				output[state], state, added[state], empty[state])
		}
	}
}

// requireNumbers wants InfluxDB to have what ss says, and all the fields that there should be.
func requireMatchesSS(t *testing.T, source string, m measurement) {
	t.Helper()
	want := m.before.expect(source)
	for _, name := range groupMeasurements {
		requireSeries(t, m.stored, name, want)
	}
	for series, f := range m.stored {
		names := slices.Sorted(slices.Values(slices.Concat(gauges(source, series), counters(source, series))))
		if got := slices.Sorted(maps.Keys(f)); !slices.Equal(got, names) {
			t.Errorf("%s has the fields\n%v, expected\n%v", series, got, names)
		}
	}
	requireCompleteSums(t, m.stored)
	requireGatherSeries(t, source, m.stored, want[lastMeasurement])
}

// groupMeasurements are those that have groups of sockets.
var groupMeasurements = []string{
	hostSeries, "procnetstat_process", "procnetstat_listener", "procnetstat_cgroup", "procnetstat_remote",
}

// requireNothingLost wants every socket of the host to be in the series of one process and of one cgroup: none of the load has
// two names.
func requireCompleteSums(t *testing.T, g gather) {
	t.Helper()
	for _, measurement := range []string{"procnetstat_process", "procnetstat_cgroup"} {
		for _, field := range slices.Concat(tcpGauges, udpGauges) {
			if sum, all := g.measurement(measurement).sum(field), g[hostSeries][field]; sum != all {
				t.Errorf("%s is %d, but %d in all series of %s together", field, all, sum, measurement)
			}
		}
	}
}

// requireGather compares what the gather tells of itself.
func requireGatherSeries(t *testing.T, source string, g gather, want fields) {
	t.Helper()
	all := slices.Collect(maps.Keys(g.measurement(lastMeasurement)))
	if len(all) != 1 || !strings.Contains(all[0], fmt.Sprintf("source=%q", source)) {
		t.Errorf("there are the series %v; expected one of the source %s", all, source)
		return
	}
	requireFields(t, g, all[0], want)
}

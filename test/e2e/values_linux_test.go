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

// With the plugin in our Telegraf, InfluxDB has the values of ss, with each source.
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

// With the program in inputs.execd of a stock Telegraf, InfluxDB has the values of ss, whether Telegraf signals each gather or
// the program gathers by itself.
func TestStockTelegraf(t *testing.T) {
	for _, signal := range []string{"none", "STDIN", "SIGHUP", "SIGUSR1", "SIGUSR2"} {
		t.Run(signal, func(t *testing.T) {
			setUp(t)
			program, procnetstat := stockTelegraf(t), execdProgram(t)
			testnet.Isolate(t, func() {
				inputs := execdConfig(t, procnetstat, signal, pluginConfig("netlink"))
				p := startPipeline(t, program, inputs, lastMeasurement)
				// If Telegraf starts just before a gather is due, its signal arrives before our program handles it, and kills
				// the program.
				p.telegraf.forgetErrors()
				requireFollowsLoad(t, "netlink", p)
			})
		})
	}
}

// pluginConfig adds the peers to the default measurements, and disables closed connections, which ss does not show.
func pluginConfig(source string) string {
	return fmt.Sprintf(`
[[inputs.procnetstat]]
  source = %q
  closed_connections = "off"
  measurements = ["host", "process", "listener", "cgroup", "remote", "gather"]
`, source)
}

// lastMeasurement is the measurement that the plugin writes last in a gather.
const lastMeasurement = "procnetstat_gather"

const restartDelay = 2 * time.Second

// execdConfig returns the configuration of an inputs.execd that runs our program with a configuration.
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

// requireFollowsLoad compares InfluxDB with ss for a load, and again after the load has changed.
func requireFollowsLoad(t *testing.T, source string, p *pipeline) {
	t.Helper()
	empty := p.measure()
	var l *load
	// Do not gather meanwhile: a gather would count the last segments of connections, such as a FIN, before TIME_WAIT, where ss
	// no longer shows counters, and would remember who held connections that no process holds any more.
	p.telegraf.pauseFor(func() { l = startLoad(t) })
	m := p.measure()
	requireStates(t, m.before.states(), empty.before.states(), l.tcpStates())
	requireMatchesSS(t, source, m)
	requireTraffic(t, source, p, empty, m)
	requireFields(t, m.stored, l.serverSeries, fields{
		"processes": 1, "tcp_listen": 1, "tcp_established": connections, // those in the accept queue count too
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
		t.Errorf("the processes have ended, but the series %s still exists: %v", series, m.stored[series])
	}
	p.end()
}

// requireNetlinkFields checks fields that only the source netlink has: with another source, the series must not have them.
func requireNetlinkFields(t *testing.T, source string, g gather, series string, want fields) {
	t.Helper()
	if source == "netlink" {
		requireFields(t, g, series, want)
		return
	}
	for field := range want {
		if value, found := g[series][field]; found {
			t.Errorf("%s has %s=%d with the source %s", series, field, value, source)
		}
	}
}

// requireStates checks that ss shows the states of the load, and that the load has every state.
func requireStates(t *testing.T, got, others, added map[string]int) {
	t.Helper()
	for _, state := range []string{
		"ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING",
	} {
		if added[state] == 0 || got[state] != others[state]+added[state] {
			t.Errorf("ss shows %d sockets in %s, want %d of the load and %d others",
				got[state], state, added[state], others[state])
		}
	}
}

// requireMatchesSS checks that InfluxDB has the values of ss, and exactly the expected fields.
func requireMatchesSS(t *testing.T, source string, m measurement) {
	t.Helper()
	want := m.before.expect(source)
	for _, name := range groupMeasurements {
		requireSeries(t, m.stored, name, want)
	}
	for series, f := range m.stored {
		names := slices.Concat(gauges(source, series), counters(source, series))
		for name := range rttGauges { // absent without a connection that has one
			if _, found := want[series][name]; found {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if got := slices.Sorted(maps.Keys(f)); !slices.Equal(got, names) {
			t.Errorf("%s has the fields\n%v, want\n%v", series, got, names)
		}
	}
	requireCompleteSums(t, m.stored)
	requireGatherSeries(t, source, m.stored, want[lastMeasurement])
}

// groupMeasurements are the measurements of groups of sockets.
var groupMeasurements = []string{
	hostSeries, "procnetstat_process", "procnetstat_listener", "procnetstat_cgroup", "procnetstat_remote",
}

// requireCompleteSums checks that every socket of the host counts in the series of one process and of one cgroup. No socket of
// the load has holders with different names.
func requireCompleteSums(t *testing.T, g gather) {
	t.Helper()
	for _, measurement := range []string{"procnetstat_process", "procnetstat_cgroup"} {
		for _, field := range slices.Concat(tcpGauges, udpGauges) {
			if sum, all := g.measurement(measurement).sum(field), g[hostSeries][field]; sum != all {
				t.Errorf("%s of the host is %d, the sum of %s is %d", field, all, measurement, sum)
			}
		}
	}
}

// requireGatherSeries checks the measurement procnetstat_gather.
func requireGatherSeries(t *testing.T, source string, g gather, want fields) {
	t.Helper()
	all := slices.Collect(maps.Keys(g.measurement(lastMeasurement)))
	if len(all) != 1 || !strings.Contains(all[0], fmt.Sprintf("source=%q", source)) {
		t.Errorf("series %v, want one with the source %s", all, source)
		return
	}
	requireFields(t, g, all[0], want)
}

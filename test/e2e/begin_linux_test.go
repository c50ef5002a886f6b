package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// burstConfig has every measurement with counters. The namespaces are the parameter.
const burstConfig = `
[[inputs.procnetstat]]
  namespaces = [%s]
  measurements = ["host", "process", "listener", "cgroup", "remote", "client", "gather"]
  process_tags = ["process_name"]
  closed_connections = "on"
`

// The burst of a short-lived worker.
const (
	burst         = 100 // connections
	burstSent     = 20  // bytes on each, by the worker
	burstReceived = 30
)

var burstServer = netip.MustParseAddrPort("127.0.0.1:5432")

// startBurstServer starts the server of the workers in a network namespace.
func startBurstServer(t *testing.T, netns string) {
	t.Helper()
	server := testnet.Start(t, testnet.Process{Name: "server", In: netns})
	server.Serve(server.Listen("tcp4", burstServer, burst), burstSent, burstReceived)
}

// runWorker runs a worker in a network namespace: it lives for 0.3 s and makes its connections in that time. It returns when all of
// them have ended on both sides.
func runWorker(t *testing.T, name, netns string) {
	t.Helper()
	worker := testnet.Start(t, testnet.Process{Name: name, In: netns})
	worker.OpenShortConnections(testnet.ShortConnections{
		To: burstServer, N: burst, Rate: burst * 4, Lifetime: time.Millisecond, Send: burstSent, Receive: burstReceived,
	})
	waitFor(t, "end of the burst of "+name, func() bool { return worker.ClosedShortConnections() == burst })
	worker.Stop()
	waitFor(t, "end of the connections of "+name, func() bool {
		for _, row := range testnet.SSIn(t, netns, "-t") {
			if row.State != "LISTEN" && row.State != "TIME_WAIT" {
				return false
			}
		}
		return true
	})
}

// seriesIn returns the name of a series in a network namespace. The pairs are further tags.
func seriesIn(netns, measurement string, pairs ...string) string {
	tags := map[string]string{"netns": netns}
	for pair := range slices.Chunk(pairs, 2) {
		tags[pair[0]] = pair[1]
	}
	return seriesName(measurement, tags)
}

// burstSeries are the series that count the burst of a worker in the network namespace blue, and how many ends of its connections
// each counts.
func burstSeries(worker string) map[string]int64 {
	const blue = "blue"
	return map[string]int64{
		seriesIn(blue, "procnetstat"):                                   2 * burst,
		seriesIn(blue, "procnetstat_process", "process_name", worker):   burst,
		seriesIn(blue, "procnetstat_process", "process_name", "server"): burst,
		seriesIn(blue, "procnetstat_listener", "protocol", "tcp", "local_address", "127.0.0.1", "local_port", "5432",
			"process_name", "server"): burst,
		seriesIn(blue, "procnetstat_remote", "protocol", "tcp", "remote_address", "127.0.0.1", "remote_port", "5432",
			"process_name", worker, "remote_process_name", "server"): burst,
		seriesIn(blue, "procnetstat_client", "protocol", "tcp", "client_address", "127.0.0.0/24", "local_port", "5432",
			"process_name", "server"): burst,
	}
}

// A worker that lives between two gathers makes 100 connections: every series that counts them begins with 0, has all of them later,
// even if no socket is left, and promtool's increase() is exact.
func TestBurst(t *testing.T) {
	testnet.Require(t, "promtool")
	setUp(t)
	program := execdProgram(t)
	testnet.IsolateMounts(t, func() {
		testnet.RequireBPF(t) // to know the worker after its end
		blue := testnet.Netns(t, "blue")
		startBurstServer(t, blue)
		p := startPrompted(t, program, fmt.Sprintf(burstConfig, `"self", "blue"`))
		p.gather()
		runWorker(t, "worker", blue)
		host := seriesIn("blue", hostSeries)
		waitFor(t, "count of the whole burst", func() bool { return p.gather()[host]["tcp_closed"] >= 2*burst }) // events can be late
		for range 2 {
			p.gather()
		}
		isNew, isGone := 0, 0
		for series, want := range burstSeries("worker") {
			for _, field := range []string{"tcp_opened", "tcp_closed"} {
				got := p.values(series, field)
				there := slices.DeleteFunc(slices.Clone(got), func(value string) bool { return value == absent })
				if len(there) < 2 || there[0] != "0" || there[len(there)-1] != strconv.FormatInt(want, 10) {
					t.Errorf("%s of %s is %q in the gathers, want it to begin with 0 and to end with %d", field, series, got, want)
				}
				if got[0] == absent {
					isNew++
				}
				if got[len(got)-1] == absent {
					isGone++
				}
			}
		}
		requireIncrease(t, p, burstSeries("worker"), "tcp_opened", "tcp_closed")
		if isNew == 0 || isGone == 0 {
			t.Error("no series is new, or none ends, so the test did not check it")
		}
		if sum := p.reached.measurement("procnetstat_cgroup").sum("tcp_opened"); sum != 2*burst {
			t.Errorf("the cgroups have %d opened connections, want %d", sum, 2*burst)
		}
	})
}

// requireIncrease has promtool compute the increase of counters over the gathers, which for it are 10 seconds apart. It does so at the
// time of the last value of a series: later, increase() extrapolates.
func requireIncrease(t *testing.T, p *prompted, want map[string]int64, counters ...string) {
	t.Helper()
	const interval = 10
	var text strings.Builder
	fmt.Fprintf(&text, "evaluation_interval: %ds\ntests:\n", interval)
	for series, increase := range want {
		measurement, tags, _ := strings.Cut(series, ",")
		for _, field := range counters {
			values := p.values(series, field)
			for values[len(values)-1] == absent {
				values = values[:len(values)-1]
			}
			fmt.Fprintf(&text, `
  - interval: %[1]ds
    input_series: [{series: '%[2]s', values: '%[3]s'}]
    promql_expr_test:
      - expr: sum(increase(%[2]s[5m]))
        eval_time: %[4]ds
        exp_samples: [{labels: '{}', value: %[5]d}]
`, interval, measurement+"_"+field+"{"+tags+"}", strings.ReplaceAll(strings.Join(values, " "), absent, "_"),
				interval*(len(values)-1), increase)
		}
	}
	file := filepath.Join(t.TempDir(), "increase.yml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// A network namespace that is new in a gather has ended by the next one: its counters begin with 0 all the same, and have all that it
// did in the gather after its end, the last one with its series.
func TestBurstOfNamespace(t *testing.T) {
	setUp(t)
	program := execdProgram(t)
	testnet.IsolatePIDs(t, func() {
		p := startPrompted(t, program, fmt.Sprintf(burstConfig, `"all"`))
		p.gather()

		worker := testnet.Start(t, testnet.Process{Name: "worker", Netns: true})
		netns := inodeOf(t, worker.Netns())
		worker.Accept(worker.Listen("tcp4", burstServer, burst), len(worker.Connect(burstServer, burst)))
		resolver := worker.UDP("udp4", netip.AddrPortFrom(loopback.Addr(), 53), netip.AddrPort{})
		client := worker.UDP("udp4", netip.AddrPort{}, resolver.Local)
		for range 1000 {
			worker.Send(client, 1000)
		}
		full := worker.Listen("tcp4", netip.AddrPortFrom(loopback.Addr(), 9000), 1)
		const queued, refused = 2, 18
		worker.OpenShortConnections(testnet.ShortConnections{To: full.Local, N: queued + refused, Rate: 1000})
		dropsOf := func(s testnet.Socket) (n int64) {
			for _, row := range testnet.SSIn(t, worker.Netns(), "-tul", "-m") {
				if row.Inode == s.Inode {
					n = int64(row.Drops)
				}
			}
			return n
		}
		waitFor(t, "drops", func() bool { return dropsOf(full) >= refused && dropsOf(resolver) > 0 })
		drops, udpDrops := dropsOf(full), dropsOf(resolver)
		first := p.gather()
		mostDrops := dropsOf(full) // a SYN is sent again after a second
		worker.Stop()
		second := p.gather()

		process := []string{"process_name", "worker"}
		listening := func(protocol, port string) string {
			return seriesIn(netns, "procnetstat_listener",
				append(process, "protocol", protocol, "local_address", "127.0.0.1", "local_port", port)...)
		}
		remote := append(slices.Clone(process),
			"protocol", "tcp", "remote_address", "127.0.0.1", "remote_port", "5432", "remote_process_name", "worker")
		opened := fields{"tcp_opened": burst}
		all := fields{"tcp_opened": 2*burst + queued + refused, "udp_drops": udpDrops}
		begun := gather{
			seriesIn(netns, "procnetstat"):                     all,
			seriesIn(netns, "procnetstat_process", process...): all,
			listening("tcp", "5432"):                           opened,
			listening("udp", "53"):                             {"udp_drops": udpDrops},
			seriesIn(netns, "procnetstat_remote", remote...):   opened,
			seriesIn(netns, "procnetstat_client",
				append(process, "protocol", "tcp", "client_address", "127.0.0.0/24", "local_port", "5432")...): opened,
		}
		for series, want := range begun {
			for field := range want {
				requireFields(t, first, series, fields{field: 0})
			}
			requireFields(t, second, series, want)
		}
		series := listening("tcp", "9000")
		requireFields(t, first, series, fields{"drops": 0})
		if got := second[series]["drops"]; got < drops || got > mostDrops {
			t.Errorf("the listener has drops=%d, want %d to %d", got, drops, mostDrops)
		}
		for series := range p.gather() {
			if strings.Contains(series, netns) {
				t.Errorf("the namespace has ended, but not the series %s", series)
			}
		}
	})
}

// The count of lost events begins with 0, although the kernel had no room for some before the first gather; the second one has them.
func TestLostEventsBegin(t *testing.T) {
	setUp(t)
	program := execdProgram(t)
	testnet.Isolate(t, func() {
		worker := testnet.Start(t, testnet.Process{Name: "worker"})
		listener := worker.Listen("tcp4", loopback, burst)
		p := startPrompted(t, program, fmt.Sprintf(burstConfig, `"self"`))
		waitFor(t, "subscription to events", func() bool { return lostEvents(t) == 0 })
		p.pauseFor(func() {
			// However large net.core.rmem_max is.
			waitFor(t, "buffer for events", func() bool { return shrinkEventBuffers(t, p.cmd.Process.Pid) > 0 })
			waitFor(t, "lost event", func() bool {
				worker.Close(slices.Concat(worker.Connect(listener.Local, burst), worker.Accept(listener, burst))...)
				return lostEvents(t) > 0
			})
		})
		lost := func() int64 { return p.gather().measurement(lastMeasurement).sum("closed_events_lost") }
		if begin := lost(); begin != 0 {
			t.Errorf("closed_events_lost begins with %d", begin)
		}
		if second := lost(); second == 0 {
			t.Error("closed_events_lost is 0 in the second gather")
		}
		waitFor(t, "count of all lost events", func() bool { return lost() == int64(lostEvents(t)) })
	})
}

// lostEvents returns the number of events of destroyed sockets for which the kernel had no room; -1 if nobody has subscribed to them.
func lostEvents(t *testing.T) (lost int) {
	t.Helper()
	lost = -1
	for line := range strings.Lines(readFile(t, "/proc/net/netlink")) {
		const protocol, groups, drops, sockDiag, destroyed = 1, 3, 8, "4", "00000005"
		columns := strings.Fields(line)
		if columns[protocol] == sockDiag && columns[groups] == destroyed {
			n, err := strconv.Atoi(columns[drops])
			if err != nil {
				t.Fatal(err)
			}
			lost = max(lost, 0) + n
		}
	}
	return lost
}

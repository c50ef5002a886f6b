package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// burstSeries are the series that count the burst of a worker in the network namespace blue, and how many ends of its connections
// each counts.
func burstSeries(worker string) map[string]int64 {
	tags := func(measurement string, pairs ...string) string {
		tags := map[string]string{"netns": "blue"}
		for pair := range slices.Chunk(pairs, 2) {
			tags[pair[0]] = pair[1]
		}
		return seriesName(measurement, tags)
	}
	return map[string]int64{
		tags("procnetstat"): 2 * burst,
		tags("procnetstat_process", "process_name", worker):   burst,
		tags("procnetstat_process", "process_name", "server"): burst,
		tags("procnetstat_listener", "protocol", "tcp", "local_address", "127.0.0.1", "local_port", "5432", "process_name", "server"): burst,
		tags("procnetstat_remote", "protocol", "tcp", "remote_address", "127.0.0.1", "remote_port", "5432", "process_name", worker,
			"remote_process_name", "server"): burst,
		tags("procnetstat_client", "protocol", "tcp", "client_address", "127.0.0.0/24", "local_port", "5432", "process_name", "server"): burst,
	}
}

// A worker that lives between two gathers makes 100 connections: every series that counts them begins with 0, has all of them in the
// next gather, and promtool's increase() is exact.
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
		for range 3 {
			p.gather()
		}
		all := burstSeries("worker")
		for series, want := range all {
			for _, field := range []string{"tcp_opened", "tcp_closed"} {
				begin := []string{"absent", "0"}
				if _, isOld := p.seen[p.times[0]][series]; isOld {
					begin = []string{"0", fmt.Sprint(want)}
				}
				if got := p.values(series, field); !slices.Equal(got[:2], begin) || got[2] != fmt.Sprint(want) || got[3] != got[2] {
					t.Errorf("%s of %s is %q in the gathers, want %d from the gather after the first one of the series", field, series, got, want)
				}
			}
		}
		for series, want := range all {
			requireIncrease(t, p, series, "tcp_opened", want)
			requireIncrease(t, p, series, "tcp_closed", want)
		}
		measured := map[string]int64{}
		for series := range p.seen[p.times[3]] {
			measurement, _, _ := strings.Cut(series, ",")
			measured[measurement]++
		}
		for _, cgroups := range []string{"procnetstat_cgroup"} {
			if sum := p.seen[p.times[3]].measurement(cgroups).sum("tcp_opened"); sum != 2*burst {
				t.Errorf("the cgroups have %d opened connections, want %d", sum, 2*burst)
			}
		}
	})
}

// requireIncrease has promtool compute the increase of a counter over the gathers, which for it are 10 seconds apart.
func requireIncrease(t *testing.T, p *prompted, series, field string, want int64) {
	t.Helper()
	const interval = 10
	measurement, tags, _ := strings.Cut(series, ",")
	name := measurement + "_" + field + "{" + tags + "}"
	values := strings.ReplaceAll(strings.Join(p.values(series, field), " "), "absent", "_")
	text := fmt.Sprintf(`
evaluation_interval: %[1]ds
tests:
  - interval: %[1]ds
    input_series: [{series: '%[2]s', values: '%[3]s'}]
    promql_expr_test:
      - expr: sum(increase(%[2]s[5m]))
        eval_time: %[4]ds
        exp_samples: [{labels: '{}', value: %[5]d}]
`, interval, name, values, interval*(len(p.times)-1), want)
	file := filepath.Join(t.TempDir(), "increase.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("increase of %s %s: %v\n%s", name, values, err, out)
	}
}

// A network namespace that is new in a gather has ended by the next one: its counters begin with 0 all the same, and have all that it
// did in the gather after its end, with which its series end.
func TestBurstOfNamespace(t *testing.T) {
	setUp(t)
	program := execdProgram(t)
	testnet.IsolatePIDs(t, func() {
		p := startPrompted(t, program, fmt.Sprintf(burstConfig, `"all"`))
		p.gather()

		worker := testnet.Start(t, testnet.Process{Name: "worker", Netns: true})
		netns := inodeOf(t, worker.Netns())
		listener := worker.Listen("tcp4", burstServer, burst)
		worker.Accept(listener, len(worker.Connect(burstServer, burst)))
		resolver := worker.UDP("udp4", netip.MustParseAddrPort("127.0.0.1:53"), netip.AddrPort{})
		client := worker.UDP("udp4", netip.AddrPort{}, resolver.Local)
		for range 1000 {
			worker.Send(client, 1000)
		}
		full := worker.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:9000"), 1)
		worker.OpenShortConnections(testnet.ShortConnections{To: full.Local, N: 20, Rate: 1000})
		drops := func(local netip.AddrPort) (n int64) {
			for _, row := range testnet.SSIn(t, worker.Netns(), "-tul", "-m") {
				if row.Local == local {
					n = int64(row.Drops)
				}
			}
			return n
		}
		waitFor(t, "drops of the listener", func() bool { return drops(full.Local) >= 18 })
		leastDrops, udpDrops := drops(full.Local), drops(resolver.Local)
		if udpDrops == 0 {
			t.Fatal("the UDP socket has dropped nothing")
		}
		first := p.gather()
		mostDrops := drops(full.Local)
		worker.Stop()
		second := p.gather()

		tags := func(measurement string, pairs ...string) string {
			tags := map[string]string{"netns": netns}
			for pair := range slices.Chunk(pairs, 2) {
				tags[pair[0]] = pair[1]
			}
			return seriesName(measurement, tags)
		}
		process := tags("procnetstat_process", "process_name", "worker")
		listening := func(protocol, port string) string {
			return tags("procnetstat_listener", "protocol", protocol, "local_address", "127.0.0.1", "local_port", port, "process_name", "worker")
		}
		for _, want := range []struct {
			series, field string
			value         int64
		}{
			{listening("tcp", "5432"), "tcp_opened", burst},
			{listening("udp", "53"), "udp_drops", udpDrops},
			{tags("procnetstat"), "udp_drops", udpDrops},
			{process, "udp_drops", udpDrops},
		} {
			requireFields(t, first, want.series, fields{want.field: 0})
			requireFields(t, second, want.series, fields{want.field: want.value})
		}
		if got := second[listening("tcp", "9000")]["drops"]; got < leastDrops || got > mostDrops {
			t.Errorf("the listener has drops=%d, want %d to %d", got, leastDrops, mostDrops)
		}
		for _, series := range slices.Sorted(maps.Keys(first)) {
			if strings.Contains(series, netns) {
				t.Logf("%s: opened %v closed %v", series, p.values(series, "tcp_opened"), p.values(series, "tcp_closed"))
			}
		}
		for range 2 {
			third := p.gather()
			for series := range third {
				if strings.Contains(series, netns) {
					t.Logf("%s: opened %v closed %v", series, p.values(series, "tcp_opened"), p.values(series, "tcp_closed"))
				}
			}
		}
		_ = cmp.Compare[int]
	})
}

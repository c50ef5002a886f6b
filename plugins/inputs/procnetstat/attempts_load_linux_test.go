package procnetstat

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat"
)

// Of 10,000 attempts a second, half of which are refused and half established, nothing is lost, or it is counted as lost.
func TestConnectsUnderLoad(t *testing.T) {
	load := 30 * time.Second
	if underRaceDetector {
		load = 10 * time.Second // the client is slower
	}
	testConnectsUnderLoad(t, load, 10*time.Second)
}

// Gathers in quick succession meet attempts in every state.
func TestConnectsUnderLoadOftenGathered(t *testing.T) {
	testConnectsUnderLoad(t, 3*time.Second, 50*time.Millisecond)
}

func testConnectsUnderLoad(t *testing.T, load, interval time.Duration) {
	t.Helper()
	testnet.RequireBPF(t)
	testnet.Isolate(t, func() {
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 4096)
		server.Serve(listener, 0, 0)
		accepts, refuses := listener.Local, netip.MustParseAddrPort("127.0.0.2:9")

		l := start(t, `measurements = ["host", "process", "listener", "cgroup", "remote", "client", "gather"]`)
		last := map[string]map[string]int64{} // an idle series is not emitted
		gather := func() gathered {
			g := l.gather()
			for of, series := range map[string][2]string{
				"host": {"procnetstat", ""}, "process": {"procnetstat_process", "process_name=client"},
				"server": {"procnetstat_process", "process_name=server"}, "listener": {"procnetstat_listener", "process_name=server"},
			} {
				for tags, fields := range g.all(series[0]) {
					if strings.Contains(tags, series[1]) {
						last[of] = fields
					}
				}
			}
			return g
		}
		gather()
		const rate = 5000 // of each
		n := rate * int(load/time.Second)
		attempts := testnet.Attempts{N: n}
		for _, attempts.To = range []netip.AddrPort{accepts, refuses} {
			client.AttemptAtRate(attempts, rate)
		}
		limit := time.Now().Add(2*load + time.Minute)
		ended := func(to netip.AddrPort) int { return client.AttemptTotals(to).Ended }
		for due := time.Now().Add(interval); ended(accepts) < n || ended(refuses) < n; time.Sleep(10 * time.Millisecond) {
			require.True(t, time.Now().Before(limit), "%d established, %d refused", ended(accepts), ended(refuses))
			if time.Now().After(due) {
				gather()
				due = time.Now().Add(interval)
			}
		}
		established, refused := client.AttemptTotals(accepts), client.AttemptTotals(refuses)
		require.Equal(t, map[unix.Errno]int{0: n}, established.Errnos)
		require.Equal(t, map[unix.Errno]int{unix.ECONNREFUSED: n}, refused.Errnos)

		lostOf := func(g gathered) (lost int64) {
			report := g.one("procnetstat_gather")
			require.Contains(t, report, "connects_lost")
			return report["closed_events_lost"] + report["connects_lost"]
		}
		total := int64(n)
		closed := 3 * total // both ends of the established ones, and the refused ones
		var g gathered
		for {
			g = gather()
			if g.one("procnetstat")["tcp_closed"]+lostOf(g) >= closed {
				break
			}
			require.True(t, time.Now().Before(limit), "%v of %d", g.one("procnetstat"), closed)
		}
		lost := lostOf(gather()) // the counters of new series are whole
		host := last["host"]
		t.Logf("%d attempts in %v: %d lost", 2*n, max(established.For, refused.For), lost)
		missing := closed - host["tcp_closed"]
		require.Equal(t, missing, 3*total-host["tcp_opened"], "opened and closed")
		require.LessOrEqual(t, missing, lost, "counted as lost")
		require.GreaterOrEqual(t, missing, int64(0))
		require.Zero(t, host["tcp_established"])
		for of, test := range map[string]struct {
			fields                         map[string]int64
			opened, refused, reset, ofPeer int64
		}{
			"host":     {last["host"], 3 * total, total, total, 0},
			"process":  {last["process"], 2 * total, total, 0, 0},
			"server":   {last["server"], total, 0, total, 0},
			"listener": {last["listener"], total, 0, total, 0},
		} {
			for name, want := range map[string]int64{
				"tcp_opened": test.opened, "tcp_closed": test.opened, "tcp_connect_refused": test.refused, "tcp_closed_reset": test.reset,
			} {
				require.LessOrEqual(t, test.fields[name], want, "%s of %s", name, of)
				require.GreaterOrEqual(t, test.fields[name], want-lost, "%s of %s", name, of)
			}
		}
	})
}

// connects_lost begins with 0 in each series, and is absent where attempts are not seen.
func TestConnectsLost(t *testing.T) {
	m := newGatherMeasurement()
	gather := func(seen bool, lost int) map[string]int64 {
		acc := &testutil.Accumulator{}
		report := gatherReport{scan: netstat.ScanStats{Source: netstat.SourceNetlink, Initiators: seen}, attemptsLost: lost, closedEvents: true}
		m.emit(emission{acc: acc}, report)
		return (gathered{t, acc.GetTelegrafMetrics()}).one("procnetstat_gather")
	}
	first := gather(true, 3)
	require.Contains(t, first, "connects_lost")
	require.Zero(t, first["connects_lost"])
	require.EqualValues(t, 1, first["connects_seen"])
	require.EqualValues(t, 3+2, gather(true, 2)["connects_lost"])
	require.EqualValues(t, 3+2, gather(true, 0)["connects_lost"])
	require.NotContains(t, gather(false, 0), "connects_lost")
	require.EqualValues(t, 3+2+1, gather(true, 1)["connects_lost"])
}

package procnetstat

import (
	"math"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/plugins/inputs/procnetstat/internal/quantile"
)

// run runs a program in the namespace of the test.
func run(t *testing.T, program string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if text := string(out); err != nil && (strings.Contains(text, "not supported") || strings.Contains(text, "unknown")) {
		testnet.SkipOrFail(t, program+" "+strings.Join(args, " ")+": "+text)
	}
	require.NoError(t, err, "%s %s: %s", program, strings.Join(args, " "), out)
}

// worsen drops a fifth of the segments that go to the port, and lets no more than 200 Mbit/s through.
func worsen(t *testing.T, port uint16) {
	t.Helper()
	testnet.Require(t, "nft", "tc")
	run(t, "tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb", "default", "0", "r2q", "1000")
	run(t, "tc", "class", "add", "dev", "lo", "parent", "1:", "classid", "1:1", "htb", "rate", "200mbit", "burst", "100k")
	to := "tcp dport " + strconv.Itoa(int(port))
	for _, rule := range []string{
		"table inet worse",
		"chain inet worse out { type filter hook output priority 0; }",
		"rule inet worse out " + to + " meta priority set 1:1",
		"chain inet worse in { type filter hook input priority 0; }",
		"rule inet worse in " + to + " numgen random mod 100 < 20 drop",
	} {
		run(t, "nft", "add "+rule)
	}
}

// better undoes the loss of worsen.
func better(t *testing.T) {
	t.Helper()
	run(t, "nft", "flush chain inet worse in")
}

var (
	ssRTT     = regexp.MustCompile(`\srtt:([0-9.]+)/`)
	ssRetrans = regexp.MustCompile(`\sretrans:\d+/(\d+)`)
)

// details are what ss -ti says of the established connections of a cgroup.
type details struct {
	rtts    []int64 // in microseconds, sorted
	retrans int64
	unacked bool
}

func detailsOf(t *testing.T, cgroup string) details {
	t.Helper()
	var d details
	for _, row := range testnet.SS(t, "-t", "-i", "state", "established") {
		if row.Cgroup != cgroup {
			continue
		}
		d.unacked = d.unacked || row.SendQ > 0
		found := ssRTT.FindStringSubmatch(row.Line)
		require.NotNil(t, found, row.Line)
		milliseconds, err := strconv.ParseFloat(found[1], 64)
		require.NoError(t, err)
		d.rtts = append(d.rtts, int64(math.Round(milliseconds*1000)))
		if found := ssRetrans.FindStringSubmatch(row.Line); found != nil {
			retrans, err := strconv.ParseInt(found[1], 10, 64)
			require.NoError(t, err)
			d.retrans += retrans
		}
	}
	slices.Sort(d.rtts)
	return d
}

// nearestRank returns the percentile of sorted times.
func nearestRank(sorted []int64, p int) int64 {
	return sorted[int(math.Ceil(float64(len(sorted))*float64(p)/100))-1]
}

// gatherAtRest returns a gather and what ss says at the same moment: nothing changes between the one and the other.
func (l *live) gatherAtRest(cgroup string) (g gathered, d details) {
	l.Helper()
	eventually(l, func() bool {
		before := detailsOf(l.T, cgroup)
		g = l.gather()
		d = detailsOf(l.T, cgroup)
		return !d.unacked && slices.Equal(before.rtts, d.rtts) && before.retrans == d.retrans
	})
	return g, d
}

// TestUnitsThatLeakAndLose: of two services, one leaves connections in CLOSE_WAIT, and the other's traffic is slow and lossy.
// Each shows at its own unit.
func TestUnitsThatLeakAndLose(t *testing.T) {
	testnet.Isolate(t, func() {
		leakDir, leakPath := testnet.Cgroup(t, "leak.service")
		lossDir, lossPath := testnet.Cgroup(t, "lossy.service")
		leaky := testnet.Start(t, testnet.Process{Name: "leaky", Cgroup: leakDir})
		lossy := testnet.Start(t, testnet.Process{Name: "lossy", Cgroup: lossDir})
		peer := testnet.Start(t, testnet.Process{Name: "peer"})

		// More connections than those of which each round-trip time is kept.
		const connections = quantile.MaxSamples + 50
		loopback := netip.MustParseAddrPort("127.0.0.1:0")
		sink := peer.Listen("tcp4", loopback, connections)
		lossyEnds := lossy.Connect(sink.Local, connections)
		sinkEnds := peer.Accept(sink, connections)
		leaking := leaky.Listen("tcp4", loopback, 100)
		worsen(t, sink.Local.Port())

		l := start(t, `process_tags = ["systemd_unit"]`)
		leak := []string{"cgroup=" + leakPath, "systemd_unit=leak.service"}
		loss := []string{"cgroup=" + lossPath, "systemd_unit=lossy.service"}
		_, before := l.gatherAtRest(lossPath)

		// The connections that stay idle keep the round-trip time of a good network.
		busy := map[netip.AddrPort]testnet.Socket{}
		for _, end := range lossyEnds[:connections/2+20] {
			busy[end.Local] = end
		}
		const rounds, leaked, sent = 2, 10, 60_000
		var retransmitted int64
		for round := range int64(rounds) {
			ends := peer.Connect(leaking.Local, leaked)
			leaky.Accept(leaking, leaked)
			peer.Close(ends...)
			for _, end := range busy {
				lossy.Send(end, sent)
			}
			before := retransmitted
			eventually(t, func() bool {
				g := l.gather()
				of := g.one("procnetstat_cgroup", loss...)
				require.Zero(t, of["tcp_close_wait"])
				require.GreaterOrEqual(t, of["tcp_retrans_segs"], retransmitted)
				retransmitted = of["tcp_retrans_segs"]
				require.Equal(t, retransmitted, g.one("procnetstat_process", loss[1])["tcp_retrans_segs"])

				of = g.one("procnetstat_cgroup", leak...)
				require.Zero(t, of["tcp_retrans_segs"])
				require.Equal(t, of["tcp_close_wait"], g.one("procnetstat_process", leak[1])["tcp_close_wait"])
				return retransmitted > before && of["tcp_close_wait"] == (round+1)*leaked
			})
		}
		better(t)
		for _, end := range sinkEnds {
			if _, isBusy := busy[end.Remote]; isBusy {
				peer.Receive(end, rounds*sent)
			}
		}

		g, now := l.gatherAtRest(lossPath)
		of := g.one("procnetstat_cgroup", loss...)
		require.Equal(t, int64(connections), of["tcp_established"])
		require.Equal(t, now.retrans-before.retrans, of["tcp_retrans_segs"])
		require.Len(t, now.rtts, connections)
		t.Logf("rtt of %d connections, procnetstat and ss: p50 %d %d, p95 %d %d, max %d %d; %d segments sent again",
			connections, of["tcp_rtt_p50_us"], nearestRank(now.rtts, 50), of["tcp_rtt_p95_us"], nearestRank(now.rtts, 95),
			of["tcp_rtt_max_us"], nearestRank(now.rtts, 100), of["tcp_retrans_segs"])
		require.InEpsilon(t, nearestRank(now.rtts, 50), of["tcp_rtt_p50_us"], 0.05)
		require.InEpsilon(t, nearestRank(now.rtts, 95), of["tcp_rtt_p95_us"], 0.05)
		require.Equal(t, nearestRank(now.rtts, 100), of["tcp_rtt_max_us"])
		require.Zero(t, g.one("procnetstat_cgroup", leak...)["tcp_retrans_segs"])
	})
}

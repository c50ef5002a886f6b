package procnetstat

import (
	"cmp"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// soakEnv is the duration of TestSlowSoak, such as 15m; the default is soakTime.
const (
	soakEnv  = "SOAK"
	soakTime = time.Minute
)

// What comes and goes meanwhile. A slow machine does less: the rate is logged, and nothing depends on it. A process with ten
// thousand sockets is slow to start others: there are two.
var (
	connectionChurn = testnet.Churn{Connections: 5000, TimeWaits: 100, Lifetime: time.Second}
	processChurn    = testnet.Churn{Processes: 500, Lifetime: time.Second}
)

// churning are the processes that make what comes and goes.
type churning []*testnet.Proc

// sum adds up what they have done so far.
func (c churning) sum() (sum testnet.ChurnStats) {
	for _, p := range c {
		done := p.ChurnStats()
		sum.Processes, sum.Connections, sum.Sockets = sum.Processes+done.Processes, sum.Connections+done.Connections, sum.Sockets+done.Sockets
		sum.For = max(sum.For, done.For)
	}
	return sum
}

// TestSlowSoak gathers while processes and connections start and end. Each gather succeeds, counts at least the sockets of each kind
// that existed all the time and at most those that can have existed, and finds their owners. Nothing is logged after the start, and
// memory, descriptors, goroutines and threads do not grow.
func TestSlowSoak(t *testing.T) {
	testnet.SkipUnlessSlow(t)
	testnet.Isolate(t, func() {
		lasts := soakTime
		if given := os.Getenv(soakEnv); given != "" {
			var err error
			lasts, err = time.ParseDuration(given)
			require.NoError(t, err, soakEnv)
		}
		testnet.States(t, "tcp4")
		testnet.UDP(t)
		testnet.ConnectedPairs(t, 1, 2000)
		var churn churning
		for _, c := range []testnet.Churn{connectionChurn, processChurn} {
			p := testnet.Start(t, testnet.Process{Name: "churn"})
			p.Churn(c)
			churn = append(churn, p)
		}

		soaks := []*soak{
			{live: start(t, withRemote+"owners = \"bpf\"\nmax_series = 100"), name: "owners bpf", knowsOwners: true},
			// To find the owners takes this one about as long as processes and connections last, if the host has many others.
			{live: start(t, withRemote+"owners = \"procfs\"\nmax_series = 100"), name: "owners procfs"},
		}
		var used []usage
		const warmUp, procfsEvery, fewest = 5, 4, 16
		var end time.Time
		for round := 0; len(used) < fewest || time.Now().Before(end); round++ {
			for i, s := range soaks {
				if round < warmUp || i == 0 || round%procfsEvery == 0 {
					s.gather(t, churn)
				}
			}
			if round == warmUp {
				end = time.Now().Add(lasts)
				for _, s := range soaks {
					s.messages = len(s.log.Messages())
				}
			}
			if round >= warmUp {
				used = append(used, usageNow(t))
			}
			time.Sleep(100 * time.Millisecond)
		}

		done := churn.sum()
		t.Logf("in %v: %d processes and %d connections started, %.0f and %.0f a second", done.For.Round(time.Second),
			done.Processes, done.Connections, float64(done.Processes)/done.For.Seconds(), float64(done.Connections)/done.For.Seconds())
		for _, s := range soaks {
			s.report(t)
		}
		requireFlat(t, used)
	})
}

// soak is a plugin, and how its gathers went.
type soak struct {
	*live
	name        string
	knowsOwners bool // of all sockets but one in fifty, taking all gathers together
	messages    int  // that were logged at the start

	sockets, unattributed []int64
	durations             []time.Duration
	acked                 int64
}

func (s *soak) gather(t *testing.T, churn churning) {
	t.Helper()
	opened := churn.sum().Sockets
	before := testnet.SocketStates(t)
	g := s.live.gather()
	after := testnet.SocketStates(t)
	opened = churn.sum().Sockets - opened

	host := g.one("procnetstat")
	bounds := newBounds(before, after, opened)
	for kind, b := range bounds {
		got, found := host[kind]
		require.True(t, found, kind)
		require.GreaterOrEqual(t, got, b.least, "%s %s: so many were there all the time", s.name, kind)
		require.LessOrEqual(t, got, b.most, "%s %s: no more can have been there", s.name, kind)
	}
	report := g.one("procnetstat_gather")
	require.Equal(t, expectation(host).sockets(), report["sockets"])
	require.GreaterOrEqual(t, expectation(g.sum("procnetstat_process")).sockets(), report["sockets"], "all are in some series")
	require.GreaterOrEqual(t, host["tcp_bytes_acked"], s.acked, "a counter")
	s.acked = host["tcp_bytes_acked"]
	s.sockets = append(s.sockets, report["sockets"])
	s.unattributed = append(s.unattributed, report["unattributed"])
	s.durations = append(s.durations, time.Duration(report["duration_ns"]))
}

func (s *soak) report(t *testing.T) {
	t.Helper()
	var shares []float64
	var sockets, unattributed int64
	for i, n := range s.sockets {
		shares = append(shares, 100*float64(s.unattributed[i])/float64(n))
		sockets, unattributed = sockets+n, unattributed+s.unattributed[i]
	}
	t.Logf("%s: %d gathers of %d to %d sockets, in %v to %v, the median is %v; unattributed: %.2f %% of all, the median is %.2f %%, "+
		"the most %.2f %%", s.name, len(s.sockets), slices.Min(s.sockets), slices.Max(s.sockets), slices.Min(s.durations),
		slices.Max(s.durations), median(s.durations), 100*float64(unattributed)/float64(sockets), median(shares), slices.Max(shares))
	if s.knowsOwners {
		require.Less(t, 50*unattributed, sockets)
	}
	require.Len(t, s.log.Messages(), s.messages, "%v", s.log.Messages())
}

// bound is how many sockets there can have been.
type bound struct{ least, most int64 }

// stage orders the states that a TCP connection goes through: it does not come back to one.
var stage = map[string]int{
	"SYN_SENT": 1, "SYN_RECV": 1, "ESTABLISHED": 2, "FIN_WAIT1": 3, "CLOSE_WAIT": 3, "FIN_WAIT2": 4, "CLOSING": 4, "LAST_ACK": 4, "TIME_WAIT": 5,
}

// newBounds returns for each state how many sockets a gather can have seen in it: at least those that were in it before and after the
// gather; at most these, those that were in it either before or after, those that can have passed it in between, and those that
// were opened meanwhile.
func newBounds(before, after map[testnet.SocketState]int, opened int) map[string]bound {
	left := map[uint64]string{} // the state that the connection was in before, and is not any more
	now := map[uint64]string{}
	for s := range after {
		if s.Protocol == "tcp" {
			now[s.Cookie] = s.State
		}
	}
	for s := range before {
		if s.Protocol == "tcp" && now[s.Cookie] != s.State {
			left[s.Cookie] = s.State
		}
	}
	bounds := map[string]bound{}
	of := func(field string, is func(testnet.SocketState) bool) {
		b := bound{most: int64(opened)}
		for s, n := range before {
			if is(s) {
				b.least += int64(min(n, after[s]))
				b.most += int64(max(n, after[s]))
			}
		}
		for s, n := range after {
			if is(s) && before[s] == 0 {
				b.most += int64(n)
			}
		}
		bounds[field] = b
	}
	of("udp_socket", func(s testnet.SocketState) bool { return s.Protocol == "udp" })
	for _, field := range stateFields {
		if field == "tcp_close" {
			continue
		}
		name := strings.ToUpper(strings.TrimPrefix(field, "tcp_"))
		of(field, func(s testnet.SocketState) bool { return s.Protocol == "tcp" && s.State == name })
		b := bounds[field]
		for cookie, was := range left {
			is, stays := now[cookie]
			if stage[was] > 0 && stage[was] < stage[name] && (!stays || stage[is] > stage[name]) {
				b.most++
			}
		}
		bounds[field] = b
	}
	return bounds
}

func TestBounds(t *testing.T) {
	tcp := func(state string, cookie uint64) testnet.SocketState {
		return testnet.SocketState{Protocol: "tcp", State: state, Cookie: cookie}
	}
	before := map[testnet.SocketState]int{
		tcp("ESTABLISHED", 1): 1, tcp("ESTABLISHED", 2): 1, tcp("ESTABLISHED", 3): 1, tcp("LISTEN", 4): 1, tcp("SYN_RECV", 0): 2,
		{Protocol: "udp", State: "CLOSE", Cookie: 1}: 1,
	}
	after := map[testnet.SocketState]int{
		tcp("ESTABLISHED", 1): 1, tcp("TIME_WAIT", 2): 1, tcp("LISTEN", 5): 1, tcp("SYN_RECV", 0): 1,
		{Protocol: "udp", State: "CLOSE", Cookie: 1}: 1, {Protocol: "udp", State: "CLOSE", Cookie: 9}: 1,
	}
	bounds := newBounds(before, after, 10)
	for field, want := range map[string]bound{
		"tcp_established": {1, 13},
		"tcp_fin_wait1":   {0, 12}, // 2 passed it, 3 can have
		"tcp_time_wait":   {0, 12}, // 2 is in it, 3 can have been
		"tcp_close_wait":  {0, 12},
		"tcp_listen":      {0, 12},
		"tcp_syn_recv":    {1, 12},
		"tcp_syn_sent":    {0, 10},
		"udp_socket":      {1, 12},
	} {
		require.Equal(t, want, bounds[field], field)
	}
}

// usage is what this process takes of the host; its memory is in KiB.
type usage struct {
	memory, descriptors, goroutines, threads float64
}

func usageNow(t *testing.T) usage {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	field := func(name string) float64 {
		_, rest, found := strings.Cut(string(status), "\n"+name+":")
		require.True(t, found, name)
		value, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		require.NoError(t, err)
		return value
	}
	return usage{field("VmRSS"), float64(len(descriptors(t))), float64(runtime.NumGoroutine()), field("Threads")}
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

const residentMemory = "resident memory, KiB"

// requireFlat compares the last quarter of the time with the second one.
func requireFlat(t *testing.T, used []usage) {
	t.Helper()
	quarter := len(used) / 4
	for name, of := range map[string]struct {
		value func(usage) float64
		more  func(before float64) float64 // than before is no growth
	}{
		residentMemory: {func(u usage) float64 { return u.memory }, func(before float64) float64 { return max(before/10, 8<<10) }},
		"open files":   {func(u usage) float64 { return u.descriptors }, func(float64) float64 { return 0 }},
		"goroutines":   {func(u usage) float64 { return u.goroutines }, func(float64) float64 { return 0 }},
		"threads":      {func(u usage) float64 { return u.threads }, func(float64) float64 { return 2 }},
	} {
		var values []float64
		for _, u := range used {
			values = append(values, of.value(u))
		}
		before, after := median(values[quarter:2*quarter]), median(values[len(values)-quarter:])
		t.Logf("%s: %.0f in the second quarter of the time, %.0f in the last; %.0f to %.0f", name, before, after,
			slices.Min(values), slices.Max(values))
		if name == residentMemory && underRaceDetector {
			continue // the detector's own memory grows for minutes; make test-slow also runs without it
		}
		require.LessOrEqual(t, after, before+of.more(before), name)
	}
}

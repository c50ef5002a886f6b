package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

const alertRules = "../../alerts/prometheus.yml"

// promtool accepts the rules and passes their tests. For each alert there is a case in which it fires, and one in which it does
// not.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	testnet.Require(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "prometheus.yml"}, {"test", "rules", "prometheus_test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = filepath.Dir(alertRules)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", cmd, err, out)
		}
	}
	tested := readFile(t, "../../alerts/prometheus_test.yml")
	for _, alert := range alertNames(t) {
		for what, pattern := range map[string]string{"fires": `\n\s*exp_alerts:\n`, "does not fire": `\n\s*exp_alerts: \[\]`} {
			if !regexp.MustCompile(`alertname: ` + alert + pattern).MatchString(tested) {
				t.Errorf("no case in which %s %s", alert, what)
			}
		}
	}
}

// A real Prometheus and a real InfluxDB have metrics of faulty services: every alert that sockets can cause fires in both, for the
// faulty process, and none fires for a healthy process.
func TestAlertsFire(t *testing.T) {
	testnet.Require(t, "prometheus")
	testnet.RequireBPF(t) // to see connects
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		db := newInfluxDB(t)
		db.start()
		makeUnattributedConnections(t)
		// The second plugin is a host that sums up series.
		tg := startTelegraf(t, program, "1s", prometheusOutput+hostTag+`
[[inputs.procnetstat]]
`+allDetails+`
[[inputs.procnetstat]]
  measurements = ["process", "gather"]
  max_series = 1
  [inputs.procnetstat.tags]
    host = "web2"
`)
		a := &alerting{t: t, db: db, prometheus: startPrometheus(t, rulesInTest(t))}
		r := startFaultyServices(t)
		clients := startFaultyClients(t)
		overflow := startOverflow(t, r.users)
		for range 3 { // enough retransmissions for a rate over 5 minutes that has just begun
			testnet.Start(t, testnet.Process{Name: "users"}).OpenShortConnections(r.uploadAttempts())
		}
		waitFor(t, "subscriptions of both plugins", func() bool { return shrinkEventBuffers(t, tg.cmd.Process.Pid) == 2 })
		a.wait([]firing{
			{"CloseWaitGrows", "web1", "orders"},
			{"AcceptQueueNearlyFull", "web1", "uploads"},
			{"AcceptQueueNearlyFull", "web1", "pool"},
			{"ListenerDrops", "web1", "uploads"},
			{"ListenerDropsMany", "web1", ""},
			{"ManyRetransmits", "web1", "users"},
			{"ConnectsFail", "web1", "billing"},
			{"SlowConnects", "web1", "audit"},
			{"UDPDrops", "web1", "resolver"},
			{"SocketsUnattributed", "web1", ""},
			{"ClosedEventsLost", "web1", ""},
			{"SeriesFolded", "web2", ""},
		}, func() {
			r.leak()
			overflow()
		})
		a.wait([]firing{{"IdleGrows", "web1", "sessions"}}, clients.leak)
		tg.stop()
		a.wait([]firing{{"GathersStopped", "web1", ""}, {"GathersStopped", "web2", ""}}, func() {})
	})
}

// The alerts on limits fire that a network namespace can have for itself. The limits of orphans and of TCP's memory are the host's:
// only the cases of promtool test their alerts.
func TestLimitAlertsFire(t *testing.T) {
	testnet.Require(t, "prometheus")
	testnet.RequireBPF(t) // to see connects
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		const limit, used = 100, 85
		for name, value := range map[string]string{
			"ip_local_port_range": fmt.Sprintf("40000 %d", 40000+limit-1), "tcp_max_tw_buckets": strconv.Itoa(limit),
		} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", loopback, used)
		closed := client.Connect(listener.Local, used)
		server.Accept(listener, used)
		db := newInfluxDB(t)
		db.start()
		startTelegraf(t, program, "1s", prometheusOutput+hostTag+"[[inputs.procnetstat]]\n")
		a := &alerting{t: t, db: db, prometheus: startPrometheus(t, rulesInTest(t))}
		a.wait([]firing{{"LocalPortsNearlyUsedUp", "web1", ""}}, func() {})
		attempts := client.Attempt(testnet.Attempts{To: listener.Local, N: limit, Keep: true}) // more than there are free ports
		a.wait([]firing{{"NoLocalPort", "web1", "client"}}, func() {})
		for _, attempted := range attempts {
			client.Reset(attempted.Socket) // nothing in TIME_WAIT
		}
		client.Close(closed...)
		server.Stop() // the connections are in TIME_WAIT now
		a.wait([]firing{{"TimeWaitNearlyFull", "web1", ""}}, func() {})
	})
}

// faultyClients are processes whose connects fail, or whose connections stay. They run until the test ends.
//
//   - billing connects to a port without a listener, 20 times a second
//   - audit connects to an endpoint of which the first SYN is lost, and to one that a router rejects
//   - sessions opens connections to store that stay idle: some for each call of leak
type faultyClients struct {
	billing, audit, sessions, store *testnet.Proc
	storeListener                   testnet.Socket
	silent                          netip.AddrPort // does not answer
}

func startFaultyClients(t *testing.T) *faultyClients {
	t.Helper()
	start := func(name string) *testnet.Proc {
		t.Helper()
		return testnet.Start(t, testnet.Process{Name: name})
	}
	f := &faultyClients{billing: start("billing"), audit: start("audit"), sessions: start("sessions"), store: start("store")}
	const much, port = 1 << 20, 8085
	f.billing.AttemptAtRate(testnet.Attempts{To: netip.AddrPortFrom(loopback.Addr(), port), N: much}, 20)
	router := testnet.StartRouter(t)
	lossy := netip.AddrPortFrom(router.Address("tcp4", testnet.DropFirstSYN), port)
	router.Serve(router.Listen("tcp4", lossy, 100), 1, 1)
	f.audit.AttemptAtRate(testnet.Attempts{To: lossy, N: much}, 20)
	rejected := netip.AddrPortFrom(router.Address("tcp4", testnet.ICMPHost4), port)
	f.audit.AttemptAtRate(testnet.Attempts{To: rejected, N: much}, 20)
	f.silent = netip.AddrPortFrom(router.Address("tcp4", testnet.Drop), port)
	f.storeListener = f.store.Listen("tcp4", loopback, 100)
	return f
}

// abort makes store reset a connection of sessions, and sessions give up an attempt.
func (f *faultyClients) abort() {
	reset := f.sessions.Connect(f.storeListener.Local, 1)
	f.store.Reset(f.store.Accept(f.storeListener, 1)...)
	f.sessions.Close(reset...)
	attempt := testnet.Attempts{To: f.silent, N: 1, NonBlocking: true}
	f.sessions.GiveUp(testnet.GiveUpClose, f.sessions.Begin(attempt)...)
}

// leak makes sessions open ten more connections.
func (f *faultyClients) leak() {
	const more = 10
	f.sessions.Connect(f.storeListener.Local, more)
	f.store.Accept(f.storeListener, more)
}

// shorten makes alerts fire in a short test: fewer segments, and a host that is silent for less time.
var shorten = strings.NewReplacer("> 1000", "> 100", "procnetstat_gather_sockets[5m]", "procnetstat_gather_sockets[5s]",
	"SELECT count(sockets) AS n FROM procnetstat_gather WHERE time > now() - 5m",
	"SELECT count(sockets) AS n FROM procnetstat_gather WHERE time > now() - 5s")

// rulesInTest returns a file of the rules, shortened and without delay.
func rulesInTest(t *testing.T) string {
	t.Helper()
	rules := regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAllString(shorten.Replace(readFile(t, alertRules)), "$1 0s")
	file := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(file, []byte(rules), 0o600))
	return file
}

// firing is an alert that fires for a host, and for a process if it has one.
type firing struct{ name, host, process string }

type alerting struct {
	t          *testing.T
	db         *influxDB
	prometheus *server
}

// wait waits until Prometheus and InfluxDB have the alerts. Before each query it calls meanwhile.
func (a *alerting) wait(want []firing, meanwhile func()) {
	a.t.Helper()
	missing := map[string][]firing{}
	a.t.Cleanup(func() {
		if a.t.Failed() {
			a.t.Logf("missing alerts: %v", missing)
		}
	})
	waitFor(a.t, fmt.Sprint("alerts ", want), func() bool {
		a.prometheus.check()
		a.db.check()
		meanwhile()
		missing["Prometheus"] = a.missing(want, a.inPrometheus())
		missing["InfluxDB"] = a.missing(want, a.inInfluxDB(want))
		return len(missing["Prometheus"])+len(missing["InfluxDB"]) == 0
	})
}

// missing returns those of the wanted alerts that do not fire. It fails the test if one fires for a healthy process.
func (a *alerting) missing(want, fire []firing) (missing []firing) {
	a.t.Helper()
	for _, f := range fire {
		if slices.Contains([]string{"api", "worker", "catalog"}, f.process) {
			a.t.Fatalf("an alert fires for a healthy process: %v", f)
		}
	}
	for _, w := range want {
		if !slices.Contains(fire, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

func (a *alerting) inPrometheus() (fire []firing) {
	a.t.Helper()
	var answer struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	askPrometheus(a.t, "alerts", &answer)
	for _, alert := range answer.Alerts {
		if alert.State == "firing" {
			fire = append(fire, firing{alert.Labels["alertname"], alert.Labels["host"], alert.Labels["process_name"]})
		}
	}
	return fire
}

// inInfluxDB asks the queries of the wanted alerts.
func (a *alerting) inInfluxDB(want []firing) (fire []firing) {
	a.t.Helper()
	asked := map[string]bool{}
	for _, w := range want {
		if asked[w.name] {
			continue
		}
		asked[w.name] = true
		for _, tags := range a.db.alerts(shorten.Replace(influxQLOf(a.t, w.name))) {
			fire = append(fire, firing{w.name, tags["host"], tags["process_name"]})
		}
	}
	return fire
}

// shrinkEventBuffers leaves a process nearly no room for the kernel's events of closed sockets. It returns the number of its
// subscriptions.
func shrinkEventBuffers(t *testing.T, pid int) (shrunk int) {
	t.Helper()
	process, err := unix.PidfdOpen(pid, 0)
	require.NoError(t, err)
	defer unix.Close(process)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	for _, entry := range entries {
		number, err := strconv.Atoi(entry.Name())
		require.NoError(t, err)
		fd, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			continue // closed meanwhile
		}
		address, err := unix.Getsockname(fd)
		if netlink, isNetlink := address.(*unix.SockaddrNetlink); err == nil && isNetlink && netlink.Groups != 0 {
			require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
			shrunk++
		}
		require.NoError(t, unix.Close(fd))
	}
	return shrunk
}

// alertNames returns the names of the alerts in the rules, sorted.
func alertNames(t *testing.T) (names []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(readFile(t, alertRules), -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}

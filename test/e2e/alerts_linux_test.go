package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

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

// A real Prometheus evaluates the rules on metrics of faulty services: every alert fires, for the faulty process, and none fires
// for a healthy process. The rules are those of alerts/, with "for: 0s" and a smaller number of ports to a peer.
func TestAlertsFire(t *testing.T) {
	testnet.Require(t, "prometheus")
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		rules := readFile(t, alertRules)
		rules = regexp.MustCompile(`(?m)^( +for:) .*$`).ReplaceAllString(rules, "$1 0s")
		rules = strings.ReplaceAll(rules, "0.8 * 28232", "0.8 * 10")
		file := filepath.Join(t.TempDir(), "rules.yml")
		if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		makeUnattributedConnections(t)
		startTelegraf(t, program, onlyWhenAsked, prometheusOutput+hostTag+"[[inputs.procnetstat]]\n")
		prometheus := startPrometheus(t, file)
		r := startFaultyServices(t)
		for range 3 { // enough retransmissions for a rate over 5 minutes that has just begun
			testnet.Start(t, testnet.Process{Name: "users"}).OpenShortConnections(r.uploadAttempts())
		}
		want := map[string][]string{
			"CloseWaitGrows": {"orders"}, "AcceptQueueNearlyFull": {"uploads", "pool"}, "ListenerDrops": {"uploads"},
			"ManyRetransmits": {"users"}, "PortsToPeerNearlyUsedUp": {""}, "SocketsUnattributed": {""},
		}
		if names := alertNames(t); !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("the rules are %v", names)
		}
		type alert struct{ name, process string }
		var missing []alert
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("missing alerts: %v", missing)
			}
		})
		waitFor(t, "alerts", func() bool {
			prometheus.check()
			r.leak()
			var answer struct {
				Alerts []struct {
					State  string
					Labels map[string]string
				}
			}
			askPrometheus(t, "alerts", &answer)
			missing = nil
			for name, processes := range want {
				for _, process := range processes {
					missing = append(missing, alert{name, process})
				}
			}
			for _, a := range answer.Alerts {
				fired := alert{a.Labels["alertname"], a.Labels["process_name"]}
				if a.State == "firing" && a.Labels["host"] == "web1" {
					missing = slices.DeleteFunc(missing, func(m alert) bool { return m == fired })
				}
				if slices.Contains([]string{"api", "worker", "catalog"}, fired.process) {
					t.Fatalf("an alert fires for a healthy process: %v", a.Labels)
				}
			}
			return len(missing) == 0
		})
	})
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

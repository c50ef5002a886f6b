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

// TestAlertRules has promtool run the tests of the rules.
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
				t.Errorf("no test says when %s %s", alert, what)
			}
		}
	}
}

// TestAlertsFire has a real Prometheus judge processes in trouble, by what the plugin says of them: every alert fires, for the process
// that it is about. The rules are those that users get, but that they do not wait, and that a peer has fewer ports.
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
		for range 3 { // a rate of 5 minutes is that of few segments at first
			testnet.Start(t, testnet.Process{Name: "users"}).Visit(r.uploadAttempts())
		}
		want := map[string]string{
			"CloseWaitGrows": "orders", "AcceptQueueNearlyFull": "uploads", "ListenerDrops": "uploads", "ManyRetransmits": "users",
			"PortsToPeerNearlyUsedUp": "", "SocketsUnattributed": "",
		}
		if names := alertNames(t); !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("the rules are %v", names)
		}
		missing := want
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("there is no alert of %v", missing)
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
			missing = maps.Clone(want)
			for _, alert := range answer.Alerts {
				name, process := alert.Labels["alertname"], alert.Labels["process_name"]
				if alert.State == "firing" && alert.Labels["host"] == "web1" && process == want[name] {
					delete(missing, name)
				}
				if isWell := process == "api" || process == "worker" || process == "catalog"; isWell {
					t.Fatalf("there is an alert of a process that is well: %v", alert.Labels)
				}
			}
			return len(missing) == 0
		})
	})
}

// alertNames returns those of the rules, sorted.
func alertNames(t *testing.T) (names []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(readFile(t, alertRules), -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}

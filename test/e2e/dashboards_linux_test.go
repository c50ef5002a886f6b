package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// hostTag adds the tag host, on which the dashboards and rules depend. It stands before the inputs.
const hostTag = "\n[global_tags]\n  host = \"web1\"\n"

// dashboardMeasurements configures the plugin with all measurements and fields that the dashboards show.
const dashboardMeasurements = `
[[inputs.procnetstat]]
  measurements = ["host", "process", "listener", "cgroup", "remote", "gather"]
` + allDetails

// allDetails are all sets of fields. Connections are idle soon.
const allDetails = `
  details = ["rtt", "traffic", "lifecycle", "connects", "stalls"]
  idle_after = "1s"
`

// Every query of every dashboard has an answer on metrics of faulty services: InfluxQL from a real InfluxDB, PromQL from a real
// Prometheus. The test has no server for Flux: the measurements and fields of its queries must exist.
func TestDashboards(t *testing.T) {
	testnet.Require(t, "prometheus")
	testnet.RequireBPF(t) // to see connects
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		db := newInfluxDB(t)
		db.start()
		tg := startTelegraf(t, program, "1s", prometheusOutput+hostTag+dashboardMeasurements)
		prometheus := startPrometheus(t)
		testnet.States(t, "tcp4") // sockets in every state
		testnet.UDP(t)
		startFaultyServices(t)
		clients := startFaultyClients(t)
		testnet.Start(t, testnet.Process{Name: "resolver"}).UDP("udp4", loopback, netip.AddrPort{})
		// Values that an answer must have, by the title of the dashboard and the title of the panel or name of the variable.
		const listeners = "procnetstat: listeners"
		wanted := map[[2]string]string{
			{listeners, "process_name"}:       "resolver", // it has no TCP socket
			{listeners, "Accept queue usage"}: strconv.Itoa(100 * (poolBacklog + 1) / poolBacklog),
		}
		found := map[[2]string]bool{}

		wantedIn := func(board grafanaBoard, name string) string {
			title, _, _ := strings.Cut(board.Title, " (")
			of := [2]string{title, name}
			found[of] = true
			return wanted[of]
		}
		runs := map[string]func(query string) []any{
			"influxql": db.queryValues,
			"promql": func(query string) []any {
				prometheus.check()
				return prometheusValues(t, query)
			},
		}
		for language, run := range runs {
			for _, board := range loadDashboards(t, language) {
				for _, v := range board.Templating.List {
					if v.Type != "query" || v.Name == "netns" { // one namespace is read: it has no value
						continue
					}
					waitFor(t, fmt.Sprintf("value of the variable %s of %s: %s", v.Name, board.Title, v.Query), func() bool {
						return has(run(v.Query), wantedIn(board, v.Name))
					})
				}
				for _, panel := range board.Panels {
					for _, target := range panel.Targets {
						query := target.expandVariables(selection{})
						mayBeZero := mayBeZero.MatchString(query)
						waitFor(t, fmt.Sprintf("value of %s: %s: %s", board.Title, panel.Title, query), func() bool {
							clients.abort()
							values := run(query)
							return has(values, wantedIn(board, panel.Title)) &&
								slices.ContainsFunc(values, func(v any) bool { return mayBeZero || fmt.Sprint(v) != "0" })
						})
						if language == "influxql" { // what a counter did in its first interval is not lost
							if query := target.expandVariables(selection{interval: "1000000h"}); len(run(query)) == 0 {
								t.Errorf("%s: %s: no value in one interval: %s", board.Title, panel.Title, query)
							}
						}
					}
				}
			}
		}

		for of := range wanted {
			if !found[of] {
				t.Errorf("no panel or variable %v", of)
			}
		}

		tg.read()
		emitted := fieldsOf(tg)
		for _, board := range loadDashboards(t, "flux") {
			for _, panel := range board.Panels {
				for _, target := range panel.Targets {
					measurement := regexp.MustCompile(`_measurement == "(\w+)"`).FindStringSubmatch(target.Query)[1]
					for _, field := range regexp.MustCompile(`_field == "(\w+)"`).FindAllStringSubmatch(target.Query, -1) {
						if !emitted[measurement][ofInitialNamespace.Replace(field[1])] {
							t.Errorf("%s: %s: %s has no field %s", board.Title, panel.Title, measurement, field[1])
						}
					}
				}
			}
		}
	})
}

// fieldsOf returns the fields that were emitted, by their measurement.
func fieldsOf(tg *telegraf) map[string]map[string]bool {
	found := map[string]map[string]bool{}
	for _, g := range tg.seen {
		for series, f := range g {
			measurement, _, _ := strings.Cut(series, ",")
			if found[measurement] == nil {
				found[measurement] = map[string]bool{}
			}
			for field := range f {
				found[measurement][field] = true
			}
		}
	}
	return found
}

// has reports whether there are values, among them the wanted one, if any.
func has(values []any, wanted string) bool {
	return len(values) > 0 && (wanted == "" || slices.ContainsFunc(values, func(v any) bool { return fmt.Sprint(v) == wanted }))
}

// mayBeZero matches queries of values that the faulty services do not raise.
var mayBeZero = regexp.MustCompile(`udp_drops|udp_mem|denied|unattributed|` +
	`tcp_(connect_timed_out|connect_no_port|closed_timed_out|notsent_bytes|busy_us|rcv_ooopack|dsack_dups)|` +
	`tcp_(attempt_fails|estab_resets|out_rsts|listen_overflows|listen_drops)|udp_(no_ports|rcvbuf_errors|sndbuf_errors)`)

// ofInitialNamespace replaces the limits that only the initial network namespace has, in which no test runs, with fields that there
// are.
var ofInitialNamespace = strings.NewReplacer("tcp_orphan_limit", "tcp_alloc", "tcp_mem_limit_bytes", "tcp_mem_bytes")

// The dashboards have the same variables and panels in each query language.
func TestDashboardsAreEquivalent(t *testing.T) {
	outline := func(language, title string) string {
		t.Helper()
		var text strings.Builder
		for _, board := range loadDashboards(t, language) {
			fmt.Fprintln(&text, strings.TrimSuffix(board.Title, " ("+title+")"), len(board.Templating.List))
			for _, panel := range board.Panels {
				fmt.Fprintln(&text, panel.Type, panel.Title, panel.Description, len(panel.Targets))
			}
		}
		return text.String()
	}
	influxQL := outline("influxql", "InfluxQL")
	if strings.Count(influxQL, "\n") < 4+30 {
		t.Errorf("fewer than 4 dashboards with 30 panels:\n%s", influxQL)
	}
	for language, title := range map[string]string{"flux": "Flux", "promql": "PromQL"} {
		if other := outline(language, title); other != influxQL {
			t.Errorf("%s has\n%sInfluxQL has\n%s", language, other, influxQL)
		}
	}
}

// Where a value of a dashboard has an alert, one of the thresholds is that of the alert.
func TestDashboardThresholds(t *testing.T) {
	rules := strings.Split(readFile(t, alertRules), "- alert: ")[1:]
	limit := regexp.MustCompile(`(?m)> ([\d.]+)$`)
	fields := []string{
		"listener_accept_queue_used_percent", "process_tcp_retrans_segs", "procnetstat_local_ports_used", "tcp_time_wait_limit",
		"tcp_orphan_limit", "tcp_mem_limit_bytes", "process_tcp_connect_p95_us", "process_tcp_connect_refused",
	}
	compared := map[string]bool{}
	for _, board := range loadDashboards(t, "promql") {
		for _, panel := range board.Panels {
			unit := map[string]float64{"percentunit": 0.01, "µs": 1_000_000} // the alerts have percent and seconds
			var steps []float64
			for _, step := range panel.FieldConfig.Defaults.Thresholds.Steps {
				steps = append(steps, step.Value/cmp.Or(unit[panel.FieldConfig.Defaults.Unit], 1))
			}
			if len(steps) < 2 { // the first has no value
				continue
			}
			for _, field := range fields {
				for _, rule := range rules {
					shows := func(target grafanaTarget) bool { return strings.Contains(target.Expr, field) }
					if !strings.Contains(rule, field) || !slices.ContainsFunc(panel.Targets, shows) {
						continue
					}
					compared[field] = true
					value, err := strconv.ParseFloat(limit.FindStringSubmatch(rule)[1], 64)
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Contains(steps, value) {
						t.Errorf("%s: %s: the thresholds are %v; the alert has %v", board.Title, panel.Title, steps, value)
					}
				}
			}
		}
	}
	if len(compared) < len(fields) {
		t.Errorf("compared only %v", compared)
	}
}

// grafanaBoard is a dashboard as Grafana reads it.
type grafanaBoard struct {
	Title      string
	Templating struct {
		List []struct{ Type, Name, Query string }
	}
	Panels []struct {
		Type, Title, Description string
		Targets                  []grafanaTarget
		FieldConfig              struct {
			Defaults struct {
				Unit       string
				Thresholds struct {
					Steps []struct{ Value float64 }
				}
			}
		}
	}
}

type grafanaTarget struct{ Query, Expr string }

// selection is what a user has selected in a dashboard.
type selection struct {
	variables  map[string]string // ".*", which is "All", for others
	top        int               // 0: 10
	timeFilter string            // InfluxQL; "": the last hour
	duration   string            // PromQL; "": 1h
	interval   string            // "": 2s
}

// expandVariables returns the query as Grafana sends it.
func (target grafanaTarget) expandVariables(s selection) string {
	top := strconv.Itoa(cmp.Or(s.top, 10))
	query := strings.NewReplacer("$timeFilter", cmp.Or(s.timeFilter, "time > now() - 1h"), "$__interval", cmp.Or(s.interval, "2s"),
		"$__rate_interval", "10s", "$__range", cmp.Or(s.duration, "1h"), "${topk}", top, "$topk", top).
		Replace(ofInitialNamespace.Replace(target.Query + target.Expr))
	return variableReference.ReplaceAllStringFunc(query, func(reference string) string {
		name := variableReference.FindStringSubmatch(reference)
		return cmp.Or(s.variables[name[1]+name[2]], ".*")
	})
}

var variableReference = regexp.MustCompile(`\$(?:\{(\w+):regex\}|(\w+))`)

func loadDashboards(t *testing.T, language string) (boards []grafanaBoard) {
	t.Helper()
	files, err := filepath.Glob("../../dashboards/" + language + "/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards in %s: %v", language, err)
	}
	for _, file := range files {
		var board grafanaBoard
		if err := json.Unmarshal([]byte(readFile(t, file)), &board); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		boards = append(boards, board)
	}
	return boards
}

// queryValues returns the values of all columns of a result but the time.
func (db *influxDB) queryValues(influxQL string) (values []any) {
	db.t.Helper()
	db.check()
	for _, s := range db.query(influxQL) {
		for _, row := range s.Values {
			for i, value := range row {
				if value != nil && s.Columns[i] != "time" {
					values = append(values, value)
				}
			}
		}
	}
	return values
}

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// prometheusValues returns the current values of a query. It supports Grafana's label_values, which is not PromQL.
func prometheusValues(t *testing.T, query string) (values []any) {
	t.Helper()
	if of := labelValues.FindStringSubmatch(query); of != nil {
		askPrometheus(t, "label/"+of[2]+"/values?match[]="+url.QueryEscape(of[1]), &values)
		return values
	}
	for _, series := range prometheusSeries(t, query) {
		values = append(values, series.Value[1])
	}
	return values
}

// prometheusSeries returns the current result of a query.
func prometheusSeries(t *testing.T, query string) []prometheusResult {
	t.Helper()
	var answer struct{ Result []prometheusResult }
	askPrometheus(t, "query?query="+url.QueryEscape(query), &answer)
	return answer.Result
}

// prometheusResult is a series of an instant query. Value is the time and the value.
type prometheusResult struct {
	Metric map[string]string
	Value  [2]any
}

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// With two network namespaces every panel shows both apart, or the selected one, and no more than the biggest if topk is 1:
// InfluxQL at each point in time, PromQL of the whole time range.
func TestDashboardsByNamespace(t *testing.T) {
	testnet.Require(t, "prometheus")
	testnet.RequireBPF(t) // to see connects
	setUp(t)
	program := customTelegraf(t)
	testnet.IsolateMounts(t, func() {
		db := newInfluxDB(t)
		db.start()
		startServices(t, "", 10)
		startServices(t, testnet.Netns(t, "blue"), 20)
		tg := startTelegraf(t, program, "1s", prometheusOutput+hostTag+dashboardMeasurements+"  namespaces = [\"self\", \"blue\"]\n")
		prometheus := startPrometheus(t)
		const gathers = 10
		var at int64
		for range gathers {
			at = tg.gatherAfter(at, lastMeasurement)
		}
		db.wait(at, tg.seen[at], func() { tg.check() })
		past := time.Duration(gathers-2) * time.Second
		waitFor(t, "gathers in Prometheus", func() bool {
			prometheus.check()
			values := prometheusValues(t, "timestamp(procnetstat_gather_sockets)")
			return len(values) == 1 && newestGather(t, values[0]).UnixNano() > at
		})
		languages := map[string]dashboardRun{
			"influxql": {selection{timeFilter: fmt.Sprintf("time > %d AND time <= %d", at-int64(past), at)}, db.querySeries},
			"promql":   newPrometheusRun(t, past),
		}
		variableValues := map[string]func(query string) []any{
			"influxql": db.queryValues,
			"promql":   func(query string) []any { return prometheusValues(t, query) },
		}
		for language, run := range languages {
			apart := 0
			for _, board := range loadDashboards(t, language) {
				for _, v := range board.Templating.List {
					if v.Name != "netns" {
						continue
					}
					if values := variableValues[language](v.Query); !has(values, "self") || !has(values, "blue") {
						t.Errorf("%s: the variable netns has the values %v", board.Title, values)
					}
				}
				for _, panel := range board.Panels {
					for _, target := range panel.Targets {
						if run.requireNamespaces(t, fmt.Sprintf("%s: %s", board.Title, panel.Title), target) {
							apart++
						}
					}
				}
			}
			if apart < 50 {
				t.Errorf("%s: only %d queries tell namespaces apart", language, apart)
			}
		}
	})
}

// startServices starts processes in a network namespace, all of whose connections are there: a server, a client that opens short
// connections and holds some, and a UDP socket.
func startServices(t *testing.T, netns string, connections int) {
	t.Helper()
	start := func(name string) *testnet.Proc {
		t.Helper()
		return testnet.Start(t, testnet.Process{Name: name, In: netns})
	}
	api, worker, resolver := start("api"), start("worker"), start("resolver")
	short := api.Listen("tcp4", loopback, 100)
	api.Serve(short, 100, 200)
	worker.OpenShortConnections(testnet.ShortConnections{
		To: short.Local, N: 1 << 20, Rate: connections, Lifetime: 10 * time.Millisecond, Send: 100, Receive: 200,
	})
	db, client := start("db"), start("client")
	long := db.Listen("tcp4", loopback, connections)
	for _, s := range client.Connect(long.Local, connections) {
		client.Send(s, 1000)
	}
	db.Accept(long, connections)
	resolver.UDP("udp4", loopback, netip.AddrPort{})
}

// dashboardRun runs queries of dashboards at a fixed time.
type dashboardRun struct {
	selection selection
	query     func(query string) []dashboardSeries
}

// dashboardSeries is a series of a result, or a row of a table, without time.
type dashboardSeries struct {
	tags   map[string]string
	points map[string]float64 // by time
}

func (s dashboardSeries) max() float64 { return slices.Max(slices.Collect(maps.Values(s.points))) }

var (
	groupsByNetNS = regexp.MustCompile(`by \([^)]*\bnetns\b|GROUP BY (?:time\([^)]*\), )?[^)]*"netns"`)
	isOfGather    = regexp.MustCompile(`procnetstat_gather`)
)

// requireNamespaces checks the series of a query. It returns whether the query tells namespaces apart.
func (run dashboardRun) requireNamespaces(t *testing.T, what string, target grafanaTarget) (apart bool) {
	t.Helper()
	ask := func(top int, netns string) []dashboardSeries {
		t.Helper()
		s := run.selection
		s.top = top
		if netns != "" {
			s.variables = map[string]string{"netns": netns}
		}
		query := target.expandVariables(s)
		series := run.query(query)
		if len(series) == 0 {
			t.Errorf("%s: no series: %s", what, query)
		}
		return series
	}
	namespaces := func(series []dashboardSeries) []string {
		found := map[string]bool{}
		for _, s := range series {
			found[s.tags["netns"]] = true
		}
		return slices.Sorted(maps.Keys(found))
	}
	const many = 1000
	text := target.Query + target.Expr
	all := ask(many, "")
	if apart = groupsByNetNS.MatchString(text); apart {
		if found := namespaces(all); !slices.Equal(found, []string{"blue", "self"}) {
			t.Errorf("%s: has the namespaces %q: %s", what, found, text)
		}
		for _, one := range []string{"blue", "self"} {
			if found := namespaces(ask(many, one)); !slices.Equal(found, []string{one}) {
				t.Errorf("%s: has the namespaces %q, want %s: %s", what, found, one, text)
			}
		}
	}
	if !isOfGather.MatchString(text) && !strings.Contains(text, "$netns") && !strings.Contains(text, "${netns:regex}") {
		t.Errorf("%s: does not select by netns: %s", what, text)
	}
	if !strings.Contains(text, "$topk") {
		return apart
	}
	top := ask(1, "")
	if strings.HasPrefix(text, "SELECT") { // one at each point in time
		biggest, want := map[string]float64{}, map[string]float64{}
		for _, s := range all {
			for at, value := range s.points {
				want[at] = max(want[at], value)
			}
		}
		points := 0
		for _, s := range top {
			points += len(s.points)
			maps.Copy(biggest, s.points)
		}
		if points != len(biggest) || !maps.Equal(biggest, want) {
			t.Errorf("%s: with topk 1 there are %d points %v, want %v: %s", what, points, biggest, want, text)
		}
		return apart
	}
	if len(top) != 1 {
		t.Errorf("%s: with topk 1 there are %d series: %s", what, len(top), text)
		return apart
	}
	for _, s := range all {
		if s.max() > top[0].max() {
			t.Errorf("%s: with topk 1 there is %v with %v, but %v has %v: %s", what, top[0].tags, top[0].max(), s.tags, s.max(), text)
		}
	}
	return apart
}

// querySeries returns the series of a result: text columns are tags, the only column of numbers is the value.
func (db *influxDB) querySeries(influxQL string) []dashboardSeries {
	db.t.Helper()
	db.check()
	found := map[string]dashboardSeries{}
	for _, result := range db.query(influxQL) {
		for _, row := range result.Values {
			tags := map[string]string{}
			maps.Copy(tags, result.Tags)
			var at string
			var value float64
			for i, cell := range row {
				switch v := cell.(type) {
				case string:
					tags[result.Columns[i]] = v
				case json.Number:
					if result.Columns[i] == "time" {
						at = v.String()
						continue
					}
					var err error
					if value, err = v.Float64(); err != nil {
						db.t.Fatal(err)
					}
				}
			}
			name := fmt.Sprint(tags)
			if _, known := found[name]; !known {
				found[name] = dashboardSeries{tags, map[string]float64{}}
			}
			found[name].points[at] = value
		}
	}
	return slices.Collect(maps.Values(found))
}

// newPrometheusRun returns how to run queries for a time range that ends with the newest gather. Tables are of the end, graphs have
// a value every two seconds. The range begins between two of them, so that it has the same as $__range.
func newPrometheusRun(t *testing.T, past time.Duration) dashboardRun {
	t.Helper()
	const step = 2
	end := newestGather(t, prometheusValues(t, "timestamp(procnetstat_gather_sockets)")[0]).Unix() / step * step
	past = past / (step * time.Second) * (step * time.Second)
	start := end - int64(past/time.Second)
	query := func(query string) (all []dashboardSeries) {
		var answer struct {
			Result []struct {
				Metric map[string]string
				Value  []any
				Values [][]any
			}
		}
		if strings.Contains(query, "@ end()") {
			askPrometheus(t, fmt.Sprintf("query_range?query=%s&start=%d&end=%d&step=%d", url.QueryEscape(query), start, end, step), &answer)
		} else {
			askPrometheus(t, fmt.Sprintf("query?query=%s&time=%d", url.QueryEscape(query), end), &answer)
		}
		for _, result := range answer.Result {
			if result.Value != nil {
				result.Values = append(result.Values, result.Value)
			}
			s := dashboardSeries{result.Metric, map[string]float64{}}
			for _, point := range result.Values {
				value, err := strconv.ParseFloat(fmt.Sprint(point[1]), 64)
				if err != nil {
					t.Fatal(err)
				}
				s.points[fmt.Sprint(point[0])] = value
			}
			all = append(all, s)
		}
		return all
	}
	return dashboardRun{selection{duration: (past + time.Second).String()}, query}
}

// newestGather converts a value of timestamp() of PromQL.
func newestGather(t *testing.T, value any) time.Time {
	t.Helper()
	seconds, err := strconv.ParseFloat(fmt.Sprint(value), 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(int64(seconds * 1000))
}

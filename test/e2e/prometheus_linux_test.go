package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
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

const (
	metricsAddress    = "127.0.0.1:9273"
	prometheusAddress = "127.0.0.1:9090"
)

// With export_timestamp, a sample has the time of its gather, with which it can be compared.
const prometheusOutput = `
[[outputs.prometheus_client]]
  listen = "` + metricsAddress + `"
  metric_version = 2
  export_timestamp = true
  collectors_exclude = ["gocollector", "process"]
  flush_interval = "100ms"
`

const prometheusConfig = `
global:
  scrape_interval: %v
  evaluation_interval: 1s
scrape_configs:
  - job_name: telegraf
    static_configs:
      - targets: ["` + metricsAddress + `"]
`

// Prometheus scrapes our Telegraf: it has all fields as metrics of the right types, with the values of the gather.
func TestPrometheus(t *testing.T) {
	testnet.Require(t, "prometheus", "promtool")
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		tg := startTelegraf(t, program, onlyWhenAsked, allMeasurementsFrom("netlink")+prometheusOutput)
		startLoad(t)
		testnet.Unix(t)
		tg.gatherAfter(time.Now().UnixNano(), lastMeasurement)
		prometheus := startPrometheus(t)

		requireScraped(t, tg, prometheus)
		types := metricTypes(tg)
		requireMetadataTypes(t, prometheus, types)
		page := string(get(t, metricsAddress+"/metrics"))
		requireUniqueTypes(t, page)
		requireLint(t, page, types)
		tg.requireNoErrors()
	})
}

// startPrometheus starts a Prometheus that scrapes Telegraf. rules are paths of rule files.
func startPrometheus(t *testing.T, rules ...string) *server {
	t.Helper()
	return startPrometheusEvery(t, time.Second, rules...)
}

// startPrometheusEvery is startPrometheus with a scrape interval.
func startPrometheusEvery(t *testing.T, interval time.Duration, rules ...string) *server {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(prometheusConfig, interval) + "rule_files: [" + strings.Join(rules, ", ") + "]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startServer(t, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+prometheusAddress)
}

// requireScraped waits until Prometheus has a complete gather, and compares every sample with the gather of its time. It ignores
// connections, whose string fields become labels.
func requireScraped(t *testing.T, tg *telegraf, prometheus *server) {
	t.Helper()
	var scraped metrics
	waitFor(t, "complete gather in Prometheus", func() bool {
		prometheus.check()
		scraped = prometheusSamples(t)
		tg.read()
		for at, want := range prometheusNames(t, tg.seen) {
			if want[hostSeries+"_tcp_listen"] != nil && maps.EqualFunc(want, scraped[at], maps.Equal) {
				return true
			}
		}
		return false
	})
	newest := slices.Max(slices.Collect(maps.Keys(scraped)))
	for _, last := range []string{lastMeasurement, lastMeasurement + defaultTags} {
		tg.gatherAfter(newest+millisecond, last) // the file must have every gather that Prometheus has
	}
	gathers := prometheusNames(t, tg.seen)
	for at, samples := range scraped {
		for name, sample := range samples {
			if want, found := gathers[at][name]; !found || !maps.Equal(sample, want) {
				t.Errorf("at %d Prometheus has %s %v; the gather has %v", at, name, sample, want)
			}
		}
	}
}

const millisecond = int64(time.Millisecond)

// prometheusNames converts metrics to the names and times that they have in Prometheus: a metric for each field, and
// milliseconds. It fails the test if two fields get the same name.
func prometheusNames(t *testing.T, all metrics) metrics {
	t.Helper()
	named := metrics{}
	for at, g := range all {
		at = at / millisecond * millisecond
		for series, f := range g {
			if isConnectionSeries(series) {
				continue
			}
			measurement, _, _ := strings.Cut(series, ",")
			for field, value := range f {
				name := measurement + "_" + field + strings.TrimPrefix(series, measurement)
				if named[at][name] != nil {
					t.Fatalf("two fields have the name %s", name)
				}
				named.add(at, name, "value", value)
			}
		}
	}
	return named
}

func isConnectionSeries(series string) bool { return strings.HasPrefix(series, connectionMeasurement) }

// prometheusSamples returns the samples of procnetstat in Prometheus.
func prometheusSamples(t *testing.T) metrics {
	t.Helper()
	var answer struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	if !askPrometheus(t, "query?query="+url.QueryEscape(`{__name__=~"procnetstat_.+"}[5m]`), &answer) {
		return nil
	}
	samples := metrics{}
	for _, series := range answer.Result {
		name := series.Metric["__name__"]
		for _, label := range []string{"__name__", "instance", "job"} {
			delete(series.Metric, label)
		}
		if isConnectionSeries(name) {
			continue
		}
		for _, sample := range series.Values {
			seconds, _ := sample[0].(json.Number)
			text, _ := sample[1].(string)
			at, err := strconv.ParseFloat(string(seconds), 64)
			if err != nil {
				t.Fatal(err)
			}
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			const perSecond = 1000
			samples.add(int64(at*perSecond+0.5)*millisecond, seriesName(name, series.Metric), "value", int64(value))
		}
	}
	return samples
}

// askPrometheus sends a request to the HTTP API. It returns false if Prometheus does not answer yet.
func askPrometheus(t *testing.T, what string, data any) bool {
	t.Helper()
	answer, err := http.Get("http://" + prometheusAddress + "/api/v1/" + what)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusServiceUnavailable { // it is still starting
		return false
	}
	decoder := json.NewDecoder(answer.Body)
	decoder.UseNumber()
	envelope := struct {
		Status string
		Data   any
	}{Data: data}
	if err := decoder.Decode(&envelope); err != nil || envelope.Status != "success" {
		t.Fatalf("%s: %s: %v", what, answer.Status, err)
	}
	return true
}

// metricTypes returns the expected type of each metric by its name in Prometheus.
func metricTypes(tg *telegraf) map[string]string {
	types := map[string]string{}
	for _, g := range tg.seen {
		for series, f := range g {
			measurement, _, _ := strings.Cut(series, ",")
			for field := range f {
				types[measurement+"_"+field] = "gauge"
				if slices.Contains(counters("netlink", series), field) {
					types[measurement+"_"+field] = "counter"
				}
			}
		}
	}
	return types
}

// requireMetadataTypes checks the types in the metadata of Prometheus.
func requireMetadataTypes(t *testing.T, prometheus *server, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	waitFor(t, "metadata in Prometheus", func() bool {
		prometheus.check()
		var answer map[string][]struct{ Type string }
		if !askPrometheus(t, "metadata", &answer) {
			return false
		}
		for name, known := range answer {
			var types []string
			for _, metadata := range known {
				types = append(types, metadata.Type)
			}
			got[name] = strings.Join(types, ", ")
		}
		return len(got) >= len(want)
	})
	if !maps.Equal(got, want) {
		t.Errorf("Prometheus has the types\n%v, want\n%v", got, want)
	}
}

// requireUniqueTypes checks that each metric on the page has one type.
func requireUniqueTypes(t *testing.T, page string) {
	t.Helper()
	types := map[string][]string{}
	for line := range strings.Lines(page) {
		if words := strings.Fields(line); len(words) == 4 && words[1] == "TYPE" {
			types[words[2]] = append(types[words[2]], words[3])
		}
	}
	if len(types) == 0 {
		t.Errorf("no types on the page:\n%s", page)
	}
	for name, of := range types {
		if len(of) != 1 {
			t.Errorf("%s has the types %v", name, of)
		}
	}
}

// get returns the body of a page, which is an address with a path.
func get(t *testing.T, page string) []byte {
	t.Helper()
	answer, err := http.Get("http://" + page)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v", page, answer.Status, err)
	}
	return text
}

// Findings of promtool that are accepted: Telegraf derives the names of metrics from fields, which have the same names for all
// outputs.
const (
	// The fields have the names of the kernel (bytes_acked, segs_out) and of other Telegraf plugins (drops).
	lintTotalSuffix = `counter metrics should have "_total" suffix`
	// Prometheus recommends seconds, which are not integers; Telegraf's plugins have duration_ns and rtt_us.
	lintBaseUnit = `metric names should not contain abbreviated units`
)

// requireLint checks that promtool reports the accepted findings and nothing else.
func requireLint(t *testing.T, page string, types map[string]string) {
	t.Helper()
	promtool := exec.Command("promtool", "check", "metrics")
	promtool.Stdin = strings.NewReader(page)
	out, err := promtool.CombinedOutput()
	const foundSomething = 3
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != foundSomething {
		t.Fatalf("%v: %v\n%s", promtool, err, out)
	}
	var want []string
	for name, is := range types {
		if is == "counter" {
			want = append(want, name+" "+lintTotalSuffix)
		}
		if strings.HasSuffix(name, "_us") || strings.HasSuffix(name, "_ns") {
			want = append(want, name+" "+lintBaseUnit)
		}
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("promtool reports\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

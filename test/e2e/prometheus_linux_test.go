package e2e

import (
	"encoding/json"
	"errors"
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

// With export_timestamp, what Prometheus has can be compared with the gather that it is of.
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
  scrape_interval: 1s
  evaluation_interval: 1s
scrape_configs:
  - job_name: telegraf
    static_configs:
      - targets: ["` + metricsAddress + `"]
`

// A Prometheus scrapes our Telegraf: it gets all fields as metrics, of the right types, and the values of the gather.
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

// startPrometheus starts one that scrapes Telegraf; rules are files of its.
func startPrometheus(t *testing.T, rules ...string) *server {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := prometheusConfig + "rule_files: [" + strings.Join(rules, ", ") + "]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startServer(t, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+prometheusAddress)
}

// requireScraped waits until Prometheus has all of a gather, and compares every sample that it has with the gather of its time.
// The points of connections have their texts as labels, and are left out.
func requireScraped(t *testing.T, tg *telegraf, prometheus *server) {
	t.Helper()
	var scraped metrics
	waitFor(t, "gather that is in Prometheus as a whole", func() bool {
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
		tg.gatherAfter(newest+millisecond, last) // until then the file may have less than Prometheus
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

// prometheusNames gives all values the names and times that they have in Prometheus, which has no fields but metrics, and
// milliseconds. No two may have the same.
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

// prometheusSamples returns the samples that Prometheus has of us.
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

// askPrometheus asks the HTTP API, and returns false as long as Prometheus does not answer.
func askPrometheus(t *testing.T, what string, data any) bool {
	t.Helper()
	answer, err := http.Get("http://" + prometheusAddress + "/api/v1/" + what)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusServiceUnavailable { // it starts
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

// metricTypes returns what each metric should be, by its name in Prometheus.
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

// requireTypesKnown wants Prometheus to know each metric as what it is.
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
		t.Errorf("Prometheus knows the types\n%v, expected\n%v", got, want)
	}
}

// requireOneTypeEach wants no metric on the page to be of two types.
func requireUniqueTypes(t *testing.T, page string) {
	t.Helper()
	types := map[string][]string{}
	for line := range strings.Lines(page) {
		if words := strings.Fields(line); len(words) == 4 && words[1] == "TYPE" {
			types[words[2]] = append(types[words[2]], words[3])
		}
	}
	if len(types) == 0 {
		t.Errorf("there are no types on the page:\n%s", page)
	}
	for name, of := range types {
		if len(of) != 1 {
			t.Errorf("%s has the types %v", name, of)
		}
	}
}

// get returns a page, of an address with its path.
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

// What promtool finds that is not ours to change. Telegraf makes the names of metrics from those of fields, which are the same
// for all outputs: the kernel's, with the unit that Telegraf writes.
const (
	// The fields are called as in the kernel (bytes_acked, segs_out) and as in other plugins of Telegraf (drops).
	lintTotalSuffix = `counter metrics should have "_total" suffix`
	// Prometheus wants seconds, which are no integers; Telegraf's plugins have duration_ns and rtt_us.
	lintBaseUnit = `metric names should not contain abbreviated units`
)

// requireLint wants promtool to find this and nothing else.
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
		t.Errorf("promtool finds\n\t%s\nexpected\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

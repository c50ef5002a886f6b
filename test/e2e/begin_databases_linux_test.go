package e2e

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A worker lives 0.3 seconds, less than the interval. InfluxDB and a Prometheus that scrapes Telegraf have its burst once and whole,
// also that of a worker of the same name after a reload of Telegraf, with which all counters begin with 0 again.
func TestBurstInDatabases(t *testing.T) {
	testnet.Require(t, "prometheus")
	setUp(t)
	program := customTelegraf(t)
	testnet.IsolateMounts(t, func() {
		testnet.RequireBPF(t) // to know the worker after its end
		blue := testnet.Netns(t, "blue")
		startBurstServer(t, blue)
		db := newInfluxDB(t)
		db.start()
		const flush, scrape = 100 * time.Millisecond, 250 * time.Millisecond // less than the interval of 1 s
		output := strings.ReplaceAll(prometheusOutput, "export_timestamp = true", "export_timestamp = false")
		tg := startTelegraf(t, program, flush.String(), fmt.Sprintf(burstConfig, `"self", "blue"`)+output)
		tg.gatherAfter(0, lastMeasurement)
		startPrometheusEvery(t, scrape)
		waitFor(t, "sample in Prometheus", func() bool { return len(prometheusValues(t, "procnetstat_tcp_listen")) > 0 })

		for reloads := range int64(2) {
			if reloads > 0 {
				tg.signal(syscall.SIGHUP)
				waitFor(t, "start after a reload", func() bool { return strings.Count(tg.log(), "Tags enabled") == 2 })
				tg.gatherAfter(time.Now().UnixNano(), lastMeasurement)
			}
			other := fmt.Sprintf("worker%d", reloads)
			runWorker(t, "worker", blue)
			runWorker(t, other, blue)
			for _, want := range []struct {
				measurement, tag, value string
				increase                int64
			}{
				{"procnetstat_process", "process_name", "worker", (reloads + 1) * burst},
				{"procnetstat_process", "process_name", other, burst},
				{"procnetstat_remote", "process_name", "worker", (reloads + 1) * burst},
				{"procnetstat_remote", "process_name", other, burst},
				{"procnetstat_process", "process_name", "server", (reloads + 1) * 2 * burst},
				{"procnetstat_listener", "process_name", "server", (reloads + 1) * 2 * burst},
				{"procnetstat_client", "process_name", "server", (reloads + 1) * 2 * burst},
				{"procnetstat", "netns", "blue", (reloads + 1) * 4 * burst},
			} {
				for _, field := range []string{"tcp_opened", "tcp_closed"} {
					tg.check()
					requireIncreases(t, db, want.measurement, field, want.tag, want.value, float64(want.increase))
				}
			}
		}
		tg.requireNoErrors()
	})
}

// requireIncreases waits until both databases have this increase of a counter since the start of the test.
func requireIncreases(t *testing.T, db *influxDB, measurement, field, tag, value string, want float64) {
	t.Helper()
	selector := fmt.Sprintf("%s_%s{%s=%q}[5m]", measurement, field, tag, value)
	from := fmt.Sprintf(`FROM %s WHERE "%s" = '%s' GROUP BY *`, measurement, tag, value)
	for what, increase := range map[string]func() float64{
		"Prometheus, the samples of " + selector:                              func() float64 { return prometheusIncrease(t, selector) },
		"InfluxDB, non_negative_difference(" + field + ") " + from:            func() float64 { return db.sum("non_negative_difference("+field+")", from) },
		"InfluxDB, non_negative_derivative(" + field + "), elapsed() " + from: func() float64 { return db.integral(field, from) },
	} {
		var got float64
		waitFor(t, fmt.Sprintf("increase of %v: %s", want, what), func() bool {
			got = increase()
			return got > want-0.5
		})
		if got > want+0.5 {
			t.Errorf("the increase is %v, want %v: %s", got, want, what)
		}
	}
	// increase() extrapolates, by one interval at most.
	values := prometheusValues(t, "sum(increase("+selector+"))")
	if len(values) != 1 {
		t.Errorf("increase(%s) is %v, want one value", selector, values)
	} else if got, err := strconv.ParseFloat(fmt.Sprint(values[0]), 64); err != nil || got < 0.999*want || got > 1.5*want {
		t.Errorf("increase(%s) is %v, want about %v", selector, values[0], want)
	}
}

// prometheusIncrease returns the sum of the increases from sample to sample. A sample below the one before it is that of a counter
// that began anew.
func prometheusIncrease(t *testing.T, selector string) (increase float64) {
	t.Helper()
	var answer struct{ Result []struct{ Values [][2]any } }
	askPrometheus(t, "query?query="+url.QueryEscape(selector), &answer)
	for _, series := range answer.Result {
		var last float64
		for i, sample := range series.Values {
			value, err := strconv.ParseFloat(fmt.Sprint(sample[1]), 64)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case i > 0 && value >= last:
				increase += value - last
			case i > 0:
				increase += value
			}
			last = value
		}
	}
	return increase
}

// sum adds up the values of a column.
func (db *influxDB) sum(column, from string) (sum float64) {
	db.t.Helper()
	for _, value := range db.queryValues("SELECT " + column + " " + from) {
		sum += db.float(value)
	}
	return sum
}

// integral adds up the products of the derivative per second and of the time since the point before.
func (db *influxDB) integral(field, from string) (sum float64) {
	db.t.Helper()
	for _, s := range db.query("SELECT non_negative_derivative(" + field + ", 1s), elapsed(" + field + ", 1ns) " + from) {
		for _, row := range s.Values {
			if row[1] != nil && row[2] != nil {
				sum += db.float(row[1]) * db.float(row[2]) / float64(time.Second)
			}
		}
	}
	return sum
}

func (db *influxDB) float(value any) float64 {
	db.t.Helper()
	f, err := strconv.ParseFloat(fmt.Sprint(value), 64)
	if err != nil {
		db.t.Fatal(err)
	}
	return f
}

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

const victoriaAddress = "127.0.0.1:8428"

// VictoriaMetrics accepts writes of both InfluxDB outputs.
var victoriaOutputs = map[string]string{
	"outputs.influxdb": `
[[outputs.influxdb]]
  urls = ["http://` + victoriaAddress + `"]
  database = "telegraf"
  skip_database_creation = true
  flush_interval = "100ms"
`,
	"outputs.influxdb_v2": `
[[outputs.influxdb_v2]]
  urls = ["http://` + victoriaAddress + `"]
  organization = "none"
  bucket = "telegraf"
  flush_interval = "100ms"
`,
}

// VictoriaMetrics has every value of a gather that Telegraf wrote, with the same names as Prometheus, and with arbitrary process
// names.
func TestVictoriaMetrics(t *testing.T) {
	for name, output := range victoriaOutputs {
		t.Run(name, func(t *testing.T) {
			testnet.Require(t, "victoria-metrics")
			setUp(t)
			program := customTelegraf(t)
			testnet.Isolate(t, func() {
				victoria := startServer(t, "victoria-metrics", "-storageDataPath="+t.TempDir(), "-httpListenAddr="+victoriaAddress)
				waitFor(t, "answer of VictoriaMetrics", func() bool {
					victoria.check()
					answer, err := http.Get("http://" + victoriaAddress + "/health")
					if err != nil {
						return false
					}
					defer answer.Body.Close()
					return answer.StatusCode == http.StatusOK
				})
				p := testnet.Start(t, testnet.Process{Name: serverName})
				p.Connect(p.Listen("tcp4", loopback, 1).Local, 1)
				tg := startTelegraf(t, program, onlyWhenAsked, output+"[[inputs.procnetstat]]\n")
				const gathers = 3
				for range gathers {
					at := tg.gatherAfter(time.Now().UnixNano(), lastMeasurement)
					var want, got gather
					waitFor(t, fmt.Sprintf("gather of %d in VictoriaMetrics", at), func() bool {
						tg.read()
						want = prometheusNames(t, tg.seen)[at/millisecond*millisecond]
						got = victoriaSamples(t)[at/millisecond*millisecond]
						return maps.EqualFunc(got, want, maps.Equal)
					})
				}
			})
		})
	}
}

// victoriaSamples returns all samples of procnetstat in VictoriaMetrics.
func victoriaSamples(t *testing.T) metrics {
	t.Helper()
	export := get(t, victoriaAddress+"/api/v1/export?match[]="+url.QueryEscape(`{__name__=~"procnetstat.*"}`))
	samples := metrics{}
	for decoder := json.NewDecoder(bytes.NewReader(export)); decoder.More(); {
		var series struct {
			Metric     map[string]string
			Values     []int64
			Timestamps []int64 // milliseconds
		}
		if err := decoder.Decode(&series); err != nil {
			t.Fatal(err)
		}
		name := series.Metric["__name__"]
		for _, label := range []string{"__name__", "db"} { // outputs.influxdb adds the database as db
			delete(series.Metric, label)
		}
		for i, at := range series.Timestamps {
			samples.add(at*millisecond, seriesName(name, series.Metric), "value", series.Values[i])
		}
	}
	return samples
}

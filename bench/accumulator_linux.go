package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/logger"
	"github.com/influxdata/telegraf/models"
	"github.com/influxdata/telegraf/plugins/inputs"
	"github.com/influxdata/toml"
)

// tally is an accumulator that keeps nothing but what shows that a plugin did its work.
type tally struct {
	established int // TCP connections, by the host's totals or one by one
	closed      int // since the plugin started
	points      int // of procnetstat_connection
	owners      string
	numbers     int // that were emitted and took an object each
	errs        []error
}

var _ telegraf.Accumulator = (*tally)(nil)

func (t *tally) count(measurement string, fields map[string]any, tags map[string]string) {
	switch measurement {
	case "procnetstat", "netstat":
		t.established += integer(fields["tcp_established"])
		t.closed += integer(fields["tcp_closed"])
	case "procnetstat_gather":
		t.owners = tags["owners"]
	case "procnetstat_connection":
		t.points++
		return
	case "socketstat":
		if fields["state"] == "ESTAB" {
			t.established++
		}
		return
	}
	for _, value := range fields {
		if n := integer(value); n < 0 || n > 255 { // those between are there for all
			t.numbers++
		}
	}
}

func integer(value any) int {
	switch v := value.(type) {
	case int:
		return v
	case int64:
		return int(v)
	}
	return 0
}

// AddFields is for metrics of no type.
func (t *tally) AddFields(measurement string, fields map[string]any, tags map[string]string, _ ...time.Time) {
	t.count(measurement, fields, tags)
}

// AddGauge is for gauges.
func (t *tally) AddGauge(measurement string, fields map[string]any, tags map[string]string, _ ...time.Time) {
	t.count(measurement, fields, tags)
}

// AddCounter is for counters.
func (t *tally) AddCounter(measurement string, fields map[string]any, tags map[string]string, _ ...time.Time) {
	t.count(measurement, fields, tags)
}

// AddSummary is for summaries.
func (t *tally) AddSummary(string, map[string]any, map[string]string, ...time.Time) {}

// AddHistogram is for histograms.
func (t *tally) AddHistogram(string, map[string]any, map[string]string, ...time.Time) {}

// AddMetric is what inputs.procstat uses.
func (t *tally) AddMetric(m telegraf.Metric) {
	if state, _ := m.GetField("state"); m.Name() == "procstat_socket" && state == "established" {
		t.established++
	}
}

// SetPrecision is of no use here.
func (t *tally) SetPrecision(time.Duration) {}

// WithTracking is of no use here.
func (t *tally) WithTracking(int) telegraf.TrackingAccumulator { return nil }

// AddError makes the gather a failure.
func (t *tally) AddError(err error) { t.errs = append(t.errs, err) }

// startPlugin starts an input plugin with options as they stand in telegraf.conf, and gathers from it.
func startPlugin(name, options string) (func() (*tally, error), error) {
	plugin := inputs.Inputs[name]()
	if err := toml.Unmarshal([]byte(options), plugin); err != nil {
		return nil, fmt.Errorf("configuring inputs.%s: %w", name, err)
	}
	models.SetLoggerOnPlugin(plugin, logger.New("inputs", name, ""))
	if p, ok := plugin.(telegraf.Initializer); ok {
		if err := p.Init(); err != nil {
			return nil, fmt.Errorf("configuring inputs.%s: %w", name, err)
		}
	}
	if p, ok := plugin.(telegraf.ServiceInput); ok {
		if err := p.Start(&tally{}); err != nil {
			return nil, fmt.Errorf("starting inputs.%s: %w", name, err)
		}
	}
	return func() (*tally, error) {
		t := &tally{}
		err := plugin.Gather(t)
		return t, errors.Join(append(t.errs, err)...)
	}, nil
}

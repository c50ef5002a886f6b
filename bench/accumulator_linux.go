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

// tally is an accumulator that discards metrics. It keeps only the counts that prove that a plugin did its work.
type tally struct {
	established      int // TCP connections, from the host totals or counted one by one
	closed           int // TCP connections closed since the plugin started
	connectionPoints int // points of procnetstat_connection
	owners           string
	boxedNumbers     int // emitted numbers that took a heap object each
	errs             []error
}

var _ telegraf.Accumulator = (*tally)(nil)

func (t *tally) count(measurement string, fields map[string]any, tags map[string]string) {
	switch measurement {
	case "procnetstat", "netstat":
		t.established += intValue(fields["tcp_established"])
		t.closed += intValue(fields["tcp_closed"])
	case "procnetstat_gather":
		t.owners = tags["owners"]
	case "procnetstat_connection":
		t.connectionPoints++
		return
	case "socketstat":
		if fields["state"] == "ESTAB" {
			t.established++
		}
		return
	}
	for _, value := range fields {
		if n := intValue(value); n < 0 || n > 255 { // Go has preallocated interface values for 0 to 255
			t.boxedNumbers++
		}
	}
}

func intValue(value any) int {
	switch v := value.(type) {
	case int:
		return v
	case int64:
		return int(v)
	}
	return 0
}

// AddFields adds an untyped metric.
func (t *tally) AddFields(measurement string, fields map[string]any, tags map[string]string, _ ...time.Time) {
	t.count(measurement, fields, tags)
}

// AddGauge adds a gauge.
func (t *tally) AddGauge(measurement string, fields map[string]any, tags map[string]string, _ ...time.Time) {
	t.count(measurement, fields, tags)
}

// AddCounter adds a counter.
func (t *tally) AddCounter(measurement string, fields map[string]any, tags map[string]string, _ ...time.Time) {
	t.count(measurement, fields, tags)
}

// AddSummary does nothing: no measured plugin emits summaries.
func (t *tally) AddSummary(string, map[string]any, map[string]string, ...time.Time) {}

// AddHistogram does nothing: no measured plugin emits histograms.
func (t *tally) AddHistogram(string, map[string]any, map[string]string, ...time.Time) {}

// AddMetric adds a complete metric. Only inputs.procstat calls it.
func (t *tally) AddMetric(m telegraf.Metric) {
	if state, _ := m.GetField("state"); m.Name() == "procstat_socket" && state == "established" {
		t.established++
	}
}

// SetPrecision does nothing: metrics are discarded.
func (t *tally) SetPrecision(time.Duration) {}

// WithTracking returns nil: no measured plugin tracks delivery.
func (t *tally) WithTracking(int) telegraf.TrackingAccumulator { return nil }

// AddError fails the gather.
func (t *tally) AddError(err error) { t.errs = append(t.errs, err) }

// startPlugin starts an input plugin with options in the syntax of telegraf.conf. It returns a function that gathers once.
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
		acc := &tally{}
		err := plugin.Gather(acc)
		return acc, errors.Join(append(acc.errs, err)...)
	}, nil
}

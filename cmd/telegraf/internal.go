package main

import (
	_ "embed"
	"runtime"
	"runtime/metrics"
	"strings"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/plugins/inputs"
	"github.com/influxdata/telegraf/selfstat"
)

//go:embed internal.conf
var internalSample string

// internalInput stands in for Telegraf's inputs.internal, which cannot be imported: same options, same metrics. Its
// version tag is right in any build, where Telegraf's says "unknown" outside of Telegraf's own.
type internalInput struct {
	CollectMemstats bool `toml:"collect_memstats"`
	CollectGostats  bool `toml:"collect_gostats"`
	PerInstance     bool `toml:"per_instance"`
}

func init() {
	inputs.Add("internal", func() telegraf.Input { return &internalInput{CollectMemstats: true} })
}

func (*internalInput) SampleConfig() string { return internalSample }

func (in *internalInput) Gather(acc telegraf.Accumulator) error {
	stats := selfstat.Metrics()
	if !in.PerInstance {
		stats = sumInstances(stats)
	}
	for _, m := range stats {
		m.AddTag("version", telegrafVersion())
		if m.Name() == "internal_agent" {
			m.AddTag("go_version", goVersion())
		}
		acc.AddMetric(m)
	}
	if in.CollectMemstats {
		acc.AddFields("internal_memstats", memStats(), nil)
	}
	if in.CollectGostats {
		acc.AddFields("internal_gostats", goStats(), map[string]string{"go_version": goVersion()})
	}
	return nil
}

// sumInstances adds up the statistics of what differs in nothing but the instance of the plugin.
func sumInstances(stats []telegraf.Metric) []telegraf.Metric {
	sums := make([]telegraf.Metric, 0, len(stats))
	byID := make(map[uint64]telegraf.Metric, len(stats))
	for _, m := range stats {
		m.RemoveTag("_id")
		sum, found := byID[m.HashID()]
		if !found {
			byID[m.HashID()] = m
			sums = append(sums, m)
			continue
		}
		for _, field := range m.FieldList() {
			before, _ := sum.GetField(field.Key)
			soFar, _ := before.(int64)
			sum.AddField(field.Key, soFar+field.Value.(int64)) // selfstat has nothing but int64
		}
	}
	return sums
}

func memStats() map[string]any {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return map[string]any{
		"alloc_bytes":         m.Alloc,
		"total_alloc_bytes":   m.TotalAlloc,
		"sys_bytes":           m.Sys,
		"pointer_lookups":     m.Lookups,
		"mallocs":             m.Mallocs,
		"frees":               m.Frees,
		"heap_alloc_bytes":    m.HeapAlloc,
		"heap_sys_bytes":      m.HeapSys,
		"heap_idle_bytes":     m.HeapIdle,
		"heap_in_use_bytes":   m.HeapInuse,
		"heap_released_bytes": m.HeapReleased,
		"heap_objects":        m.HeapObjects,
		"num_gc":              m.NumGC,
	}
}

// goStats reads all metrics of the Go runtime. /gc/heap/frees:bytes becomes gc_heap_frees_bytes; of a histogram, the
// median is taken.
func goStats() map[string]any {
	descriptions := metrics.All()
	samples := make([]metrics.Sample, len(descriptions))
	for i, description := range descriptions {
		samples[i].Name = description.Name
	}
	metrics.Read(samples)

	fieldName := strings.NewReplacer("/", "_", ":", "_", "-", "_")
	fields := make(map[string]any, len(samples))
	for _, sample := range samples {
		name := fieldName.Replace(strings.TrimPrefix(sample.Name, "/"))
		switch sample.Value.Kind() {
		case metrics.KindUint64:
			fields[name] = sample.Value.Uint64()
		case metrics.KindFloat64:
			fields[name] = sample.Value.Float64()
		case metrics.KindFloat64Histogram:
			fields[name] = median(sample.Value.Float64Histogram())
		}
	}
	return fields
}

// median gives the lower bound of the bucket that the median is in.
func median(h *metrics.Float64Histogram) float64 {
	var total uint64
	for _, count := range h.Counts {
		total += count
	}
	var seen uint64
	for i, count := range h.Counts {
		seen += count
		if seen >= total/2 {
			return h.Buckets[i]
		}
	}
	return 0
}

func goVersion() string { return strings.TrimPrefix(runtime.Version(), "go") }

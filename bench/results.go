package main

import (
	"slices"
	"time"
)

// report is all that was measured.
type report struct {
	Date       time.Time `json:"date"`
	Machine    machine   `json:"machine"`
	Versions   []version `json:"versions"`
	Parameters options   `json:"parameters"`
	// OwnNamespace tells that no sockets but those of the load were there.
	OwnNamespace bool      `json:"own_network_namespace"`
	Rows         []*row    `json:"rows"`
	Steady       []*steady `json:"steady_allocations"`
	Targets      []verdict `json:"targets"`
}

type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory_bytes"`
	Kernel string `json:"kernel"`
}

type version struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// row is a subject, and all that it did.
type row struct {
	Name  string `json:"name"`
	Group group  `json:"group"`
	// Floors are the rows that together make up what no program can save.
	Floors []string `json:"floors,omitempty"`
	// Runs are the gathers that count.
	Runs []sample `json:"runs"`
	// Failed says why there are no figures, though there should be; Unavailable why there are none as things are here.
	Failed      string `json:"failed,omitempty"`
	Unavailable string `json:"unavailable,omitempty"`
	Note        string `json:"note,omitempty"`
}

// sample is what one gather cost.
type sample struct {
	Wall time.Duration `json:"wall_ns"`
	CPU  time.Duration `json:"cpu_ns"` // user and system
	// Heap is nil for a program that is not looked into.
	Heap    *heap `json:"heap,omitempty"`
	PeakRSS int64 `json:"peak_rss_bytes"` // since the subject started
	Sockets int   `json:"sockets"`        // that the subject saw
	// Owners is how procnetstat found the owners of sockets, if it told.
	Owners string `json:"owners,omitempty"`
}

// heap is what a gather allocated.
type heap struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// Numbers are those objects that hold a number to emit. Go makes one for each from 256 on.
	Numbers int64 `json:"numbers,omitempty"`
}

// steady is what the gathers of one subject allocate when nothing comes up that it did not know, in objects. Those that hold
// a number are left out, as there are more of them when the numbers are larger.
type steady struct {
	Name string  `json:"name"`
	Few  []int64 `json:"few"`  // with fewSockets
	Many []int64 `json:"many"` // with all sockets
}

func (r *report) row(name string) *row {
	i := slices.IndexFunc(r.Rows, func(r *row) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return r.Rows[i]
}

// cpu returns the CPU time of the rows together, if all of them were measured.
func (r *report) cpu(names ...string) (sum time.Duration, ok bool) {
	for _, name := range names {
		of := r.row(name)
		if of == nil || !of.measured() {
			return 0, false
		}
		sum += of.median().CPU
	}
	return sum, len(names) > 0
}

// failed tells whether a row has no figures that should have some.
func (r *report) failed() bool {
	return slices.ContainsFunc(r.Rows, func(r *row) bool { return r.Failed != "" })
}

func (r *row) measured() bool {
	return r.Failed == "" && r.Unavailable == "" && len(r.Runs) > 0
}

// median returns the median of each column by itself.
func (r *row) median() sample {
	m := sample{
		Wall:    medianOf(r.Runs, func(s sample) time.Duration { return s.Wall }),
		CPU:     medianOf(r.Runs, func(s sample) time.Duration { return s.CPU }),
		PeakRSS: medianOf(r.Runs, func(s sample) int64 { return s.PeakRSS }),
		Sockets: medianOf(r.Runs, func(s sample) int { return s.Sockets }),
	}
	if r.Runs[0].Heap != nil {
		m.Heap = &heap{
			Objects: medianOf(r.Runs, func(s sample) int64 { return s.Heap.Objects }),
			Bytes:   medianOf(r.Runs, func(s sample) int64 { return s.Heap.Bytes }),
		}
	}
	m.Owners = r.Runs[len(r.Runs)-1].Owners
	return m
}

func medianOf[N ~int | ~int64](samples []sample, of func(sample) N) N {
	values := make([]N, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	return median(values)
}

// median returns the value in the middle, or the mean of the two that are there.
func median[N ~int | ~int64](values []N) N {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

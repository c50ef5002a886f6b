package main

import (
	"slices"
	"time"
)

// report is the result of all measurements.
type report struct {
	Date       time.Time `json:"date"`
	Machine    machine   `json:"machine"`
	Versions   []version `json:"versions"`
	Parameters options   `json:"parameters"`
	// OwnNamespace is true if the network namespace had no other sockets than the load.
	OwnNamespace bool           `json:"own_network_namespace"`
	Rows         []*row         `json:"rows"`
	Steady       []*steady      `json:"steady_allocations"`
	Targets      []targetResult `json:"targets"`
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

// row is a subject and its measurements.
type row struct {
	Name  string `json:"name"`
	Group group  `json:"group"`
	// Floors are the floors that do the same work together.
	Floors []string `json:"floors,omitempty"`
	// Runs are the gathers after the warm-up.
	Runs []sample `json:"runs"`
	// Failed is an error. Unavailable is a missing privilege, kernel feature or program. Neither has figures.
	Failed      string `json:"failed,omitempty"`
	Unavailable string `json:"unavailable,omitempty"`
	Note        string `json:"note,omitempty"`
}

// sample is the cost of one gather.
type sample struct {
	Wall time.Duration `json:"wall_ns"`
	CPU  time.Duration `json:"cpu_ns"` // user and system
	// Heap is nil for another program.
	Heap    *heap `json:"heap,omitempty"`
	PeakRSS int64 `json:"peak_rss_bytes"` // since the subject started
	Sockets int   `json:"sockets"`        // seen by the subject
	// BPF is the part of CPU that BPF programs took in the system calls and interrupts of other processes.
	BPF *bpfCost `json:"bpf,omitempty"`
	// Owners is the owner lookup that procnetstat used, if it reports one.
	Owners string `json:"owners,omitempty"`
}

// bpfCost is the cost of the BPF programs that the subject attached.
type bpfCost struct {
	Time time.Duration `json:"cpu_ns"`
	Runs int64         `json:"runs"`
}

// heap has the allocations of a gather.
type heap struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// BoxedNumbers are the objects that hold an emitted number: Go allocates one for each number above 255.
	BoxedNumbers int64 `json:"boxed_numbers,omitempty"`
}

// steady has the objects that gathers of a subject allocate after the warm-up. It excludes BoxedNumbers, which grow with the
// values of the metrics.
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

// cpu returns the sum of the CPU times of rows, if all of them were measured.
func (r *report) cpu(names ...string) (sum time.Duration, ok bool) {
	for _, name := range names {
		row := r.row(name)
		if row == nil || !row.measured() {
			return 0, false
		}
		sum += row.median().CPU
	}
	return sum, len(names) > 0
}

// failed reports whether a row failed.
func (r *report) failed() bool {
	return slices.ContainsFunc(r.Rows, func(r *row) bool { return r.Failed != "" })
}

func (r *row) measured() bool {
	return r.Failed == "" && r.Unavailable == "" && len(r.Runs) > 0
}

// median returns the median of each column separately.
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
	if r.Runs[0].BPF != nil {
		m.BPF = &bpfCost{
			Time: medianOf(r.Runs, func(s sample) time.Duration { return s.BPF.Time }),
			Runs: medianOf(r.Runs, func(s sample) int64 { return s.BPF.Runs }),
		}
	}
	m.Owners = r.Runs[len(r.Runs)-1].Owners
	return m
}

func medianOf[N ~int | ~int64](samples []sample, column func(sample) N) N {
	values := make([]N, len(samples))
	for i, s := range samples {
		values[i] = column(s)
	}
	return median(values)
}

// median returns the middle value, or the mean of the two middle values.
func median[N ~int | ~int64](values []N) N {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newTestReport returns a report whose rows have one gather each. cpu has its CPU time in milliseconds.
func newTestReport(sockets int, cpu map[string]float64) *report {
	r := &report{
		Date:       time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Machine:    machine{CPU: "a CPU", Cores: 2, Memory: 8e9, Kernel: "6.1.0"},
		Versions:   []version{{"go", "1.26"}, {"github.com/influxdata/telegraf", "v1.37.2"}},
		Parameters: options{Sockets: sockets, Processes: 4, Runs: 1},
	}
	groups := map[string]group{
		floorDump: groupFloors, floorInfoDump: groupFloors, floorWalk: groupFloors, floorRead: groupFloors, floorBPF: groupFloors,
		rowNetstat: groupPeers, rowProcstat: groupPeers,
	}
	for _, name := range []string{
		floorDump, floorInfoDump, floorWalk, floorRead, rowHost, rowDefaultsBPF, rowDefaultsProcfs, rowConnectsBare, rowConnects, rowV1,
		rowExecd, rowNetstat, rowProcstat,
	} {
		ms, measured := cpu[name]
		if !measured {
			continue
		}
		row := &row{Name: name, Group: groups[name], Runs: []sample{{CPU: time.Duration(ms * 1e6), PeakRSS: 50e6, Sockets: sockets}}}
		if row.Group == "" {
			row.Group = groupOurs
		}
		r.Rows = append(r.Rows, row)
	}
	return r
}

// passingCPU returns CPU times that just meet all targets.
func passingCPU() map[string]float64 {
	return map[string]float64{
		floorDump: 100, floorInfoDump: 120, floorWalk: 500, floorRead: 300,
		rowHost: 115, rowDefaultsBPF: 180, rowDefaultsProcfs: 775, rowV1: 1000, rowExecd: 190,
		rowConnectsBare: 200, rowConnects: 230,
		rowNetstat: 6300, rowProcstat: 3602,
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []int
		want   int
	}{
		{[]int{7}, 7},
		{[]int{1, 4}, 2},
		{[]int{9, 1, 5}, 5},
		{[]int{1000, 2, 4, 1}, 3},
	} {
		require.Equal(t, tt.want, median(tt.values), "%v", tt.values)
	}
}

func TestMedianPerColumn(t *testing.T) {
	r := row{Runs: []sample{
		{Wall: 1, CPU: 30, Heap: &heap{Objects: 2, Bytes: 10}, PeakRSS: 5, Sockets: 100, BPF: &bpfCost{Time: 7, Runs: 1}},
		{Wall: 2, CPU: 10, Heap: &heap{Objects: 3, Bytes: 30}, PeakRSS: 6, Sockets: 100, BPF: &bpfCost{Time: 8, Runs: 3}},
		{Wall: 9, CPU: 20, Heap: &heap{Objects: 1, Bytes: 20}, PeakRSS: 7, Sockets: 100, BPF: &bpfCost{Time: 9, Runs: 2}},
	}}
	require.Equal(t, sample{
		Wall: 2, CPU: 20, Heap: &heap{Objects: 2, Bytes: 20}, PeakRSS: 6, Sockets: 100, BPF: &bpfCost{Time: 8, Runs: 2},
	}, r.median())
}

func TestTargets(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*report)
		want    map[string]result // of the targets that are not met
		missed  bool
		figures map[string]float64
	}{
		{
			name: "all met", change: func(*report) {},
			figures: map[string]float64{
				rowHost:                                 1.15,
				"inputs.netstat ÷ defaults, BPF owners": 35,
				"allocations of defaults, BPF owners":   1.02,
				"recording 10,000 connects a second":    1,
				"peak RSS of the execd program":         50,
			},
		},
		{
			name: "host missed", change: func(r *report) { r.row(rowHost).Runs[0].CPU += time.Millisecond },
			want: map[string]result{rowHost: missed}, missed: true,
		},
		{
			name: "sums of floors", change: func(r *report) {
				r.row(floorWalk).Runs[0].CPU -= time.Millisecond
			},
			want: map[string]result{
				"defaults, procfs owners": missed, "TCP.Connections() of the v1 API": missed,
			},
			missed: true,
		},
		{
			name: "connects", change: func(r *report) { r.row(rowConnectsBare).Runs[0].CPU -= time.Millisecond },
			want: map[string]result{"recording 10,000 connects a second": missed}, missed: true,
		},
		{
			name: "peers", change: func(r *report) {
				r.row(rowNetstat).Runs[0].CPU -= time.Millisecond
				r.row(rowProcstat).Runs[0].CPU = 3599 * time.Millisecond
			},
			want: map[string]result{
				"inputs.netstat ÷ defaults, BPF owners":                   missed,
				"defaults, BPF owners ÷ inputs.procstat for each process": missed,
			},
			missed: false, // peers are not part of the exit code
		},
		{
			name: "memory", change: func(r *report) {
				r.row(rowExecd).Runs[0].PeakRSS = maxExecdRSS + 1
				r.Steady[0].Many = []int64{1021}
			},
			want: map[string]result{
				"peak RSS of the execd program": missed, "allocations of defaults, BPF owners": missed,
			},
			missed: true,
		},
		{
			name: "not measured", change: func(r *report) {
				r.row(rowHost).Failed = "failure"
				r.row(floorWalk).Unavailable = "not here"
				r.row(rowConnectsBare).Unavailable = "not here"
				r.row(rowExecd).Runs = nil
				r.Steady[1].Many = nil
				r.Steady = r.Steady[1:]
			},
			want: map[string]result{
				rowHost:                                  notMeasured,
				"defaults, procfs owners":                notMeasured,
				"TCP.Connections() of the v1 API":        notMeasured,
				"allocations of defaults, BPF owners":    notMeasured,
				"allocations of defaults, procfs owners": notMeasured,
				"recording 10,000 connects a second":     notMeasured,
				"peak RSS of the execd program":          notMeasured,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newTestReport(minTargetSockets, passingCPU())
			r.Steady = []*steady{
				{Name: rowDefaultsBPF, Few: []int64{1000, 1, 2000}, Many: []int64{1, 1020, 3000}},
				{Name: rowDefaultsProcfs, Few: []int64{1000}, Many: []int64{900}},
			}
			tt.change(r)
			r.evaluateTargets()
			require.Len(t, r.Targets, len(targets))
			for _, v := range r.Targets {
				want := met
				if other, ok := tt.want[v.What]; ok {
					want = other
				}
				require.Equal(t, want, v.Result, v.What)
				require.Equal(t, want == notMeasured, v.Figure == nil, v.What)
				if figure, ok := tt.figures[v.What]; ok {
					require.InDelta(t, figure, *v.Figure, 1e-9, v.What)
				}
			}
			require.Equal(t, tt.missed, r.missed())
			for name := range tt.want {
				require.Contains(t, r.text(), name)
			}
		})
	}
}

func TestRelations(t *testing.T) {
	for r, want := range map[relation][3]bool{
		atMost:  {true, true, false},
		atLeast: {false, true, true},
		below:   {true, false, false},
	} {
		for i, figure := range []float64{1, 2, 3} {
			require.Equal(t, want[i], r.holds(figure, 2), "%v %s 2", figure, r)
		}
	}
}

func TestTargetsNotEvaluated(t *testing.T) {
	cpu := passingCPU()
	cpu[rowHost] *= 10
	r := newTestReport(minTargetSockets-2, cpu)
	r.evaluateTargets()
	require.False(t, r.missed())
	require.Equal(t, notEvaluated, r.Targets[0].Result)
	require.InDelta(t, 11.5, *r.Targets[0].Figure, 1e-9)

	r = newTestReport(defaultSockets+2, passingCPU())
	r.row(rowExecd).Runs[0].PeakRSS *= 2
	r.evaluateTargets()
	require.False(t, r.missed())
	require.Equal(t, met, r.Targets[0].Result)
	require.Equal(t, notEvaluated, r.Targets[len(r.Targets)-1].Result)
}

func TestJSON(t *testing.T) {
	r := newTestReport(minTargetSockets, passingCPU())
	r.OwnNamespace = true
	r.Steady = []*steady{{Name: rowDefaultsBPF, Few: []int64{3}, Many: []int64{4}}}
	r.row(rowHost).Runs[0].Heap = &heap{Objects: 1, Bytes: 2, BoxedNumbers: 1}
	r.row(rowExecd).Runs[0].Owners = "bpf"
	r.row(rowConnects).Runs[0].BPF = &bpfCost{Time: 3, Runs: 4}
	r.row(rowV1).Failed = "failure"
	r.evaluateTargets()
	encoded, err := json.Marshal(r)
	require.NoError(t, err)
	decoded := &report{}
	require.NoError(t, json.Unmarshal(encoded, decoded))
	require.Equal(t, r, decoded)
}

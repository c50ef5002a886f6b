package main

// minTargetSockets is the number of sockets below which targets are not evaluated: the fixed cost of a gather dominates.
const minTargetSockets = 100000

// allocationTolerance is the allowed growth of allocations: those of the Go runtime itself vary.
const allocationTolerance = 0.02

// defaultSockets is the default load, for which limits that grow with the number of sockets are set.
const defaultSockets = 120000

// maxExecdRSS is in bytes.
const maxExecdRSS = 60e6

// target is a limit of the cost of procnetstat.
type target struct {
	what string
	// figure returns the measured figure, and false if there is none.
	figure   func(*report) (float64, bool)
	relation relation
	limit    float64
	unit     string
	// maxSockets is the largest load that the limit applies to; 0 is any.
	maxSockets int
	// dependsOnPeers is true if the figure depends on the cost of peers too. A miss then does not fail the run.
	dependsOnPeers bool
}

// relation is the required relation of a figure to its limit.
type relation string

const (
	atMost  relation = "≤"
	atLeast relation = "≥"
	below   relation = "<"
)

// targetResult is an evaluated target.
type targetResult struct {
	What           string   `json:"what"`
	Figure         *float64 `json:"figure,omitempty"`
	Relation       relation `json:"relation"`
	Limit          float64  `json:"limit"`
	Unit           string   `json:"unit"`
	Result         result   `json:"result"`
	DependsOnPeers bool     `json:"depends_on_peers,omitempty"`
}

type result string

const (
	met          result = "met"
	missed       result = "MISSED"
	notMeasured  result = "not measured"
	notEvaluated result = "not evaluated"
)

var targets = []target{
	{
		what: rowHost, figure: ratio(rowHost, 1, floorDump),
		relation: atMost, limit: 1.15, unit: "× " + joinFloors(floorDump),
	},
	{
		what: "defaults, BPF owners", figure: ratio(rowDefaultsBPF, 1, floorInfoDump),
		relation: atMost, limit: 1.5, unit: "× " + joinFloors(floorInfoDump),
	},
	{
		what: "defaults, procfs owners", figure: ratio(rowDefaultsProcfs, 1, floorInfoDump, floorWalk),
		relation: atMost, limit: 1.25, unit: "× " + joinFloors(floorInfoDump, floorWalk),
	},
	{
		what: "TCP.Connections() of the v1 API", figure: ratio(rowV1, 1, floorRead, floorWalk),
		relation: atMost, limit: 1.25, unit: "× " + joinFloors(floorRead, floorWalk),
	},
	{
		what: "inputs.netstat ÷ defaults, BPF owners", figure: ratio(rowNetstat, 1, rowDefaultsBPF),
		relation: atLeast, limit: 35, dependsOnPeers: true,
	},
	{
		what:   "defaults, BPF owners ÷ inputs.procstat for each process",
		figure: ratio(rowDefaultsBPF, procstatProcesses, rowProcstat), relation: below, limit: 0.1, dependsOnPeers: true,
	},
	{
		what: "allocations of defaults, BPF owners", figure: steadyGrowth(rowDefaultsBPF),
		relation: atMost, limit: 1 + allocationTolerance, unit: unitFewSockets,
	},
	{
		what: "allocations of defaults, procfs owners", figure: steadyGrowth(rowDefaultsProcfs),
		relation: atMost, limit: 1 + allocationTolerance, unit: unitFewSockets,
	},
	{
		what: "recording 10,000 connects a second", figure: connectsShare,
		relation: atMost, limit: 1, unit: "% of a core",
	},
	{
		what: "peak RSS of the execd program", figure: peakRSS(rowExecd),
		relation: atMost, limit: maxExecdRSS / 1e6, unit: "MB", maxSockets: defaultSockets,
	},
}

var unitFewSockets = "× with " + formatCount(fewSockets) + " sockets"

// ratio returns the CPU time of a row divided by the sum of the CPU times of others. repetitions is how many times the others
// do the same work in a gather.
func ratio(row string, repetitions float64, denominators ...string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		cpu, ok := r.cpu(row)
		base, okBase := r.cpu(denominators...)
		if !ok || !okBase || base == 0 {
			return 0, false
		}
		return cpu.Seconds() / (base.Seconds() / repetitions), true
	}
}

// The load of the rows about connects.
const (
	connectsRate    = 10_000 // per second
	connectsSeconds = 3
	connects        = connectsRate * connectsSeconds
)

// connectsShare returns the percentage of a core that recording connects adds.
func connectsShare(r *report) (float64, bool) {
	with, ok := r.cpu(rowConnects)
	without, okBare := r.cpu(rowConnectsBare)
	return 100 * (with - without).Seconds() / connectsSeconds, ok && okBare
}

// steadyGrowth returns the allocations with all sockets divided by those with few.
func steadyGrowth(name string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		for _, s := range r.Steady {
			if s.Name == name && len(s.Few) > 0 && len(s.Many) > 0 {
				few := median(s.Few)
				return float64(median(s.Many)) / float64(few), few > 0
			}
		}
		return 0, false
	}
}

// peakRSS returns the peak RSS of a row in MB.
func peakRSS(name string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		row := r.row(name)
		if row == nil || !row.measured() {
			return 0, false
		}
		return float64(row.median().PeakRSS) / 1e6, true
	}
}

func (r *report) evaluateTargets() {
	r.Targets = nil
	for _, t := range targets {
		r.Targets = append(r.Targets, t.evaluate(r))
	}
}

func (t target) evaluate(r *report) targetResult {
	v := targetResult{
		What: t.what, Relation: t.relation, Limit: t.limit, Unit: t.unit, DependsOnPeers: t.dependsOnPeers, Result: notMeasured,
	}
	figure, ok := t.figure(r)
	if !ok {
		return v
	}
	v.Figure = &figure
	switch {
	case r.Parameters.Sockets < minTargetSockets, t.maxSockets > 0 && r.Parameters.Sockets > t.maxSockets:
		v.Result = notEvaluated
	case t.relation.holds(figure, t.limit):
		v.Result = met
	default:
		v.Result = missed
	}
	return v
}

func (r relation) holds(figure, limit float64) bool {
	switch r {
	case atMost:
		return figure <= limit
	case atLeast:
		return figure >= limit
	default:
		return figure < limit
	}
}

// missed reports whether a target is missed that depends on procnetstat alone.
func (r *report) missed() bool {
	for _, v := range r.Targets {
		if v.Result == missed && !v.DependsOnPeers {
			return true
		}
	}
	return false
}

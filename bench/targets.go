package main

// judgedFrom is the number of sockets from which on targets are judged: with fewer, what every gather costs is most of it.
const judgedFrom = 100000

// steadySpare is the part by which allocations may differ, as those of Go's runtime itself vary.
const steadySpare = 0.02

// usualSockets is what limits that grow with the sockets are meant for.
const usualSockets = 120000

// maxExecdRSS is in bytes.
const maxExecdRSS = 60e6

// target is what procnetstat holds itself to.
type target struct {
	what string
	// figure returns what was measured; false if it was not.
	figure   func(*report) (float64, bool)
	relation relation
	limit    float64
	unit     string
	// upTo is the number of sockets that the limit is meant for, if not for any.
	upTo int
	// ofPeers says that it depends on what others cost too, so that to miss it is no failure of the run.
	ofPeers bool
}

// relation is how a figure has to be to its limit.
type relation string

const (
	atMost  relation = "≤"
	atLeast relation = "≥"
	below   relation = "<"
)

// verdict is what came of a target.
type verdict struct {
	What     string   `json:"what"`
	Figure   *float64 `json:"figure,omitempty"`
	Relation relation `json:"relation"`
	Limit    float64  `json:"limit"`
	Unit     string   `json:"unit"`
	Result   result   `json:"result"`
	OfPeers  bool     `json:"of_peers,omitempty"`
}

type result string

const (
	met         result = "met"
	missed      result = "MISSED"
	notMeasured result = "not measured"
	notJudged   result = "not judged"
)

var targets = []target{
	{
		what: "host only", figure: ratio(rowHost, 1, floorDump),
		relation: atMost, limit: 1.15, unit: "× " + joinFloors(floorDump),
	},
	{
		what: "defaults with TCP details, BPF owners", figure: ratio(rowDefaultsBPF, 1, floorInfoDump),
		relation: atMost, limit: 1.5, unit: "× " + joinFloors(floorInfoDump),
	},
	{
		what: "defaults with TCP details, procfs owners", figure: ratio(rowDefaultsProcfs, 1, floorInfoDump, floorWalk),
		relation: atMost, limit: 1.25, unit: "× " + joinFloors(floorInfoDump, floorWalk),
	},
	{
		what: "TCP.Connections() of the v1 API", figure: ratio(rowV1, 1, floorRead, floorWalk),
		relation: atMost, limit: 1.25, unit: "× " + joinFloors(floorRead, floorWalk),
	},
	{
		what: "inputs.netstat ÷ defaults, BPF owners", figure: ratio(rowNetstat, 1, rowDefaultsBPF),
		relation: atLeast, limit: 35, ofPeers: true,
	},
	{
		what:   "defaults, BPF owners ÷ inputs.procstat for each process",
		figure: ratio(rowDefaultsBPF, procstatProcesses, rowProcstat), relation: below, limit: 0.1, ofPeers: true,
	},
	{
		what: "allocations of defaults, BPF owners", figure: steadyGrowth(rowDefaultsBPF),
		relation: atMost, limit: 1 + steadySpare, unit: timesFew,
	},
	{
		what: "allocations of defaults, procfs owners", figure: steadyGrowth(rowDefaultsProcfs),
		relation: atMost, limit: 1 + steadySpare, unit: timesFew,
	},
	{
		what: "peak RSS of the execd program", figure: peakRSS(rowExecd),
		relation: atMost, limit: maxExecdRSS / 1e6, unit: "MB", upTo: usualSockets,
	},
}

var timesFew = "× those with " + count(fewSockets) + " sockets"

// ratio is the CPU time of a row to that of others together. If each gather of these does the same several times over,
// times is how often.
func ratio(row string, times float64, to ...string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		cpu, ok := r.cpu(row)
		base, okBase := r.cpu(to...)
		if !ok || !okBase || base == 0 {
			return 0, false
		}
		return cpu.Seconds() / (base.Seconds() / times), true
	}
}

// steadyGrowth is how many times as many objects are allocated with all sockets as with few.
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

// peakRSS is in MB.
func peakRSS(name string) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		of := r.row(name)
		if of == nil || !of.measured() {
			return 0, false
		}
		return float64(of.median().PeakRSS) / 1e6, true
	}
}

// judge judges all targets.
func (r *report) judge() {
	r.Targets = nil
	for _, t := range targets {
		r.Targets = append(r.Targets, t.judge(r))
	}
}

func (t target) judge(r *report) verdict {
	v := verdict{What: t.what, Relation: t.relation, Limit: t.limit, Unit: t.unit, OfPeers: t.ofPeers, Result: notMeasured}
	figure, ok := t.figure(r)
	if !ok {
		return v
	}
	v.Figure = &figure
	switch {
	case r.Parameters.Sockets < judgedFrom, t.upTo > 0 && r.Parameters.Sockets > t.upTo:
		v.Result = notJudged
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

// missed tells whether procnetstat costs more than it should.
func (r *report) missed() bool {
	for _, v := range r.Targets {
		if v.Result == missed && !v.OfPeers {
			return true
		}
	}
	return false
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

const (
	// gatherLimit is the timeout of a gather.
	gatherLimit = 15 * time.Minute
	// steadyWarmUp is the number of gathers until buffers and caches have their final size.
	steadyWarmUp = 2
	// steadyGathers is the number of gathers after that which count.
	steadyGathers = 5
)

// steadyRows are the rows whose allocations are measured with few and with many sockets.
var steadyRows = []string{rowDefaultsBPF, rowDefaultsProcfs}

// bench is a measurement.
type bench struct {
	*report
	opts     *options
	load     *load
	subjects []*running
}

// running is a subject with its process and its results.
type running struct {
	subject
	row     *row
	process *child
}

// measure creates the load and measures the rows that the options select.
func measure(ctx context.Context, opts *options) (*report, error) {
	b := &bench{opts: opts, report: &report{
		Date:         time.Now().UTC().Truncate(time.Second),
		Machine:      readMachine(),
		Versions:     versions(ctx),
		Parameters:   *opts,
		OwnNamespace: os.Getenv(namespaceEnv) == ownNamespace,
	}}
	defer b.kill()
	for _, step := range []func(context.Context) error{
		b.startProcesses, b.measureAllocationsOfFew, b.measureOwnLoads, b.growLoad, b.measureLoad, b.measureAllocationsOfMany,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	b.evaluateTargets()
	return b.report, nil
}

func progressf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func (b *bench) kill() {
	for _, s := range b.subjects {
		s.process.kill()
	}
	if b.load != nil {
		b.load.kill()
	}
}

func (b *bench) startProcesses(ctx context.Context) (err error) {
	if b.load, err = startLoad(ctx, b.opts.Processes); err != nil {
		return err
	}
	for _, s := range subjects {
		if !b.opts.selects(s.name, s.group) {
			continue
		}
		encoded, err := json.Marshal(task{s.name, b.opts.Sockets, b.load.pids(), b.opts.execd})
		if err != nil {
			return err
		}
		process, err := startChild(ctx, roleSubject, s.name, taskEnv+"="+string(encoded))
		if err != nil {
			return err
		}
		r := &row{Name: s.name, Group: s.group, Floors: s.floors, Note: s.note}
		b.Rows = append(b.Rows, r)
		b.subjects = append(b.subjects, &running{s, r, process})
	}
	if len(b.subjects) == 0 {
		return errors.New("-only matches no row")
	}
	return nil
}

// measureAllocationsOfFew measures allocations with few sockets. It does nothing if the load has no more than those.
func (b *bench) measureAllocationsOfFew(ctx context.Context) error {
	if b.opts.Sockets <= fewSockets {
		return nil
	}
	if err := b.load.growTo(ctx, fewSockets); err != nil {
		return err
	}
	for _, name := range steadyRows {
		if s := b.findRunning(name); s != nil {
			progressf("%s, with %d sockets", name, fewSockets)
			b.Steady = append(b.Steady, &steady{Name: name, Few: b.allocations(ctx, s, fewSockets)})
		}
	}
	return nil
}

func (b *bench) measureAllocationsOfMany(ctx context.Context) error {
	for _, s := range b.Steady {
		progressf("%s, with %d sockets", s.Name, b.opts.Sockets)
		s.Many = b.allocations(ctx, b.findRunning(s.Name), b.opts.Sockets)
	}
	return ctx.Err()
}

// allocations returns how many objects each gather allocates after the warm-up, or nil if a gather fails.
func (b *bench) allocations(ctx context.Context, s *running, sockets int) (objects []int64) {
	for i := range steadyWarmUp + steadyGathers {
		result, ok := b.gather(ctx, s, sockets)
		if !ok {
			return nil
		}
		if i >= steadyWarmUp {
			objects = append(objects, result.Heap.Objects-result.Heap.BoxedNumbers)
		}
	}
	return objects
}

func (b *bench) growLoad(ctx context.Context) error {
	progressf("making %d sockets in %d processes", b.opts.Sockets, b.opts.Processes)
	return b.load.growTo(ctx, b.opts.Sockets)
}

// measureOwnLoads measures the subjects that make connections themselves. The load is small yet, so that the cost of gathering
// it hardly matters.
func (b *bench) measureOwnLoads(ctx context.Context) error {
	return b.measureRounds(ctx, func(s *running) bool { return s.ownLoad })
}

func (b *bench) measureLoad(ctx context.Context) error {
	return b.measureRounds(ctx, func(s *running) bool { return !s.ownLoad })
}

// measureRounds lets subjects gather in turns, so that a disturbance of the machine affects all of them.
func (b *bench) measureRounds(ctx context.Context, selects func(*running) bool) error {
	subjects := slices.DeleteFunc(slices.Clone(b.subjects), func(s *running) bool { return !selects(s) })
	if len(subjects) == 0 {
		return nil
	}
	for round := range b.opts.Runs + 1 {
		progressf("round %d of %d", round, b.opts.Runs)
		for _, s := range subjects {
			result, ok := b.gather(ctx, s, b.opts.Sockets)
			if ok && round > 0 { // round 0 is the warm-up
				s.row.Runs = append(s.row.Runs, result)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// gather lets a subject gather once, unless it has failed before.
func (b *bench) gather(ctx context.Context, s *running, sockets int) (result sample, ok bool) {
	if s.row.Failed != "" || s.row.Unavailable != "" || ctx.Err() != nil {
		return result, false
	}
	var reply subjectReply
	err := s.process.call(struct{}{}, &reply, gatherLimit)
	if err == nil && reply.Failed == "" && reply.Unavailable == "" {
		err = b.check(s, reply.Sample, sockets)
	}
	if err != nil {
		reply.Failed = err.Error()
	}
	s.row.Failed, s.row.Unavailable = reply.Failed, reply.Unavailable
	if reply.Failed != "" && ctx.Err() == nil {
		progressf("%s: %s", s.name, reply.Failed)
	}
	return reply.Sample, reply.Failed == "" && reply.Unavailable == ""
}

// check checks the number of sockets that the subject saw.
func (b *bench) check(s *running, result sample, sockets int) error {
	if s.name == rowProcstat {
		sockets = 0
		for _, p := range b.load.pairs[:procstatProcesses/2] {
			sockets += 2 * p.connections
		}
	}
	switch {
	case s.ownLoad:
		return nil
	case result.Sockets < sockets:
		return fmt.Errorf("saw %d of %d sockets", result.Sockets, sockets)
	case result.Sockets > sockets && s.exact && b.OwnNamespace:
		return fmt.Errorf("saw %d sockets, but there are only %d", result.Sockets, sockets)
	}
	return nil
}

func (b *bench) findRunning(name string) *running {
	for _, s := range b.subjects {
		if s.name == name {
			return s
		}
	}
	return nil
}

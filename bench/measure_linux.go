package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	// gatherLimit is for a gather, or else the subject has failed.
	gatherLimit = 15 * time.Minute
	// steadyWarmUp is how many gathers it takes until nothing is new.
	steadyWarmUp = 2
	// steadyGathers is how many count then.
	steadyGathers = 5
)

// steadyRows are the rows whose allocations are measured with few sockets too.
var steadyRows = []string{rowDefaultsBPF, rowDefaultsProcfs}

// bench is a measurement.
type bench struct {
	*report
	opts     *options
	load     *load
	subjects []*running
}

// running is a subject that is being measured.
type running struct {
	subject
	row     *row
	process *child
}

// measure makes the load and measures all that the options want.
func measure(ctx context.Context, opts *options) (*report, error) {
	b := &bench{opts: opts, report: &report{
		Date:         time.Now().UTC().Truncate(time.Second),
		Machine:      thisMachine(),
		Versions:     versions(ctx),
		Parameters:   *opts,
		OwnNamespace: os.Getenv(namespaceEnv) == ownNamespace,
	}}
	defer b.end()
	for _, step := range []func(context.Context) error{
		b.startAll, b.steadyWithFew, b.growToAll, b.rounds, b.steadyWithMany,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	b.judge()
	return b.report, nil
}

func progressf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func (b *bench) end() {
	for _, s := range b.subjects {
		s.process.end()
	}
	if b.load != nil {
		b.load.end()
	}
}

// startAll starts the processes of the load, and those of the subjects.
func (b *bench) startAll(ctx context.Context) (err error) {
	if b.load, err = startLoad(ctx, b.opts.Processes); err != nil {
		return err
	}
	for _, s := range subjects {
		if !b.opts.wants(s.name, s.group) {
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
		of := &row{Name: s.name, Group: s.group, Floors: s.floors, Note: s.note}
		b.Rows = append(b.Rows, of)
		b.subjects = append(b.subjects, &running{s, of, process})
	}
	if len(b.subjects) == 0 {
		return errors.New("-only: no row has such a name")
	}
	return nil
}

// steadyWithFew measures what gathers allocate while there are few sockets. If there will not be more, it is not measured.
func (b *bench) steadyWithFew(ctx context.Context) error {
	if b.opts.Sockets <= fewSockets {
		return nil
	}
	if err := b.load.grow(ctx, fewSockets); err != nil {
		return err
	}
	for _, name := range steadyRows {
		if s := b.running(name); s != nil {
			progressf("%s, with %d sockets", name, fewSockets)
			b.Steady = append(b.Steady, &steady{Name: name, Few: b.allocations(ctx, s, fewSockets)})
		}
	}
	return nil
}

func (b *bench) steadyWithMany(ctx context.Context) error {
	for _, of := range b.Steady {
		progressf("%s, with %d sockets", of.Name, b.opts.Sockets)
		of.Many = b.allocations(ctx, b.running(of.Name), b.opts.Sockets)
	}
	return ctx.Err()
}

// allocations returns how many objects each gather allocates, when it has become steady; nothing if one failed.
func (b *bench) allocations(ctx context.Context, s *running, sockets int) (objects []int64) {
	for i := range steadyWarmUp + steadyGathers {
		of, ok := b.gather(ctx, s, sockets)
		if !ok {
			return nil
		}
		if i >= steadyWarmUp {
			objects = append(objects, of.Heap.Objects-of.Heap.Numbers)
		}
	}
	return objects
}

func (b *bench) growToAll(ctx context.Context) error {
	progressf("making %d sockets in %d processes", b.opts.Sockets, b.opts.Processes)
	return b.load.grow(ctx, b.opts.Sockets)
}

// rounds has the subjects gather in turns, so that what disturbs the machine for a while disturbs all of them.
func (b *bench) rounds(ctx context.Context) error {
	for round := range b.opts.Runs + 1 {
		progressf("round %d of %d", round, b.opts.Runs)
		for _, s := range b.subjects {
			of, ok := b.gather(ctx, s, b.opts.Sockets)
			if ok && round > 0 { // the first warms up
				s.row.Runs = append(s.row.Runs, of)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// gather has a subject gather once, unless it has failed before.
func (b *bench) gather(ctx context.Context, s *running, sockets int) (of sample, ok bool) {
	if s.row.Failed != "" || s.row.Unavailable != "" || ctx.Err() != nil {
		return of, false
	}
	var reply subjectReply
	err := s.process.ask(struct{}{}, &reply, gatherLimit)
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

// check checks that the subject saw what there is.
func (b *bench) check(s *running, of sample, sockets int) error {
	if s.name == rowProcstat {
		sockets = 0
		for _, p := range b.load.pairs[:procstatProcesses/2] {
			sockets += 2 * p.connections
		}
	}
	switch {
	case of.Sockets < sockets:
		return fmt.Errorf("it saw %d sockets of %d", of.Sockets, sockets)
	case of.Sockets > sockets && s.exact && b.OwnNamespace:
		return fmt.Errorf("it saw %d sockets, and there are %d", of.Sockets, sockets)
	}
	return nil
}

func (b *bench) running(name string) *running {
	for _, s := range b.subjects {
		if s.name == name {
			return s
		}
	}
	return nil
}

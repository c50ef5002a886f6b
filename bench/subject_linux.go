package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// subject is what a row measures.
type subject struct {
	name   string
	group  group
	floors []string
	// exact tells that it counts the established TCP connections of the network namespace and nothing else.
	exact bool
	note  string
	start func(task) (gather, error)
}

// gather gathers once, and tells what that cost.
type gather func() (sample, error)

// task is what a subject is told.
type task struct {
	Subject string
	Sockets int   // of the load, when it is complete
	PIDs    []int // of the load: server, client, server, …
	Execd   string
}

// taskEnv has the task of a subject process.
const taskEnv = "BENCH_TASK"

// subjectReply answers each request for a gather.
type subjectReply struct {
	Sample      sample
	Failed      string
	Unavailable string
}

// unavailableError is one that is no failure: what is to be measured is not to be had here.
type unavailableError struct{ error }

func unavailable(err error) error { return unavailableError{err} }

func (e unavailableError) Unwrap() error { return e.error }

// serveSubject is the process of a subject. After a failure there is no other gather.
func serveSubject(in io.Reader, out io.Writer) error {
	var t task
	if err := json.Unmarshal([]byte(os.Getenv(taskEnv)), &t); err != nil {
		return fmt.Errorf("reading the task: %w", err)
	}
	s := findSubject(t.Subject)
	if s == nil {
		return fmt.Errorf("no subject %q", t.Subject)
	}
	do, err := s.start(t)
	return serve(in, out, func(struct{}) (reply subjectReply) {
		if err == nil {
			reply.Sample, err = do()
		}
		switch {
		case errors.As(err, &unavailableError{}):
			reply.Unavailable = err.Error()
		case err != nil:
			reply.Failed = err.Error()
		}
		return reply
	})
}

// inProcess is a gather by this very process. Programs that it runs and waits for count as its CPU time, and not as its
// memory. Garbage is collected when Go does so, as in real life; what is left of a collection when the gather ends is
// not counted.
func inProcess(do func() (sockets int, err error)) gather {
	return func() (s sample, err error) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cpu, begin := cpuTime(), time.Now()
		s.Sockets, err = do()
		s.Wall, s.CPU = time.Since(begin), cpuTime()-cpu
		runtime.ReadMemStats(&after)
		s.Heap = &heap{Objects: int64(after.Mallocs - before.Mallocs), Bytes: int64(after.TotalAlloc - before.TotalAlloc)}
		if err == nil {
			s.PeakRSS, err = peakRSSOf("self")
		}
		return s, err
	}
}

// cpuTime is what this process has used so far, with those of its children that have ended.
func cpuTime() time.Duration {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		_ = unix.Getrusage(who, &usage) // it fails for another who only
		sum += usage.Utime.Nano() + usage.Stime.Nano()
	}
	return time.Duration(sum)
}

// peakRSSOf returns VmHWM of a process, in bytes.
func peakRSSOf(pid string) (int64, error) {
	file := "/proc/" + pid + "/status"
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	_, after, found := strings.Cut(string(text), "\nVmHWM:")
	value, _, _ := strings.Cut(strings.TrimSpace(after), " kB")
	if !found {
		return 0, fmt.Errorf("%s has no VmHWM", file)
	}
	kB, err := strconv.ParseInt(value, 10, 64)
	return kB << 10, err
}

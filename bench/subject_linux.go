package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// subject is a program or library that a row measures.
type subject struct {
	name   string
	group  group
	floors []string
	// exact is true if the subject counts only the established TCP connections of the network namespace.
	exact bool
	// ownLoad is true if the subject makes connections itself and checks that it sees them, not those of the load.
	ownLoad bool
	note    string
	start   func(task) (gather, error)
}

var subjects = slices.Concat(floors, ours, peers)

func findSubject(name string) *subject {
	i := slices.IndexFunc(subjects, func(s subject) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	return &subjects[i]
}

// gather gathers once, and returns the cost.
type gather func() (sample, error)

// task has the parameters of a subject process.
type task struct {
	Subject string
	Sockets int   // of the complete load
	PIDs    []int // of the load: server, client, server, …
	Execd   string
}

// taskEnv is the environment variable with the task of a subject process.
const taskEnv = "BENCH_TASK"

// subjectReply is the reply to a request for a gather.
type subjectReply struct {
	Sample      sample
	Failed      string
	Unavailable string
}

// unavailableError is a missing privilege, kernel feature or program. The row is skipped, and the run does not fail.
type unavailableError struct{ error }

func unavailable(err error) error { return unavailableError{err} }

func (e unavailableError) Unwrap() error { return e.error }

// serveSubject is the main function of a subject process. After an error it replies with that error only.
func serveSubject(in io.Reader, out io.Writer) error {
	var t task
	if err := json.Unmarshal([]byte(os.Getenv(taskEnv)), &t); err != nil {
		return fmt.Errorf("reading the task: %w", err)
	}
	s := findSubject(t.Subject)
	if s == nil {
		return fmt.Errorf("unknown subject %q", t.Subject)
	}
	gatherOnce, err := s.start(t)
	return serve(in, out, func(struct{}) (reply subjectReply) {
		if err == nil {
			reply.Sample, err = gatherOnce()
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

// measureInProcess measures a gather of this process. The CPU time includes exited child processes; the memory does not. The
// garbage collector runs as usual; what it does after the gather is not counted.
func measureInProcess(run func() (sockets int, err error)) gather {
	return func() (s sample, err error) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cpu, begin := ownCPUTime(), time.Now()
		s.Sockets, err = run()
		s.Wall, s.CPU = time.Since(begin), ownCPUTime()-cpu
		runtime.ReadMemStats(&after)
		s.Heap = &heap{Objects: int64(after.Mallocs - before.Mallocs), Bytes: int64(after.TotalAlloc - before.TotalAlloc)}
		if err == nil {
			s.PeakRSS, err = readPeakRSS("self")
		}
		return s, err
	}
}

// ownCPUTime returns the CPU time of this process and of its exited children.
func ownCPUTime() time.Duration {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		_ = unix.Getrusage(who, &usage) // fails only if who is invalid
		sum += usage.Utime.Nano() + usage.Stime.Nano()
	}
	return time.Duration(sum)
}

// readPeakRSS reads the peak resident set size (VmHWM) of a process, in bytes.
func readPeakRSS(pid string) (int64, error) {
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

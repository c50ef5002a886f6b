package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// execd is the execd program, which gathers at each line of its standard input.
type execd struct {
	process *os.Process
	in      io.Writer
	out     *bufio.Reader
}

func startExecd(t task) (gather, error) {
	if t.Execd == "" {
		return nil, unavailable(errors.New("no -execd given"))
	}
	cmd := exec.Command(t.Execd, "-poll_interval_disabled") //nolint:noctx // it ends when its standard input does
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("-execd: %w", err)
		}
		return nil, err
	}
	e := &execd{cmd.Process, in, bufio.NewReaderSize(out, bufferSize)}
	return e.gather, nil
}

func (e *execd) gather() (s sample, err error) {
	before, err := cpuTimeOf(e.process.Pid)
	if err != nil {
		return s, err
	}
	begin := time.Now()
	if _, err := io.WriteString(e.in, "\n"); err != nil {
		return s, fmt.Errorf("asking the program for a gather: %w", err)
	}
	if err := e.read(&s); err != nil {
		return s, fmt.Errorf("reading what the program prints: %w", err)
	}
	s.Wall = time.Since(begin)
	after, err := cpuTimeOf(e.process.Pid)
	if err != nil {
		return s, err
	}
	s.CPU = after - before
	s.PeakRSS, err = peakRSSOf(strconv.Itoa(e.process.Pid))
	return s, err
}

// read reads up to the last metric of a gather, and takes from the metrics what they tell of it.
func (e *execd) read(s *sample) error {
	for {
		line, err := e.out.ReadString('\n')
		if err != nil {
			return err
		}
		series, fields, _ := strings.Cut(line, " ")
		switch measurement, tags, _ := strings.Cut(series, ","); measurement {
		case "procnetstat":
			if value := valueOf("tcp_established", fields); value != "" { // or these are the counters
				if s.Sockets, err = strconv.Atoi(strings.TrimSuffix(value, "i")); err != nil {
					return err
				}
			}
		case "procnetstat_gather": // whose counters are the last metric
			s.Owners = valueOf("owners", tags)
			if strings.Contains(line, "closed_events_lost=") {
				return nil
			}
		}
	}
}

// valueOf returns the value of a tag or of a field that is a number.
func valueOf(key, list string) string {
	for pair := range strings.SplitSeq(list, ",") {
		if value, found := strings.CutPrefix(pair, key+"="); found {
			value, _, _ = strings.Cut(value, " ")
			return value
		}
	}
	return ""
}

// cpuTimeOf returns what a process has used so far, by its CPU-time clock: that of CPUCLOCK_SCHED, which
// MAKE_PROCESS_CPUCLOCK of include/linux/posix-timers_types.h makes. The times in /proc/<pid>/stat are in steps of 10 ms.
func cpuTimeOf(pid int) (time.Duration, error) {
	const sched = 2
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &used); err != nil {
		return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(used.Nano()), nil
}

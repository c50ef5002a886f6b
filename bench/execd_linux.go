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

// execd is bin/procnetstat, which gathers at each line of its standard input.
type execd struct {
	process *os.Process
	in      io.Writer
	out     *bufio.Reader
}

func startExecd(t task) (gather, error) {
	if t.Execd == "" {
		return nil, unavailable(errors.New("no -execd given"))
	}
	cmd := exec.Command(t.Execd, "-poll_interval_disabled") //nolint:noctx // it exits at the end of its standard input
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
	before, err := processCPUTime(e.process.Pid)
	if err != nil {
		return s, err
	}
	begin := time.Now()
	if _, err := io.WriteString(e.in, "\n"); err != nil {
		return s, fmt.Errorf("requesting a gather: %w", err)
	}
	if err := e.readGather(&s); err != nil {
		return s, fmt.Errorf("reading metrics: %w", err)
	}
	s.Wall = time.Since(begin)
	after, err := processCPUTime(e.process.Pid)
	if err != nil {
		return s, err
	}
	s.CPU = after - before
	s.PeakRSS, err = readPeakRSS(strconv.Itoa(e.process.Pid))
	return s, err
}

// readGather reads metrics up to the last one of a gather. It sets the number of sockets and the owner lookup in s.
func (e *execd) readGather(s *sample) error {
	for {
		line, err := e.out.ReadString('\n')
		if err != nil {
			return err
		}
		series, fields, _ := strings.Cut(line, " ")
		switch measurement, tags, _ := strings.Cut(series, ","); measurement {
		case "procnetstat":
			if value := lookUpValue("tcp_established", fields); value != "" { // the counters are another metric of the same name
				if s.Sockets, err = strconv.Atoi(strings.TrimSuffix(value, "i")); err != nil {
					return err
				}
			}
		case "procnetstat_gather": // its counters are the last metric of a gather
			s.Owners = lookUpValue("owners", tags)
			if strings.Contains(line, "closed_events_lost=") {
				return nil
			}
		}
	}
}

// lookUpValue returns the value of a key in a list of tags, or of numeric fields.
func lookUpValue(key, list string) string {
	for pair := range strings.SplitSeq(list, ",") {
		if value, found := strings.CutPrefix(pair, key+"="); found {
			value, _, _ = strings.Cut(value, " ")
			return value
		}
	}
	return ""
}

// processCPUTime returns the CPU time that a process has used. It reads the CPUCLOCK_SCHED clock of the process, whose id
// MAKE_PROCESS_CPUCLOCK computes (include/linux/posix-timers_types.h): /proc/<pid>/stat has a resolution of only 10 ms.
func processCPUTime(pid int) (time.Duration, error) {
	const sched = 2
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &used); err != nil {
		return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(used.Nano()), nil
}

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// programs are BPF programs.
type programs []*ebpf.Program

// attachedPrograms returns the programs that this process has attached to events of the kernel. Iterators are not among them:
// they run in the system calls of this process, whose CPU time includes them.
func attachedPrograms() (attached programs, err error) {
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) { // closed since
			continue
		}
		if err != nil {
			attached.close()
			return nil, err
		}
		id, isAttached := attachedProgram(string(text))
		if !isAttached {
			continue
		}
		program, err := ebpf.NewProgramFromID(id)
		if err != nil {
			attached.close()
			return nil, fmt.Errorf("opening BPF program %d: %w", id, err)
		}
		attached = append(attached, program)
	}
	return attached, nil
}

// attachedProgram parses a file of /proc/<pid>/fdinfo. It returns false unless the descriptor is a BPF link that is not of an
// iterator (bpf_link_show_fdinfo, kernel/bpf/syscall.c).
func attachedProgram(fdinfo string) (id ebpf.ProgramID, ok bool) {
	isLink := false
	for line := range strings.Lines(fdinfo) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch value = strings.TrimSpace(value); key {
		case "link_type":
			isLink = value != "iter"
		case "prog_id":
			n, err := strconv.ParseUint(value, 10, 32)
			id, ok = ebpf.ProgramID(n), err == nil
		}
	}
	return id, ok && isLink
}

// measure returns the cost of the programs during run. The kernel's measurement itself takes about as long as a short program:
// the time of an empty program is subtracted for each run.
func (p programs) measure(run func() error) (cost bpfCost, err error) {
	if len(p) == 0 {
		return cost, run()
	}
	counting, err := enableStats()
	if err != nil {
		return cost, err
	}
	defer counting.Close()
	empty, detach, err := attachEmptyProgram()
	if err != nil {
		return cost, err
	}
	defer detach()
	before, err := p.cost()
	if err != nil {
		return cost, err
	}
	if err := run(); err != nil {
		return cost, err
	}
	after, err := p.cost()
	if err != nil {
		return cost, err
	}
	measurement, err := programs{empty}.cost()
	return bpfCost{Time: after.Time - before.Time, Runs: after.Runs - before.Runs}.less(measurement), err
}

// less returns the cost without that of the measurement, which is the cost of an empty program.
func (c bpfCost) less(measurement bpfCost) bpfCost {
	if measurement.Runs > 0 {
		c.Time -= time.Duration(float64(measurement.Time) * float64(c.Runs) / float64(measurement.Runs))
	}
	return c
}

// attachEmptyProgram attaches a program that does nothing to the tracepoint of TCP state changes.
func attachEmptyProgram() (program *ebpf.Program, detach func(), err error) {
	program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceRawTp,
		AttachTo:     "inet_sock_set_state",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Dual MIT/GPL",
	})
	if err != nil {
		return nil, nil, fmt.Errorf("loading an empty BPF program: %w", err)
	}
	attached, err := link.AttachTracing(link.TracingOptions{Program: program, AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("attaching an empty BPF program: %w", err), program.Close())
	}
	return program, func() {
		_ = attached.Close()
		_ = program.Close()
	}, nil
}

// enableStats makes the kernel count the cost of BPF programs until the result is closed.
func enableStats() (io.Closer, error) {
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, ebpf.ErrNotSupported) {
		return nil, unavailable(fmt.Errorf("statistics of BPF programs require CAP_SYS_ADMIN and Linux 5.8: %w", err))
	}
	return counting, err
}

// cost returns the sum of what the kernel has counted for each program.
func (p programs) cost() (sum bpfCost, err error) {
	for _, program := range p {
		stats, err := program.Stats()
		if err != nil {
			return sum, fmt.Errorf("reading the statistics of a BPF program: %w", err)
		}
		sum.Time += stats.Runtime
		sum.Runs += int64(stats.RunCount)
	}
	return sum, nil
}

func (p programs) close() {
	for _, program := range p {
		_ = program.Close()
	}
}

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// runProgramEnv makes the test binary run as bench.
const runProgramEnv = "BENCH_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runProgramEnv) != "" {
		os.Exit(start(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// programCommand returns a command that runs bench with these arguments, and the buffer of its standard output.
func programCommand(t *testing.T, args ...string) (cmd *exec.Cmd, stdout *bytes.Buffer) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd = exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), runProgramEnv+"=1", "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=10")
	cmd.WaitDelay = 5 * time.Second
	stdout = &bytes.Buffer{}
	cmd.Stdout = stdout
	return cmd, stdout
}

// execdPath returns the path of the procnetstat program. It builds the program unless E2E_BIN is set.
func execdPath(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("E2E_BIN"); dir != "" {
		return filepath.Join(dir, "procnetstat")
	}
	file := filepath.Join(t.TempDir(), "procnetstat")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", file, "./cmd/procnetstat")
	build.Dir = ".."
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return file
}

// TestAllSubjects measures every row once. Each must see the sockets and have plausible figures.
func TestAllSubjects(t *testing.T) {
	testnet.Require(t, "ss")
	const sockets, processes = 2000, 4
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	cmd, stdout := programCommand(t, fmt.Sprintf("-sockets=%d", sockets), fmt.Sprintf("-processes=%d", processes), "-runs=1",
		"-execd="+execdPath(t), "-json="+file("json"), "-text="+file("text"), "-chart="+file("svg"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begin := time.Now()
	err := cmd.Run()
	elapsed := time.Since(begin)
	require.NoError(t, err, "%s", &stderr)

	encoded, err := os.ReadFile(file("json"))
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(encoded, &r))
	require.Len(t, r.Rows, len(subjects))
	texts := svgTexts(t, file("svg"))
	for i, row := range r.Rows {
		t.Run(row.Name, func(t *testing.T) {
			require.Equal(t, subjects[i].name, row.Name)
			if row.Unavailable != "" {
				testnet.SkipOrFail(t, row.Unavailable)
			}
			require.Empty(t, row.Failed)
			require.Len(t, row.Runs, 1)
			requirePlausibleCosts(t, row.Runs[0], elapsed)
			if subjects[i].ownLoad {
				require.InEpsilon(t, closedByConnects, row.Runs[0].Sockets, 0.05)
			} else {
				want := sockets
				if row.Name == rowProcstat {
					want = sockets * procstatProcesses / processes
				}
				require.GreaterOrEqual(t, row.Runs[0].Sockets, want)
				require.Less(t, row.Runs[0].Sockets, want+2000, "with the other sockets of this host")
			}
			if row.Name == rowConnects {
				require.Positive(t, row.Runs[0].BPF.Time)
				require.Less(t, row.Runs[0].BPF.Time, row.Runs[0].CPU)
				require.GreaterOrEqual(t, row.Runs[0].BPF.Runs, int64(connects))
			}
			require.Contains(t, stdout.String(), "  "+row.Name+" ")
			require.Contains(t, texts, row.Name)
		})
	}
	for _, row := range r.Steady {
		require.Len(t, row.Few, steadyGathers)
		require.Len(t, row.Many, steadyGathers)
		require.InEpsilon(t, median(row.Few), median(row.Many), 0.1, row.Name)
	}
	for _, v := range r.Targets {
		require.Contains(t, []result{notEvaluated, notMeasured}, v.Result)
		require.Contains(t, stdout.String(), v.What)
	}
	text, err := os.ReadFile(file("text"))
	require.NoError(t, err)
	require.Equal(t, stdout.String(), string(text))
}

func requirePlausibleCosts(t *testing.T, s sample, maximum time.Duration) {
	t.Helper()
	require.Positive(t, s.Wall)
	require.Less(t, s.Wall, maximum)
	require.Positive(t, s.CPU)
	require.Less(t, s.CPU, maximum)
	require.Greater(t, s.PeakRSS, int64(1e6))
	require.Less(t, s.PeakRSS, int64(1e9))
	if s.Heap != nil {
		require.GreaterOrEqual(t, s.Heap.Bytes, s.Heap.Objects)
		require.GreaterOrEqual(t, s.Heap.Objects, s.Heap.BoxedNumbers)
	}
}

// TestNoProcessRemains checks that all child processes exit with the program, even when it is killed.
func TestNoProcessRemains(t *testing.T) {
	execd := execdPath(t)
	for _, tt := range []struct {
		signal syscall.Signal
		code   int
		stderr string
	}{
		{syscall.SIGINT, exitFailed, "bench: interrupted\n"},
		{syscall.SIGTERM, exitFailed, "bench: interrupted\n"},
		{syscall.SIGKILL, -1, ""},
	} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			cmd, _ := programCommand(t, "-sockets=400", "-processes=4", "-runs=1000000",
				"-only=^bare fd walk$|^inputs.socketstat$|^execd program$", "-execd="+execd)
			pipe, err := cmd.StderrPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			stderr := bufio.NewReader(pipe)
			for line := ""; !strings.HasPrefix(line, "bench: round 2 of"); {
				line, err = stderr.ReadString('\n')
				require.NoError(t, err)
			}

			started := findDescendants(t, cmd.Process.Pid)
			for _, name := range []string{"server", "client"} {
				require.Len(t, slices.DeleteFunc(slices.Clone(started), func(p process) bool { return p.name != name }), 2, name)
			}
			require.Greater(t, len(started), 4+3, "load, subjects and the execd program: %v", started)
			require.NoError(t, cmd.Process.Signal(tt.signal))
			output, err := io.ReadAll(stderr)
			require.NoError(t, err)
			exit := (*exec.ExitError)(nil)
			require.ErrorAs(t, cmd.Wait(), &exit)
			require.Equal(t, tt.code, exit.ExitCode())
			require.Contains(t, string(output), tt.stderr)
			require.Eventually(t, func() bool {
				return !slices.ContainsFunc(started, process.isAlive)
			}, 10*time.Second, 10*time.Millisecond, "%v", started)
		})
	}
}

type process struct {
	pid, parent int
	name, state string
	started     string
}

// readProcess parses /proc/<pid>/stat. It returns false if there is no such process.
func readProcess(pid int) (process, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	begin, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	parent, err := strconv.Atoi(fields[1])
	return process{pid, parent, string(text[begin+1 : end]), fields[0], fields[19]}, err == nil
}

// isAlive reports whether the process still runs. A zombie does not.
func (p process) isAlive() bool {
	now, ok := readProcess(p.pid)
	return ok && now.started == p.started && now.state != "Z"
}

// findDescendants returns the child processes of a process, their children, and so on.
func findDescendants(t *testing.T, pid int) (found []process) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	var all []process
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if p, ok := readProcess(pid); ok {
				all = append(all, p)
			}
		}
	}
	parents := []int{pid}
	for len(parents) > 0 {
		for _, p := range all {
			if p.parent == parents[0] {
				found, parents = append(found, p), append(parents, p.pid)
			}
		}
		parents = parents[1:]
	}
	return found
}

func TestStartErrors(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-sockets=3"}, "bench: -sockets 3: must be an even number"},
		{[]string{"-json=/no/such/file"}, "bench: stat /no/such: no such file or directory"},
		{[]string{"-chart=/proc/version/chart.svg"}, "bench: /proc/version/chart.svg is not in a directory"},
		{[]string{"-sockets=4", "-processes=2", "-only=nothing"}, "bench: -only matches no row"},
		{[]string{"-sockets=4", "-processes=2", "-only=execd", "-execd=/no/such/program"}, "bench: execd program: -execd: fork/exec"},
	} {
		cmd, _ := programCommand(t, tt.args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		exit := (*exec.ExitError)(nil)
		require.True(t, errors.As(cmd.Run(), &exit), "%v", tt.args)
		require.Equal(t, exitFailed, exit.ExitCode())
		require.Contains(t, stderr.String(), tt.want)
	}
}

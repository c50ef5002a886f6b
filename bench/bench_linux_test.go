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

// runAsEnv has the test binary be the program.
const runAsEnv = "BENCH_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runAsEnv) != "" {
		os.Exit(start(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// program is the program with a command line. It prints to the returned buffer.
func program(t *testing.T, args ...string) (cmd *exec.Cmd, stdout *bytes.Buffer) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd = exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), runAsEnv+"=1", "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=10")
	cmd.WaitDelay = 5 * time.Second
	stdout = &bytes.Buffer{}
	cmd.Stdout = stdout
	return cmd, stdout
}

// execdProgram returns the path of the execd program, built anew unless the environment names the directory that it is in.
func execdProgram(t *testing.T) string {
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

// TestRun measures all that there is, and wants each row to have seen the sockets and to have plausible figures.
func TestRun(t *testing.T) {
	testnet.Require(t, "ss")
	const sockets, processes = 2000, 4
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	cmd, stdout := program(t, fmt.Sprintf("-sockets=%d", sockets), fmt.Sprintf("-processes=%d", processes), "-runs=1",
		"-execd="+execdProgram(t), "-json="+file("json"), "-text="+file("text"), "-chart="+file("svg"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	begin := time.Now()
	err := cmd.Run()
	took := time.Since(begin)
	require.NoError(t, err, "%s", &stderr)

	encoded, err := os.ReadFile(file("json"))
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(encoded, &r))
	require.Len(t, r.Rows, len(subjects))
	texts := textsOf(t, file("svg"))
	for i, of := range r.Rows {
		t.Run(of.Name, func(t *testing.T) {
			require.Equal(t, subjects[i].name, of.Name)
			if of.Unavailable != "" {
				testnet.SkipOrFail(t, of.Unavailable)
			}
			require.Empty(t, of.Failed)
			require.Len(t, of.Runs, 1)
			requirePlausible(t, of.Runs[0], took)
			want := sockets
			if of.Name == rowProcstat {
				want = sockets * procstatProcesses / processes
			}
			require.GreaterOrEqual(t, of.Runs[0].Sockets, want)
			require.Less(t, of.Runs[0].Sockets, want+2000, "what else there is on this host")
			require.Contains(t, stdout.String(), "  "+of.Name+" ")
			require.Contains(t, texts, of.Name)
		})
	}
	for _, of := range r.Steady {
		require.Len(t, of.Few, steadyGathers)
		require.Len(t, of.Many, steadyGathers)
		require.InEpsilon(t, median(of.Few), median(of.Many), 0.1, of.Name)
	}
	for _, v := range r.Targets {
		require.Contains(t, []result{notJudged, notMeasured}, v.Result)
		require.Contains(t, stdout.String(), v.What)
	}
	text, err := os.ReadFile(file("text"))
	require.NoError(t, err)
	require.Equal(t, stdout.String(), string(text))
}

func requirePlausible(t *testing.T, of sample, atMost time.Duration) {
	t.Helper()
	require.Positive(t, of.Wall)
	require.Less(t, of.Wall, atMost)
	require.Positive(t, of.CPU)
	require.Less(t, of.CPU, atMost)
	require.Greater(t, of.PeakRSS, int64(1e6))
	require.Less(t, of.PeakRSS, int64(1e9))
	if of.Heap != nil {
		require.GreaterOrEqual(t, of.Heap.Bytes, of.Heap.Objects)
		require.GreaterOrEqual(t, of.Heap.Objects, of.Heap.Numbers)
	}
}

// TestEnd: however the program ends, nothing that it started is left.
func TestEnd(t *testing.T) {
	execd := execdProgram(t)
	for _, tt := range []struct {
		signal syscall.Signal
		code   int
		says   string
	}{
		{syscall.SIGINT, exitFailed, "bench: interrupted\n"},
		{syscall.SIGTERM, exitFailed, "bench: interrupted\n"},
		{syscall.SIGKILL, -1, ""},
	} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			cmd, _ := program(t, "-sockets=400", "-processes=4", "-runs=1000000", "-only=^bare fd walk$|^inputs.socketstat$|^execd program$",
				"-execd="+execd)
			pipe, err := cmd.StderrPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			stderr := bufio.NewReader(pipe)
			for line := ""; !strings.HasPrefix(line, "bench: round 2 of"); {
				line, err = stderr.ReadString('\n')
				require.NoError(t, err)
			}

			started := descendants(t, cmd.Process.Pid)
			for _, name := range []string{"server", "client"} {
				require.Len(t, slices.DeleteFunc(slices.Clone(started), func(p process) bool { return p.name != name }), 2, name)
			}
			require.Greater(t, len(started), 4+3, "the load, the subjects and the execd program: %v", started)
			require.NoError(t, cmd.Process.Signal(tt.signal))
			said, err := io.ReadAll(stderr)
			require.NoError(t, err)
			exit := (*exec.ExitError)(nil)
			require.ErrorAs(t, cmd.Wait(), &exit)
			require.Equal(t, tt.code, exit.ExitCode())
			require.Contains(t, string(said), tt.says)
			require.Eventually(t, func() bool {
				return !slices.ContainsFunc(started, process.runs)
			}, 10*time.Second, 10*time.Millisecond, "%v", started)
		})
	}
}

type process struct {
	pid, parent int
	name, state string
	started     string
}

// readProcess reads /proc/<pid>/stat. It returns false if there is no such process.
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

// runs tells whether the process is still there. One that nobody waits for is not.
func (p process) runs() bool {
	now, ok := readProcess(p.pid)
	return ok && now.started == p.started && now.state != "Z"
}

// descendants returns the processes that a process has started, and those that they have.
func descendants(t *testing.T, pid int) (found []process) {
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

func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-sockets=3"}, "bench: -sockets 3: an even number"},
		{[]string{"-json=/no/such/file"}, "bench: stat /no/such: no such file or directory"},
		{[]string{"-chart=/proc/version/chart.svg"}, "bench: /proc/version/chart.svg is not in a directory"},
		{[]string{"-sockets=4", "-processes=2", "-only=nothing"}, "bench: -only: no row has such a name"},
		{[]string{"-sockets=4", "-processes=2", "-only=execd", "-execd=/no/such/program"}, "bench: execd program: -execd: fork/exec"},
	} {
		cmd, _ := program(t, tt.args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		exit := (*exec.ExitError)(nil)
		require.True(t, errors.As(cmd.Run(), &exit), "%v", tt.args)
		require.Equal(t, exitFailed, exit.ExitCode())
		require.Contains(t, stderr.String(), tt.want)
	}
}

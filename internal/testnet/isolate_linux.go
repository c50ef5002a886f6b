package testnet

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// insideEnv is set in a test process that runs in a namespace of its own. Its value is the file to write the verdict to.
const insideEnv = "TESTNET_INSIDE"

// The contents of the file of insideEnv. The file distinguishes a passed test from a process that exited with 0 and ran no test.
const (
	verdictPass = "pass"
	verdictSkip = "skip"
	verdictFail = "fail"
)

// Isolate runs f, the body of a test or benchmark, in a fresh network namespace in which only lo is up.
//
//	func TestScan(t *testing.T) {
//		testnet.Isolate(t, func() {
//			load := testnet.States(t, "tcp4")
//			…
//		})
//	}
//
// Isolate starts the test binary again, for this test alone, in the namespace: a thread in a namespace is not enough, since
// /proc/net shows the namespace of the process. f runs in that process only, and may do all that a test may, subtests included.
// The output, failure or skip of that process becomes that of tb; the result lines of a benchmark are printed unchanged. Code
// before the call runs in both processes, so it should be the first statement, and the only call of Isolate, IsolateMounts,
// IsolatePIDs or IsolateTime in the test.
func Isolate(tb testing.TB, f func()) {
	tb.Helper()
	isolate(tb, 0, f)
}

// IsolateMounts is Isolate with a new mount namespace as well, in which no network namespace has a name: see [Netns].
func IsolateMounts(tb testing.TB, f func()) {
	tb.Helper()
	isolate(tb, unix.CLONE_NEWNS, f)
}

// IsolatePIDs is IsolateMounts with a new PID namespace as well: /proc shows only the processes of the test, which is process 1.
func IsolatePIDs(tb testing.TB, f func()) {
	tb.Helper()
	isolate(tb, unix.CLONE_NEWNS|unix.CLONE_NEWPID, f)
}

// IsolateTime is Isolate with a new time namespace as well, whose CLOCK_BOOTTIME is ahead by more, which may be negative.
func IsolateTime(tb testing.TB, more time.Duration, f func()) {
	tb.Helper()
	Require(tb, "unshare")
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		SkipOrFail(tb, fmt.Sprintf("the kernel has no time namespaces: %v", err))
	}
	unshare := []string{"unshare", "--time", "--boottime", strconv.Itoa(int(more.Seconds())), "--fork", "--kill-child"}
	isolate(tb, 0, f, unshare...)
}

// isolate runs f in a new network namespace, and in further namespaces: further are flags of clone(2), and in is a command that
// runs the command after it in a namespace.
func isolate(tb testing.TB, further uintptr, f func(), in ...string) {
	tb.Helper()
	SkipIfShort(tb)
	if file := os.Getenv(insideEnv); file != "" {
		runInNamespace(tb, file, further, f)
		return
	}
	verdict := runInNewProcess(tb, further, in)
	_, isBenchmark := tb.(*testing.B)
	switch {
	case verdict == verdictSkip:
		tb.Skip("skipped in its network namespace, for the reason above")
	case verdict != verdictPass:
		tb.Fatalf("the process in the network namespace exited with 0, but the verdict of its test is %q", verdict)
	case isBenchmark:
		// Not a skip, but the only way to end a benchmark without a second result line.
		tb.Skip("ran in its network namespace; the results are above")
	}
}

func runInNamespace(tb testing.TB, file string, further uintptr, f func()) {
	tb.Helper()
	// The cleanup that is registered first runs last: the others may still fail the test.
	tb.Cleanup(func() {
		verdict := verdictPass
		if tb.Failed() {
			verdict = verdictFail
		} else if tb.Skipped() {
			verdict = verdictSkip
		}
		if err := os.WriteFile(file, []byte(verdict), 0o600); err != nil {
			tb.Errorf("writing the verdict: %v", err)
		}
	})
	if further&unix.CLONE_NEWNS != 0 {
		if err := hideMounts(further&unix.CLONE_NEWPID != 0); err != nil {
			tb.Fatal(err)
		}
	}
	if err := setUp("lo"); err != nil {
		tb.Fatal(err)
	}
	f()
}

// runInNewProcess runs the test tb in a new process in the new namespaces, and returns its verdict.
func runInNewProcess(tb testing.TB, further uintptr, in []string) string {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "verdict")
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	limit := timeLimit(tb)
	ctx, cancel := context.WithTimeout(tb.Context(), limit+5*time.Second)
	defer cancel()

	out := newOutput(tb)
	args := slices.Concat(in, []string{exe}, childArgs(tb, limit))
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"="+file, quickExit())
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | further, Pdeathsig: unix.SIGKILL}

	// The kernel sends Pdeathsig when the thread that started the process ends, not when this process does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); errors.Is(err, unix.EPERM) {
		SkipOrFail(tb, fmt.Sprintf("a new network namespace requires CAP_SYS_ADMIN: %v", err))
	} else if err != nil {
		tb.Fatalf("starting the test in a network namespace: %v", err)
	}
	err = cmd.Wait()
	out.flush()
	if err != nil {
		tb.Fatalf("in its network namespace: %v", err)
	}
	verdict, err := os.ReadFile(file)
	if err != nil {
		tb.Fatalf("the process in the network namespace ran no test: %v", err)
	}
	return string(verdict)
}

// quickExit is an environment variable that makes a process exit at once. The race detector would sleep for a second, which is
// too long for tests that start many processes.
func quickExit() string {
	return "GORACE=" + os.Getenv("GORACE") + " atexit_sleep_ms=10"
}

// timeLimit returns less time than this process has left, so that the other process times out first and prints where it hangs.
func timeLimit(tb testing.TB) time.Duration {
	if t, ok := tb.(*testing.T); ok {
		if deadline, ok := t.Deadline(); ok {
			left := time.Until(deadline)
			return left - max(left/10, min(left/2, 5*time.Second))
		}
		return 2 * time.Minute
	}
	if timeout, err := time.ParseDuration(flagValue("test.timeout")); err == nil && timeout > 0 {
		return timeout
	}
	return 10 * time.Minute
}

// childArgs returns the arguments that run tb alone. They repeat the flags of this process, except those that select tests and
// those that name files which this process writes.
func childArgs(tb testing.TB, limit time.Duration) []string {
	args := []string{fmt.Sprintf("-test.timeout=%v", limit)}
	excluded := map[string]bool{
		"test.run": true, "test.bench": true, "test.list": true, "test.fuzz": true, "test.v": true, "test.timeout": true,
		"test.testlogfile": true, "test.outputdir": true, "test.coverprofile": true, "test.cpuprofile": true,
		"test.memprofile": true, "test.blockprofile": true, "test.mutexprofile": true, "test.trace": true,
	}
	switch tb.(type) {
	case *testing.B:
		args = append(args, "-test.run=^$", "-test.bench="+childPattern(tb.Name(), flagValue("test.bench")))
	default:
		args = append(args, "-test.run="+childPattern(tb.Name(), flagValue("test.run")),
			"-test.count=1", fmt.Sprintf("-test.cpu=%d", runtime.GOMAXPROCS(0)))
		excluded["test.count"], excluded["test.cpu"] = true, true
	}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	flag.Visit(func(f *flag.Flag) {
		if !excluded[f.Name] {
			args = append(args, fmt.Sprintf("-%s=%s", f.Name, f.Value))
		}
	})
	return append(args, flag.Args()...)
}

func flagValue(name string) string {
	if f := flag.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// childPattern returns a pattern for -test.run or -test.bench that matches name alone, followed by the subtests below it that
// pattern, the flag of this process, selects. A pattern with alternatives, groups or classes is not split into its elements.
func childPattern(name, pattern string) string {
	elements := strings.Split(name, "/")
	depth := len(elements)
	for i, element := range elements {
		elements[i] = "^" + regexp.QuoteMeta(element) + "$"
	}
	if below := strings.Split(pattern, "/"); len(below) > depth && !strings.ContainsAny(pattern, `|([\`) {
		elements = append(elements, below[depth:]...)
	}
	return strings.Join(elements, "/")
}

// output forwards the output of the other process to the log of the test, and the result lines of a benchmark to the standard
// output, where benchstat and others read them.
type output struct {
	log     io.Writer
	results io.Writer // nil if tb is not a benchmark
	partial []byte
}

func newOutput(tb testing.TB) *output {
	if _, ok := tb.(*testing.B); ok {
		return &output{log: tb.Output(), results: os.Stdout}
	}
	return &output{log: tb.Output()}
}

// resultLine matches the results and the configuration lines of a benchmark, as benchstat does.
var resultLine = regexp.MustCompile(`^(Benchmark\S+\s.*\d ns/op|goos: |goarch: |pkg: |cpu: )`)

func (o *output) Write(p []byte) (int, error) {
	o.partial = append(o.partial, p...)
	for {
		end := bytes.IndexByte(o.partial, '\n') + 1
		if end == 0 {
			return len(p), nil
		}
		o.line(o.partial[:end])
		o.partial = o.partial[end:]
	}
}

func (o *output) flush() {
	if len(o.partial) > 0 {
		o.line(append(o.partial, '\n'))
		o.partial = nil
	}
}

func (o *output) line(line []byte) {
	w := o.log
	if o.results != nil && resultLine.Match(line) {
		w = o.results
	}
	_, _ = w.Write(line)
}

// setUp sets a network interface of the current namespace up. lo then has its addresses.
func setUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	defer unix.Close(fd)
	ifreq, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifreq); err != nil {
		return fmt.Errorf("reading the flags of %s: %w", name, err)
	}
	ifreq.SetUint16(ifreq.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq); err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	return nil
}

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

// insideEnv tells a test process that it is in a namespace of its own. Its value is the file that the verdict goes to.
const insideEnv = "TESTNET_INSIDE"

// What a test process writes to the file of insideEnv, so that a process that ran no test is not taken for success.
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
// The test binary is started again for this one test, in the namespace: /proc/net is the namespace of the whole process, not
// of a thread, so a thread in another namespace would not do. There f runs and may do all that a test may, subtests
// included. Here f does not run; the output, failure or skip of the other process becomes that of tb, and the result lines of
// a benchmark are printed as they are. What stands before the call runs in both processes, so it should be the first
// statement, and the only call of Isolate, IsolateMounts, IsolatePIDs or IsolateTime in that test.
func Isolate(tb testing.TB, f func()) {
	tb.Helper()
	isolate(tb, 0, f)
}

// IsolateMounts is Isolate with a mount namespace too, in which no network namespace has a name: see [Netns].
func IsolateMounts(tb testing.TB, f func()) {
	tb.Helper()
	isolate(tb, unix.CLONE_NEWNS, f)
}

// IsolatePIDs is IsolateMounts with a PID namespace too: /proc shows no processes but those of the test, which is process 1.
func IsolatePIDs(tb testing.TB, f func()) {
	tb.Helper()
	isolate(tb, unix.CLONE_NEWNS|unix.CLONE_NEWPID, f)
}

// IsolateTime is Isolate with a time namespace too, in which more time has passed since the machine was started, or less.
func IsolateTime(tb testing.TB, more time.Duration, f func()) {
	tb.Helper()
	Require(tb, "unshare")
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		SkipOrFail(tb, fmt.Sprintf("the kernel has no time namespaces: %v", err))
	}
	inTime := []string{"unshare", "--time", "--boottime", strconv.Itoa(int(more.Seconds())), "--fork", "--kill-child"}
	isolate(tb, 0, f, inTime...)
}

// isolate runs f in a new network namespace, and further namespaces that are given as flags of clone(2), or by a command that runs
// another one in them.
func isolate(tb testing.TB, further uintptr, f func(), in ...string) {
	tb.Helper()
	SkipIfShort(tb)
	if file := os.Getenv(insideEnv); file != "" {
		runInside(tb, file, further, f)
		return
	}
	verdict := runAgain(tb, further, in)
	_, isBenchmark := tb.(*testing.B)
	switch {
	case verdict == verdictSkip:
		tb.Skip("skipped in its network namespace, for the reason above")
	case verdict != verdictPass:
		tb.Fatalf("the process in the network namespace ended well, but its test did not: %q", verdict)
	case isBenchmark:
		// This is not a skip, but the only way to end a benchmark without a result line of its own.
		tb.Skip("ran in its network namespace; the results are above")
	}
}

func runInside(tb testing.TB, file string, further uintptr, f func()) {
	tb.Helper()
	// The first cleanup runs last: it sees what the others made of the test.
	tb.Cleanup(func() {
		verdict := verdictPass
		if tb.Failed() {
			verdict = verdictFail
		} else if tb.Skipped() {
			verdict = verdictSkip
		}
		if err := os.WriteFile(file, []byte(verdict), 0o600); err != nil {
			tb.Errorf("telling the verdict: %v", err)
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

// runAgain runs the test tb in a new process in a new network namespace, and further ones, and returns the verdict that it
// left.
func runAgain(tb testing.TB, further uintptr, in []string) string {
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

	// Pdeathsig is sent when the thread that started the process ends, not when this process does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); errors.Is(err, unix.EPERM) {
		SkipOrFail(tb, fmt.Sprintf("a new network namespace wants CAP_SYS_ADMIN: %v", err))
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

// quickExit is a setting for a process that is to end as soon as it is done. With the race detector it would sleep for a
// second, which tests that start many processes cannot wait for.
func quickExit() string {
	return "GORACE=" + os.Getenv("GORACE") + " atexit_sleep_ms=10"
}

// timeLimit leaves the other process less time than this one has, so that it is the one to say where it hangs.
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

// childArgs makes the command line that runs tb alone, with those flags of this process that do not concern other tests or
// files that this process writes itself.
func childArgs(tb testing.TB, limit time.Duration) []string {
	args := []string{fmt.Sprintf("-test.timeout=%v", limit)}
	own := map[string]bool{
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
		own["test.count"], own["test.cpu"] = true, true
	}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	flag.Visit(func(f *flag.Flag) {
		if !own[f.Name] {
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

// childPattern makes a pattern for -test.run or -test.bench that matches name alone. Where asked, the pattern that this
// process was given, names subtests below it, so does the result; a pattern that is more than names is not taken apart.
func childPattern(name, asked string) string {
	elements := strings.Split(name, "/")
	depth := len(elements)
	for i, element := range elements {
		elements[i] = "^" + regexp.QuoteMeta(element) + "$"
	}
	if below := strings.Split(asked, "/"); len(below) > depth && !strings.ContainsAny(asked, `|([\`) {
		elements = append(elements, below[depth:]...)
	}
	return strings.Join(elements, "/")
}

// output passes on what the other process prints: to the log, but the result lines of a benchmark to the standard output,
// where the tools that read them look.
type output struct {
	log     io.Writer
	results io.Writer // nil: tb is no benchmark
	partial []byte
}

func newOutput(tb testing.TB) *output {
	if _, ok := tb.(*testing.B); ok {
		return &output{log: tb.Output(), results: os.Stdout}
	}
	return &output{log: tb.Output()}
}

// resultLine matches what benchstat takes to be a result or a label of results.
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

// setUp sets a network interface of the present namespace up. lo gets its addresses by that.
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

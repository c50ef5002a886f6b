package testnet

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// TestIsolate runs tests that pass, fail, skip or hang in other processes, and checks the results that Isolate reports.
func TestIsolate(t *testing.T) {
	for name, tt := range map[string]struct {
		fixture string
		args    []string
		env     []string
		uid     uint32
		exit    int
		want    []string // patterns of lines that the output must have
		not     []string // patterns of lines that it must not have
	}{
		"pass": {
			fixture: "pass",
			want:    []string{`^--- PASS: TestIsolateFixture `, `the namespace is new`},
		},
		"pass quietly": {
			fixture: "pass", args: []string{"-test.v=false"},
			want: []string{`^PASS$`},
			not:  []string{`the namespace is new`, `---`},
		},
		"fail": {
			fixture: "fail", exit: 1,
			want: []string{`^--- FAIL: TestIsolateFixture `, `wrong on purpose`, `in its network namespace: exit status 1`},
		},
		"fail quietly": {
			fixture: "fail", args: []string{"-test.v=false"}, exit: 1,
			want: []string{`^--- FAIL: TestIsolateFixture `, `wrong on purpose`},
		},
		"fail in a cleanup": {
			fixture: "fail in a cleanup", exit: 1,
			want: []string{`^--- FAIL: TestIsolateFixture `, `wrong in a cleanup`},
		},
		"skip": {
			fixture: "skip",
			want:    []string{`^--- SKIP: TestIsolateFixture `, `skipped on purpose`},
		},
		"skip in CI": {
			fixture: "skip", env: []string{"CI=true"}, exit: 1,
			want: []string{`^--- FAIL: TestIsolateFixture `, `skipped on purpose`},
		},
		"subtests": {
			fixture: "subtests",
			want: []string{`^--- PASS: TestIsolateFixture `, `--- PASS: TestIsolateFixture/one `,
				`--- SKIP: TestIsolateFixture/two `, `--- PASS: TestIsolateFixture/two_more `},
		},
		"one subtest": {
			fixture: "subtests", args: []string{"-test.run=^TestIsolateFixture$/^one$"},
			want: []string{`^--- PASS: TestIsolateFixture `, `--- PASS: TestIsolateFixture/one `},
			not:  []string{`TestIsolateFixture/two`},
		},
		"in a subtest with a name that is a pattern": {
			fixture: "in a subtest",
			want:    []string{`^    --- PASS: TestIsolateFixture/a\|b_\(\[c\]\.\*/\^d\$#01 `, `the namespace is new`},
			not:     []string{`the wrong subtest`},
		},
		"fail in a subtest": {
			fixture: "fail in a subtest", exit: 1,
			want: []string{`^--- FAIL: TestIsolateFixture `, `--- FAIL: TestIsolateFixture/one `, `wrong on purpose`},
		},
		"panic": {
			fixture: "panic", exit: 1,
			want: []string{`^--- FAIL: TestIsolateFixture `, `panic: on purpose`},
		},
		"exit": {
			fixture: "exit", exit: 1,
			want: []string{`^--- FAIL: TestIsolateFixture `, `ran no test`},
		},
		"hang": {
			fixture: "hang", args: []string{"-test.timeout=6s"}, exit: 1,
			want: []string{`^--- FAIL: TestIsolateFixture `, `panic: test timed out after 2\.9`},
		},
		"count": {
			fixture: "pass", args: []string{"-test.count=2"},
			want: []string{`^--- PASS: TestIsolateFixture `},
		},
		"not permitted": {
			fixture: "pass", uid: 65534,
			want: []string{`^--- SKIP: TestIsolateFixture `, `a new network namespace requires CAP_SYS_ADMIN: .*operation not permitted`},
		},
		"not permitted in CI": {
			fixture: "pass", uid: 65534, env: []string{"CI=true"}, exit: 1,
			want: []string{`^--- FAIL: TestIsolateFixture `, `a new network namespace requires CAP_SYS_ADMIN: .*operation not permitted`},
		},
		"benchmark": {
			fixture: "benchmark",
			args:    []string{"-test.v=false", "-test.run=^$", "-test.bench=IsolateFixture", "-test.benchtime=20x", "-test.benchmem", "-test.count=2"},
			want: []string{`^goos: linux$`, `^PASS$`,
				`^BenchmarkIsolateFixture\S*\s+20\s.* ns/op\s+0\.5000 rows\s.* B/op\s.* allocs/op$`},
			not: []string{`^BenchmarkIsolateFixture\S*\s+1\s`, `SKIP`},
		},
		"benchmarks below": {
			fixture: "benchmarks below",
			args:    []string{"-test.run=^$", "-test.bench=IsolateFixture/size=2", "-test.benchtime=20x"},
			want:    []string{`^BenchmarkIsolateFixture/size=2\S*\s+20\s.* ns/op`},
			not:     []string{`size=1`},
		},
		"failing benchmark": {
			fixture: "fail",
			args:    []string{"-test.run=^$", "-test.bench=IsolateFixture"}, exit: 1,
			want: []string{`^--- FAIL: BenchmarkIsolateFixture`, `wrong on purpose`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if os.Getuid() != 0 && tt.uid == 0 {
				SkipOrFail(t, "this requires root")
			}
			cmd := fixtureCommand(t, tt.fixture, tt.args...)
			cmd.Env = append(cmd.Env, tt.env...)
			if tt.uid != 0 && os.Getuid() == 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
			}
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != tt.exit {
				t.Errorf("exit code %d, want %d", code, tt.exit)
			}
			for _, pattern := range tt.want {
				if !regexp.MustCompile("(?m)" + pattern).Match(out) {
					t.Errorf("no %q in the output", pattern)
				}
			}
			for _, pattern := range tt.not {
				if regexp.MustCompile("(?m)" + pattern).Match(out) {
					t.Errorf("%q in the output", pattern)
				}
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}

// When a test process is killed, the processes that it started end too.
func TestKilled(t *testing.T) {
	if os.Getuid() != 0 {
		SkipOrFail(t, "this requires root")
	}
	cmd := fixtureCommand(t, "hang")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids := make([]int, 2)
	for lines := bufio.NewScanner(out); pids[0] == 0; {
		if !lines.Scan() {
			t.Fatalf("the test did not print its process IDs: %v", lines.Err())
		}
		if _, text, ok := strings.Cut(lines.Text(), "processes "); ok {
			if _, err := fmt.Sscanf(text, "%d and %d", &pids[0], &pids[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !isAlive(pids[0]) || !isAlive(pids[1]) {
		t.Errorf("some of the processes %v have ended", pids)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	waitForEnd(t, pids)
}

// fixtureCommand runs TestIsolateFixture in a process of its own.
func fixtureCommand(t *testing.T, fixture string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), link(t, "fixture.test"),
		append([]string{"-test.run=^TestIsolateFixture$", "-test.v", "-test.timeout=30s"}, args...)...)
	cmd.Dir = t.TempDir() // the directory of the package may be closed to other users
	if err := os.Chmod(cmd.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "CI=", "TMPDIR="+cmd.Dir, fixtureEnv+"="+fixture, quickExit())
	return cmd
}

// fixtureEnv selects what TestIsolateFixture and BenchmarkIsolateFixture do; if it is not set, they do nothing.
const fixtureEnv = "TESTNET_FIXTURE"

func TestIsolateFixture(t *testing.T) {
	switch os.Getenv(fixtureEnv) {
	case "":
	case "in a subtest":
		for _, name := range []string{"b_", "a|b_([c].*/^d$", "a|b ([c].*/^d$"} {
			t.Run(name, func(t *testing.T) {
				if strings.HasSuffix(t.Name(), "#01") {
					Isolate(t, func() { checkNamespace(t) })
				} else if os.Getenv(insideEnv) != "" {
					t.Error("the wrong subtest")
				}
			})
		}
	default:
		Isolate(t, func() { fixture(t, os.Getenv(fixtureEnv)) })
	}
}

func fixture(t *testing.T, what string) {
	switch what {
	case "pass":
		checkNamespace(t)
	case "fail":
		t.Error("wrong on purpose")
	case "fail in a cleanup":
		t.Cleanup(func() { t.Error("wrong in a cleanup") })
	case "skip":
		SkipOrFail(t, "skipped on purpose")
	case "subtests":
		t.Run("one", func(*testing.T) {})
		t.Run("two", func(t *testing.T) { t.Skip() })
		t.Run("two more", func(t *testing.T) { t.Parallel() })
	case "fail in a subtest":
		t.Run("one", func(t *testing.T) { t.Fatal("wrong on purpose") })
	case "panic":
		panic("on purpose")
	case "exit":
		os.Exit(0)
	case "hang":
		p := Start(t, Process{Name: "hanging"})
		t.Logf("processes %d and %d are running", os.Getpid(), p.PID)
		time.Sleep(time.Hour)
	default:
		t.Fatalf("no fixture %q", what)
	}
}

// checkNamespace checks that this process and its parent are in different network namespaces, and that this one has only lo,
// which is up.
func checkNamespace(t *testing.T) {
	inside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	outside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	if err != nil {
		t.Fatal(err)
	}
	if inside == outside {
		t.Fatalf("the namespace is that of the parent, %s", inside)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(interfaces) != 1 || interfaces[0].Name != "lo" || interfaces[0].Flags&net.FlagUp == 0 {
		t.Fatalf("the interfaces are %+v", interfaces)
	}
	addrs, err := interfaces[0].Addrs()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(addrs); got != "[127.0.0.1/8 ::1/128]" {
		t.Errorf("the addresses of lo are %s", got)
	}
	t.Log("the namespace is new")
}

func BenchmarkIsolateFixture(b *testing.B) {
	what := os.Getenv(fixtureEnv)
	if what == "" {
		return
	}
	Isolate(b, func() {
		switch what {
		case "benchmark":
			for b.Loop() {
				_ = os.Getpid()
			}
			b.ReportMetric(0.5, "rows")
		case "benchmarks below":
			for _, name := range []string{"size=1", "size=2"} {
				b.Run(name, func(b *testing.B) {
					for b.Loop() {
						_ = os.Getpid()
					}
				})
			}
		case "fail":
			b.Error("wrong on purpose")
		default:
			b.Fatalf("no fixture %q", what)
		}
	})
}

func TestChildPattern(t *testing.T) {
	for _, tt := range []struct {
		name, pattern, want string
	}{
		{"TestScan", "", "^TestScan$"},
		{"TestScan", "Scan", "^TestScan$"},
		{"TestScan", "^TestScan$/tcp6/x", "^TestScan$/tcp6/x"},
		{"TestScan/tcp6", "Scan/tcp/x", "^TestScan$/^tcp6$/x"},
		{"TestScan", "Scan/a|List/b", "^TestScan$"},
		{"TestScan", "(Scan/a)", "^TestScan$"},
		{"TestScan/a|b(", "", `^TestScan$/^a\|b\($`},
	} {
		if got := childPattern(tt.name, tt.pattern); got != tt.want {
			t.Errorf("childPattern(%q, %q) = %q, want %q", tt.name, tt.pattern, got, tt.want)
		}
	}
}

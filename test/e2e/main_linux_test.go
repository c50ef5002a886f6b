package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

const (
	binEnv   = "E2E_BIN"
	stockEnv = "E2E_STOCK_TELEGRAF"
	// scratchEnv is the scratch directory, shared with the processes that this one starts.
	scratchEnv = "E2E_SCRATCH"
)

func TestMain(m *testing.M) {
	if connections := os.Getenv(selfConnectEnv); connections != "" {
		if err := connectToSelf(connections); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if arguments := os.Getenv(forgerEnv); arguments != "" {
		if err := runForger(arguments); err != nil {
			fmt.Fprintln(os.Stderr, "the forger:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if flag.Parse(); testing.Short() {
		fmt.Println("no test here is pure: skipped with -short")
		os.Exit(0)
	}
	if os.Getenv(scratchEnv) == "" {
		if err := makeScratch(); err != nil {
			fmt.Fprintln(os.Stderr, "creating a scratch directory:", err)
			os.Exit(1)
		}
	}
	testnet.Main(m)
}

// makeScratch creates the directory for all temporary files of this run. A separate process removes it when this process has
// ended, because a run that is killed or times out cannot clean up.
func makeScratch() error {
	dir, err := os.MkdirTemp("", "procnetstat-e2e-")
	if err != nil {
		return err
	}
	// Processes of other users run programs from it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	ended, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ended.Close()
	scratchPipe = alive
	remove := exec.Command("sh", "-c", `read -r _; rm -rf -- "$1"`, "sh", dir)
	remove.Stdin = ended
	if err := remove.Start(); err != nil {
		return err
	}
	for _, name := range []string{scratchEnv, "TMPDIR"} {
		if err := os.Setenv(name, dir); err != nil {
			return err
		}
	}
	return nil
}

// scratchPipe stays open until this process ends.
var scratchPipe *os.File

// setUp starts a test: it skips the test if the machine lacks something. After it, and before testnet.Isolate, a test calls
// customTelegraf and the like: code before Isolate runs outside of the namespace first, where programs are built once for all
// tests.
func setUp(t *testing.T) {
	t.Helper()
	t.Parallel()
	testnet.Require(t, "influxd", "ss")
	namespace := exec.Command("true")
	namespace.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := namespace.Run(); errors.Is(err, syscall.EPERM) {
		testnet.SkipOrFail(t, fmt.Sprintf("a new network namespace requires CAP_SYS_ADMIN: %v", err))
	} else if err != nil {
		t.Fatal(err)
	}
}

// runPluginAndExecd runs a test with the plugin in our Telegraf, and with procnetstat in inputs.execd of a stock Telegraf.
func runPluginAndExecd(t *testing.T, config string, test func(t *testing.T, program, inputs string)) {
	t.Helper()
	t.Run("plugin", func(t *testing.T) {
		setUp(t)
		program := customTelegraf(t)
		testnet.Isolate(t, func() { test(t, program, config) })
	})
	t.Run("execd", func(t *testing.T) {
		setUp(t)
		program, procnetstat := stockTelegraf(t), execdProgram(t)
		testnet.Isolate(t, func() { test(t, program, execdConfig(t, procnetstat, "STDIN", config)) })
	})
}

// customTelegraf returns our Telegraf, with the plugin built in.
func customTelegraf(t *testing.T) string {
	t.Helper()
	return filepath.Join(builtOnce(t, binEnv, buildOurs), "telegraf")
}

// execdProgram returns procnetstat, the program for inputs.execd.
func execdProgram(t *testing.T) string {
	t.Helper()
	return filepath.Join(builtOnce(t, binEnv, buildOurs), "procnetstat")
}

// stockTelegraf returns a Telegraf without the plugin.
func stockTelegraf(t *testing.T) string {
	t.Helper()
	return builtOnce(t, stockEnv, buildStock)
}

var building sync.Mutex

// builtOnce returns the value of an environment variable. If it is empty, builtOnce sets it to the result of build, for this
// process and those that it starts.
func builtOnce(t *testing.T, env string, build func() (string, error)) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	path := os.Getenv(env)
	if path == "" {
		var err error
		if path, err = build(); err != nil {
			t.Fatal(err)
		}
		if err := os.Setenv(env, path); err != nil { //nolint:usetesting // later tests use it too
			t.Fatal(err)
		}
	}
	return path
}

const module = "github.com/procnetstat/procnetstat"

func buildOurs() (string, error) {
	dir := filepath.Join(os.Getenv(scratchEnv), "bin")
	return dir, run(goTool("build", "-o", dir+"/", module+"/cmd/telegraf", module+"/cmd/procnetstat"))
}

// stockTags select the plugins of the stock Telegraf.
const stockTags = "custom,inputs.execd,inputs.netstat,inputs.opentelemetry,outputs.file,outputs.influxdb,outputs.opentelemetry," +
	"parsers.influx,processors.starlark,serializers.influx"

// buildStock builds Telegraf in its own module, with the dependency versions of its go.mod instead of ours.
func buildStock() (string, error) {
	list := goTool("list", "-m", "-f", "{{.Dir}}", "github.com/influxdata/telegraf")
	source, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("%v: %w", list, err)
	}
	program := filepath.Join(os.Getenv(scratchEnv), "stock-telegraf")
	build := goTool("build", "-tags", stockTags, "-o", program, "./cmd/telegraf")
	build.Dir = strings.TrimSpace(string(source))
	build.Env = append(build.Env, "GOFLAGS=-mod=readonly", "GOWORK=off") // ours apply to our module
	return program, run(build)
}

func goTool(args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}

func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return nil
}

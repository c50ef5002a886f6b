package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/plugins/inputs"
	"github.com/influxdata/telegraf/plugins/parsers/influx"
)

// runAsEnv makes the test binary run as the program: "test" runs testInput, "real" runs the plugin.
const runAsEnv = "PROCNETSTAT_TEST_RUN_AS"

var newRealInput = inputs.Inputs[pluginName]

func newTestInput() telegraf.Input {
	return &testInput{Metrics: 1, Timeout: config.Duration(time.Second)}
}

func TestMain(m *testing.M) {
	runAs := os.Getenv(runAsEnv)
	if runAs != "real" {
		inputs.Add(pluginName, newTestInput)
	}
	if runAs != "" {
		main()
	}
	os.Exit(m.Run())
}

// testInput is an input that its options control.
type testInput struct {
	Metrics int             `toml:"metrics"`
	Names   []string        `toml:"names"`
	Pattern string          `toml:"pattern"`
	Timeout config.Duration `toml:"timeout"`
	Limits  struct {
		Low int `toml:"low"`
	} `toml:"limits"`

	InitError   string `toml:"init_error"`
	StartError  string `toml:"start_error"`
	GatherError string `toml:"gather_error"`
	AddError    string `toml:"add_error"`
	InitWaits   bool   `toml:"init_waits"` // for the end of file descriptor 3
	StartEmits  bool   `toml:"start_emits"`
	Logs        bool   `toml:"logs"`

	Log telegraf.Logger `toml:"-"`

	gathers int
}

func (*testInput) SampleConfig() string {
	return "[[inputs.procnetstat]]\n"
}

func (in *testInput) Init() error {
	if in.InitWaits {
		in.Log.Info("waiting")
		if _, err := io.ReadAll(os.NewFile(3, "gate")); err != nil {
			return err
		}
	}
	return errorOrNil(in.InitError)
}

func (in *testInput) Start(acc telegraf.Accumulator) error {
	if in.StartError != "" {
		return errors.New(in.StartError)
	}
	in.Log.Info("started")
	if in.StartEmits {
		acc.AddFields("started", map[string]any{"ok": true}, nil)
	}
	return nil
}

func (in *testInput) Gather(acc telegraf.Accumulator) error {
	in.gathers++
	for i := range in.Metrics {
		acc.AddFields("m", map[string]any{"gather": in.gathers, "i": i}, map[string]string{"tag": "with space"})
	}
	acc.AddError(errorOrNil(in.AddError))
	if in.Logs {
		in.Log.Error("an error\nof two lines")
		in.Log.Warnf("%s warning", "a")
		in.Log.Info("an information")
		in.Log.Debug("a detail")
		log.Print("W! from elsewhere")
	}
	return errorOrNil(in.GatherError)
}

func (in *testInput) Stop() {
	in.Log.Info("stopped")
}

func errorOrNil(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
}

// timeLimit kills a program that hangs. Successful tests do not depend on it.
const timeLimit = 15 * time.Second

// noSleep keeps the race detector from waiting a second at each exit.
const noSleep = "GORACE=atexit_sleep_ms=0"

// command returns a command that runs the program. If there are options, it writes a configuration file with them.
func command(t *testing.T, options string, args ...string) *exec.Cmd {
	t.Helper()
	if options != "" {
		args = append([]string{"-config", writeFile(t, "[[inputs.procnetstat]]\n"+options)}, args...)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append(os.Environ(), runAsEnv+"=test", noSleep)
	return cmd
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

type result struct {
	code           int
	stdout, stderr string
}

// runToEnd runs the command with an empty standard input.
func runToEnd(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// running is a started program with its standard streams.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *os.File
	output *bufio.Reader // of stdout
	stderr *bufio.Reader
}

// start starts the command and waits for the start of its input.
func start(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	p := launch(t, cmd)
	p.expectMessage("I! started")
	return p
}

func launch(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	p := &running{t: t, cmd: cmd}
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.stdout = stdout.(*os.File)
	p.output = bufio.NewReaderSize(stdout, 512)
	p.stderr = bufio.NewReader(stderr)
	return p
}

func (p *running) expectMessage(want string) {
	p.t.Helper()
	if got, err := p.stderr.ReadString('\n'); got != want+"\n" {
		p.t.Fatalf("standard error: got %q (%v), want %q", got, err, want)
	}
}

func (p *running) prompt() {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, "\n"); err != nil {
		p.t.Fatal(err)
	}
}

// expectGather reads the next line, which must be the only metric of the gather with this number.
func (p *running) expectGather(number int) {
	p.t.Helper()
	line, err := p.output.ReadString('\n')
	if err != nil {
		p.t.Fatalf("gather %d: got %q: %v", number, line, err)
	}
	if got := parseLines(p.t, line); got[0] != (position{number, 0}) {
		p.t.Fatalf("got %+v, want gather %d", got[0], number)
	}
}

// expectExit waits for the exit of the program. It must print no more metrics, stop its input and exit with code 0.
func (p *running) expectExit() {
	p.t.Helper()
	rest, err := io.ReadAll(p.output)
	if err != nil || len(rest) > 0 {
		p.t.Errorf("standard output: got %q (%v), want nothing more", rest, err)
	}
	p.expectMessage("I! stopped")
	rest, err = io.ReadAll(p.stderr)
	if err != nil || len(rest) > 0 {
		p.t.Errorf("standard error: got %q (%v), want nothing more", rest, err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Error(err)
	}
}

// position identifies a metric of the test input.
type position struct{ gather, i int }

// parseLines parses the output of the program. All lines must be complete.
func parseLines(t *testing.T, text string) []position {
	t.Helper()
	if !strings.HasSuffix(text, "\n") {
		t.Fatalf("incomplete last line: %q", text[strings.LastIndexByte(text, '\n')+1:])
	}
	parser := &influx.Parser{}
	if err := parser.Init(); err != nil {
		t.Fatal(err)
	}
	var positions []position
	for line := range strings.Lines(text) {
		m, err := parser.ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(m.Time()); age < 0 || age > time.Hour {
			t.Errorf("%q: the time is %v ago", line, age)
		}
		gather, _ := m.GetField("gather")
		i, _ := m.GetField("i")
		positions = append(positions, position{int(gather.(int64)), int(i.(int64))})
	}
	return positions
}

// expectCompleteGathers checks that the text is this many gathers of n metrics each, complete and in order.
func expectCompleteGathers(t *testing.T, text string, gathers, n int) {
	t.Helper()
	got := parseLines(t, text)
	if len(got) != gathers*n {
		t.Fatalf("got %d lines, want %d gathers of %d", len(got), gathers, n)
	}
	for i, p := range got {
		if want := (position{i/n + 1, i % n}); p != want {
			t.Fatalf("line %d is %+v, want %+v", i+1, p, want)
		}
	}
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout:\n%s\nstderr:\n%s", r.code, r.stdout, r.stderr)
}

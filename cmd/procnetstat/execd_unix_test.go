//go:build unix

package main

import (
	"slices"
	"testing"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/models"
	"github.com/influxdata/telegraf/plugins/inputs"
	"github.com/influxdata/telegraf/plugins/inputs/execd"
	"github.com/influxdata/telegraf/plugins/parsers/influx"
	"github.com/influxdata/telegraf/testutil"
)

// TestExecd runs the program in inputs.execd, with each value of the option signal.
func TestExecd(t *testing.T) {
	for _, tt := range []struct{ signal, arg string }{
		{"none", "-poll_interval=1ms"},
		{"STDIN", "-poll_interval_disabled"},
		{"SIGHUP", "-poll_interval_disabled"},
		{"SIGUSR1", "-poll_interval_disabled"},
		{"SIGUSR2", "-poll_interval_disabled"},
	} {
		t.Run(tt.signal, func(t *testing.T) {
			t.Parallel()
			log := &notifyingLogger{CaptureLogger: testutil.CaptureLogger{Name: tt.signal}, debug: make(chan struct{}, 1)}
			plugin := newExecd(t, log, tt.signal, "start_emits = true\nlogs = true", tt.arg)
			var acc testutil.Accumulator
			if err := plugin.Start(&acc); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(plugin.Stop) // if the test fails
			waitForMetrics(t, &acc, 1)
			for number := 1; number <= 3; number++ {
				if err := plugin.Gather(&acc); err != nil {
					t.Error(err)
				}
				waitForMetrics(t, &acc, 1+number)
			}
			log.waitForDebug(t)
			if err := acc.FirstError(); err != nil { // before Stop, which may add one: it closes pipes that are still read
				t.Error(err)
			}
			plugin.Stop()

			if n := acc.NMetrics(); tt.signal != "none" && n != 4 {
				t.Errorf("got %d metrics, want one of the start and one of each gather", n)
			}
			for _, m := range acc.GetTelegrafMetrics() {
				if m.Name() != "m" && m.Name() != "started" {
					t.Errorf("got %v", m)
				}
			}
			expectLogLevels(t, log)
		})
	}
}

func newExecd(t *testing.T, log telegraf.Logger, signal, options, arg string) telegraf.ServiceInput {
	t.Helper()
	parser := models.NewRunningParser(&influx.Parser{}, &models.ParserConfig{})
	if err := parser.Init(); err != nil {
		t.Fatal(err)
	}
	plugin := inputs.Inputs["execd"]().(*execd.Execd)
	plugin.Command = command(t, options, arg).Args
	plugin.Environment = []string{runAsEnv + "=test", noSleep}
	plugin.Signal = signal
	plugin.StopOnError = true
	plugin.Log = log
	plugin.SetParser(parser)
	if err := plugin.Init(); err != nil {
		t.Fatal(err)
	}
	return plugin
}

func waitForMetrics(t *testing.T, acc *testutil.Accumulator, n int) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		acc.Wait(n)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(timeLimit):
		t.Fatalf("got %d metrics, want %d", acc.NMetrics(), n)
	}
}

// notifyingLogger notifies of debug messages, which are the last that the test input logs in a gather.
type notifyingLogger struct {
	testutil.CaptureLogger
	debug chan struct{}
}

func (l *notifyingLogger) Debug(args ...any) {
	l.CaptureLogger.Debug(args...)
	select {
	case l.debug <- struct{}{}:
	default:
	}
}

func (l *notifyingLogger) waitForDebug(t *testing.T) {
	t.Helper()
	select {
	case <-l.debug:
	case <-time.After(timeLimit):
		t.Fatal("no debug message")
	}
}

// expectLogLevels checks that each message of the test input is logged at its level, and that there are no other errors.
func expectLogLevels(t *testing.T, log *notifyingLogger) {
	t.Helper()
	for _, message := range log.Errors() {
		if want := "E! [" + log.Name + "] an error; of two lines"; message != want {
			t.Errorf("got %q, want no other error than %q", message, want)
		}
	}
	got := make(map[byte][]string)
	for _, m := range log.Messages() {
		got[m.Level] = append(got[m.Level], m.Text)
	}
	for level, want := range map[byte]string{
		'E': "an error; of two lines", 'W': "a warning", 'I': "an information", 'D': "a detail",
	} {
		if !slices.Contains(got[level], want) {
			t.Errorf("no %q at level %c in %q", want, level, got[level])
		}
	}
}

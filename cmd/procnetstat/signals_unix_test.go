//go:build unix

package main

import (
	"io"
	"os"
	"syscall"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

func TestSignalsPrompt(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{
		"SIGHUP": syscall.SIGHUP, "SIGUSR1": syscall.SIGUSR1, "SIGUSR2": syscall.SIGUSR2,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, command(t, "metrics = 1", "-poll_interval_disabled"))
			for number := 1; number <= 3; number++ {
				p.signal(sig)
				p.expectGather(number)
			}
			p.prompt() // standard input still prompts
			p.expectGather(4)
			p.stdin.Close()
			p.expectExit()
		})
	}
}

func TestSignalsDuringInit(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sig   syscall.Signal
		check func(*running)
	}{
		{"SIGHUP", syscall.SIGHUP, gathersOnce},
		{"SIGUSR1", syscall.SIGUSR1, gathersOnce},
		{"SIGUSR2", syscall.SIGUSR2, gathersOnce},
		{"SIGINT", syscall.SIGINT, stopsImmediately},
		{"SIGTERM", syscall.SIGTERM, stopsImmediately},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := command(t, "init_waits = true", "-poll_interval_disabled")
			gate, opener, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.ExtraFiles = []*os.File{gate}
			p := launch(t, cmd)
			gate.Close()
			p.expectMessage("I! waiting")
			p.signal(tt.sig)
			opener.Close()
			p.expectMessage("I! started")
			tt.check(p)
		})
	}
}

// TestSIGHUPKillsOnce checks that SIGHUP kills the program with -once: there it is not a prompt, but the end of the terminal.
func TestSIGHUPKillsOnce(t *testing.T) {
	t.Parallel()
	cmd := command(t, "init_waits = true", "-once")
	gate, opener, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer opener.Close()
	cmd.ExtraFiles = []*os.File{gate}
	p := launch(t, cmd)
	gate.Close()
	p.expectMessage("I! waiting")
	p.signal(syscall.SIGHUP)
	_ = cmd.Wait() // ProcessState is checked below
	if got := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != syscall.SIGHUP {
		t.Errorf("got %v, want an exit by SIGHUP", cmd.ProcessState)
	}
}

func gathersOnce(p *running) {
	p.expectGather(1)
	p.stdin.Close()
	p.expectExit()
}

func stopsImmediately(p *running) {
	p.expectExit()
}

// TestStopDuringOutput checks that a stopped program finishes the current gather, with complete lines. The gather is far larger
// than the pipe buffer, so that the program is still writing when it is stopped.
func TestStopDuringOutput(t *testing.T) {
	for _, tt := range []struct {
		name string
		arg  string
		stop func(*running)
	}{
		{"SIGTERM", "-poll_interval_disabled", func(p *running) { p.signal(syscall.SIGTERM) }},
		{"SIGINT", "-poll_interval_disabled", func(p *running) { p.signal(syscall.SIGINT) }},
		{"end of standard input", "-poll_interval_disabled", func(p *running) { p.stdin.Close() }},
		{"SIGTERM of once", "-once", func(p *running) { p.signal(syscall.SIGTERM) }},
		{"SIGTERM after the end of standard input", "-poll_interval_disabled",
			func(p *running) { p.stdin.Close(); p.signal(syscall.SIGTERM) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, command(t, "metrics = 5_000", tt.arg))
			if tt.arg != "-once" {
				p.prompt()
			}
			if _, err := p.output.Peek(1); err != nil {
				t.Fatal(err)
			}
			tt.stop(p)
			expectCompleteGathers(t, readAll(t, p), 1, 5_000)
			p.expectExit()
		})
	}
}

// TestClosedOutput checks that the program is killed by SIGPIPE when Telegraf has exited.
func TestClosedOutput(t *testing.T) {
	for name, metrics := range map[string]string{"few metrics": "1", "many metrics": "5_000"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, command(t, "metrics = "+metrics, "-poll_interval_disabled"))
			p.stdout.Close()
			p.prompt()
			if _, err := io.ReadAll(p.stderr); err != nil {
				t.Fatal(err)
			}
			_ = p.cmd.Wait() // ProcessState is checked below
			status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if status.Signal() != syscall.SIGPIPE {
				t.Errorf("got %v, want an exit by SIGPIPE", p.cmd.ProcessState)
			}
		})
	}
}

func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		testnet.SkipOrFail(t, "no /dev/full: "+err.Error())
	}
	defer full.Close()
	for _, tt := range []struct {
		arg  string
		want result
	}{
		{"-once", result{1, "", "I! started\n" +
			"W! failed to write metric: write /dev/stdout: no space left on device\n" +
			"E! stopped because a metric could not be written\n"}},
		{"-sample-config", result{1, "", "E! write /dev/stdout: no space left on device\n"}},
	} {
		cmd := command(t, "metrics = 5_000", tt.arg)
		cmd.Stdout = full
		if got := runToEnd(t, cmd); got != tt.want {
			t.Errorf("%s: got %v\nwant %v", tt.arg, got, tt.want)
		}
	}
}

func (p *running) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

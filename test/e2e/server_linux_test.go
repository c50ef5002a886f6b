package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// waitLimit is the time limit of every wait. It is long enough for a busy machine, and is reached only when a test fails.
const waitLimit = time.Minute

// waitFor waits until the condition holds.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(waitLimit); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s after %v", what, waitLimit)
		}
	}
}

// server is a program that runs until it is stopped, or until the test or its process ends.
type server struct {
	t       *testing.T
	cmd     *exec.Cmd
	logFile string
	ended   chan struct{}
	err     error // of Wait
}

func startServer(t *testing.T, program string, args ...string) *server {
	t.Helper()
	s := &server{t: t, logFile: filepath.Join(t.TempDir(), "log"), ended: make(chan struct{})}
	log, err := os.Create(s.logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(program, args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the log of %s:\n%s", filepath.Base(program), s.log())
		}
	})
	return s
}

func (s *server) log() string {
	log, err := os.ReadFile(s.logFile)
	if err != nil {
		return err.Error()
	}
	return string(log)
}

// check fails the test if the server has ended.
func (s *server) check() {
	s.t.Helper()
	select {
	case <-s.ended:
		s.t.Fatalf("%v ended: %v", s.cmd, s.err)
	default:
	}
}

func (s *server) signal(signal os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatalf("sending %v to %v: %v", signal, s.cmd, err)
	}
}

// pauseFor stops the server, and the program of inputs.execd, with SIGSTOP while f runs.
func (s *server) pauseFor(f func()) {
	s.t.Helper()
	paused := []int{s.cmd.Process.Pid}
	if program := s.child("procnetstat"); program != 0 {
		paused = append(paused, program)
	}
	for _, pid := range paused {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			s.t.Fatalf("pausing %v: %v", s.cmd, err)
		}
	}
	defer func() {
		for _, pid := range paused {
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				s.t.Errorf("resuming %v: %v", s.cmd, err)
			}
		}
	}()
	f()
}

// stop ends the server with SIGTERM. It may be called again.
func (s *server) stop() {
	s.t.Helper()
	select {
	case <-s.ended:
		return
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails if the server has just ended
	select {
	case <-s.ended:
	case <-time.After(waitLimit):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	if s.err != nil {
		s.t.Errorf("stopping %v: %v", s.cmd, s.err)
	}
}

// child returns the process ID of a child by its name, or 0 if there is none.
func (s *server) child(name string) int {
	s.t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var pid, parent int
		var state string
		if n, _ := fmt.Sscanf(string(stat), "%d ("+name+") %1s %d", &pid, &state, &parent); n == 3 &&
			parent == s.cmd.Process.Pid && state != "Z" {
			return pid
		}
	}
	return 0
}

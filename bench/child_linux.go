package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is a process that this program started of itself. It answers each line of JSON with another, and ends when its
// standard input does or when its parent is no more.
type child struct {
	name    string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *os.File
	replies *bufio.Reader
}

// startChild starts a child with a role. To be called from the main goroutine: see [run].
func startChild(ctx context.Context, role, name string, env ...string) (*child, error) {
	return startChildIn(ctx, 0, role, name, env...)
}

// startChildIn is startChild in new namespaces, which are given as flags of clone(2).
func startChildIn(ctx context.Context, namespaces uintptr, role, name string, env ...string) (*child, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{"bench", role, name} // for ps to show
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role), env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	cmd.Stdout = stdout
	if err := cmd.Start(); err != nil {
		out.Close()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return &child{name, cmd, in, out, bufio.NewReader(out)}, nil
}

// ask sends a request and reads the reply.
func (c *child) ask(request, reply any, limit time.Duration) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s has ended: %w", c.name, err)
	}
	if err := c.out.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	line, err = c.replies.ReadBytes('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer of %s in %v", c.name, limit)
	case err != nil:
		return fmt.Errorf("%s has ended: %w", c.name, err)
	}
	return json.Unmarshal(line, reply)
}

// end ends the child, whatever it does.
func (c *child) end() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait() // that it was killed
	c.out.Close()
}

// serve is a child's side: it answers each line until there are no more.
func serve[Request, Reply any](in io.Reader, out io.Writer, answer func(Request) Reply) error {
	requests, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var request Request
		if err := requests.Decode(&request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		if err := replies.Encode(answer(request)); err != nil {
			return fmt.Errorf("replying: %w", err)
		}
	}
}

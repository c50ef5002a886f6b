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

// child is another process of this program. It answers each line of JSON with a line of JSON. It exits at the end of its
// standard input, and when its parent exits.
type child struct {
	name    string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *os.File
	replies *bufio.Reader
}

// startChild starts a child with a role. Call it from the main goroutine only: see [run].
func startChild(ctx context.Context, role, name string, env ...string) (*child, error) {
	return startChildIn(ctx, 0, role, name, env...)
}

// startChildIn is startChild in new namespaces: namespaces has flags of clone(2).
func startChildIn(ctx context.Context, namespaces uintptr, role, name string, env ...string) (*child, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{"bench", role, name} // visible in ps
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

// call sends a request and reads the reply. It fails if there is no reply within the timeout.
func (c *child) call(request, reply any, timeout time.Duration) error {
	line, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := c.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s has exited: %w", c.name, err)
	}
	if err := c.out.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	line, err = c.replies.ReadBytes('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no reply from %s within %v", c.name, timeout)
	case err != nil:
		return fmt.Errorf("%s has exited: %w", c.name, err)
	}
	return json.Unmarshal(line, reply)
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait() // always fails: the child was killed
	c.out.Close()
}

// serve is the child's side of call: it answers requests until in ends.
func serve[Request, Reply any](in io.Reader, out io.Writer, handle func(Request) Reply) error {
	requests, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var request Request
		if err := requests.Decode(&request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		if err := replies.Encode(handle(request)); err != nil {
			return fmt.Errorf("replying: %w", err)
		}
	}
}

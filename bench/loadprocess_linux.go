package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// loadNameEnv is the name that a process of the load takes.
const loadNameEnv = "BENCH_LOAD"

// loadRequest is what a process of the load is asked to do.
type loadRequest struct {
	Do   string
	Port int // to connect to
	N    int // the backlog to listen with, or how many connections
	// Isolated says that the process is in a network namespace of its own, which nobody has set up.
	Isolated bool
}

const (
	doListen  = "listen"
	doConnect = "connect"
	doAccept  = "accept"
	doVisit   = "visit"
)

type loadReply struct {
	Port  int // of the listener
	Error string
}

var loopback = [4]byte{127, 0, 0, 1}

// serveLoad is a process of the load. It keeps its sockets as bare descriptors until it ends.
func serveLoad(in io.Reader, out io.Writer) error {
	name := os.Getenv(loadNameEnv)
	if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil { //nolint:gosec // the name is one of ours
		return fmt.Errorf("taking the name %q: %w", name, err)
	}
	listener, port := -1, 0
	return serve(in, out, func(r loadRequest) (reply loadReply) {
		var err error
		switch r.Do {
		case doListen:
			if r.Isolated {
				err = setUpNamespace()
			}
			if err == nil {
				listener, port, err = listen(r.N)
			}
			reply.Port = port
		case doConnect:
			err = repeat(r.N, func() error { return kept(connect(r.Port)) })
		case doAccept:
			err = repeat(r.N, func() error { return kept(accept(listener)) })
		case doVisit:
			err = visit(listener, port, r.N)
		default:
			err = fmt.Errorf("unknown request %q", r.Do)
		}
		if err != nil {
			reply.Error = err.Error()
		}
		return reply
	})
}

func repeat(n int, do func() error) error {
	for i := range n {
		if err := do(); err != nil {
			return fmt.Errorf("after %d of %d: %w", i, n, err)
		}
	}
	return nil
}

func listen(backlog int) (fd, port int, err error) {
	if fd, err = openSocket(); err != nil {
		return -1, 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}); err != nil {
		return -1, 0, fmt.Errorf("binding: %w", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, 0, fmt.Errorf("listening: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}); err != nil {
		return -1, 0, fmt.Errorf("setting SO_RCVTIMEO: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return -1, 0, fmt.Errorf("getsockname: %w", err)
	}
	at, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return -1, 0, fmt.Errorf("getsockname: a %T", name)
	}
	return fd, at.Port, nil
}

// kept is for a socket that stays open until the process ends.
func kept(_ int, err error) error { return err }

func connect(port int) (fd int, err error) {
	if fd, err = openSocket(); err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: loopback, Port: port}); err != nil {
		return -1, fmt.Errorf("connecting to port %d: %w", port, err)
	}
	return fd, nil
}

func accept(listener int) (fd int, err error) {
	fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EINTR): // by a signal of the runtime
		return accept(listener)
	case errors.Is(err, unix.EAGAIN):
		return -1, errors.New("accepting: no connection has come in for 30 seconds")
	}
	return -1, fmt.Errorf("accepting: %w", err)
}

// openSocket opens a TCP socket that is gone at once when it is closed, with no TIME_WAIT. Those that a listener accepts
// have that from it.
func openSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening a socket: %w", err)
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return -1, fmt.Errorf("setting SO_LINGER: %w", err)
	}
	return fd, nil
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// loadNameEnv is the environment variable with the name of a load process.
const loadNameEnv = "BENCH_LOAD"

// loadRequest is a request to a load process.
type loadRequest struct {
	Do   string
	Port int // of the listener to connect to
	N    int // the backlog of doListen, else the number of connections
	// HalfRefused is true if every second connection of doChurn is to a port without a listener.
	HalfRefused bool
	// Isolated is true if the process is in a new network namespace, which it has to configure.
	Isolated bool
}

const (
	doListen  = "listen"
	doConnect = "connect"
	doAccept  = "accept"
	doChurn   = "churn"
)

type loadReply struct {
	Port  int // of the listener
	Error string
}

var loopback = [4]byte{127, 0, 0, 1}

// serveLoad is the main function of a load process. It holds its sockets as bare descriptors until it exits.
func serveLoad(in io.Reader, out io.Writer) error {
	name := os.Getenv(loadNameEnv)
	if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil { //nolint:gosec // the parent chooses the name
		return fmt.Errorf("setting the process name %q: %w", name, err)
	}
	listener, port := -1, 0
	return serve(in, out, func(r loadRequest) (reply loadReply) {
		var err error
		switch r.Do {
		case doListen:
			if r.Isolated {
				err = configureNamespace()
			}
			if err == nil {
				listener, port, err = listen(r.N)
			}
			reply.Port = port
		case doConnect:
			err = repeat(r.N, func() error { return leaveOpen(connect(r.Port)) })
		case doAccept:
			err = repeat(r.N, func() error { return leaveOpen(accept(listener)) })
		case doChurn:
			err = churn(listener, port, r.N, r.HalfRefused)
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
	if fd, port, err = bind(); err != nil {
		return -1, 0, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, 0, fmt.Errorf("listening: %w", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}); err != nil {
		return -1, 0, fmt.Errorf("setting SO_RCVTIMEO: %w", err)
	}
	return fd, port, nil
}

// bind opens a socket that is bound to a free port of the loopback address.
func bind() (fd, port int, err error) {
	if fd, err = openSocket(); err != nil {
		return -1, 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}); err != nil {
		return -1, 0, fmt.Errorf("binding: %w", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return -1, 0, fmt.Errorf("getsockname: %w", err)
	}
	address, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return -1, 0, fmt.Errorf("getsockname: unexpected %T", name)
	}
	return fd, address.Port, nil
}

// leaveOpen drops the descriptor: the socket stays open until the process exits.
func leaveOpen(_ int, err error) error { return err }

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
	case errors.Is(err, unix.EINTR): // the Go runtime sends signals to preempt goroutines
		return accept(listener)
	case errors.Is(err, unix.EAGAIN):
		return -1, errors.New("accepting: no connection within 30 seconds")
	}
	return -1, fmt.Errorf("accepting: %w", err)
}

// openSocket opens a TCP socket that leaves no TIME_WAIT entry when it is closed. Accepted sockets inherit this from their
// listener.
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

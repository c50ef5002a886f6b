package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Churn configures [Proc.Churn]. The rates are maxima: a slow machine does less, see [Proc.ChurnStats].
type Churn struct {
	// Processes is the number of processes to start a second. Each holds one end of a connection, a UDP socket and, one in ten
	// processes, a listener. No other process has descriptors of these sockets.
	Processes int
	// Connections is the number of connections to open a second. The process holds both ends.
	Connections int
	// TimeWaits is the number of connections a second that the accepted end closes first, which puts it into TIME_WAIT. The
	// other connections are reset.
	TimeWaits int
	// Lifetime is the lifetime of each process and connection.
	Lifetime time.Duration
}

// ChurnStats counts what a churn has started.
type ChurnStats struct {
	Processes, Connections int
	// Sockets is the number of opened sockets: a connection counts as two.
	Sockets int
	// For is the time since the churn started.
	For   time.Duration
	Error string
}

// Churn makes the process start short-lived processes and open short-lived connections until the test ends.
func (p *Proc) Churn(c Churn) {
	p.tb.Helper()
	p.do(request{Op: opChurn, Churn: c})
}

// ChurnStats returns the counts so far. If the churn has failed, it fails the test.
func (p *Proc) ChurnStats() ChurnStats {
	p.tb.Helper()
	done := p.exchange(request{Op: opChurned}).ChurnStats
	if done.Error != "" {
		p.tb.Fatalf("churn: %s", done.Error)
	}
	return done
}

// StopChurn stops the churn, and waits until its processes have ended.
func (p *Proc) StopChurn() {
	p.tb.Helper()
	p.do(request{Op: opEndChurn})
}

// churn is a running Churn.
type churn struct {
	Churn
	listeners  [2]churnListener // for connections within this process, and for connections to the started processes
	stopping   chan struct{}
	goroutines sync.WaitGroup
	sleep      string // the program to start
	children   chan int

	mu        sync.Mutex
	stats     ChurnStats
	startTime time.Time
}

func startChurn(c Churn) (*churn, error) {
	if err := raiseFileLimit(); err != nil {
		return nil, err
	}
	running := &churn{Churn: c, stopping: make(chan struct{}), children: make(chan int, 4096)}
	for i := range running.listeners {
		var err error
		if running.listeners[i], err = listenForChurn(); err != nil {
			return nil, err
		}
	}
	if c.Processes > 0 {
		running.sleep = sleepProgram()
	}
	running.startTime = time.Now()
	running.goroutines.Go(running.connect)
	running.goroutines.Go(running.start)
	running.goroutines.Go(running.reap)
	return running, nil
}

// sleepProgram compiles a statically linked sleep(1) into the working directory: loading no libraries, more processes can start
// in a second. Without a C compiler it returns sleep(1).
func sleepProgram() string {
	const source = `
#include <stdlib.h>
#include <time.h>
int main(int argc, char **argv) {
	double seconds = atof(argv[1]);
	struct timespec t = { seconds, (seconds - (long)seconds) * 1e9 };
	return nanosleep(&t, 0);
}`
	program, err := filepath.Abs("sleep")
	if err == nil {
		compile := exec.Command("gcc", "-static", "-x", "c", "-o", program, "-")
		compile.Stdin = strings.NewReader(source)
		err = compile.Run()
	}
	if err != nil {
		return "/bin/sleep"
	}
	return program
}

// churnListener is a listener to which one goroutine connects; the same goroutine accepts.
type churnListener struct {
	fd, port int
}

func listenForChurn() (churnListener, error) {
	n := networks["tcp4"]
	fd, err := n.listen(n.orAny(netip.AddrPort{}), maxBacklog)
	if err != nil {
		return churnListener{}, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return churnListener{}, err
	}
	at, err := describe(fd)
	return churnListener{fd, int(at.Local.Port())}, err
}

// raiseFileLimit raises RLIMIT_NOFILE to its hard limit.
func raiseFileLimit() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

func (c *churn) stop() {
	close(c.stopping)
	c.goroutines.Wait()
	for _, l := range c.listeners {
		_ = unix.Close(l.fd)
	}
}

func (c *churn) snapshot() ChurnStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.For = time.Since(c.startTime)
	return c.stats
}

// count is called before the sockets are opened, so that the count is never lower than the number of existing sockets.
func (c *churn) count(processes, connections, sockets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Processes += processes
	c.stats.Connections += connections
	c.stats.Sockets += sockets
}

func (c *churn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stats.Error == "" {
		c.stats.Error = err.Error()
	}
}

// pace calls do rate times a second, with 0, 1, 2, …, until the churn stops. It calls idle after each round.
func (c *churn) pace(rate int, do func(n int) error, idle func(time.Time)) {
	const round = 5 * time.Millisecond
	const maxLag = 100 * time.Millisecond // after a longer delay, do not catch up with a burst
	ticker := time.NewTicker(round)
	defer ticker.Stop()
	last, due, n := time.Now(), 0.0, 0
	for {
		select {
		case <-c.stopping:
			return
		case <-ticker.C:
		}
		now := time.Now()
		due = min(due+float64(rate)*now.Sub(last).Seconds(), float64(rate)*maxLag.Seconds())
		for last = now; due >= 1; due-- {
			if err := do(n); err != nil {
				c.fail(err)
				return
			}
			n++
		}
		if idle != nil {
			idle(now)
		}
	}
}

// pair holds the descriptors of both ends of a connection.
type pair struct {
	client, server int
	resets         bool
	until          time.Time
}

// dial opens connection number n. The server address depends on n, so that the 4-tuple of a connection in TIME_WAIT is not
// needed again soon.
func (c *churn) dial(l churnListener, n int, resets bool) (pair, error) {
	c.count(0, 1, 2)
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return pair{}, fmt.Errorf("opening a socket: %w", err)
	}
	to := &unix.SockaddrInet4{Port: l.port, Addr: [4]byte{127, 0, 0, byte(1 + n%250)}}
	if err := unix.Connect(client, to); err != nil {
		return pair{}, fmt.Errorf("connecting: %w", err)
	}
	server, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		return pair{}, fmt.Errorf("accepting: %w", err)
	}
	if resets {
		if err := unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return pair{}, fmt.Errorf("setting SO_LINGER: %w", err)
		}
	}
	return pair{client, server, resets, time.Now().Add(c.Lifetime)}, nil
}

// transfer sends text to the server, which reads all of it: closing a socket with unread data would reset the connection.
func (p pair) transfer(text string) error {
	if _, err := unix.Write(p.client, []byte(text)); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	if _, err := unix.Read(p.server, make([]byte, len(text))); err != nil {
		return fmt.Errorf("receiving: %w", err)
	}
	return nil
}

func (p pair) close() {
	ends := []int{p.server, p.client}
	if p.resets {
		ends = []int{p.client, p.server}
	}
	for _, fd := range ends {
		_ = unix.Close(fd)
	}
}

// connect opens connections, and closes each at the end of its lifetime.
func (c *churn) connect() {
	var open []pair
	defer func() {
		for _, p := range open {
			p.close()
		}
	}()
	c.pace(c.Connections, func(n int) error {
		timeWait := (n+1)*c.TimeWaits/c.Connections > n*c.TimeWaits/c.Connections
		p, err := c.dial(c.listeners[0], n, !timeWait)
		if err == nil {
			open = append(open, p)
			err = p.transfer("churn")
		}
		return err
	}, func(now time.Time) {
		for len(open) > 0 && open[0].until.Before(now) {
			open[0].close()
			open = open[1:]
		}
	})
}

// start starts processes. The server end of their connections is closed at once; the client end is reset when the process ends.
func (c *churn) start() {
	defer close(c.children)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		c.fail(err)
		return
	}
	defer unix.Close(null)
	argv := []string{c.sleep, strconv.FormatFloat(c.Lifetime.Seconds(), 'f', -1, 64)}
	c.pace(c.Processes, func(n int) error {
		const listenEvery = 10
		p, err := c.dial(c.listeners[1], n, true)
		if err != nil {
			return err
		}
		defer p.close()
		sockets := []struct{ kind, every int }{{unix.SOCK_DGRAM, 1}, {unix.SOCK_STREAM, listenEvery}}
		files := []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(p.client)}
		for _, s := range sockets {
			if n%s.every != 0 {
				continue
			}
			c.count(0, 0, 1)
			fd, err := unix.Socket(unix.AF_INET, s.kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("opening a socket: %w", err)
			}
			defer unix.Close(fd)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback4.As4()}); err != nil {
				return fmt.Errorf("binding: %w", err)
			}
			if s.kind == unix.SOCK_STREAM {
				if err := unix.Listen(fd, 1); err != nil {
					return fmt.Errorf("listening: %w", err)
				}
			}
			files = append(files, uintptr(fd))
		}
		pid, err := syscall.ForkExec(c.sleep, argv, &syscall.ProcAttr{Files: files})
		if err != nil {
			return fmt.Errorf("starting a process: %w", err)
		}
		c.count(1, 0, 0)
		c.children <- pid
		return nil
	}, nil)
}

// reap waits for the processes in the order of their start, which is about the order in which they end.
func (c *churn) reap() {
	for pid := range c.children {
		for {
			_, err := unix.Wait4(pid, nil, 0, nil)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.EINTR) {
				c.fail(fmt.Errorf("waiting for a process: %w", err))
				break
			}
		}
	}
}

func (h *helper) doChurn(r request) (reply, error) {
	running := h.churn != nil
	switch {
	case running != (r.Op != opChurn):
		return reply{}, fmt.Errorf("%s: a churn is running: %t", r.Op, running)
	case r.Op == opChurn:
		var err error
		h.churn, err = startChurn(r.Churn)
		return reply{}, err
	case r.Op == opEndChurn:
		h.churn.stop()
		h.churn = nil
		return reply{}, nil
	}
	return reply{ChurnStats: h.churn.snapshot()}, nil
}

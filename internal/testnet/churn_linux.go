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

// A Churn says what a process keeps doing: see [Proc.Churn].
type Churn struct {
	// Processes is how many to start a second. Each holds a connection, a UDP socket, and every tenth a listener: no other
	// process has descriptors of these.
	Processes int
	// Connections is how many to open a second. The process has both ends of them.
	Connections int
	// TimeWaits is how many connections of a second go to TIME_WAIT, at the end that was accepted. The others are reset.
	TimeWaits int
	// Lifetime is that of the processes and of the connections.
	Lifetime time.Duration
}

// Churned says what a churn has done so far.
type Churned struct {
	Processes, Connections int
	// Sockets counts those that were opened, both ends of a connection.
	Sockets int
	// For is how long it took.
	For   time.Duration
	Error string
}

// Churn has the process start other processes, and open connections, which end soon, until the test does. It does as many a second
// as it is told if the machine is fast enough: see [Proc.Churned].
func (p *Proc) Churn(c Churn) {
	p.tb.Helper()
	p.do(request{Op: opChurn, Churn: c})
}

// Churned tells what the churn has done so far. A failure of the churn fails the test.
func (p *Proc) Churned() Churned {
	p.tb.Helper()
	done := p.exchange(request{Op: opChurned}).Churned
	if done.Error != "" {
		p.tb.Fatalf("churn: %s", done.Error)
	}
	return done
}

// EndChurn ends the churn, and all that it started.
func (p *Proc) EndChurn() {
	p.tb.Helper()
	p.do(request{Op: opEndChurn})
}

// churn is a Churn that runs.
type churn struct {
	Churn
	listeners  [2]churnListener // of the connections of this process, and of those that others have one end of
	stopping   chan struct{}
	goroutines sync.WaitGroup
	sleep      string // the program of the processes
	children   chan int

	mu        sync.Mutex
	stats     Churned
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

// sleepProgram makes a program that does what sleep(1) does, in the directory of this process. It has no library to load, so
// that more of it can start in a second. Without a C compiler it is sleep(1) itself.
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

// churnListener is a listener that one goroutine connects to: it accepts what it has connected.
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

// raiseFileLimit lets as many files be open as may be.
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

func (c *churn) snapshot() Churned {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.For = time.Since(c.startTime)
	return c.stats
}

// count counts what is begun before it is: nobody sees a socket that is not counted.
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

// pace calls do as often a second as it is told, until the end, and idle after each round.
func (c *churn) pace(rate int, do func(n int) error, idle func(time.Time)) {
	const round = 5 * time.Millisecond
	const maxLag = 100 * time.Millisecond // a machine that was too slow for a while is not to catch up
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

// pair is a connection, the end that was accepted last.
type pair struct {
	client, server int
	resets         bool
	until          time.Time
}

// openTo opens a connection. Addresses are in turn, so that no two connections have the same for a while.
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

// say sends to the end that was accepted, which reads it: to close an end that has not read all would reset the connection.
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

// connect opens connections, and closes them.
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

// start starts processes. Their connections are reset when they end; the other end has been closed by then.
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

// reap waits for the processes to end, which they do about in their order.
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
		return reply{}, errors.New("one churn at a time")
	case r.Op == opChurn:
		var err error
		h.churn, err = startChurn(r.Churn)
		return reply{}, err
	case r.Op == opEndChurn:
		h.churn.stop()
		h.churn = nil
		return reply{}, nil
	}
	return reply{Churned: h.churn.snapshot()}, nil
}

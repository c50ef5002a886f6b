package testnet

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ShortConnections configures short connections: see [Proc.OpenShortConnections].
type ShortConnections struct {
	To       netip.AddrPort
	N        int // connections
	Rate     int // the maximum number of connections a second
	Lifetime time.Duration
	Send     int // bytes on each connection
	Receive  int
}

// Serve makes the process accept connections at a listener until the test ends. On each connection it reads receive bytes,
// writes send bytes, waits until the peer closes, and closes.
func (p *Proc) Serve(listener Socket, receive, send int) {
	p.tb.Helper()
	p.do(request{Op: opServe, Inodes: []uint64{listener.Inode}, ShortConnections: ShortConnections{Receive: receive, Send: send}})
}

// OpenShortConnections makes the process open short connections, and returns without waiting for them. The process closes first.
func (p *Proc) OpenShortConnections(v ShortConnections) {
	p.tb.Helper()
	p.do(request{Op: opShortConnections, ShortConnections: v})
}

// ClosedShortConnections returns the number of short connections that this end has closed. If one of them failed, it fails the test.
func (p *Proc) ClosedShortConnections() int {
	p.tb.Helper()
	result := p.exchange(request{Op: opShortConnectionsResult}).ShortConnections
	if result.Error != "" {
		p.tb.Fatalf("short connections: %s", result.Error)
	}
	return result.N
}

type shortConnectionsResult struct {
	N     int
	Error string
}

// shortConnections counts the short connections of a helper.
type shortConnections struct {
	mu     sync.Mutex
	result shortConnectionsResult
}

func (c *shortConnections) snapshot() shortConnectionsResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.result
}

func (c *shortConnections) count(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.result.N++
	} else if c.result.Error == "" {
		c.result.Error = err.Error()
	}
}

func (c *shortConnections) open(v ShortConnections) {
	const maxConcurrent = 1000
	slots := make(chan struct{}, maxConcurrent)
	start := time.Now()
	for i := range v.N {
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(v.Rate))))
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			c.count(v.openOne())
		}()
	}
}

func (v ShortConnections) openOne() error {
	conn, err := net.DialTimeout("tcp", v.To.String(), waitLimit)
	if err != nil {
		return err
	}
	end := time.Now().Add(v.Lifetime)
	if _, err = conn.Write(make([]byte, v.Send)); err == nil {
		_, err = io.ReadFull(conn, make([]byte, v.Receive))
	}
	time.Sleep(time.Until(end))
	return errors.Join(err, conn.Close())
}

func (h *helper) doShortConnections(r request) (reply, error) {
	switch r.Op {
	case opServe:
		return reply{}, h.serve(r)
	case opShortConnections:
		go h.shortConnections.open(r.ShortConnections)
	}
	return reply{ShortConnections: h.shortConnections.snapshot()}, nil
}

func (h *helper) serve(r request) error {
	return h.each(r, func(fd int) error {
		duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("duplicating a listener: %w", err)
		}
		file := os.NewFile(uintptr(duplicate), "listener")
		defer file.Close()
		listener, err := net.FileListener(file)
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return // the listener was closed
				}
				go func() {
					defer conn.Close()
					if _, err := io.ReadFull(conn, make([]byte, r.ShortConnections.Receive)); err != nil {
						return
					}
					if _, err := conn.Write(make([]byte, r.ShortConnections.Send)); err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, conn)
				}()
			}
		}()
		return nil
	})
}

// AttemptTotals counts the attempts of [Proc.AttemptAtRate].
type AttemptTotals struct {
	// Ended is the number of attempts that have ended.
	Ended int
	// Errnos counts them by [Attempted.Errno].
	Errnos map[unix.Errno]int
	// Longest is the time of the slowest attempt.
	Longest time.Duration
	// For is the time from the first attempt to the end of the last one.
	For   time.Duration
	Error string
}

// AttemptAtRate makes the process begin attempts, at most rate a second, and returns at once. There is no limit to N; SameSocket and Keep
// are not supported. Established connections are reset, so that no port stays in TIME_WAIT. Attempts to several addresses can
// run at the same time.
func (p *Proc) AttemptAtRate(a Attempts, rate int) {
	p.tb.Helper()
	if p.netns != "" {
		p.tb.Fatal("attempts at a rate cannot run in another network namespace than the process")
	}
	p.do(request{Op: opAttemptAtRate, Attempts: a, N: rate})
}

// AttemptTotals returns the totals so far of the attempts to an address. If the process failed, it fails the test.
func (p *Proc) AttemptTotals(to netip.AddrPort) AttemptTotals {
	p.tb.Helper()
	totals := p.exchange(request{Op: opAttemptTotals, Remote: to}).AttemptTotals
	if totals.Error != "" {
		p.tb.Fatalf("attempts to connect to %v: %s", to, totals.Error)
	}
	return totals
}

// attemptsAtRate are the attempts of a helper to an address.
type attemptsAtRate struct {
	Attempts
	options SocketOptions
	start   time.Time
	next    atomic.Int64

	mu     sync.Mutex
	totals AttemptTotals
}

func (h *helper) attemptAtRate(r request) error {
	a := r.Attempts
	if a.SameSocket || a.Keep || r.N < 1 || !a.To.IsValid() {
		return fmt.Errorf("attempts at a rate: unsupported options %+v with rate %d", a, r.N)
	}
	if h.attemptsAtRate[a.To] != nil {
		return fmt.Errorf("attempts to connect to %v have begun already", a.To)
	}
	if err := raiseFileLimit(); err != nil {
		return err
	}
	l := &attemptsAtRate{Attempts: a, options: r.Options, start: time.Now()}
	l.totals.Errnos = make(map[unix.Errno]int)
	h.attemptsAtRate[a.To] = l
	const workers = 8 // more than one, because some attempts may take long
	for range workers {
		go l.run(r.N)
	}
	return nil
}

func (h *helper) attemptTotals(to netip.AddrPort) (AttemptTotals, error) {
	l := h.attemptsAtRate[to]
	if l == nil {
		return AttemptTotals{}, fmt.Errorf("no attempts to connect to %v", to)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	totals := l.totals
	totals.Errnos = maps.Clone(totals.Errnos)
	return totals, nil
}

func (l *attemptsAtRate) run(rate int) {
	const burst = 2 * time.Millisecond // a sleep for each attempt would cost more than the attempt
	for {
		i := l.next.Add(1) - 1
		if i >= int64(l.N) {
			return
		}
		due := l.start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if early := time.Until(due); early > burst {
			time.Sleep(early)
		}
		errno, took, err := l.one()
		l.count(errno, took, err)
		if err != nil {
			return
		}
	}
}

func (l *attemptsAtRate) one() (unix.Errno, time.Duration, error) {
	fd, err := l.open(l.options)
	if err != nil {
		return 0, 0, err
	}
	a := attempt{Attempts: l.Attempts, fd: fd, to: sockaddr(l.To), wake: -1}
	start := time.Now()
	errno, err := a.connect()
	took := time.Since(start)
	return errno, took, errors.Join(err, closeWithReset(fd))
}

func (l *attemptsAtRate) count(errno unix.Errno, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if l.totals.Error == "" {
			l.totals.Error = err.Error()
		}
		return
	}
	l.totals.Ended++
	l.totals.Errnos[errno]++
	l.totals.Longest = max(l.totals.Longest, took)
	l.totals.For = time.Since(l.start)
}

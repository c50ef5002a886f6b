package testnet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Visits says what short connections to make: see [Proc.Visit].
type Visits struct {
	To       netip.AddrPort
	N        int // connections
	Rate     int // of them a second, no more
	Lifetime time.Duration
	Send     int // bytes on each
	Receive  int
}

// Serve has the process accept connections at a listener, until the test ends. Of each it reads so many bytes, answers with so
// many, waits for the peer to close, and closes.
func (p *Proc) Serve(listener Socket, receive, send int) {
	p.tb.Helper()
	p.do(request{Op: opServe, Inodes: []uint64{listener.Inode}, Visits: Visits{Receive: receive, Send: send}})
}

// Visit has the process make short connections, which it is the first to close, and returns without waiting for them.
func (p *Proc) Visit(v Visits) {
	p.tb.Helper()
	p.do(request{Op: opVisit, Visits: v})
}

// Visited returns the number of connections that have been made, and closed at this end. A failure fails the test.
func (p *Proc) Visited() int {
	p.tb.Helper()
	done := p.exchange(request{Op: opVisited}).Visited
	if done.Error != "" {
		p.tb.Fatalf("visits: %s", done.Error)
	}
	return done.N
}

// Visited says how visits went so far.
type Visited struct {
	N     int
	Error string
}

// visits are those that a process makes.
type visits struct {
	mu   sync.Mutex
	done Visited
}

func (v *visits) soFar() Visited {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.done
}

func (v *visits) count(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		v.done.N++
	} else if v.done.Error == "" {
		v.done.Error = err.Error()
	}
}

func (v *visits) make(all Visits) {
	limit := make(chan struct{}, 1000) // at once
	began := time.Now()
	for i := range all.N {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(all.Rate))))
		limit <- struct{}{}
		go func() {
			defer func() { <-limit }()
			v.count(all.visit())
		}()
	}
}

func (v Visits) visit() error {
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

func (h *helper) doVisits(r request) (reply, error) {
	switch r.Op {
	case opServe:
		return reply{}, h.serve(r)
	case opVisit:
		go h.visits.make(r.Visits)
	}
	return reply{Visited: h.visits.soFar()}, nil
}

func (h *helper) serve(r request) error {
	return h.each(r, func(fd int) error {
		again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("duplicating a listener: %w", err)
		}
		file := os.NewFile(uintptr(again), "listener")
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
					if _, err := io.ReadFull(conn, make([]byte, r.Visits.Receive)); err != nil {
						return
					}
					if _, err := conn.Write(make([]byte, r.Visits.Send)); err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, conn)
				}()
			}
		}()
		return nil
	})
}

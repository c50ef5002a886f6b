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

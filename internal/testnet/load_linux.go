package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Load is a set of sockets that do not change until the test ends.
type Load struct {
	// Sockets are the sockets of the load that the kernel shows.
	Sockets []Socket

	tb  testing.TB
	fds []int
}

// newLoad returns an empty load. It requires Isolate: a load must not disturb the host.
func newLoad(tb testing.TB) *Load {
	tb.Helper()
	if os.Getenv(insideEnv) == "" {
		tb.Fatal("a load requires Isolate")
	}
	l := &Load{tb: tb}
	tb.Cleanup(func() {
		for _, fd := range l.fds {
			_ = unix.Close(fd)
		}
	})
	return l
}

// In returns the sockets that are in one of the states.
func (l *Load) In(states ...string) []Socket {
	var in []Socket
	for _, s := range l.Sockets {
		if slices.Contains(states, s.State) {
			in = append(in, s)
		}
	}
	return in
}

// Count returns the number of sockets in each state.
func (l *Load) Count() map[string]int {
	count := make(map[string]int)
	for _, s := range l.Sockets {
		count[s.State]++
	}
	return count
}

// Check fails the test unless /proc/net shows every socket of the load with the expected values.
func (l *Load) Check() {
	l.tb.Helper()
	if missing := l.missing(); missing != "" {
		l.tb.Fatalf("/proc/net does not show the load:\n%s", missing)
	}
}

// settle waits until Check would pass: some state changes follow the system call with a delay.
func (l *Load) settle() {
	l.tb.Helper()
	for end := deadline(); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if l.missing() == "" {
			return
		}
	}
	l.Check()
}

// missing lists the sockets of the load that /proc/net does not show, with other values that it shows for the same addresses.
func (l *Load) missing() string {
	l.tb.Helper()
	shown := make(map[string][]Socket)
	var missing strings.Builder
	for _, s := range l.Sockets {
		if _, ok := shown[s.Protocol]; !ok {
			rows, err := readProcNet(s.Protocol)
			l.must(err)
			shown[s.Protocol] = rows
		}
		s.Cookie = 0
		if s.State == "LISTEN" {
			s.SendQ = 0
		}
		if i := slices.Index(shown[s.Protocol], s); i >= 0 {
			shown[s.Protocol] = slices.Delete(shown[s.Protocol], i, i+1)
			continue
		}
		fmt.Fprintf(&missing, "missing %+v\n", s)
		for _, other := range shown[s.Protocol] {
			if other.Local == s.Local && other.Remote == s.Remote {
				fmt.Fprintf(&missing, "    but %+v\n", other)
			}
		}
	}
	return missing.String()
}

// must fails the test if err is not nil.
func (l *Load) must(err error) {
	l.tb.Helper()
	if err != nil {
		l.tb.Fatal(err)
	}
}

// network returns a network by its name, and skips the test if the kernel does not support it.
func (l *Load) network(name string) network {
	l.tb.Helper()
	n, err := findNetwork(name)
	l.must(err)
	fd, err := n.open(netip.AddrPortFrom(n.loopback, 0))
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		SkipOrFail(l.tb, err.Error())
	}
	l.must(err)
	l.must(unix.Close(fd))
	return n
}

// hold keeps fd open until the test ends.
func (l *Load) hold(fd int, err error) int {
	l.tb.Helper()
	l.must(err)
	l.fds = append(l.fds, fd)
	return fd
}

// closeNow closes fd before the test ends.
func (l *Load) closeNow(fd int) {
	l.tb.Helper()
	l.fds = slices.DeleteFunc(l.fds, func(held int) bool { return held == fd })
	l.must(unix.Close(fd))
}

// expect adds the socket of fd to the load, with the state and the queues that the kernel should show.
func (l *Load) expect(fd int, state string, recvQ, sendQ uint32) {
	l.tb.Helper()
	s, err := describe(fd)
	l.must(err)
	s.State, s.RecvQ, s.SendQ = state, recvQ, sendQ
	l.Sockets = append(l.Sockets, s)
}

// maxBacklog is net.core.somaxconn.
const maxBacklog = 4096

// ConnectedPairs starts pairs of processes named server and client, and opens IPv4 connections between the two of each pair. This creates
// 2·pairs·connections sockets in ESTABLISHED, and a listener for each pair. connections is limited by RLIMIT_NOFILE, and by the
// 28,232 ephemeral ports of a client.
func ConnectedPairs(tb testing.TB, pairs, connections int) (servers, clients []*Proc) {
	tb.Helper()
	var wg sync.WaitGroup
	for range pairs {
		server, client := Start(tb, Process{Name: "server"}), Start(tb, Process{Name: "client"})
		servers, clients = append(servers, server), append(clients, client)
		wg.Go(func() {
			listener := server.Listen("tcp4", netip.AddrPortFrom(loopback4, 0), maxBacklog)
			for left := connections; left > 0; left -= maxBacklog {
				n := min(left, maxBacklog)
				client.Connect(listener.Local, n)
				server.Accept(listener, n)
			}
		})
	}
	wg.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
	return servers, clients
}

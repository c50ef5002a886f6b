package procnetstat

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

const visitBytes, answerBytes = 1000, 300

// visit is a load of short connections, and what is to be seen of it in the end.
type visit struct {
	server, client *testnet.Proc
	listener       testnet.Socket
	n              int
}

// newVisit starts a server and its client, which does nothing yet.
func newVisit(t *testing.T, local string, server, client testnet.Process) *visit {
	t.Helper()
	server.Name, client.Name = "server", "client"
	v := &visit{server: testnet.Start(t, server), client: testnet.Start(t, client)}
	network, at := "tcp4", netip.MustParseAddrPort(local)
	if at.Addr().Is6() {
		network = "tcp6"
	}
	v.listener = v.server.Listen(network, at, 4096)
	v.server.Serve(v.listener, visitBytes, answerBytes)
	return v
}

// run makes the connections, with a gather after every interval, and gathers on until all are counted.
func (v *visit) run(t *testing.T, l *tally, n, rate int, interval time.Duration) gathered {
	t.Helper()
	l.gather()
	v.n += n
	v.client.OpenShortConnections(testnet.ShortConnections{
		To: v.listener.Local, N: n, Rate: rate, Lifetime: 20 * time.Millisecond, Send: visitBytes, Receive: answerBytes,
	})
	limit := time.Now().Add(time.Minute)
	for due := time.Now().Add(interval); v.client.ClosedShortConnections() < v.n; time.Sleep(10 * time.Millisecond) {
		require.True(t, time.Now().Before(limit), "only %d of %d connections", v.client.ClosedShortConnections(), v.n)
		if time.Now().After(due) {
			l.gather()
			due = due.Add(interval)
		}
	}
	// The kernel reports the last ones a little later. The counters of a series that is new then are whole in the gather after that.
	for {
		g := l.gather()
		lost := g.sum("procnetstat_gather")["closed_events_lost"]
		if g.sum("procnetstat")["tcp_closed"]+lost >= int64(2*v.n) || time.Now().After(limit) {
			return l.gather()
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// requireAll wants the counters of a series with one end of all connections to be exact. The kernel counts the SYN and the FIN of
// the one who connects as a byte acknowledged each, of the other the FIN alone. It counts the FIN of the peer as a byte received;
// the client closes first, so that the FIN of its peer mostly comes when its socket is but a stub, and counts if it comes with
// the acknowledgment of the client's own.
func (v *visit) requireAll(t *testing.T, fields map[string]int64, isClient bool) {
	t.Helper()
	n := int64(v.n)
	require.Equal(t, n, fields["tcp_opened"])
	require.Equal(t, n, fields["tcp_closed"])
	if isClient {
		require.Equal(t, n*(visitBytes+2), fields["tcp_bytes_acked"])
		require.GreaterOrEqual(t, fields["tcp_bytes_received"], n*answerBytes)
		require.LessOrEqual(t, fields["tcp_bytes_received"], n*(answerBytes+1))
	} else {
		require.Equal(t, n*(answerBytes+1), fields["tcp_bytes_acked"])
		require.Equal(t, n*(visitBytes+1), fields["tcp_bytes_received"])
	}
	require.GreaterOrEqual(t, fields["tcp_segs_out"], 3*n)
	require.GreaterOrEqual(t, fields["tcp_segs_in"], 3*n)
}

// tally is a plugin with the last value of each series: a gather leaves out a series without sockets.
type tally struct {
	*live
	series map[string]map[string]map[string]int64 // the fields, by measurement and tags
}

func startTally(t *testing.T, options string) *tally {
	t.Helper()
	return &tally{start(t, withRemote+options), map[string]map[string]map[string]int64{}}
}

// gather wants counters to begin with 0 and not to go back.
func (l *tally) gather() gathered {
	l.Helper()
	g := l.live.gather()
	for _, measurement := range []string{"procnetstat", "procnetstat_process", "procnetstat_listener", "procnetstat_cgroup", "procnetstat_remote"} {
		if l.series[measurement] == nil {
			l.series[measurement] = map[string]map[string]int64{}
		}
		for tags, fields := range g.all(measurement) {
			before, seen := l.series[measurement][tags]
			for _, name := range []string{
				"tcp_opened", "tcp_closed", "tcp_bytes_acked", "tcp_bytes_received", "tcp_segs_in", "tcp_segs_out", "tcp_retrans_segs",
			} {
				require.GreaterOrEqual(l, fields[name], before[name], "%s of %s,%s", name, measurement, tags)
				require.True(l, seen || fields[name] == 0, "%s of %s,%s begins with %d", name, measurement, tags, fields[name])
			}
			l.series[measurement][tags] = fields
		}
	}
	return g
}

// awaitClosed gathers until so many connections have been closed since the start, and once more: then the counters of all series are
// whole.
func (l *tally) awaitClosed(n int64) {
	l.Helper()
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		g := l.gather()
		closed := g.one("procnetstat")["tcp_closed"]
		if closed == n {
			l.gather()
			return
		}
		require.True(l, closed < n && time.Now().Before(limit), "%d of %d connections were closed, %d not reported",
			closed, n, g.one("procnetstat_gather")["closed_events_lost"])
	}
}

// all returns the last values of the series that have the tags.
func (l *tally) all(measurement string, tags ...string) map[string]map[string]int64 {
	found := map[string]map[string]int64{}
	for key, fields := range l.series[measurement] {
		has := strings.Split(key, ",")
		if !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(has, tag) }) {
			found[key] = fields
		}
	}
	return found
}

// sum returns the sums of the last values of the series that have the tags.
func (l *tally) sum(measurement string, tags ...string) map[string]int64 {
	sums := map[string]int64{}
	for _, fields := range l.all(measurement, tags...) {
		for name, value := range fields {
			sums[name] += value
		}
	}
	return sums
}

// one returns the last values of the only series that has the tags.
func (l *tally) one(measurement string, tags ...string) map[string]int64 {
	l.Helper()
	found := l.all(measurement, tags...)
	require.Len(l, found, 1, "%s with %v", measurement, tags)
	for _, fields := range found {
		return fields
	}
	return nil
}

// Connections that live between two gathers count as exactly as others, whatever the interval is.
func TestShortConnections(t *testing.T) {
	for _, test := range []struct {
		name, local, options string
		n, rate              int
		interval             time.Duration
	}{
		{"ipv4", "127.0.0.1:0", "", 20_000, 2000, 2 * time.Second},
		{"one gather at the end", "127.0.0.1:0", "", 2000, 1000, time.Minute},
		{"gathers all the time", "127.0.0.1:0", "", 2000, 1000, 20 * time.Millisecond},
		{"ipv6", "[::1]:0", "", 2000, 1000, 500 * time.Millisecond},
		{"wildcard", "[::]:0", "", 2000, 1000, 500 * time.Millisecond},
		{"owners procfs", "127.0.0.1:0", `owners = "procfs"`, 2000, 1000, 500 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			testnet.Isolate(t, func() {
				testnet.RequireBPF(t)
				dir, path := testnet.Cgroup(t, "server.service")
				v := newVisit(t, test.local, testnet.Process{Cgroup: dir}, testnet.Process{})
				if v.listener.Local.Addr().IsUnspecified() {
					v.listener.Local = netip.AddrPortFrom(netip.IPv6Loopback(), v.listener.Local.Port())
				}
				l := startTally(t, test.options)
				g := v.run(t, l, test.n, test.rate, test.interval)
				require.Zero(t, g.one("procnetstat_gather")["closed_events_lost"])
				require.EqualValues(t, 2*v.n, g.one("procnetstat")["tcp_opened"])
				require.EqualValues(t, 2*v.n, g.one("procnetstat")["tcp_closed"])

				v.requireAll(t, l.one("procnetstat_process", "process_name=server"), false)
				v.requireAll(t, l.one("procnetstat_listener", "process_name=server"), false)
				v.requireAll(t, l.one("procnetstat_cgroup", "cgroup="+path), false)
				// Without BPF the initiator is known only for connections that a gather saw.
				isKnown := test.options == ""
				if isKnown {
					v.requireAll(t, l.one("procnetstat_process", "process_name=client"), true)
				}
				for tags, fields := range l.all("procnetstat_remote") {
					require.Contains(t, tags, "remote_address="+v.listener.Local.Addr().String())
					require.Contains(t, tags, fmt.Sprintf("remote_port=%d", v.listener.Local.Port()))
					if isKnown && !strings.Contains(tags, "process_name=client") { // what is in TIME_WAIT
						require.Zero(t, fields["tcp_opened"]+fields["tcp_closed"]+fields["tcp_bytes_acked"], tags)
					}
				}
				v.requireAll(t, l.sum("procnetstat_remote"), true)
			})
		})
	}
}

// TestShortConnectionsAsNobody: without any privilege all is as exact, but for who connected.
func TestShortConnectionsAsNobody(t *testing.T) {
	testnet.Isolate(t, func() {
		v := newVisit(t, "127.0.0.1:0", testnet.Process{}, testnet.Process{})
		t.Run("nobody", func(t *testing.T) {
			testnet.BecomeNobody(t)
			l := startTally(t, "")
			g := v.run(t, l, 2000, 1000, 500*time.Millisecond)
			require.EqualValues(t, 2*v.n, g.one("procnetstat")["tcp_closed"])
			v.requireAll(t, l.one("procnetstat_listener", "process_name=unattributed"), false)
			v.requireAll(t, l.one("procnetstat_remote", "process_name=unattributed"), true)
			of := l.one("procnetstat_process", "process_name=unattributed")
			require.EqualValues(t, 2*v.n, of["tcp_opened"])
			require.EqualValues(t, 2*v.n, of["tcp_closed"])
		})
	})
}

// TestShortConnectionsInNamespace: those in other network namespaces, which one that ends takes with it.
func TestShortConnectionsInNamespace(t *testing.T) {
	testnet.IsolateMounts(t, func() {
		blue := testnet.Netns(t, "blue")
		v := newVisit(t, "127.0.0.1:0", testnet.Process{In: blue}, testnet.Process{In: blue})
		l := startTally(t, `namespaces = ["self", "blue"]`)
		g := v.run(t, l, 2000, 1000, 500*time.Millisecond)
		require.EqualValues(t, 2*v.n, g.one("procnetstat", "netns=blue")["tcp_closed"])
		require.EqualValues(t, 0, g.one("procnetstat", "netns=self")["tcp_closed"])
		v.requireAll(t, l.one("procnetstat_process", "netns=blue", "process_name=server"), false)
		v.requireAll(t, l.one("procnetstat_process", "netns=blue", "process_name=client"), true)
	})
}

// TestClosedEventsLost: lost events are counted, no counter goes back, and each event that arrives counts once.
func TestClosedEventsLost(t *testing.T) {
	testnet.Isolate(t, func() {
		v := newVisit(t, "127.0.0.1:0", testnet.Process{}, testnet.Process{})
		l := startTally(t, "")
		shrinkEventBuffer(t)
		g := v.run(t, l, 3000, 1500, 500*time.Millisecond)
		lost := g.one("procnetstat_gather")["closed_events_lost"]
		require.Positive(t, lost)
		require.EqualValues(t, 2*v.n, g.one("procnetstat")["tcp_closed"]+lost)
		require.LessOrEqual(t, g.one("procnetstat")["tcp_opened"], int64(2*v.n))
		before := g.one("procnetstat")
		for range 5 {
			now := l.gather().one("procnetstat")
			require.Equal(t, before["tcp_opened"], now["tcp_opened"])
			require.Equal(t, before["tcp_closed"], now["tcp_closed"])
			require.Equal(t, before["tcp_bytes_acked"], now["tcp_bytes_acked"])
		}
	})
}

// shrinkEventBuffer sets the smallest receive buffer on the sockets of this process that are subscribed to closed sockets.
func shrinkEventBuffer(t *testing.T) {
	t.Helper()
	shrunk := 0
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		require.NoError(t, err)
		address, err := unix.Getsockname(fd)
		if netlink, ok := address.(*unix.SockaddrNetlink); err == nil && ok && netlink.Groups != 0 {
			require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
			shrunk++
		}
	}
	require.Equal(t, 1, shrunk)
}

// TestServerThatEnds: a server that ends between two gathers is still who its connections came in to.
func TestServerThatEnds(t *testing.T) {
	testnet.Isolate(t, func() {
		v := newVisit(t, "127.0.0.1:0", testnet.Process{}, testnet.Process{})
		ended := subscribeToEnds(t)
		l := startTally(t, "")
		l.gather()
		const n = 100
		v.n = n
		v.client.OpenShortConnections(testnet.ShortConnections{To: v.listener.Local, N: n, Rate: 1000, Send: visitBytes, Receive: answerBytes})
		require.Eventually(t, func() bool { return v.client.ClosedShortConnections() == n }, 10*time.Second, time.Millisecond)
		v.server.Stop()
		l.awaitClosed(2 * n)
		v.requireAll(t, l.one("procnetstat_listener", "process_name=server"), false)
		v.requireAll(t, l.one("procnetstat_process", "process_name=server"), false)
		require.Zero(t, l.sum("procnetstat_process", "process_name=unattributed")["tcp_closed"])

		// A listener that no gather saw has no owner, but its connections are not outgoing.
		// It has room for all: with SYN cookies the kernel can make a socket twice for one connection, and destroy one of them
		// (tcp_get_cookie_sock, net/ipv4/syncookies.c), which counts as a connection.
		brief := testnet.Start(t, testnet.Process{Name: "brief"})
		listener := brief.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 4096)
		brief.Serve(listener, visitBytes, answerBytes)
		v.client.OpenShortConnections(testnet.ShortConnections{To: listener.Local, N: n, Rate: 1000, Send: visitBytes, Receive: answerBytes})
		require.Eventually(t, func() bool { return v.client.ClosedShortConnections() == 2*n }, 10*time.Second, time.Millisecond)
		brief.Stop()
		ended.await(listener.Local.Port())
		l.awaitClosed(4 * n)
		v.requireAll(t, l.one("procnetstat_listener", "process_name=unattributed", fmt.Sprintf("local_port=%d", listener.Local.Port())), false)
		v.n = 2 * n
		v.requireAll(t, l.one("procnetstat_process", "process_name=client"), true)
		require.EqualValues(t, 2*n, l.sum("procnetstat_remote")["tcp_closed"], "those of the client")
		require.Empty(t, l.all("procnetstat_remote", "process_name=unattributed"), "those in TIME_WAIT are of the client too")
	})
}

// TestConnectFromPortOfEndedListener: a connection with a known initiator is outgoing, also from the port of a listener that
// has ended.
func TestConnectFromPortOfEndedListener(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		target := testnet.Start(t, testnet.Process{Name: "target"}).Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		ended := subscribeToEnds(t)
		l := startTally(t, "")
		l.gather()
		brief := testnet.Start(t, testnet.Process{Name: "brief"})
		listener := brief.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		brief.Stop()
		ended.await(listener.Local.Port())
		l.gather()
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(listener.Local)}
		conn, err := dialer.Dial("tcp", target.Local.String())
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		l.awaitClosed(1)
		port := fmt.Sprintf("remote_port=%d", target.Local.Port())
		require.EqualValues(t, 1, l.sum("procnetstat_remote", port)["tcp_closed"])
		require.Zero(t, l.sum("procnetstat_listener")["tcp_closed"])
	})
}

// listenerEnds is a subscription to the sockets that the kernel destroys in a network namespace.
type listenerEnds struct {
	*testing.T
	fd int
}

// subscribeToEnds subscribes for the namespace of this thread. Who subscribes later is notified earlier: what this subscription has, a
// plugin has that is started after it.
func subscribeToEnds(t *testing.T) listenerEnds {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20))
	limit := unix.NsecToTimeval(int64(10 * time.Second))
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	const ipv4 = 1 << 0 // SKNLGRP_INET_TCP_DESTROY (include/uapi/linux/sock_diag.h)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: ipv4}))
	return listenerEnds{t, fd}
}

// await returns when the kernel has reported the end of a listener at the port.
func (e listenerEnds) await(port uint16) {
	e.Helper()
	message := make([]byte, 8<<10)
	for {
		n, _, err := unix.Recvfrom(e.fd, message, 0)
		require.NoError(e, err, "the end of the listener is not reported")
		require.GreaterOrEqual(e, n, unix.NLMSG_HDRLEN+8)
		// The ports of struct inet_diag_msg (include/uapi/linux/inet_diag.h).
		ports := message[unix.NLMSG_HDRLEN+4:]
		if local, remote := binary.BigEndian.Uint16(ports), binary.BigEndian.Uint16(ports[2:]); local == port && remote == 0 {
			return
		}
	}
}

// TestWithoutClosedConnections: without a subscription to closed sockets the fields are absent, not wrong.
func TestWithoutClosedConnections(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.ConnectedPairs(t, 1, 10)
		for _, options := range []string{
			`closed_connections = "off"`, "details = []", `source = "procfs"`,
		} {
			l := start(t, options)
			for range 2 {
				for _, m := range l.gather().metrics {
					for _, field := range []string{"tcp_opened", "tcp_closed", "tcp_closed_rtt_p95_us", "closed_events_lost"} {
						require.False(t, m.HasField(field), "%s: %v", options, m)
					}
				}
			}
		}
	})
}

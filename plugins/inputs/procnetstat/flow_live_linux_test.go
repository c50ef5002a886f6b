package procnetstat

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// views are plugins that look at the same sockets, each with another source.
type views []view

type view struct {
	*live
	source string
}

// startViews starts a plugin for each source.
func startViews(t *testing.T, sources ...string) (v views) {
	t.Helper()
	for _, source := range sources {
		v = append(v, view{start(t, fmt.Sprintf(`
			source = %q
			measurements = ["host", "process", "listener", "cgroup", "remote", "gather"]
			max_series = 5000`, source)), source})
	}
	return v
}

// check gathers once with each source and checks the result, in a subtest of its own.
func (v views) check(t *testing.T, step string, check func(g gathered, source string)) {
	t.Helper()
	for _, one := range v {
		t.Run(step+" "+one.source, func(t *testing.T) {
			parent := one.T
			one.T = t
			defer func() { one.T = parent }()
			check(one.gather(), one.source)
		})
	}
}

// listenerTags are tags of the listener measurement.
func listenerTags(port uint16, further ...string) []string {
	return append([]string{"protocol=tcp", "local_port=" + strconv.Itoa(int(port))}, further...)
}

// requireAtPort requires the values of a field of procnetstat_listener at a port, by process name. Series without a value, or with 0,
// may be absent.
func (g gathered) requireAtPort(port uint16, field string, want map[string]int64) {
	g.Helper()
	got := map[string]int64{}
	for tags, fields := range g.all("procnetstat_listener", listenerTags(port)...) {
		if fields[field] != 0 {
			got[valueOf(g.T, tags, "process_name")] += fields[field]
		}
	}
	require.Equal(g, withoutZeros(want), got, "%s of port %d", field, port)
}

// requireOfProcess requires a field of procnetstat_process, summed over users, by process name.
func (g gathered) requireOfProcess(field string, want map[string]int64) {
	g.Helper()
	for name, value := range want {
		require.Equal(g, value, g.sum("procnetstat_process", "process_name="+name)[field], "%s of process %s", field, name)
	}
}

func withoutZeros(values map[string]int64) map[string]int64 {
	result := map[string]int64{}
	for name, value := range values {
		if value != 0 {
			result[name] = value
		}
	}
	return result
}

// valueOf returns the value of a tag in a key of gathered.all.
func valueOf(t *testing.T, key, name string) string {
	t.Helper()
	for tag := range strings.SplitSeq(key, ",") {
		if value, found := strings.CutPrefix(tag, name+"="); found {
			return value
		}
	}
	t.Fatalf("%s has no tag %s", key, name)
	return ""
}

// requireOutgoingTo requires that procnetstat_remote has TCP connections to these ports only: a connection to another port is an incoming
// one, whose remote port is its client's.
func (g gathered) requireOutgoingTo(ports ...uint16) {
	g.Helper()
	for tags, fields := range g.all("procnetstat_remote", "protocol=tcp") {
		port, err := strconv.ParseUint(valueOf(g.T, tags, "remote_port"), 10, 16)
		require.NoError(g, err)
		require.Contains(g, ports, uint16(port), "%s: %v", tags, fields)
	}
}

// requireNoneTwice requires that a field of the processes adds up to that of the host, and so counts each socket once.
func (g gathered) requireNoneTwice(field string) {
	g.Helper()
	require.Equal(g, g.one("procnetstat")[field], g.sum("procnetstat_process")[field], "%s, summed over processes", field)
	require.Equal(g, g.one("procnetstat")[field], g.sum("procnetstat_cgroup")[field], "%s, summed over cgroups", field)
}

// awaitStates waits until the namespace has exactly so many TCP sockets in each state, not counting listeners.
func awaitStates(t *testing.T, want map[string]int) {
	t.Helper()
	var got map[string]int
	reached := false
	defer func() {
		if !reached {
			t.Logf("the states are %v, want %v", got, want)
		}
	}()
	eventually(t, func() bool {
		got = map[string]int{}
		for _, row := range testnet.SS(t, "-t") {
			if row.State != "LISTEN" {
				got[row.State]++
			}
		}
		reached = !slices.ContainsFunc(slices.Concat(slices.Collect(maps.Keys(got)), slices.Collect(maps.Keys(want))), func(state string) bool {
			return got[state] != want[state]
		})
		return reached
	})
}

// drainedServer is a server that closes its listener and keeps the connections.
type drainedServer struct {
	holder   string // the name of the process that holds the connections
	process  *testnet.Proc
	listener testnet.Socket
	holders  []*testnet.Proc // of the listener
	ends     []testnet.Socket
	clients  []testnet.Socket
}

func (d *drainedServer) port() uint16 { return d.listener.Local.Port() }

// newDrainedServers starts servers whose connections are held by the process that listens, by its fork, and by a process that got the
// listener from another one.
func newDrainedServers(t *testing.T, client *testnet.Proc, connections int) []*drainedServer {
	t.Helper()
	var servers []*drainedServer
	add := func(holder string, process *testnet.Proc, listener testnet.Socket, holders ...*testnet.Proc) {
		s := &drainedServer{holder: holder, process: process, listener: listener, holders: holders}
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listener.Local.Port())
		s.clients = client.Connect(to, connections)
		s.ends = process.Accept(listener, connections)
		servers = append(servers, s)
	}
	loopback, any4 := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("0.0.0.0:0")
	own := testnet.Start(t, testnet.Process{Name: "own"})
	add("own", own, own.Listen("tcp4", loopback, 16), own)

	master := testnet.Start(t, testnet.Process{Name: "forked"})
	listener := master.Listen("tcp4", any4, 16)
	worker := master.Fork(1)[0]
	add("forked", worker, listener, master, worker)

	listens, accepts := testnet.Start(t, testnet.Process{Name: "listens"}), testnet.Start(t, testnet.Process{Name: "accepts"})
	listener = listens.Listen("tcp4in6", netip.MustParseAddrPort("[::]:0"), 16)
	listens.Pass(listener, accepts)
	add("accepts", accepts, listener, listens, accepts)
	return servers
}

// A server drains: its connections still count for its listener, in every state, and are never outgoing.
func TestDrainedListener(t *testing.T) {
	testnet.Isolate(t, func() {
		const connections = 5
		client := testnet.Start(t, testnet.Process{Name: "client"})
		servers := newDrainedServers(t, client, connections)
		awaitStates(t, map[string]int{"ESTABLISHED": 2 * connections * len(servers)})
		var ports []uint16
		for _, s := range servers {
			ports = append(ports, s.port())
		}
		ended := subscribeToEnds(t)
		v := startViews(t, "netlink", "procfs")
		want := func(values map[string]int64) func(gathered, string) {
			return func(g gathered, _ string) {
				for field, value := range values {
					for _, s := range servers {
						g.requireAtPort(s.port(), field, map[string]int64{s.holder: value})
						g.requireOfProcess(field, map[string]int64{s.holder: value})
					}
					g.requireNoneTwice(field)
				}
				g.requireOutgoingTo(ports...)
			}
		}
		v.check(t, "listening", want(map[string]int64{"tcp_established": connections}))

		for _, s := range servers {
			for _, holder := range s.holders {
				holder.Close(s.listener)
			}
			if s.listener.Protocol == "tcp" { // the subscription is to IPv4
				ended.await(s.port())
			}
		}
		for i := range 3 {
			v.check(t, fmt.Sprintf("drained %d", i), want(map[string]int64{"tcp_established": connections}))
		}
		const half = 2
		for _, s := range servers {
			s.process.Close(s.ends[:half]...)
		}
		awaitStates(t, map[string]int{
			"ESTABLISHED": 2 * (connections - half) * len(servers), "FIN_WAIT2": half * len(servers), "CLOSE_WAIT": half * len(servers),
		})
		for i := range 2 {
			v.check(t, fmt.Sprintf("half closed %d", i), want(map[string]int64{"tcp_established": connections - half, "tcp_fin_wait2": half}))
		}
		for _, s := range servers {
			s.process.Close(s.ends[half:]...)
			client.Close(s.clients...)
		}
		awaitStates(t, map[string]int{"TIME_WAIT": connections * len(servers)})
		for i := range 2 {
			v.check(t, fmt.Sprintf("closed %d", i), want(map[string]int64{"tcp_time_wait": connections}))
		}
	})
}

// An FTP server in passive mode: a listener accepts one connection and is closed between two gathers. The connection is incoming.
func TestListenerBetweenTwoGathers(t *testing.T) {
	testnet.Isolate(t, func() {
		server, client := testnet.Start(t, testnet.Process{Name: "ftpd"}), testnet.Start(t, testnet.Process{Name: "client"})
		ended := subscribeToEnds(t)
		v := startViews(t, "netlink")
		v.check(t, "before", func(g gathered, _ string) { g.requireOutgoingTo() })
		var accepted, connected []testnet.Socket
		var ports []uint16
		for _, at := range []string{"127.0.0.1:0", "127.0.0.1:0", "0.0.0.0:0"} {
			listener := server.Listen("tcp4", netip.MustParseAddrPort(at), 1)
			to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listener.Local.Port())
			connected = append(connected, client.Connect(to, 1)...)
			accepted = append(accepted, server.Accept(listener, 1)...)
			server.Close(listener)
			ended.await(listener.Local.Port())
			ports = append(ports, listener.Local.Port())
		}
		want := func(field string) func(gathered, string) {
			return func(g gathered, _ string) {
				for i, port := range ports {
					g.requireAtPort(port, field, map[string]int64{"ftpd": 1})
					address := []string{"127.0.0.1", "127.0.0.1", "0.0.0.0"}[i]
					require.Equal(g, int64(1), g.one("procnetstat_listener", listenerTags(port, "local_address="+address, "process_name=ftpd")...)[field])
				}
				g.requireOutgoingTo(ports...)
				g.requireNoneTwice(field)
			}
		}
		for i := range 3 {
			v.check(t, fmt.Sprintf("transfer %d", i), want("tcp_established"))
		}
		server.Close(accepted...)
		client.Close(connected...)
		awaitStates(t, map[string]int{"TIME_WAIT": len(ports)})
		v.check(t, "closed", want("tcp_time_wait"))
	})
}

// A listener that the last gather saw accepts a connection and is closed. The connection is incoming, whether or not the kernel
// reports the end of the listener.
func TestListenerClosedSinceLastGather(t *testing.T) {
	testnet.Isolate(t, func() {
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		ended := subscribeToEnds(t)
		v := startViews(t, "netlink", "procfs")
		var ports []uint16
		for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
			listener := server.Listen("tcp4", netip.MustParseAddrPort(at), 1)
			ports = append(ports, listener.Local.Port())
			v.check(t, "listening at "+at, func(g gathered, _ string) {
				g.requireAtPort(listener.Local.Port(), "tcp_listen", map[string]int64{"server": 1})
			})
			client.Connect(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listener.Local.Port()), 1)
			server.Accept(listener, 1)
			server.Close(listener)
			ended.await(listener.Local.Port())
			for range 2 {
				v.check(t, "closed", func(g gathered, _ string) {
					for _, port := range ports {
						g.requireAtPort(port, "tcp_established", map[string]int64{"server": 1})
					}
					g.requireOutgoingTo(ports...)
					g.requireNoneTwice("tcp_established")
				})
			}
		}
	})
}

// A peer-to-peer program dials from the port that it listens at. What it dialed is outgoing, what it accepted is incoming.
func TestConnectFromPortOfListener(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		const targets = 3
		shared := testnet.SocketOptions{ReusePort: true}
		peer := testnet.Start(t, testnet.Process{Name: "peer"}).With(shared)
		target, client := testnet.Start(t, testnet.Process{Name: "target"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := peer.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		ended := subscribeToEnds(t)
		v := startViews(t, "netlink")
		v.check(t, "before", func(g gathered, _ string) { g.requireOutgoingTo() })

		ports := []uint16{listener.Local.Port()}
		var dialed, answering []testnet.Socket
		for range targets {
			at := target.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
			dialed = append(dialed, peer.Dial(listener.Local, at.Local))
			answering = append(answering, target.Accept(at, 1)...)
			ports = append(ports, at.Local.Port())
		}
		client.Connect(listener.Local, 1)
		peer.Accept(listener, 1)
		want := func(incoming, outgoing string) func(gathered, string) {
			return func(g gathered, _ string) {
				g.requireAtPort(listener.Local.Port(), incoming, map[string]int64{"peer": 1})
				if incoming != outgoing {
					g.requireAtPort(listener.Local.Port(), outgoing, nil)
				}
				for _, port := range ports[1:] {
					tags := []string{"process_name=peer", "remote_address=127.0.0.1", "remote_port=" + strconv.Itoa(int(port))}
					require.Equal(g, int64(1), g.one("procnetstat_remote", tags...)[outgoing], "%v", tags)
				}
				g.requireOutgoingTo(ports...)
				g.requireNoneTwice(outgoing)
			}
		}
		for i := range 3 {
			v.check(t, fmt.Sprintf("listening %d", i), want("tcp_established", "tcp_established"))
		}
		peer.Close(listener)
		ended.await(listener.Local.Port())
		v.check(t, "without its listener", want("tcp_established", "tcp_established"))
		peer.Close(dialed...)
		target.Close(answering...)
		awaitStates(t, map[string]int{"ESTABLISHED": 2, "TIME_WAIT": targets})
		for i := range 2 {
			v.check(t, fmt.Sprintf("closed %d", i), want("tcp_established", "tcp_time_wait"))
		}
	})
}

// Two programs share a port by SO_REUSEPORT. Each has the connections that it holds, and the queue of its own listening socket.
func TestTwoProgramsAtOnePort(t *testing.T) {
	testnet.Isolate(t, func() {
		shared := testnet.SocketOptions{ReusePort: true}
		busy, idle := testnet.Start(t, testnet.Process{Name: "busy"}).With(shared), testnet.Start(t, testnet.Process{Name: "idle"}).With(shared)
		client := testnet.Start(t, testnet.Process{Name: "client"})
		const connections, waiting = 10, 2
		listener := busy.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		port := listener.Local.Port()
		client.Connect(listener.Local, connections+waiting) // before the other one listens
		busy.Accept(listener, connections)
		awaitQueued(t, listener, waiting)
		idle.Listen("tcp4", listener.Local, 8)

		want := func(g gathered, source string) {
			// What nobody has accepted counts for those of the port that have accepted others.
			g.requireAtPort(port, "tcp_established", map[string]int64{"busy": connections + waiting})
			g.requireAtPort(port, "tcp_listen", map[string]int64{"busy": 1, "idle": 1})
			g.requireAtPort(port, "accept_queue", map[string]int64{"busy": waiting})
			g.requireOfProcess("tcp_established", map[string]int64{"busy": connections + waiting, "idle": 0})
			g.requireNoneTwice("tcp_established")
			if source == "netlink" {
				g.requireAtPort(port, "accept_queue_limit", map[string]int64{"busy": 16, "idle": 8})
				g.requireAtPort(port, "accept_queue_used_percent", map[string]int64{"busy": 12}) // of 16
			}
			g.requireOutgoingTo(port)
		}
		v := startViews(t, "netlink", "procfs")
		v.check(t, "sharing", want)
		v.check(t, "still sharing", want)
		startViews(t, "netlink", "procfs").check(t, "after a restart", want)

		busy.Close(listener) // resets those that wait
		awaitStates(t, map[string]int{"ESTABLISHED": 2 * connections})
		startViews(t, "netlink", "procfs").check(t, "one listens", func(g gathered, _ string) {
			g.requireAtPort(port, "tcp_established", map[string]int64{"busy": connections})
			g.requireAtPort(port, "tcp_listen", map[string]int64{"idle": 1})
			g.requireOfProcess("tcp_established", map[string]int64{"busy": connections, "idle": 0})
			g.requireOutgoingTo(port)
		})
	})
}

// Socket activation: a process holds the listener, others the connections, having inherited the listener (Accept=no) or a connection
// (Accept=yes). A connection that nobody has accepted counts once.
func TestSocketActivation(t *testing.T) {
	testnet.Isolate(t, func() {
		const connections = 4
		systemd, client := testnet.Start(t, testnet.Process{Name: "systemd"}), testnet.Start(t, testnet.Process{Name: "client"})
		loopback := netip.MustParseAddrPort("127.0.0.1:0")

		shared := systemd.Listen("tcp4", loopback, 16)
		client.Connect(shared.Local, connections)
		sshd := testnet.Start(t, testnet.Process{Name: "sshd", UID: 65534, GID: 65534})
		systemd.Pass(shared, sshd)
		sshd.Accept(shared, connections)

		perConnection := systemd.Listen("tcp4", loopback, 16)
		client.Connect(perConnection.Local, connections)
		session := testnet.Start(t, testnet.Process{Name: "session"})
		for _, accepted := range systemd.Accept(perConnection, connections) {
			systemd.Pass(accepted, session)
			systemd.Close(accepted)
		}
		ports := []uint16{shared.Local.Port(), perConnection.Local.Port()}
		want := func(waiting int64) func(gathered, string) {
			return func(g gathered, _ string) {
				// Of those that hold the listener, sshd holds connections of it; of the other listener nobody does.
				g.requireAtPort(ports[0], "tcp_established", map[string]int64{"sshd": connections + waiting})
				g.requireAtPort(ports[1], "tcp_established", map[string]int64{"session": connections, "systemd": waiting})
				g.requireAtPort(ports[0], "tcp_listen", map[string]int64{"sshd": 1, "systemd": 1})
				g.requireAtPort(ports[1], "tcp_listen", map[string]int64{"systemd": 1})
				g.requireAtPort(ports[0], "accept_queue", map[string]int64{"sshd": waiting, "systemd": waiting})
				g.requireAtPort(ports[1], "accept_queue", map[string]int64{"systemd": waiting})
				g.requireOfProcess("tcp_established", map[string]int64{
					"sshd": connections + waiting, "session": connections, "systemd": waiting, "client": 2 * (connections + waiting),
				})
				g.requireNoneTwice("tcp_established")
				g.requireOutgoingTo(ports...)
			}
		}
		v := startViews(t, "netlink", "procfs")
		v.check(t, "accepted", want(0))
		client.Connect(shared.Local, 1)
		client.Connect(perConnection.Local, 1)
		awaitQueued(t, shared, 1)
		awaitQueued(t, perConnection, 1)
		v.check(t, "one waits", want(1))
		v.check(t, "one still waits", want(1))
		startViews(t, "netlink", "procfs").check(t, "after a restart", want(1))
	})
}

// Connections that nobody has accepted count for those that have accepted others also in the first gather, whichever of them come
// first in the table: its order is that of a hash, so that at one of many ports each may be first.
func TestWaitingConnectionsInFirstGather(t *testing.T) {
	testnet.Isolate(t, func() {
		const ports, accepted, waiting = 16, 2, 2
		systemd, client := testnet.Start(t, testnet.Process{Name: "systemd"}), testnet.Start(t, testnet.Process{Name: "client"})
		sshd := testnet.Start(t, testnet.Process{Name: "sshd"}) // systemd has the lower pid
		var listeners []testnet.Socket
		for range ports {
			listener := systemd.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 64)
			systemd.Pass(listener, sshd)
			client.Connect(listener.Local, accepted+waiting)
			sshd.Accept(listener, accepted)
			awaitQueued(t, listener, waiting)
			listeners = append(listeners, listener)
		}
		v := startViews(t, "netlink", "procfs")
		for i := range 2 {
			v.check(t, fmt.Sprintf("gather %d", i), func(g gathered, _ string) {
				for _, listener := range listeners {
					g.requireAtPort(listener.Local.Port(), "tcp_established", map[string]int64{"sshd": accepted + waiting})
				}
				g.requireOfProcess("tcp_established", map[string]int64{"sshd": ports * (accepted + waiting), "systemd": 0})
				g.requireNoneTwice("tcp_established")
			})
		}
	})
}

// After a restart, connections whose listener is still there are right at once, also those that are half closed or in TIME_WAIT.
func TestConnectionsAfterRestart(t *testing.T) {
	testnet.Isolate(t, func() {
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		ends := client.Connect(listener.Local, 6)
		accepted := server.Accept(listener, 5)
		peerOf := func(s testnet.Socket) testnet.Socket {
			return ends[slices.IndexFunc(ends, func(end testnet.Socket) bool { return end.Local == s.Remote })]
		}
		server.Close(accepted[0], accepted[1])
		client.Close(peerOf(accepted[0]), peerOf(accepted[2]))
		awaitStates(t, map[string]int{"ESTABLISHED": 6, "FIN_WAIT2": 2, "CLOSE_WAIT": 2, "TIME_WAIT": 1})
		want := func(g gathered, _ string) {
			port := listener.Local.Port()
			for field, value := range map[string]int64{"tcp_established": 3, "tcp_fin_wait2": 1, "tcp_close_wait": 1, "tcp_time_wait": 1} {
				g.requireAtPort(port, field, map[string]int64{"server": value})
				g.requireOfProcess(field, map[string]int64{"server": value})
			}
			g.requireOutgoingTo(port)
			require.Equal(g, int64(3), g.sum("procnetstat_remote")["tcp_established"])
			for _, state := range []string{"established", "fin_wait2", "close_wait", "time_wait"} {
				g.requireNoneTwice("tcp_" + state)
			}
		}
		for i := range 2 {
			v := startViews(t, "netlink", "procfs")
			v.check(t, fmt.Sprintf("start %d", i), want)
			v.check(t, fmt.Sprintf("start %d, next gather", i), want)
		}
	})
}

// A process whose name is longer than the kernel's 15 characters has its whole name.
func TestLongProcessName(t *testing.T) {
	testnet.Isolate(t, func() {
		const name = "victoria-metrics"
		server := testnet.Start(t, testnet.Process{Name: name})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		server.Connect(listener.Local, 3)
		server.Accept(listener, 3)
		startViews(t, "netlink", "procfs").check(t, "named", func(g gathered, _ string) {
			require.Equal(g, int64(6), g.one("procnetstat_process", "process_name="+name)["tcp_established"])
			require.Equal(g, int64(3), g.one("procnetstat_listener", "process_name="+name)["tcp_established"])
			require.Equal(g, int64(3), g.one("procnetstat_remote", "process_name="+name)["tcp_established"])
			for _, measurement := range []string{"procnetstat_process", "procnetstat_listener", "procnetstat_remote"} {
				require.Len(g, g.all(measurement), 1, measurement)
			}
		})
	})
}

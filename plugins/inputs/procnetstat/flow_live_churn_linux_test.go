package procnetstat

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// TestSumsUnderChurn: listeners of all kinds come and go, and connections to them are opened, accepted, half closed and closed. At
// each gather, the series of a port add up to what ss says of the sockets with that local port, whoever listened there and when;
// no incoming connection is in procnetstat_remote; and processes and cgroups add up to the host.
func TestSumsUnderChurn(t *testing.T) {
	testnet.Isolate(t, func() {
		const gathers, connections = 20, 100 // between two gathers
		ends := awaitableEnds(t)
		v := startViews(t, "netlink")
		c := newFlowChurn(t)
		for i := range gathers {
			for opened := 0; opened < connections; {
				opened += c.step()
			}
			ends.await(c.closedListeners)
			c.closedListeners = nil
			c.gather(v, i)
		}
		t.Logf("%d connections to %d listeners, of which %d are left", c.opened, len(c.ports), len(c.services))
	})
}

// flowChurn opens and closes listeners and connections.
type flowChurn struct {
	*testing.T
	random          *rand.Rand
	clients         []*testnet.Proc
	kinds           []*serviceKind
	services        []*service
	connections     []*churnedConnection
	ports           []uint16 // of all listeners that there have been
	closedListeners []uint16 // since the last gather
	opened          int
}

// A serviceKind is a way to listen and to accept. Its processes live as long as the test.
type serviceKind struct {
	name    string
	network string
	at      netip.Addr
	to      []string          // addresses of clients' connections
	listens []*testnet.Proc   // each opens a listening socket, and passes it to
	accepts [][]*testnet.Proc // these, which accept; empty: to nobody
	passes  *testnet.Proc     // what is accepted; nil: it is kept
}

// A service listens at a port.
type service struct {
	*serviceKind
	port    uint16
	sockets []testnet.Socket                      // of serviceKind.listens
	waiting map[netip.AddrPort]*churnedConnection // by the address of the client
}

// A churnedConnection has the two ends of a connection, or of one that was.
type churnedConnection struct {
	client, server       *testnet.Proc // nil: closed, or not accepted
	clientEnd, serverEnd testnet.Socket
}

func newFlowChurn(t *testing.T) *flowChurn {
	t.Helper()
	c := &flowChurn{T: t, random: rand.New(rand.NewPCG(1, 2))}
	started := func(name string, uid uint32) *testnet.Proc {
		return testnet.Start(t, testnet.Process{Name: name, UID: uid, GID: uid})
	}
	for i := range 3 {
		c.clients = append(c.clients, started(fmt.Sprintf("client%d", i), 0))
	}
	loopback4, loopback6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	forked := started("forked", 0)
	workers := forked.Fork(2)
	for _, worker := range workers {
		worker.SetUser(65534)
	}
	shared := testnet.SocketOptions{ReusePort: true}
	systemd := started("systemd", 0)
	c.kinds = []*serviceKind{
		{name: "address", network: "tcp4", at: loopback4, to: []string{"127.0.0.1"}, listens: []*testnet.Proc{started("address", 0)}},
		{name: "wildcard", network: "tcp4", at: netip.IPv4Unspecified(), to: []string{"127.0.0.1", "127.0.0.2"}, listens: []*testnet.Proc{started("wildcard", 65534)}},
		{name: "ipv6", network: "tcp6", at: loopback6, to: []string{"::1"}, listens: []*testnet.Proc{started("ipv6", 0)}},
		{name: "dual-stack", network: "tcp4in6", at: netip.IPv6Unspecified(), to: []string{"127.0.0.1", "::1", "::ffff:127.0.0.3"}, listens: []*testnet.Proc{started("dual-stack", 0)}},
		{name: "forked", network: "tcp4", at: loopback4, to: []string{"127.0.0.1"}, listens: []*testnet.Proc{forked}, accepts: [][]*testnet.Proc{workers}},
		{name: "group", network: "tcp4", at: loopback4, to: []string{"127.0.0.1"}, listens: []*testnet.Proc{started("group0", 0).With(shared), started("group1", 0).With(shared)}},
		{name: "activated", network: "tcp4", at: loopback4, to: []string{"127.0.0.1"}, listens: []*testnet.Proc{systemd}, accepts: [][]*testnet.Proc{{started("sshd", 0)}}},
		{name: "activated by connection", network: "tcp6", at: loopback6, to: []string{"::1"}, listens: []*testnet.Proc{systemd}, passes: started("session", 0)},
	}
	for _, kind := range c.kinds {
		c.listen(kind)
	}
	return c
}

// listen starts a service at a port that none has had.
func (c *flowChurn) listen(kind *serviceKind) {
	const first, backlog = 7000, 64 // below net.ipv4.ip_local_port_range
	s := &service{serviceKind: kind, port: uint16(first + len(c.ports)), waiting: map[netip.AddrPort]*churnedConnection{}}
	for i, process := range kind.listens {
		listener := process.Listen(kind.network, netip.AddrPortFrom(kind.at, s.port), backlog)
		if len(kind.accepts) > 0 {
			for _, to := range kind.accepts[i] {
				process.Pass(listener, to)
			}
		}
		s.sockets = append(s.sockets, listener)
	}
	c.ports = append(c.ports, s.port)
	c.services = append(c.services, s)
}

// close ends a service. The kernel resets what waits in its queues.
func (c *flowChurn) close(s *service) {
	for i, process := range s.listens {
		if len(s.accepts) > 0 {
			for _, to := range s.accepts[i] {
				to.Close(s.sockets[i])
			}
		}
		process.Close(s.sockets[i])
		c.closedListeners = append(c.closedListeners, s.port)
	}
	c.services = slices.DeleteFunc(c.services, func(other *service) bool { return other == s })
}

// step does something at random, and returns the number of connections that it opened.
func (c *flowChurn) step() int {
	s := c.services[c.random.IntN(len(c.services))]
	switch c.random.IntN(20) {
	case 0:
		c.close(s)
		c.listen(s.serviceKind)
		return 0
	case 1, 2, 3, 4, 5:
		c.accept(s)
		return 0
	case 6, 7, 8, 9, 10:
		for range min(len(c.connections), 10) {
			c.closeEnd()
		}
		return 0
	}
	n := 1 + c.random.IntN(8)
	client := c.clients[c.random.IntN(len(c.clients))]
	to := netip.AddrPortFrom(netip.MustParseAddr(s.to[c.random.IntN(len(s.to))]), s.port)
	const full = 50
	if len(s.waiting) > full {
		c.accept(s)
	}
	for _, end := range client.Connect(to, n) {
		connection := &churnedConnection{client: client, clientEnd: end}
		c.connections = append(c.connections, connection)
		s.waiting[unmapped(end.Local)] = connection
	}
	c.opened += n
	return n
}

// unmapped returns the address as a listener of its own family has it.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// accept accepts some or all of what waits at a service.
func (c *flowChurn) accept(s *service) {
	for i, listener := range s.sockets {
		queued := 0
		for _, row := range testnet.SS(c.T, "-t", "-l") {
			if row.Inode == listener.Inode {
				queued = int(row.RecvQ)
			}
		}
		process := s.listens[i]
		if len(s.accepts) > 0 {
			process = s.accepts[i][c.random.IntN(len(s.accepts[i]))]
		}
		if queued > 1 {
			queued -= c.random.IntN(queued/2 + 1)
		}
		for _, accepted := range process.Accept(listener, queued) {
			connection := s.waiting[unmapped(accepted.Remote)]
			require.NotNil(c, connection, "%+v", accepted)
			delete(s.waiting, unmapped(accepted.Remote))
			connection.server, connection.serverEnd = process, accepted
			if s.passes != nil {
				process.Pass(accepted, s.passes)
				process.Close(accepted)
				connection.server = s.passes
			}
		}
	}
}

// closeEnd closes an end of a connection, or resets the connection, which leaves no TIME_WAIT.
func (c *flowChurn) closeEnd() {
	i := c.random.IntN(len(c.connections))
	connection := c.connections[i]
	switch {
	case connection.client != nil && connection.server != nil && c.random.IntN(2) == 0:
		connection.server.Send(connection.serverEnd, 1)
		connection.client.Close(connection.clientEnd) // with unread data
		connection.server.Close(connection.serverEnd)
		connection.client, connection.server = nil, nil
	case connection.client != nil && (connection.server == nil || c.random.IntN(2) == 0):
		connection.client.Close(connection.clientEnd)
		connection.client = nil
	case connection.server != nil:
		connection.server.Close(connection.serverEnd)
		connection.server = nil
	}
	if connection.client == nil && connection.server == nil {
		c.connections = slices.Delete(c.connections, i, i+1)
	}
}

// states returns the sockets of the namespace by state, and reports whether none of them is about to change its state.
func (c *flowChurn) states() (states map[testnet.SocketState]int, settled bool) {
	states = testnet.SocketStates(c.T)
	for s := range states {
		if slices.Contains([]string{"SYN_SENT", "SYN_RECV", "FIN_WAIT1", "CLOSING", "LAST_ACK"}, s.State) {
			return nil, false
		}
	}
	return states, true
}

// gather compares a gather with what ss says, if the sockets are the same before and after both.
func (c *flowChurn) gather(v views, i int) {
	eventually(c.T, func() bool {
		before, settled := c.states()
		if !settled {
			return false
		}
		rows := testnet.SS(c.T, "-t", "-p")
		g := v[0].gather()
		if after, settled := c.states(); !settled || !maps.Equal(before, after) {
			return false
		}
		c.Run(fmt.Sprintf("gather %d", i), func(t *testing.T) {
			g.T = t
			c.requireSums(g, rows)
		})
		return true
	})
}

// requireSums requires that the series of a port add up to the rows, and that the series of each measurement add up to the host.
func (c *flowChurn) requireSums(g gathered, rows []testnet.Row) {
	g.Helper()
	incoming, outgoing, all := map[atPort]int64{}, map[atPort]int64{}, map[string]int64{}
	for _, row := range rows {
		field := "tcp_" + strings.ToLower(row.State)
		switch {
		case row.State == "LISTEN": // counts for each that holds it
			incoming[atPort{row.Local.Port(), field}] += int64(len(namesOf(row)))
			continue
		case slices.Contains(c.ports, row.Local.Port()):
			incoming[atPort{row.Local.Port(), field}]++
		default:
			outgoing[atPort{row.Remote.Port(), field}]++
		}
		all[field]++
	}
	require.Empty(g, differences(incoming, g.sumsByPort("procnetstat_listener", "local_port")), "procnetstat_listener")
	require.Empty(g, differences(outgoing, g.sumsByPort("procnetstat_remote", "remote_port")), "procnetstat_remote")
	c.requireOutgoing(g)
	for field, want := range all {
		require.Equal(g, want, g.one("procnetstat")[field], field)
		g.requireNoneTwice(field)
	}
}

// atPort is a field of the series of a port.
type atPort struct {
	port  uint16
	field string
}

// sumsByPort returns the numbers of sockets in each state, but 0, by the port in a tag.
func (g gathered) sumsByPort(measurement, tag string) map[atPort]int64 {
	g.Helper()
	sums := map[atPort]int64{}
	for tags, fields := range g.all(measurement, "protocol=tcp") {
		port, err := strconv.ParseUint(valueOf(g.T, tags, tag), 10, 16)
		require.NoError(g, err)
		for _, field := range stateFields {
			if fields[field] != 0 {
				sums[atPort{uint16(port), field}] += fields[field]
			}
		}
	}
	return sums
}

// differences lists the values that differ.
func differences(want, got map[atPort]int64) (found []string) {
	for at, value := range want {
		if got[at] != value {
			found = append(found, fmt.Sprintf("port %d has %s=%d, want %d", at.port, at.field, got[at], value))
		}
	}
	for at, value := range got {
		if _, wanted := want[at]; !wanted {
			found = append(found, fmt.Sprintf("port %d has %s=%d, want 0", at.port, at.field, value))
		}
	}
	slices.Sort(found)
	return found
}

// requireOutgoing requires that procnetstat_remote has connections to listeners only, and that the clients hold what is held.
func (c *flowChurn) requireOutgoing(g gathered) {
	g.Helper()
	g.requireOutgoingTo(c.ports...)
	for tags, fields := range g.all("procnetstat_remote", "protocol=tcp") {
		if name := valueOf(g.T, tags, "process_name"); !strings.HasPrefix(name, "client") {
			require.Zero(g, fields["tcp_established"]+fields["tcp_close_wait"], tags)
		}
	}
}

// endsOfListeners is a subscription to the TCP sockets that the kernel destroys.
type endsOfListeners struct{ listenerEnds }

// awaitableEnds subscribes for IPv4 and IPv6, with room for many: see subscribeToEnds.
func awaitableEnds(t *testing.T) endsOfListeners {
	t.Helper()
	e := endsOfListeners{subscribeToEnds(t)}
	require.NoError(t, unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	const ipv6 = 3 // SKNLGRP_INET6_TCP_DESTROY (include/uapi/linux/sock_diag.h)
	require.NoError(t, unix.SetsockoptInt(e.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, ipv6))
	return e
}

// next returns the local port of the next listener that the kernel has destroyed.
func (e endsOfListeners) next() uint16 {
	e.Helper()
	message := make([]byte, 8<<10)
	for {
		n, _, err := unix.Recvfrom(e.fd, message, 0)
		require.NoError(e, err, "the end of a listener is not reported")
		require.GreaterOrEqual(e, n, unix.NLMSG_HDRLEN+8)
		// The ports of struct inet_diag_msg (include/uapi/linux/inet_diag.h).
		ports := message[unix.NLMSG_HDRLEN+4:]
		if local, remote := binary.BigEndian.Uint16(ports), binary.BigEndian.Uint16(ports[2:]); remote == 0 {
			return local
		}
	}
}

// await returns when the kernel has reported the end of the listeners at these ports, each as often as it is in the list.
func (e endsOfListeners) await(ports []uint16) {
	e.Helper()
	missing := map[uint16]int{}
	for _, port := range ports {
		missing[port]++
	}
	for len(missing) > 0 {
		port := e.next()
		if missing[port]--; missing[port] <= 0 {
			delete(missing, port)
		}
	}
}

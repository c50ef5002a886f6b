package e2e

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Names with all characters that the line protocol escapes, and with those that procnetstat escapes.
const (
	serverName    = "a,b=c d\n\"\u00e9\xff"
	serverEscaped = `a,b=c d\x0a"é\xff`
	clientName    = "cli\nent\\"
	clientEscaped = `cli\x0aent\x5c`
	workersName   = "workers"
)

// escaped returns the name of a process of the load as procnetstat should write it.
func escaped(name string) string {
	switch name {
	case serverName:
		return serverEscaped
	case clientName:
		return clientEscaped
	}
	return name
}

// unitName is the systemd unit of the server, derived from its cgroup.
const unitName = "e2e.service"

const nobody = 65534

// Sizes of the load.
const (
	connections = 7
	accepted    = 5
	forks       = 8

	// Bytes on each accepted connection.
	requestBytes  = 1000
	readBytes     = 600 // of requestBytes; the rest stays in the receive queue
	responseBytes = 500
)

// load is a known set of sockets: in all states, held by the test itself, and those of a few processes.
type load struct {
	t *testing.T

	states []*testnet.Load

	server, client, workers *testnet.Proc
	listener                testnet.Socket
	connected, accepted     []testnet.Socket

	// The series that should count the sockets of the processes.
	serverSeries, clientSeries, workersSeries, serverListenerSeries, serverCgroupSeries, clientRemoteSeries string
}

func startLoad(t *testing.T) *load {
	t.Helper()
	l := &load{t: t, states: []*testnet.Load{testnet.UDP(t)}}
	for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
		l.states = append(l.states, testnet.States(t, network))
	}

	dir, cgroup := testnet.Cgroup(t, "e2e.slice/"+unitName)
	l.server = testnet.Start(t, testnet.Process{Name: serverName, Cgroup: dir})
	l.listener = l.server.Listen("tcp4", loopback, 64)
	l.client = testnet.Start(t, testnet.Process{Name: clientName, UID: nobody, GID: nobody})
	l.connected = l.client.Connect(l.listener.Local, connections)
	l.accepted = l.server.Accept(l.listener, accepted)
	for _, server := range l.accepted {
		client := l.peer(server)
		l.client.Send(client, requestBytes)
		l.server.Receive(server, readBytes)
		l.server.Send(server, responseBytes)
		l.client.Receive(client, responseBytes)
	}

	l.workers = testnet.Start(t, testnet.Process{Name: workersName})
	l.workers.Listen("tcp4in6", netip.AddrPort{}, 8)
	l.workers.Fork(forks)

	server, client := owner{serverEscaped, userOf(t, l.server.PID)}, owner{clientEscaped, userOf(t, l.client.PID)}
	l.serverSeries, l.serverListenerSeries = processSeries(server), listenerSeries(endpointOf("tcp", l.listener.Local), server)
	l.serverCgroupSeries = seriesName("procnetstat_cgroup", map[string]string{"cgroup": cgroup, "systemd_unit": unitName})
	l.clientSeries = processSeries(client)
	l.clientRemoteSeries = seriesName("procnetstat_remote", map[string]string{
		"protocol": "tcp", "remote_address": "127.0.0.1", "remote_port": strconv.Itoa(int(l.listener.Local.Port())),
		"process_name": clientEscaped, "remote_process_name": serverEscaped,
	})
	l.workersSeries = processSeries(owner{workersName, userOf(t, l.workers.PID)})
	return l
}

// peer returns the client end of a connection.
func (l *load) peer(server testnet.Socket) testnet.Socket {
	l.t.Helper()
	i := slices.IndexFunc(l.connected, func(client testnet.Socket) bool { return client.Local == server.Remote })
	if i < 0 {
		l.t.Fatalf("none of %v is the other end of %v", l.connected, server)
	}
	return l.connected[i]
}

// loopback has port 0: the kernel chooses a port.
var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// tcpStates counts the TCP sockets by state.
func (l *load) tcpStates() map[string]int {
	count := map[string]int{"ESTABLISHED": 2 * connections, "LISTEN": 2}
	for _, states := range l.states {
		for _, s := range states.Sockets {
			if s.Protocol == "tcp" || s.Protocol == "tcp6" {
				count[s.State]++
			}
		}
	}
	return count
}

// The numbers of connections that change closes and opens.
const (
	closedConnections = 3
	newAccepted       = 1
	newWaiting        = 4
	newRequestBytes   = 700 // bytes on a connection that stays open
)

// change changes the load: the client closes some of the accepted connections, sends on another one and opens new ones, the
// server accepts one, and the workers end. It returns when the server has acknowledged all FINs, which may be delayed.
func (l *load) change() {
	l.t.Helper()
	for _, server := range l.accepted[:closedConnections] {
		l.client.Close(l.peer(server))
	}
	defer waitFor(l.t, "acknowledgements of all FINs", func() bool {
		acknowledged := 0
		for _, row := range testnet.SS(l.t, "-t") {
			isClosed := func(server testnet.Socket) bool { return server.Remote == row.Local && server.Local == row.Remote }
			if row.State == "FIN_WAIT2" && slices.ContainsFunc(l.accepted[:closedConnections], isClosed) {
				acknowledged++
			}
		}
		return acknowledged == closedConnections
	})
	stays := l.accepted[closedConnections]
	l.client.Send(l.peer(stays), newRequestBytes)
	l.server.Receive(stays, newRequestBytes)
	l.server.Accept(l.listener, newAccepted)
	l.client.Connect(l.listener.Local, newWaiting)
	l.workers.Stop()
}

// allServerSeries returns the series that count the sockets of the server and no others.
func (l *load) allServerSeries() []string {
	return []string{l.serverSeries, l.serverListenerSeries, l.serverCgroupSeries}
}

// allClientSeries returns the series that count the sockets of the client and no others.
func (l *load) allClientSeries() []string { return []string{l.clientSeries, l.clientRemoteSeries} }

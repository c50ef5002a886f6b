package e2e

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Names that have everything in them that the line protocol has to escape, and what procnetstat has to.
const (
	serverName    = "srv a=1,b\"2"
	clientName    = "cli\nent\\"
	clientEscaped = `cli\x0aent\x5c`
	workersName   = "workers"
)

// escaped is how procnetstat should write the name of a process of the load.
func escaped(name string) string {
	if name == clientName {
		return clientEscaped
	}
	return name
}

const nobody = 65534

// Sizes of the load.
const (
	connections = 7
	accepted    = 5
	forks       = 8
)

// load is a known number of sockets: in all states, which the test itself holds, and those of a few processes.
type load struct {
	t *testing.T

	states []*testnet.Load

	server, client, workers *testnet.Proc
	listener                testnet.Socket
	connected, accepted     []testnet.Socket

	// The series that the processes should be in.
	serverSeries, clientSeries, workersSeries, serverListenerSeries string
}

func startLoad(t *testing.T) *load {
	t.Helper()
	l := &load{t: t, states: []*testnet.Load{testnet.UDP(t)}}
	for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
		l.states = append(l.states, testnet.States(t, network))
	}

	l.server = testnet.Start(t, testnet.Process{Name: serverName})
	l.listener = l.server.Listen("tcp4", loopback, 64)
	l.client = testnet.Start(t, testnet.Process{Name: clientName, UID: nobody, GID: nobody})
	l.connected = l.client.Connect(l.listener.Local, connections)
	l.accepted = l.server.Accept(l.listener, accepted)

	l.workers = testnet.Start(t, testnet.Process{Name: workersName})
	l.workers.Listen("tcp4in6", netip.AddrPort{}, 8)
	l.workers.Fork(forks)

	server := owner{serverName, userOf(t, l.server.PID)}
	l.serverSeries, l.serverListenerSeries = processSeries(server), listenerSeries(listensAt(l.listener.Local), server)
	l.clientSeries = processSeries(owner{clientEscaped, userOf(t, l.client.PID)})
	l.workersSeries = processSeries(owner{workersName, userOf(t, l.workers.PID)})
	return l
}

// loopback leaves the choice of the port to the kernel.
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

// What change does.
const (
	closed      = 3
	newAccepted = 1
	newWaiting  = 4
)

// change changes the load: the client closes some of the accepted connections and makes new ones, the server accepts one, and
// the workers end.
func (l *load) change() {
	l.t.Helper()
	for _, server := range l.accepted[:closed] {
		i := slices.IndexFunc(l.connected, func(client testnet.Socket) bool { return client.Local == server.Remote })
		if i < 0 {
			l.t.Fatalf("none of %v is the other end of %v", l.connected, server)
		}
		l.client.Close(l.connected[i])
	}
	l.server.Accept(l.listener, newAccepted)
	l.client.Connect(l.listener.Local, newWaiting)
	l.workers.Stop()
}

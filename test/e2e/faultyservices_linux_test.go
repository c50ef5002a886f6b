package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// faultyServices are processes with typical faults, and healthy ones (api, worker, catalog). They run until the test ends.
//
//   - orders leaks the connections that payments closes: one for each call of leak
//   - uploads does not accept: users fill its accept queue, and it drops further connections
//   - pool does not accept at one of three sockets that share a port; the queue of that one is full, the others are empty
//   - worker opens 50 short connections to api a second
//   - users hold connections to catalog, which does not read what they sent
type faultyServices struct {
	payments, orders, uploads, pool, users, api, worker, catalog    *testnet.Proc
	paymentsListener, uploadsListener, apiListener, catalogListener testnet.Socket
}

const (
	uploadsBacklog = 4
	poolBacklog    = 5
	catalogUsers   = 5
)

func startFaultyServices(t *testing.T) *faultyServices {
	t.Helper()
	start := func(name string) *testnet.Proc {
		t.Helper()
		return testnet.Start(t, testnet.Process{Name: name})
	}
	f := &faultyServices{
		payments: start("payments"), orders: start("orders"), uploads: start("uploads"), pool: start("pool"),
		users: start("users"), api: start("api"), worker: start("worker"), catalog: start("catalog"),
	}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback.Addr(), port) }
	f.paymentsListener = f.payments.Listen("tcp4", at(8081), 100)
	f.uploadsListener = f.uploads.Listen("tcp4", at(8082), uploadsBacklog)
	f.apiListener = f.api.Listen("tcp4", at(8083), 100)
	f.catalogListener = f.catalog.Listen("tcp4", at(5432), 100)

	const much, unread = 1 << 20, 1000
	f.api.Serve(f.apiListener, 100, 200)
	f.worker.OpenShortConnections(testnet.ShortConnections{To: f.apiListener.Local, N: much, Rate: 50, Lifetime: 10 * time.Millisecond, Send: 100, Receive: 200})
	for _, s := range f.users.Connect(f.catalogListener.Local, catalogUsers) {
		f.users.Send(s, unread)
	}
	f.catalog.Accept(f.catalogListener, catalogUsers)
	f.users.OpenShortConnections(f.uploadAttempts())
	pool := f.pool.With(testnet.SocketOptions{ReusePort: true})
	full := pool.Listen("tcp4", at(8084), poolBacklog)
	f.users.Connect(full.Local, poolBacklog+1) // before the others listen
	for range 2 {
		pool.Listen("tcp4", full.Local, poolBacklog)
	}
	f.leak()
	return f
}

// makeUnattributedConnections creates connections without an owner: they are opened before the plugin starts, and their
// descriptors are in flight (SCM_RIGHTS), so that no process has them in its descriptor table.
func makeUnattributedConnections(t *testing.T) {
	t.Helper()
	hidden := testnet.Start(t, testnet.Process{Name: "hidden"})
	const connections = 10
	at := hidden.Listen("tcp4", loopback, connections)
	for _, s := range hidden.Connect(at.Local, connections) {
		hidden.PutInFlight(s)
		hidden.Close(s)
	}
	hidden.Accept(at, connections)
}

// uploadAttempts configures connections to uploads, which does not accept them.
func (f *faultyServices) uploadAttempts() testnet.ShortConnections {
	return testnet.ShortConnections{To: f.uploadsListener.Local, N: 1 << 20, Rate: 10, Lifetime: time.Hour}
}

// leak makes orders leak one more connection.
func (f *faultyServices) leak() {
	f.orders.Connect(f.paymentsListener.Local, 1)
	f.payments.Close(f.payments.Accept(f.paymentsListener, 1)...)
}

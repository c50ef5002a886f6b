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
//   - worker opens 50 short connections to api a second
//   - users hold connections to catalog, which does not read what they sent
type faultyServices struct {
	payments, orders, uploads, users, api, worker, catalog          *testnet.Proc
	paymentsListener, uploadsListener, apiListener, catalogListener testnet.Socket
}

const (
	uploadsBacklog = 4
	catalogUsers   = 5
)

func startFaultyServices(t *testing.T) *faultyServices {
	t.Helper()
	start := func(name string) *testnet.Proc {
		t.Helper()
		return testnet.Start(t, testnet.Process{Name: name})
	}
	r := &faultyServices{
		payments: start("payments"), orders: start("orders"), uploads: start("uploads"), users: start("users"),
		api: start("api"), worker: start("worker"), catalog: start("catalog"),
	}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback.Addr(), port) }
	r.paymentsListener = r.payments.Listen("tcp4", at(8081), 100)
	r.uploadsListener = r.uploads.Listen("tcp4", at(8082), uploadsBacklog)
	r.apiListener = r.api.Listen("tcp4", at(8083), 100)
	r.catalogListener = r.catalog.Listen("tcp4", at(5432), 100)

	const much, unread = 1 << 20, 1000
	r.api.Serve(r.apiListener, 100, 200)
	r.worker.Visit(testnet.Visits{To: r.apiListener.Local, N: much, Rate: 50, Lifetime: 10 * time.Millisecond, Send: 100, Receive: 200})
	for _, s := range r.users.Connect(r.catalogListener.Local, catalogUsers) {
		r.users.Send(s, unread)
	}
	r.catalog.Accept(r.catalogListener, catalogUsers)
	r.users.Visit(r.uploadAttempts())
	r.leak()
	return r
}

// makeUnattributedConnections creates connections without an owner: they are opened before the plugin starts, and their descriptors
// are in flight (SCM_RIGHTS), so that no process has them in its descriptor table.
func makeUnattributedConnections(t *testing.T) {
	t.Helper()
	hidden := testnet.Start(t, testnet.Process{Name: "hidden"})
	const connections = 10
	at := hidden.Listen("tcp4", loopback, connections)
	for _, s := range hidden.Connect(at.Local, connections) {
		hidden.Post(s)
		hidden.Close(s)
	}
	hidden.Accept(at, connections)
}

// uploadAttempts configures connections to uploads, which does not accept them.
func (r *faultyServices) uploadAttempts() testnet.Visits {
	return testnet.Visits{To: r.uploadsListener.Local, N: 1 << 20, Rate: 10, Lifetime: time.Hour}
}

// leak makes orders leak one more connection.
func (r *faultyServices) leak() {
	r.orders.Connect(r.paymentsListener.Local, 1)
	r.payments.Close(r.payments.Accept(r.paymentsListener, 1)...)
}

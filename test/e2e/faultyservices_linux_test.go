package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// troubles are what somebody looks for who looks at sockets, in processes with names of their own. They go on until the test ends.
//
//   - orders does not close what payments has closed: a connection a second
//   - uploads does not accept: users fill its queue, and more of theirs is dropped
//   - worker connects to api, 50 times a second, for a moment each
//   - users have connections to catalog that stay, with bytes that nobody reads
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

// hideConnections makes connections of which no process is known: the one that made them did so before anybody looked, and has put them
// where no descriptor shows.
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

// visitsToUploads are attempts to connect to who does not accept.
func (r *faultyServices) uploadAttempts() testnet.Visits {
	return testnet.Visits{To: r.uploadsListener.Local, N: 1 << 20, Rate: 10, Lifetime: time.Hour}
}

// leak makes orders leak one connection more.
func (r *faultyServices) leak() {
	r.orders.Connect(r.paymentsListener.Local, 1)
	r.payments.Close(r.payments.Accept(r.paymentsListener, 1)...)
}

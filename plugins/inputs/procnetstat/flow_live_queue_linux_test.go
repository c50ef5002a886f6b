package procnetstat

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Three listening sockets share a port by SO_REUSEPORT. The queue of one is full, and that shows whatever room the others have.
func TestFullestQueueOfGroup(t *testing.T) {
	testnet.Isolate(t, func() {
		const backlog, queued, sockets = 5, 6, 3 // a queue is full if longer than the backlog: sk_acceptq_is_full (include/net/sock.h)
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		group := server.With(testnet.SocketOptions{ReusePort: true})
		full := group.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), backlog)
		port := full.Local.Port()
		v := startViews(t, "netlink", "procfs")
		want := func(queue, limit, percent, listening int64) func(gathered, string) {
			return func(g gathered, source string) {
				of := g.one("procnetstat_listener", listenerTags(port, "process_name=server")...)
				require.Equal(g, queue, of["accept_queue"])
				require.Equal(g, listening, of["tcp_listen"])
				require.Equal(g, queue, of["tcp_established"])
				if source != "netlink" { // it has no limits
					require.NotContains(g, of, "accept_queue_limit")
					require.NotContains(g, of, "accept_queue_used_percent")
					return
				}
				require.Equal(g, limit, of["accept_queue_limit"])
				require.Contains(g, of, "accept_queue_used_percent")
				require.Equal(g, percent, of["accept_queue_used_percent"])
			}
		}
		v.check(t, "empty", want(0, backlog, 0, 1))
		client.Connect(full.Local, queued) // before the others listen
		v.check(t, "alone", want(queued, backlog, 120, 1))
		for range sockets - 1 {
			group.Listen("tcp4", full.Local, backlog)
		}
		v.check(t, "in a group", want(queued, sockets*backlog, 120, sockets))
		server.Accept(full, 4)
		v.check(t, "no longer full", func(g gathered, source string) {
			of := g.one("procnetstat_listener", listenerTags(port, "process_name=server")...)
			require.Equal(g, int64(queued-4), of["accept_queue"])
			if source == "netlink" {
				require.Equal(g, int64(40), of["accept_queue_used_percent"])
			}
		})
	})
}

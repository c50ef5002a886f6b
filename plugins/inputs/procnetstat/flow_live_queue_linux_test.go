package procnetstat

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Three listening sockets share a port by SO_REUSEPORT. The queue of one is full, and that shows whatever room the others have, and
// wherever it is in the list: the kernel adds IPv4 sockets at its front and IPv6 sockets at its end (__inet_hash,
// net/ipv4/inet_hashtables.c).
func TestFullestQueueOfGroup(t *testing.T) {
	testnet.Isolate(t, func() {
		const backlog, queued, sockets = 5, 6, 3 // a queue is full if longer than the backlog: sk_acceptq_is_full (include/net/sock.h)
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		group := server.With(testnet.SocketOptions{ReusePort: true})
		v := startViews(t, "netlink", "procfs")
		var ports []uint16
		want := func(queue, limit, percent, listening int64) func(gathered, string) {
			return func(g gathered, source string) {
				of := g.one("procnetstat_listener", listenerTags(ports[len(ports)-1], "process_name=server")...)
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
		for _, network := range []string{"tcp4", "tcp6"} {
			at := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network]
			full := group.Listen(network, netip.MustParseAddrPort(at), backlog)
			ports = append(ports, full.Local.Port())
			v.check(t, network+" empty", want(0, backlog, 0, 1))
			client.Connect(full.Local, queued) // before the others listen
			awaitQueued(t, full, queued)
			v.check(t, network+" alone", want(queued, backlog, 120, 1))
			for range sockets - 1 {
				group.Listen(network, full.Local, backlog)
			}
			v.check(t, network+" in a group", want(queued, sockets*backlog, 120, sockets))
			if network == "tcp6" {
				break
			}
			server.Accept(full, 4)
			v.check(t, "no longer full", func(g gathered, source string) {
				of := g.one("procnetstat_listener", listenerTags(full.Local.Port(), "process_name=server")...)
				require.Equal(g, int64(queued-4), of["accept_queue"])
				if source == "netlink" {
					require.Equal(g, int64(40), of["accept_queue_used_percent"])
				}
			})
		}

		folded := start(t, "source = \"netlink\"\nmeasurements = [\"listener\"]\nmax_series = 1").gather().one("procnetstat_listener")
		require.Equal(t, int64(120), folded["accept_queue_used_percent"], "of all listeners together")
		require.Equal(t, int64(queued-4+queued), folded["accept_queue"])
		require.Equal(t, int64(2*sockets*backlog), folded["accept_queue_limit"])
	})
}

// awaitQueued waits until so many connections are in the accept queue of a listener: the client's end is established before.
func awaitQueued(t *testing.T, listener testnet.Socket, connections uint32) {
	t.Helper()
	eventually(t, func() bool {
		for _, row := range testnet.SS(t, "-t", "-l") {
			if row.Inode == listener.Inode {
				return row.RecvQ == connections
			}
		}
		return false
	})
}

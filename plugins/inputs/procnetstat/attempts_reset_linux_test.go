package procnetstat

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// ending is a network namespace with connections between a client and a server, and a plugin. One connection stays, so that every gather
// has all series.
type ending struct {
	*testing.T
	server, client *testnet.Proc
	listener       testnet.Socket
	live           *live
}

func endIn(t *testing.T, network string, f func(*ending)) {
	t.Helper()
	testnet.RequireBPF(t)
	testnet.Isolate(t, func() {
		e := &ending{T: t, server: testnet.Start(t, testnet.Process{Name: "server"}), client: testnet.Start(t, testnet.Process{Name: "client"})}
		at := map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network]
		e.listener = e.server.Listen(network, netip.MustParseAddrPort(at), 4096)
		e.connect(1)
		e.live = start(t, `measurements = ["host", "process", "listener", "cgroup", "remote", "client", "gather"]`)
		e.live.gather()
		f(e)
	})
}

// connect opens connections, and returns the sockets of the client and of the server.
func (e *ending) connect(n int) (initiated, accepted []testnet.Socket) {
	e.Helper()
	initiated = e.client.Connect(e.listener.Local, n)
	return initiated, e.server.Accept(e.listener, n)
}

// ends are the counters of the connections that have ended, of the process of this name.
type ends struct{ closed, reset, timedOut int64 }

// reported returns the ends of the client and of the server, and wants every other measurement to have the same.
func (e *ending) reported(g gathered) (ofClient, ofServer ends) {
	e.Helper()
	of := func(fields map[string]int64) ends {
		require.Contains(e, fields, "tcp_closed_reset")
		require.Contains(e, fields, "tcp_closed_timed_out")
		return ends{fields["tcp_closed"], fields["tcp_closed_reset"], fields["tcp_closed_timed_out"]}
	}
	ofClient, ofServer = of(g.one("procnetstat_process", "process_name=client")), of(g.one("procnetstat_process", "process_name=server"))
	port := strconv.Itoa(int(e.listener.Local.Port()))
	require.Equal(e, ofClient, of(g.one("procnetstat_remote", "process_name=client", "remote_port="+port)), "remote")
	require.Equal(e, ofServer, of(g.one("procnetstat_listener", "process_name=server", "local_port="+port)), "listener")
	require.Equal(e, ofServer, of(g.one("procnetstat_client", "process_name=server", "local_port="+port)), "client")
	sum := ends{ofClient.closed + ofServer.closed, ofClient.reset + ofServer.reset, ofClient.timedOut + ofServer.timedOut}
	require.Equal(e, sum, of(g.one("procnetstat")), "host")
	require.Equal(e, sum, of(g.sum("procnetstat_cgroup")), "cgroup")
	report := g.one("procnetstat_gather")
	require.Zero(e, report["connects_lost"])
	require.Zero(e, report["closed_events_lost"])
	return ofClient, ofServer
}

// await gathers until these ends are reported, and wants no more of them after that.
func (e *ending) await(client, server ends, of string) {
	e.Helper()
	eventually(e.T, func() bool {
		ofClient, ofServer := e.reported(e.live.gather())
		require.LessOrEqual(e, ofClient.closed+ofServer.closed, client.closed+server.closed, of)
		return ofClient.closed+ofServer.closed == client.closed+server.closed
	})
	for range 2 {
		ofClient, ofServer := e.reported(e.live.gather())
		require.Equal(e, client, ofClient, "client: %s", of)
		require.Equal(e, server, ofServer, "server: %s", of)
	}
}

// A connection that the peer resets counts so at the end that did not reset it, once: whether its process holds the socket when a gather
// comes, or has closed it, or no gather has seen the connection. One that the peer closes does not.
func TestConnectionsReset(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, victim := range []string{"client", "server"} {
			t.Run(network+", of the "+victim, func(t *testing.T) {
				endIn(t, network, func(e *ending) {
					var client, server ends
					ofVictim, held, peer := &client, e.client, e.server
					if victim == "server" {
						ofVictim, held, peer = &server, e.server, e.client
					}
					connect := func(n int) (ofVictim, ofPeer []testnet.Socket) {
						initiated, accepted := e.connect(n)
						if victim == "server" {
							return accepted, initiated
						}
						return initiated, accepted
					}
					ended := func(n int64) { client.closed, server.closed = client.closed+n, server.closed+n }
					resetsBefore := e.live.gather().one("procnetstat")["tcp_estab_resets"]

					const seenHeld, seen, unseenHeld, unseen = 400, 200, 150, 250
					sockets, peers := connect(seenHeld)
					e.live.gather()
					peer.Reset(peers...)
					ended(seenHeld)
					ofVictim.reset += seenHeld
					e.await(client, server, "held, seen before")
					held.Close(sockets...)
					e.await(client, server, "closed after they were reset")

					sockets, peers = connect(seen)
					e.live.gather()
					e.resetAndClose(peer, peers, held, sockets)
					ended(seen)
					ofVictim.reset += seen
					e.await(client, server, "closed, seen before")

					sockets, peers = connect(unseenHeld)
					peer.Reset(peers...)
					ended(unseenHeld)
					ofVictim.reset += unseenHeld
					e.await(client, server, "held, never seen before")
					held.Close(sockets...)
					e.await(client, server, "closed after they were reset, never seen before")

					sockets, peers = connect(unseen)
					e.resetAndClose(peer, peers, held, sockets)
					ended(unseen)
					ofVictim.reset += unseen
					e.await(client, server, "closed, never seen")

					require.EqualValues(t, 1000, ofVictim.reset)
					resets := e.live.gather().one("procnetstat")["tcp_estab_resets"] - resetsBefore
					require.EqualValues(t, 2*1000, resets, "the kernel counts both ends")

					sockets, peers = connect(500)
					e.live.gather()
					peer.Close(peers...)
					await(t, "CLOSE_WAIT", sockets...)
					e.live.gather()
					held.Close(sockets...)
					ended(500)
					e.await(client, server, "closed by the peer, seen")
					sockets, peers = connect(500)
					peer.Close(peers...)
					held.Close(sockets...)
					ended(500)
					e.await(client, server, "closed by the peer, never seen")
					require.Equal(t, ends{closed: 2000}, map[string]ends{"client": server, "server": client}[victim])
				})
			})
		}
	}
}

// resetAndClose resets connections from one end, and closes them at the other.
func (e *ending) resetAndClose(peer *testnet.Proc, ofPeer []testnet.Socket, victim *testnet.Proc, ofVictim []testnet.Socket) {
	e.Helper()
	peer.Reset(ofPeer...)
	eventually(e.T, func() bool { return len(connectionsOf(e.T, ofVictim)) == 0 })
	victim.Close(ofVictim...)
}

// connectionsOf returns the connections of the sockets that have not ended.
func connectionsOf(t *testing.T, sockets []testnet.Socket) (rows []testnet.Row) {
	t.Helper()
	locals := map[[2]netip.AddrPort]bool{}
	for _, s := range sockets {
		locals[[2]netip.AddrPort{s.Local, s.Remote}] = true
	}
	return slices.DeleteFunc(testnet.SS(t, "-t"), func(row testnet.Row) bool { return !locals[[2]netip.AddrPort{row.Local, row.Remote}] })
}

// A connection whose peer no longer answers counts so at each end that waits for an acknowledgment, once: whether its process holds the
// socket, or has closed it.
func TestConnectionsTimedOut(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			testnet.Require(t, "nft")
			endIn(t, network, func(e *ending) {
				testnet.Sysctl(t, "net.ipv4.tcp_retries2", "2")
				testnet.Sysctl(t, "net.ipv4.tcp_orphan_retries", "1")
				const n = 5
				heldByClient, heldByServer := e.connect(n)
				ofClient, ofServer := e.connect(n) // which they close
				e.live.gather()
				unseenByClient, unseenByServer := e.connect(n)
				port := e.listener.Local.Port()
				for _, direction := range []string{"sport", "dport"} {
					rule := fmt.Sprintf("add table inet cut; add chain inet cut input { type filter hook input priority 0; }; "+
						"add rule inet cut input tcp %s %d drop", direction, port)
					out, err := exec.CommandContext(t.Context(), "nft", rule).CombinedOutput()
					require.NoError(t, err, "%s", out)
				}
				for end, sockets := range map[*testnet.Proc][]testnet.Socket{
					e.client: slices.Concat(heldByClient, ofClient, unseenByClient), e.server: slices.Concat(heldByServer, ofServer, unseenByServer),
				} {
					for _, s := range sockets {
						end.Send(s, 100)
					}
				}
				e.client.Close(ofClient...)
				e.server.Close(ofServer...)
				want := ends{closed: 3 * n, timedOut: 3 * n}
				e.await(want, want, "no answer")
				e.client.Close(slices.Concat(heldByClient, unseenByClient)...)
				e.server.Close(slices.Concat(heldByServer, unseenByServer)...)
				e.await(want, want, "closed after that")
			})
		})
	}
}

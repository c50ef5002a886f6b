package procnetstat

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A connection in SYN_RECV is incoming, and counts for the process that listens.
func TestSynRecvIsIncoming(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
		t.Run(network, func(t *testing.T) {
			testnet.Isolate(t, func() {
				testnet.States(t, network)
				atPorts := map[uint16]int64{}
				for _, row := range testnet.SS(t, "-t") {
					if row.State == "SYN_RECV" {
						atPorts[row.Local.Port()]++
					}
				}
				require.NotEmpty(t, atPorts)
				want := func(g gathered, _ string) {
					require.Zero(g, g.sum("procnetstat_remote")["tcp_syn_recv"], "outgoing")
					for port, n := range atPorts {
						require.Equal(g, n, g.sum("procnetstat_listener", listenerTags(port)...)["tcp_syn_recv"])
					}
					require.Zero(g, g.sum("procnetstat_process", "process_name="+unattributed)["tcp_syn_recv"], "they count for the listener's process")
					g.requireNoneTwice("tcp_syn_recv")
				}
				v := startViews(t, "netlink", "procfs")
				v.check(t, "first", want)
				v.check(t, "second", want)
			})
		})
	}
}

// A new version of a server listens at the address and port of the old one, which drains. Each has its own connections.
func TestRollingRestart(t *testing.T) {
	testnet.Isolate(t, func() {
		old, client := testnet.Start(t, testnet.Process{Name: "old"}), testnet.Start(t, testnet.Process{Name: "client"})
		shared := testnet.SocketOptions{ReusePort: true} // as the old connections have the port
		listener := old.With(shared).Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		at, port := listener.Local, listener.Local.Port()
		ends := client.Connect(at, 5)
		accepted := old.Accept(listener, 5)
		v := startViews(t, "netlink", "procfs")
		want := func(field string, values map[string]int64) func(gathered, string) {
			return func(g gathered, _ string) {
				g.requireAtPort(port, field, values)
				g.requireOfProcess(field, values)
				g.requireOutgoingTo(port)
				g.requireNoneTwice(field)
			}
		}
		v.check(t, "old", want("tcp_established", map[string]int64{"old": 5}))

		old.Close(listener)
		renewed := testnet.Start(t, testnet.Process{Name: "renewed"})
		next := renewed.With(shared).Listen("tcp4", at, 16)
		client.Connect(at, 3)
		renewed.Accept(next, 3)
		for i := range 2 {
			v.check(t, fmt.Sprintf("both %d", i), want("tcp_established", map[string]int64{"old": 5, "renewed": 3}))
		}
		old.Close(accepted...)
		awaitStates(t, map[string]int{"ESTABLISHED": 6, "FIN_WAIT2": 5, "CLOSE_WAIT": 5})
		v.check(t, "half closed", want("tcp_fin_wait2", map[string]int64{"old": 5}))
		client.Close(ends...)
		awaitStates(t, map[string]int{"ESTABLISHED": 6, "TIME_WAIT": 5})
		old.Stop()
		v.check(t, "closed", want("tcp_time_wait", map[string]int64{"old": 5}))
		v.check(t, "renewed", want("tcp_established", map[string]int64{"renewed": 3}))
	})
}

// A connection that is outgoing stays so if a process listens at its local port afterwards.
func TestListenerAtPortOfConnection(t *testing.T) {
	testnet.Isolate(t, func() {
		shared := testnet.SocketOptions{ReusePort: true}
		peer, target := testnet.Start(t, testnet.Process{Name: "peer"}).With(shared), testnet.Start(t, testnet.Process{Name: "target"})
		to := target.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		from := netip.MustParseAddrPort("127.0.0.1:7000")
		dialed := peer.Dial(from, to.Local)
		answering := target.Accept(to, 1)
		want := func(field string) func(gathered, string) {
			return func(g gathered, _ string) {
				g.requireAtPort(from.Port(), field, nil)
				g.requireAtPort(to.Local.Port(), "tcp_established", map[string]int64{"target": map[bool]int64{true: 1}[field == "tcp_established"]})
				require.Equal(g, int64(1), g.one("procnetstat_remote", "process_name=peer")[field])
				g.requireOutgoingTo(to.Local.Port())
				g.requireNoneTwice(field)
			}
		}
		v := startViews(t, "netlink", "procfs")
		v.check(t, "alone", want("tcp_established"))
		peer.Listen("tcp4", from, 16)
		for i := range 2 {
			v.check(t, fmt.Sprintf("with a listener %d", i), want("tcp_established"))
		}
		peer.Close(dialed)
		target.Close(answering...)
		awaitStates(t, map[string]int{"TIME_WAIT": 1})
		v.check(t, "closed", want("tcp_time_wait"))
	})
}

// Listeners at the same link-local address on two links are two; one at the wildcard has the connections of both links.
func TestLinkLocalListeners(t *testing.T) {
	testnet.Isolate(t, func() {
		const port, wildcardPort = 8080, 9090
		server := testnet.Start(t, testnet.Process{Name: "server"})
		client := testnet.Start(t, testnet.Process{Name: "client", Netns: true})
		wildcard := server.Listen("tcp6", netip.AddrPortFrom(netip.IPv6Unspecified(), wildcardPort), 16)
		devices := []string{"left", "right"}
		for i, device := range devices {
			peerDevice := fmt.Sprintf("eth%d", i)
			connectVeth(t, device, "fe80::1/64", client, peerDevice, "fe80::2/64")
			listener := server.Listen("tcp6", netip.AddrPortFrom(netip.MustParseAddr("fe80::1%"+device), port), 16)
			to := netip.MustParseAddr("fe80::1%" + peerDevice)
			inNetns := client.In(client.Netns()) // where the zone has an index
			inNetns.Connect(netip.AddrPortFrom(to, port), 1+i)
			inNetns.Connect(netip.AddrPortFrom(to, wildcardPort), 1+i)
			server.Accept(listener, 1+i)
			server.Accept(wildcard, 1+i)
		}
		v := startViews(t, "netlink")
		for i := range 2 {
			v.check(t, fmt.Sprintf("gather %d", i), func(g gathered, _ string) {
				for i, device := range devices {
					of := g.one("procnetstat_listener", listenerTags(port, "local_address=fe80::1%"+device)...)
					require.Equal(g, int64(1+i), of["tcp_established"], device)
					require.Equal(g, int64(1), of["tcp_listen"], device)
				}
				require.Len(g, g.all("procnetstat_listener", listenerTags(port)...), len(devices))
				require.Equal(g, int64(3), g.one("procnetstat_listener", listenerTags(wildcardPort, "local_address=::")...)["tcp_established"])
				require.Len(g, g.all("procnetstat_listener", listenerTags(wildcardPort)...), 1)
				require.Empty(g, g.all("procnetstat_remote", "protocol=tcp"))
			})
		}
	})
}

// local_ports_used is what ss counts: the most connections of any state between a local address and a remote endpoint that are not
// those of a listener here.
func TestLocalPortsUsed(t *testing.T) {
	testnet.Isolate(t, func() {
		type pair struct {
			local  netip.Addr
			remote netip.AddrPort
		}
		fullest := func(listeners ...uint16) (most int64) {
			pairs := map[pair]int64{}
			for _, row := range testnet.SS(t, "-t") {
				if row.State != "LISTEN" && !slices.Contains(listeners, row.Local.Port()) {
					p := pair{row.Local.Addr(), row.Remote}
					pairs[p]++
					most = max(most, pairs[p])
				}
			}
			return most
		}
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		one := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 64)
		other := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 64)
		v := startViews(t, "netlink", "procfs")
		check := func(when string, want int64) {
			t.Helper()
			require.Equal(t, want, fullest(one.Local.Port(), other.Local.Port()), when)
			v.check(t, when, func(g gathered, _ string) { require.Equal(g, want, g.one("procnetstat")["local_ports_used"]) })
		}
		check("no connection", 0)
		many := client.Connect(one.Local, 20)
		client.Connect(other.Local, 15)
		client.ConnectFrom(netip.MustParseAddr("127.0.0.2"), one.Local, 10)
		accepted := server.Accept(one, 30)
		check("the pair counts, not its process, address or peer alone", 20)
		testnet.Start(t, testnet.Process{Name: "another"}).Connect(one.Local, 3)
		check("of all processes", 23)
		client.Close(many[:8]...)
		server.Close(accepted...)
		eventually(t, func() bool {
			return len(testnet.SS(t, "-t", "state", "time-wait")) == 8
		})
		check("TIME_WAIT holds a port", 23)
		client.Stop()
		eventually(t, func() bool { return len(testnet.SS(t, "-t", "state", "fin-wait-1")) == 0 })
		left := fullest(one.Local.Port(), other.Local.Port())
		require.Less(t, left, int64(23))
		check("a closed connection holds none", left)
		require.NotContains(t, start(t, `measurements = ["host"]`).gather().one("procnetstat"), "local_ports_used",
			"without attribution the direction is not known")
	})
}

// A process disconnects a socket that it has accepted, and connects it to another, silent peer. From then on the socket is outgoing.
func TestAcceptedSocketConnectsToAnotherPeer(t *testing.T) {
	testnet.Isolate(t, func() {
		client, other := testnet.Start(t, testnet.Process{Name: "client"}), testnet.Start(t, testnet.Process{Name: "other"})
		listener, at := listenHere(t)
		silent := other.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 0)
		client.Connect(silent.Local, 1) // its queue is full: it drops every SYN
		awaitQueued(t, silent, 1)
		v := startViews(t, "netlink", "procfs")
		v.check(t, "before", func(g gathered, _ string) { g.requireOutgoingTo(silent.Local.Port()) })

		client.Connect(at, 1)
		accepted, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		require.NoError(t, err)
		defer unix.Close(accepted)
		self := wholeName(os.Getpid(), filepath.Base(os.Args[0]))
		for i := range 2 {
			v.check(t, fmt.Sprintf("accepted %d", i), func(g gathered, _ string) {
				g.requireAtPort(at.Port(), "tcp_established", map[string]int64{self: 1})
				require.Equal(g, int64(1), g.one("procnetstat")["local_ports_used"], "of the client")
				g.requireNoneTwice("tcp_established")
			})
		}

		require.NoError(t, connectRaw(accepted, &unix.RawSockaddr{Family: unix.AF_UNSPEC}))
		require.NoError(t, unix.SetNonblock(accepted, true))
		require.ErrorIs(t, unix.Connect(accepted, &unix.SockaddrInet4{Port: int(silent.Local.Port()), Addr: at.Addr().As4()}), unix.EINPROGRESS)
		isOutgoing := func(field string) func(gathered, string) {
			return func(g gathered, _ string) {
				tags := []string{"process_name=" + self, "remote_address=127.0.0.1", fmt.Sprintf("remote_port=%d", silent.Local.Port())}
				require.Equal(g, int64(1), g.one("procnetstat_remote", tags...)[field])
				g.requireAtPort(at.Port(), "tcp_established", nil)
				require.Equal(g, int64(1), g.sum("procnetstat_process", "process_name="+self)[field])
				require.Equal(g, int64(2), g.one("procnetstat")["local_ports_used"], "with the client's")
				g.requireNoneTwice(field)
			}
		}
		for i := range 2 {
			v.check(t, fmt.Sprintf("connecting %d", i), isOutgoing("tcp_syn_sent"))
		}
		other.Accept(silent, 2) // the kernel sends the SYN again after a second
		for i := range 2 {
			v.check(t, fmt.Sprintf("connected %d", i), isOutgoing("tcp_established"))
		}
	})
}

// listenHere returns a listener of this process.
func listenHere(t *testing.T) (fd int, at netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, unix.Listen(fd, 16))
	bound, err := unix.Getsockname(fd)
	require.NoError(t, err)
	inet, ok := bound.(*unix.SockaddrInet4)
	require.True(t, ok)
	return fd, netip.AddrPortFrom(netip.AddrFrom4(inet.Addr), uint16(inet.Port))
}

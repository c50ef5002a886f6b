package testnet

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rejections are the errors of attempts that the router rejects.
var rejections = []struct {
	network string
	answer  Answer
	errno   unix.Errno
}{
	{"tcp4", Refuse, unix.ECONNREFUSED},
	{"tcp4", TCPReset, unix.ECONNREFUSED},
	{"tcp4", RouteUnreachable, unix.EHOSTUNREACH},
	{"tcp4", RouteProhibit, unix.EHOSTUNREACH},
	{"tcp4", ICMPNet4, unix.ENETUNREACH},
	{"tcp4", ICMPHost4, unix.EHOSTUNREACH},
	{"tcp4", ICMPProto4, unix.ENOPROTOOPT},
	{"tcp4", ICMPPort4, unix.ECONNREFUSED},
	{"tcp4", ICMPAdmin4, unix.EHOSTUNREACH},
	{"tcp6", Refuse, unix.ECONNREFUSED},
	{"tcp6", TCPReset, unix.ECONNREFUSED},
	{"tcp6", RouteUnreachable, unix.ENETUNREACH},
	{"tcp6", RouteProhibit, unix.EACCES},
	{"tcp6", ICMPNoRoute6, unix.ENETUNREACH},
	{"tcp6", ICMPAddr6, unix.EHOSTUNREACH},
	{"tcp6", ICMPPort6, unix.ECONNREFUSED},
	{"tcp6", ICMPAdmin6, unix.EACCES},
	{"tcp6", ICMPPolicy6, unix.EACCES},
	{"tcp6", ICMPReject6, unix.EACCES},
}

func TestRouterRejects(t *testing.T) {
	Isolate(t, func() {
		router, client := StartRouter(t), Start(t, Process{Name: "client"})
		for _, r := range rejections {
			t.Run(r.network+" "+string(r.answer), func(t *testing.T) {
				n := 20
				if r.answer == RouteUnreachable || r.answer == RouteProhibit {
					n = 1
				}
				to := netip.AddrPortFrom(router.Address(r.network, r.answer), 80)
				for _, nonBlocking := range []bool{false, true} {
					checkCounts(t, n, n, func() {
						results := client.Attempt(Attempts{To: to, N: n, NonBlocking: nonBlocking})
						checkAttempted(t, results, n, r.errno)
						checkTook(t, results, time.Millisecond)
					})
				}
			})
		}
	})
}

func TestRouterIsSilent(t *testing.T) {
	Isolate(t, func() {
		router, client := StartRouter(t), Start(t, Process{Name: "client"})
		Sysctl(t, "net.ipv4.tcp_syn_retries", "1")
		checkCounts(t, 16, 16, func() {
			var begun []Socket
			for _, network := range []string{"tcp4", "tcp6"} {
				for _, answer := range []Answer{Drop, RouteBlackhole} {
					to := netip.AddrPortFrom(router.Address(network, answer), 80)
					for _, nonBlocking := range []bool{false, true} {
						begun = append(begun, client.Begin(Attempts{To: to, N: 2, NonBlocking: nonBlocking})...)
					}
				}
			}
			results := client.Finish(begun...)
			checkAttempted(t, results, 16, unix.ETIMEDOUT)
			checkTook(t, results, 3*time.Second)
		})
	})
}

// The kernel fails the attempts as soon as ARP or NDP has given up.
func TestRouterNeighbor(t *testing.T) {
	Isolate(t, func() {
		router, client := StartRouter(t), Start(t, Process{Name: "client"})
		for _, neighbor := range []netip.Addr{router.Neighbor4, router.Neighbor6} {
			for _, nonBlocking := range []bool{false, true} {
				checkCounts(t, 3, 3, func() {
					results := client.Attempt(Attempts{To: netip.AddrPortFrom(neighbor, 80), N: 3, NonBlocking: nonBlocking})
					checkAttempted(t, results, 3, unix.EHOSTUNREACH)
					checkTook(t, results, 250*time.Millisecond)
				})
			}
		}
	})
}

// The time to connect is that of the link, or of the SYN that is not dropped.
func TestRouterDelays(t *testing.T) {
	Isolate(t, func() {
		router, client := StartRouter(t), Start(t, Process{Name: "client"})
		for _, network := range []string{"tcp4", "tcp6"} {
			listener := router.Listen(network, netip.AddrPort{}, 100)
			port := listener.Local.Port()
			for _, test := range []struct {
				answer      Answer
				delay, took time.Duration
			}{
				{Refuse, time.Millisecond, time.Millisecond},
				{Refuse, 100 * time.Millisecond, 100 * time.Millisecond},
				{DropFirstSYN, time.Millisecond, time.Second},
			} {
				router.Delay(test.delay)
				to := netip.AddrPortFrom(router.Address(network, test.answer), port)
				for _, nonBlocking := range []bool{false, true} {
					before := tcpCounts(t)
					results := client.Attempt(Attempts{To: to, N: 5, NonBlocking: nonBlocking})
					checkAttempted(t, results, 5, 0)
					checkTook(t, results, test.took)
					retransmitted := tcpCounts(t)["RetransSegs"] - before["RetransSegs"]
					if dropped := test.answer == DropFirstSYN; dropped && retransmitted != 5 || !dropped && retransmitted != 0 {
						t.Errorf("%s: %d SYNs retransmitted", test.answer, retransmitted)
					}
					router.Close(router.Accept(listener, 5)...)
				}
			}
		}
	})
}

// A full listener drops SYNs. The attempts end when the process accepts.
func TestAttemptsAtFullListener(t *testing.T) {
	Isolate(t, func() {
		// With a backlog less than n there would be SYN cookies: of these the client does not learn that the listener dropped its ACK.
		const backlog, queued, n = 9, 10, 5
		server, client := Start(t, Process{Name: "server"}), Start(t, Process{Name: "client"})
		for _, form := range attemptForms("") {
			listener := server.Listen(form.network, netip.AddrPortFrom(netip.MustParseAddr(form.loopback), 0), backlog)
			client.Connect(listener.Local, queued)
			begun := client.Begin(form.to(listener.Local, n))
			if got := inState(t, "SYN_SENT", listener.Local); got != n {
				t.Fatalf("%v: %d sockets in SYN_SENT, want %d", form, got, n)
			}
			server.Accept(listener, queued+n)
			results := client.Finish(begun...)
			checkAttempted(t, results, n, 0)
			checkTook(t, results, time.Second)
		}
	})
}

func TestRejectPort(t *testing.T) {
	Isolate(t, func() {
		client := Start(t, Process{Name: "client"})
		RejectPort(t, 80, ICMPHost4)
		RejectPort(t, 80, ICMPAddr6)
		for _, test := range []struct {
			to                 string
			nonBlocking, fails bool
		}{
			{"127.0.0.1:80", false, true},
			{"127.0.0.1:80", true, false},
			{"[::1]:80", false, true},
			{"[::1]:80", true, true},
		} {
			t.Run(test.to, func(t *testing.T) {
				fails, took, state := 0, time.Duration(0), "SYN_SENT"
				if test.fails {
					fails, took, state = 3, time.Second, "CLOSE"
				}
				checkCounts(t, 3, fails, func() {
					results := client.Attempt(Attempts{To: netip.MustParseAddrPort(test.to), N: 3, NonBlocking: test.nonBlocking})
					checkAttempted(t, results, 3, unix.EHOSTUNREACH)
					checkTook(t, results, took)
					for _, result := range results {
						if result.Socket.State != state {
							t.Errorf("the socket was in %s, want %s", result.Socket.State, state)
						}
					}
				})
			})
		}
	})
}

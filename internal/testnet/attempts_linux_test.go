package testnet

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpCounts returns the counts of TCP of this network namespace.
func tcpCounts(t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for file, prefix := range map[string]string{"snmp": "Tcp:", "netstat": "TcpExt:"} {
		text, err := os.ReadFile("/proc/self/net/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for line := range strings.Lines(string(text)) {
			line, isTCP := strings.CutPrefix(line, prefix)
			fields := strings.Fields(line)
			if !isTCP {
				continue
			}
			if names == nil {
				names = fields
				continue
			}
			for i, name := range names {
				if counts[name], err = strconv.Atoi(fields[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return counts
}

// checkCounts checks how many attempts the kernel counts that f makes.
func checkCounts(t *testing.T, opens, fails int, f func()) {
	t.Helper()
	before := tcpCounts(t)
	f()
	after := tcpCounts(t)
	if got := after["ActiveOpens"] - before["ActiveOpens"]; got != opens {
		t.Errorf("ActiveOpens counts %d attempts, want %d", got, opens)
	}
	if got := after["AttemptFails"] - before["AttemptFails"]; got != fails {
		t.Errorf("AttemptFails counts %d attempts, want %d", got, fails)
	}
}

// checkAttempted checks the number of results and the error of each.
func checkAttempted(t *testing.T, results []Attempted, n int, want unix.Errno) {
	t.Helper()
	if len(results) != n {
		t.Errorf("%d results, want %d", len(results), n)
	}
	for _, result := range results {
		if result.Errno != want {
			t.Fatalf("got errno %d (%v) after %v, want %d", int(result.Errno), result.Errno, result.Took, int(want))
		}
	}
}

// checkTook checks that each attempt took at least so long, and less than half a second more.
func checkTook(t *testing.T, results []Attempted, want time.Duration) {
	t.Helper()
	for _, result := range results {
		if result.Took < want || result.Took > want+500*time.Millisecond {
			t.Errorf("an attempt took %v, want %v or a little more", result.Took, want)
		}
	}
}

// inState returns the number of TCP sockets to an address in a state.
func inState(t *testing.T, state string, remote netip.AddrPort) (n int) {
	t.Helper()
	for _, row := range SS(t, "-t") {
		if row.State == state && row.Remote == remote {
			n++
		}
	}
	return n
}

func sockets(results []Attempted) (sockets []Socket) {
	for _, result := range results {
		sockets = append(sockets, result.Socket)
	}
	return sockets
}

// An attemptForm is how a process connects, and over which network.
type attemptForm struct {
	network, loopback string
	Attempts
}

func (f attemptForm) String() string {
	return fmt.Sprintf("%s,NonBlocking=%t,FastOpen=%s", f.network, f.NonBlocking, f.FastOpen)
}

// to returns n attempts of the form.
func (f attemptForm) to(to netip.AddrPort, n int) Attempts {
	a := f.Attempts
	a.To, a.N = to, n
	return a
}

// attemptForms returns all forms without TCP Fast Open, or with it.
func attemptForms(fastOpens ...FastOpen) (forms []attemptForm) {
	for _, network := range [][2]string{{"tcp4", "127.0.0.1"}, {"tcp6", "::1"}, {"tcp4in6", "::ffff:127.0.0.1"}} {
		for _, nonBlocking := range []bool{false, true} {
			for _, fastOpen := range fastOpens {
				forms = append(forms, attemptForm{network[0], network[1], Attempts{NonBlocking: nonBlocking, FastOpen: fastOpen}})
			}
		}
	}
	return forms
}

func TestAttempts(t *testing.T) {
	Isolate(t, func() {
		server, client := Start(t, Process{Name: "server"}), Start(t, Process{Name: "client"})
		test := func(t *testing.T, form attemptForm, dataInSYN int) {
			t.Helper()
			at := netip.MustParseAddr(form.loopback)
			listener := server.Listen(form.network, netip.AddrPortFrom(at, 0), 100)
			defer server.Close(listener)
			unused := netip.AddrPortFrom(at, 9)

			checkCounts(t, 50, 50, func() { checkAttempted(t, client.Attempt(form.to(unused, 50)), 50, unix.ECONNREFUSED) })

			again := form.to(unused, 5)
			again.SameSocket, again.Keep = true, true
			checkCounts(t, 5, 5, func() {
				results := client.Attempt(again)
				checkAttempted(t, results, 5, unix.ECONNREFUSED)
				client.Close(results[0].Socket)
			})

			established := form.to(listener.Local, 20)
			established.Keep = true
			checkCounts(t, 20, 0, func() {
				before := tcpCounts(t)
				results := client.Attempt(established)
				checkAttempted(t, results, 20, 0)
				if got := tcpCounts(t)["TCPFastOpenActive"] - before["TCPFastOpenActive"]; got != dataInSYN {
					t.Errorf("%d connections had data in the SYN, want %d", got, dataInSYN)
				}
				if n := inState(t, "ESTABLISHED", listener.Local); n != 20 {
					t.Errorf("%d connections, want 20", n)
				}
				client.Reset(sockets(results)...)
				server.Reset(server.Accept(listener, 20)...)
			})

			noRoute := netip.MustParseAddrPort(map[bool]string{true: "[2001:db8::1]:80", false: "192.0.2.1:80"}[form.network == "tcp6"])
			checkCounts(t, 0, 0, func() { checkAttempted(t, client.Attempt(form.to(noRoute, 5)), 5, unix.ENETUNREACH) })
		}
		for _, form := range attemptForms("", FastOpenConnect, FastOpenSend) {
			t.Run(form.String(), func(t *testing.T) { test(t, form, 0) })
		}
		Sysctl(t, "net.ipv4.tcp_fastopen", "0x607") // data in each SYN
		for _, form := range attemptForms(FastOpenConnect, FastOpenSend) {
			t.Run("without cookie/"+form.String(), func(t *testing.T) { test(t, form, 20) })
		}
	})
}

// With no free port, or a 4-tuple in use, connect(2) fails before it sends a SYN. The kernel does not count this.
func TestAttemptsWithoutPort(t *testing.T) {
	Isolate(t, func() {
		server, client := Start(t, Process{Name: "server"}), Start(t, Process{Name: "client"})
		Sysctl(t, "net.ipv4.ip_local_port_range", "20000 20009")
		for _, form := range attemptForms("") {
			t.Run(form.String(), func(t *testing.T) {
				at := netip.MustParseAddr(form.loopback)
				listener := server.Listen(form.network, netip.AddrPortFrom(at, 5000), 100)
				defer server.Close(listener)
				attempts := form.to(listener.Local, 20)
				attempts.Keep = true
				checkCounts(t, 10, 0, func() {
					results := client.Attempt(attempts)
					failed := slices.DeleteFunc(slices.Clone(results), func(result Attempted) bool { return result.Errno == 0 })
					checkAttempted(t, failed, 10, unix.EADDRNOTAVAIL)
					client.Reset(sockets(results)...)
				})

				bound := form.to(listener.Local, 1)
				bound.From, bound.Keep = netip.AddrPortFrom(at, 5001), true
				reuse := client.With(SocketOptions{ReusePort: true})
				checkCounts(t, 1, 0, func() {
					first := reuse.Attempt(bound)
					checkAttempted(t, first, 1, 0)
					second := reuse.Attempt(bound)
					checkAttempted(t, second, 1, unix.EADDRNOTAVAIL)
					if local := second[0].Socket.Local; local != bound.From {
						t.Errorf("the socket is bound to %v, want %v", local, bound.From)
					}
					client.Reset(append(sockets(first), sockets(second)...)...)
				})
			})
		}
	})
}

// Whatever the way, the kernel does not count attempts that the process has given up.
func TestGiveUp(t *testing.T) {
	Isolate(t, func() {
		router, client := StartRouter(t), Start(t, Process{Name: "client"})
		silent := map[string]netip.Addr{"tcp4": router.Address("tcp4", Drop), "tcp6": router.Address("tcp6", Drop)}
		silent["tcp4in6"] = netip.AddrFrom16(silent["tcp4"].As16())
		for _, form := range attemptForms("", FastOpenConnect) {
			to := netip.AddrPortFrom(silent[form.network], 80)
			for _, how := range []GiveUp{GiveUpClose, GiveUpShutdown, GiveUpDisconnect} {
				want := unix.ECONNRESET
				switch {
				case how == GiveUpClose && !form.NonBlocking:
					continue
				case how == GiveUpClose:
					want = unix.EINPROGRESS
				case how == GiveUpDisconnect && !form.NonBlocking:
					want = unix.EPIPE // __inet_stream_connect: disconnected while it waited
				}
				t.Run(fmt.Sprintf("%v,%s", form, how), func(t *testing.T) {
					checkCounts(t, 10, 0, func() {
						begun := client.Begin(form.to(to, 10))
						if n := inState(t, "SYN_SENT", to); n != 10 {
							t.Errorf("%d sockets in SYN_SENT, want 10", n)
						}
						checkAttempted(t, client.GiveUp(how, begun...), 10, want)
						if n := inState(t, "SYN_SENT", to); n != 0 {
							t.Errorf("%d sockets in SYN_SENT after giving up", n)
						}
					})
				})
			}
		}
	})
}

func TestReset(t *testing.T) {
	Isolate(t, func() {
		const n = 100
		server, client := Start(t, Process{Name: "server"}), Start(t, Process{Name: "client"})
		for _, network := range []string{"tcp4", "tcp6"} {
			listener := server.Listen(network, netip.AddrPortFrom(networks[network].loopback, 0), n)
			for _, accepted := range []bool{true, false} {
				initiator := client.Connect(listener.Local, n)
				acceptor := server.Accept(listener, n)
				before := tcpCounts(t)
				if accepted {
					server.Reset(acceptor...)
				} else {
					client.Reset(initiator...)
				}
				after := tcpCounts(t)
				// Both ends count: the one that resets, and the one that is reset.
				if got := after["EstabResets"] - before["EstabResets"]; got != 2*n {
					t.Errorf("EstabResets counts %d ends, want %d", got, 2*n)
				}
				for _, row := range SS(t, "-t") {
					if row.State != "LISTEN" {
						t.Errorf("after a reset there is %s", row.Line)
					}
				}
				if accepted {
					client.Close(initiator...)
				} else {
					server.Close(acceptor...)
				}
			}
		}
	})
}

func TestAttemptAtRate(t *testing.T) {
	Isolate(t, func() {
		const n, rate = 2000, 5000
		server, client := Start(t, Process{Name: "server"}), Start(t, Process{Name: "client"})
		listener := server.Listen("tcp4", netip.AddrPortFrom(loopback4, 0), maxBacklog)
		server.Serve(listener, 0, 0)
		unused := netip.MustParseAddrPort("[::1]:9")
		checkCounts(t, 2*n, n, func() {
			client.AttemptAtRate(Attempts{To: listener.Local, N: n}, rate)
			client.AttemptAtRate(Attempts{To: unused, N: n, NonBlocking: true}, rate)
			for to, errno := range map[netip.AddrPort]unix.Errno{listener.Local: 0, unused: unix.ECONNREFUSED} {
				totals := client.AttemptTotals(to)
				for end := deadline(); totals.Ended < n; totals = client.AttemptTotals(to) {
					if time.Now().After(end) {
						t.Fatalf("only %+v", totals)
					}
					time.Sleep(time.Millisecond)
				}
				t.Logf("%v: %+v", to, totals)
				if len(totals.Errnos) != 1 || totals.Errnos[errno] != n {
					t.Errorf("errors %v, want %d of %v", totals.Errnos, n, errno)
				}
				if least := (n - 1) * time.Second / rate; totals.For < least-10*time.Millisecond {
					t.Errorf("%d attempts in %v, want at least %v", n, totals.For, least)
				}
			}
		})
	})
}

// The attempts run in the network namespace of their sockets.
func TestAttemptsInNetns(t *testing.T) {
	Isolate(t, func() {
		inside := Start(t, Process{Name: "inside", Netns: true})
		client := Start(t, Process{Name: "client"}).In(inside.Netns())
		listener := inside.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 10)
		checkCounts(t, 0, 0, func() { checkAttempted(t, client.Attempt(Attempts{To: listener.Local, N: 5}), 5, 0) })
		if n := len(inside.Accept(listener, 5)); n != 5 {
			t.Errorf("%d connections", n)
		}
	})
}

//go:build amd64 || arm64

package netstat

import (
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// outcomes are the ends in a network namespace with a router and a client.
type outcomes struct {
	*testing.T
	router  *testnet.Router
	client  *testnet.Proc
	scanner *Scanner
}

func withOutcomes(t *testing.T, f func(*outcomes)) {
	t.Helper()
	testnet.RequireBPF(t)
	testnet.Isolate(t, func() {
		o := &outcomes{T: t, router: testnet.StartRouter(t), client: testnet.Start(t, testnet.Process{Name: "client"})}
		testnet.Sysctl(t, "net.ipv4.tcp_syn_retries", "1")
		o.scanner = newClosedScanner(t, ScannerConfig{OwnerMethod: OwnersBPF})
		require.True(t, o.scanner.Stats().Initiators)
		require.Empty(t, o.scan())
		f(o)
	})
}

// in returns the same for a subtest.
func (o *outcomes) in(t *testing.T) *outcomes {
	t.Helper()
	return &outcomes{t, o.router, o.client, o.scanner}
}

// scan returns the ends of connections since the last scan.
func (o *outcomes) scan() (ends []*Socket) {
	o.Helper()
	for _, s := range mustScan(o.T, o.scanner, (*Socket).Clone) {
		if s.Outcome != OutcomeUnknown && s.HasPeer() {
			ends = append(ends, s)
		}
	}
	require.Zero(o, o.scanner.Stats().AttemptsLost)
	return ends
}

func (o *outcomes) at(network string, answer testnet.Answer) netip.AddrPort {
	return netip.AddrPortFrom(o.router.Address(network, answer), 80)
}

// requireAttempts wants one end for each attempt, in no more time than the client measured. It returns the number of retransmitted SYNs.
func (o *outcomes) requireAttempts(attempted []testnet.Attempted, ends []*Socket, to netip.AddrPort, want Outcome) (retrans int) {
	o.Helper()
	require.Len(o, ends, len(attempted))
	longest := time.Duration(0)
	for _, a := range attempted {
		longest = max(longest, a.Took)
	}
	numbers := map[uint32]bool{}
	for _, end := range ends {
		require.Equal(o, []any{want, true, TCPClose, to}, []any{end.Outcome, end.Closed, end.State, end.Remote})
		require.Equal(o, "client", end.Owners()[0].Name)
		initiator, _ := end.Initiator()
		require.Same(o, end.Owners()[0], initiator)
		attempt, ok := end.Attempt()
		require.True(o, ok)
		numbers[attempt.Number] = true
		retrans += int(attempt.SynRetrans)
		require.LessOrEqual(o, attempt.ConnectTime, longest+time.Millisecond)
		require.Positive(o, attempt.ConnectTime)
		if want != OutcomeConnectNoPort {
			require.NotZero(o, end.Local.Port())
			require.Equal(o, 1+attempt.SynRetrans, end.TCP.SegsOut)
		}
	}
	require.Len(o, numbers, len(attempted))
	return retrans
}

// Each failed attempt is an end with the reason, whatever the network, and however the process waits.
func TestOutcomesOfAttempts(t *testing.T) {
	withOutcomes(t, func(o *outcomes) {
		for _, test := range []struct {
			network string
			answer  testnet.Answer
			want    Outcome
		}{
			{"tcp4", testnet.Refuse, OutcomeConnectRefused},
			{"tcp6", testnet.Refuse, OutcomeConnectRefused},
			{"tcp4", testnet.ICMPPort4, OutcomeConnectRefused},
			{"tcp6", testnet.ICMPPort6, OutcomeConnectRefused},
			{"tcp4", testnet.ICMPNet4, OutcomeConnectUnreachable},
			{"tcp4", testnet.ICMPHost4, OutcomeConnectUnreachable},
			{"tcp4", testnet.ICMPProto4, OutcomeConnectUnreachable},
			{"tcp4", testnet.ICMPAdmin4, OutcomeConnectUnreachable},
			{"tcp6", testnet.ICMPNoRoute6, OutcomeConnectUnreachable},
			{"tcp6", testnet.ICMPAddr6, OutcomeConnectUnreachable},
			{"tcp6", testnet.ICMPAdmin6, OutcomeConnectUnreachable},
			{"tcp6", testnet.ICMPPolicy6, OutcomeConnectUnreachable},
			{"tcp6", testnet.ICMPReject6, OutcomeConnectUnreachable},
			{"tcp4", testnet.Drop, OutcomeConnectTimedOut},
			{"tcp6", testnet.Drop, OutcomeConnectTimedOut},
		} {
			t.Run(test.network+" "+string(test.answer), func(t *testing.T) {
				o := o.in(t)
				for _, nonBlocking := range []bool{false, true} {
					to := o.at(test.network, test.answer)
					attempted := o.client.Attempt(testnet.Attempts{To: to, N: 2, NonBlocking: nonBlocking})
					retrans := o.requireAttempts(attempted, o.await(len(attempted)), to, test.want)
					require.Equal(t, test.want == OutcomeConnectTimedOut, retrans > 0)
				}
			})
		}
		t.Run("several of one socket", func(t *testing.T) {
			o := o.in(t)
			for _, nonBlocking := range []bool{false, true} {
				to := o.at("tcp6", testnet.Refuse)
				attempted := o.client.Attempt(testnet.Attempts{To: to, N: 5, SameSocket: true, NonBlocking: nonBlocking})
				o.requireAttempts(attempted, o.await(len(attempted)), to, OutcomeConnectRefused)
			}
		})
		t.Run("neighbour that does not answer", func(t *testing.T) {
			o := o.in(t)
			for _, neighbor := range []netip.Addr{o.router.Neighbor4, o.router.Neighbor6} {
				to := netip.AddrPortFrom(neighbor, 80)
				o.requireAttempts(o.client.Attempt(testnet.Attempts{To: to, N: 2}), o.await(2), to, OutcomeConnectUnreachable)
			}
		})
		for _, how := range []testnet.GiveUp{testnet.GiveUpClose, testnet.GiveUpShutdown, testnet.GiveUpDisconnect} {
			t.Run("given up by "+string(how), func(t *testing.T) {
				o := o.in(t)
				to := o.at("tcp4", testnet.Drop)
				begun := o.client.Begin(testnet.Attempts{To: to, N: 3, NonBlocking: true})
				require.Empty(t, o.scan())
				o.requireAttempts(o.client.GiveUp(how, begun...), o.await(3), to, OutcomeConnectAborted)
			})
		}
		t.Run("process that ends", func(t *testing.T) {
			o := o.in(t)
			to := o.at("tcp4", testnet.Drop)
			client := testnet.Start(t, testnet.Process{Name: "client"})
			client.Begin(testnet.Attempts{To: to, N: 3, NonBlocking: true})
			client.Stop()
			for _, end := range o.await(3) {
				require.Equal(t, OutcomeConnectAborted, end.Outcome)
			}
		})
	})
}

// The kernel does not fail an attempt whose rejection arrives while connect(2) holds the socket, as that of a rule on the same host does,
// but tells the process that it has failed.
func TestOutcomeOfLocalRejection(t *testing.T) {
	withOutcomes(t, func(o *outcomes) {
		for port, test := range map[uint16]struct {
			loopback string
			answer   testnet.Answer
			errno    unix.Errno
			want     Outcome
		}{
			81: {"127.0.0.1", testnet.ICMPPort4, unix.ECONNREFUSED, OutcomeConnectRefused},
			82: {"127.0.0.1", testnet.ICMPHost4, unix.EHOSTUNREACH, OutcomeConnectUnreachable},
			83: {"::1", testnet.ICMPPort6, unix.ECONNREFUSED, OutcomeConnectRefused},
			84: {"::1", testnet.ICMPAddr6, unix.EHOSTUNREACH, OutcomeConnectUnreachable},
		} {
			testnet.RejectPort(t, port, test.answer)
			for _, nonBlocking := range []bool{false, true} {
				to := netip.AddrPortFrom(netip.MustParseAddr(test.loopback), port)
				for _, attempted := range o.client.Attempt(testnet.Attempts{To: to, N: 2, NonBlocking: nonBlocking}) {
					require.Equal(t, test.errno, attempted.Errno)
				}
				for _, end := range o.await(2) {
					require.Equal(t, []any{test.want, to}, []any{end.Outcome, end.Remote}, "%+v, non-blocking %t", test, nonBlocking)
				}
			}
		}
	})
}

// Without a local port nothing is sent: no port is free, or the one that the socket is bound to is in use between the two endpoints.
func TestOutcomeWithoutPort(t *testing.T) {
	withOutcomes(t, func(o *outcomes) {
		to := o.at("tcp4", testnet.Drop)
		attempt := func(from netip.AddrPort) (fd int, err error) {
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			t.Cleanup(func() { _ = unix.Close(fd) })
			require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			if from.IsValid() {
				require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: from.Addr().As4(), Port: int(from.Port())}))
			}
			return fd, unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		}
		bound := netip.MustParseAddrPort("10.99.0.1:50000")
		_, err := attempt(bound)
		require.ErrorIs(t, err, unix.EINPROGRESS)
		fd, err := attempt(bound)
		require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
		ends := o.await(1)
		require.Len(t, ends, 1)
		require.Equal(t, []any{OutcomeConnectNoPort, bound, to}, []any{ends[0].Outcome, ends[0].Local, ends[0].Remote})
		require.NoError(t, unix.Close(fd))

		testnet.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40001")
		for i := range 4 {
			_, err := attempt(netip.AddrPort{})
			if i < 2 {
				require.ErrorIs(t, err, unix.EINPROGRESS)
			} else {
				require.ErrorIs(t, err, unix.EADDRNOTAVAIL)
			}
		}
		ends = o.await(2)
		require.Len(t, ends, 2)
		for _, end := range ends {
			require.Equal(t, []any{OutcomeConnectNoPort, to}, []any{end.Outcome, end.Remote})
			require.Zero(t, end.Local.Port())
		}
	})
}

// established opens three connections through the router.
func (o *outcomes) established(network string) (ends, accepted []testnet.Socket) {
	o.Helper()
	const n = 3
	to := o.at(network, testnet.Refuse)
	listener := o.router.Listen(network, netip.AddrPortFrom(map[string]netip.Addr{"tcp4": netip.IPv4Unspecified(), "tcp6": netip.IPv6Unspecified()}[network], 80), n)
	for _, attempted := range o.client.Attempt(testnet.Attempts{To: to, N: n, Keep: true}) {
		require.Zero(o, attempted.Errno)
		ends = append(ends, attempted.Socket)
	}
	accepted = o.router.Accept(listener, n)
	o.router.Close(listener)
	return ends, accepted
}

// await scans until there are n ends.
func (o *outcomes) await(n int) (ends []*Socket) {
	o.Helper()
	require.Eventually(o, func() bool {
		ends = append(ends, o.scan()...)
		return len(ends) >= n
	}, 10*time.Second, time.Millisecond)
	ends = append(ends, o.scan()...)
	require.Len(o, ends, n)
	return ends
}

// A connection that the peer resets is an end when it does, and once more when the process closes the socket.
func TestOutcomeReset(t *testing.T) {
	withOutcomes(t, func(o *outcomes) {
		for _, network := range []string{"tcp4", "tcp6"} {
			const n = 3
			sockets, accepted := o.established(network)
			o.scan()
			o.router.Reset(accepted...)
			held := o.await(n)
			for _, end := range held {
				require.Equal(t, []any{OutcomeReset, false, TCPClose}, []any{end.Outcome, end.Closed, end.State})
				require.Equal(t, "client", must(end.Initiator()).Name)
			}
			o.client.Close(sockets...)
			for _, end := range o.await(n) {
				require.Equal(t, []any{OutcomeReset, true}, []any{end.Outcome, end.Closed})
				require.True(t, end.Has(FieldTCPInfo))
			}

			sockets, accepted = o.established(network)
			o.router.Reset(accepted...)
			require.Eventually(t, func() bool { return len(testnet.SS(t, "-t", "dport", "80")) == 0 }, 10*time.Second, time.Millisecond)
			o.client.Close(sockets...)
			awaitClosed(t, o.scanner.namespaces.self, n)
			require.Equal(t, OutcomeReset, o.await(n)[0].Outcome, "without a scan between")

			sockets, _ = o.established(network)
			o.client.Reset(sockets...)
			for _, end := range o.await(n) {
				require.Equal(t, OutcomeClosed, end.Outcome, "this end has reset it")
			}
		}
	})
}

func must(p *Process, _ uint64) *Process { return p }

// The time is that from the first SYN, for a live connection and for a closed one, however long the peer takes to answer.
func TestConnectTime(t *testing.T) {
	withOutcomes(t, func(o *outcomes) {
		o.router.Listen("tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), 80), 100)
		o.client.Attempt(testnet.Attempts{To: o.at("tcp4", testnet.Refuse), N: 1}) // finds the neighbour, which takes no part in the time then
		o.await(1)
		for _, test := range []struct {
			answer  testnet.Answer
			delay   time.Duration
			retrans uint32
		}{{testnet.Refuse, 500 * time.Millisecond, 0}, {testnet.DropFirstSYN, time.Millisecond, 1}} {
			o.router.Delay(test.delay)
			to := o.at("tcp4", test.answer)
			attempted := o.client.Attempt(testnet.Attempts{To: to, N: 1, Keep: true})[0]
			require.Zero(t, attempted.Errno)
			check := func(s *Socket) {
				attempt, ok := s.Attempt()
				require.True(t, ok)
				require.InEpsilon(t, attempted.Took, attempt.ConnectTime, 0.05)
				require.Equal(t, test.retrans, attempt.SynRetrans)
			}
			seen := 0
			for _, s := range mustScan(t, o.scanner, (*Socket).Clone) {
				if s.Remote == to {
					seen++
					check(s)
				}
			}
			require.Equal(t, 1, seen)
			o.client.Reset(attempted.Socket)
			check(o.await(1)[0])
		}
	})
}

// A process that closes a socket while the peer still sends makes the kernel reset the connection: this is no reset of the peer.
func TestOutcomeOfDataAfterClose(t *testing.T) {
	withOutcomes(t, func(o *outcomes) {
		sockets, accepted := o.established("tcp4")
		o.client.Close(sockets...)
		require.Eventually(t, func() bool { // the peer has the FIN
			states := map[string]int{}
			for _, row := range testnet.SSIn(t, o.router.Netns(), "-t") {
				states[row.State]++
			}
			return states["CLOSE_WAIT"] == 3
		}, 10*time.Second, time.Millisecond)
		for _, s := range accepted {
			o.router.Send(s, 1)
		}
		for _, end := range o.await(3) {
			require.Equal(t, OutcomeClosed, end.Outcome)
		}
	})
}

// What an attempt leaves in the socket is not the outcome of the next one.
func TestOutcomesAreNotThoseOfEarlierAttempts(t *testing.T) {
	withOutcomes(t, func(o *outcomes) {
		testnet.RejectPort(t, 81, testnet.ICMPHost4)
		rejected, silent := netip.MustParseAddrPort("127.0.0.1:81"), o.at("tcp4", testnet.Drop)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		connect := func(to netip.AddrPort) error {
			return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		}
		disconnect := func() {
			t.Helper()
			_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unix.RawSockaddr{Family: unix.AF_UNSPEC})), 16)
			require.Zero(t, errno)
		}
		require.ErrorIs(t, connect(rejected), unix.EINPROGRESS)
		require.Eventually(t, func() bool {
			errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			return err == nil && unix.Errno(errno) == unix.EHOSTUNREACH
		}, 10*time.Second, time.Millisecond)
		disconnect()
		require.ErrorIs(t, connect(silent), unix.EINPROGRESS)
		disconnect() // leaves ECONNRESET in sk_err
		testnet.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40000")
		o.client.Begin(testnet.Attempts{To: silent, N: 1, NonBlocking: true})
		require.ErrorIs(t, connect(silent), unix.EADDRNOTAVAIL)
		require.NoError(t, unix.Close(fd))
		var got []Outcome
		for _, end := range o.await(3) {
			got = append(got, end.Outcome)
		}
		require.Equal(t, []Outcome{OutcomeConnectUnreachable, OutcomeConnectAborted, OutcomeConnectNoPort}, got)
	})
}

// Attempts in network namespaces that are not read take no room.
func TestAttemptsOfOtherNamespaces(t *testing.T) {
	withOutcomes(t, func(o *outcomes) {
		other := testnet.Start(t, testnet.Process{Name: "other", Netns: true})
		to := netip.MustParseAddrPort("127.0.0.1:9")
		recorded := func(p *testnet.Proc) bool {
			attempted := p.Attempt(testnet.Attempts{To: to, N: 1, Keep: true})
			_, known := o.scanner.connects.Lookup(attempted[0].Socket.Cookie)
			return known
		}
		require.False(t, recorded(other))
		require.True(t, recorded(o.client))
	})
}

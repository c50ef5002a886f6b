package netstat

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

// listenerNetworks are the families and addresses of listeners, and the addresses that clients connect to.
var listenerNetworks = []struct {
	name         string
	family       int
	listenAt, to netip.Addr
}{
	{"ipv4", unix.AF_INET, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")},
	{"ipv6", unix.AF_INET6, netip.MustParseAddr("::1"), netip.MustParseAddr("::1")},
	{"dual-stack", unix.AF_INET6, netip.MustParseAddr("::"), netip.MustParseAddr("127.0.0.1")},
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// tcpListener is a listener in this process.
type tcpListener struct {
	t  testing.TB
	fd int
	at netip.AddrPort
}

func listenOn(t testing.TB, family int, listenAt, to netip.Addr) *tcpListener {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	require.NoError(t, unix.Bind(fd, sockaddr(netip.AddrPortFrom(listenAt, 0))))
	require.NoError(t, unix.Listen(fd, 100))
	return &tcpListener{t: t, fd: fd, at: netip.AddrPortFrom(to, portOf(t, fd))}
}

func listenIPv4(t testing.TB) *tcpListener {
	t.Helper()
	return listenOn(t, listenerNetworks[0].family, listenerNetworks[0].listenAt, listenerNetworks[0].to)
}

func portOf(t testing.TB, fd int) uint16 {
	t.Helper()
	name, err := unix.Getsockname(fd)
	require.NoError(t, err)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return uint16(name.Port)
	case *unix.SockaddrInet6:
		return uint16(name.Port)
	}
	require.Failf(t, "no address", "%T", name)
	return 0
}

func cookieOf(t testing.TB, fd int) uint64 {
	t.Helper()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	require.NoError(t, err)
	return cookie
}

// open opens a connection to the listener.
func (l *tcpListener) open() (client, server int) {
	family := unix.AF_INET
	if l.at.Addr().Is6() {
		family = unix.AF_INET6
	}
	client, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(l.t, err)
	require.NoError(l.t, unix.Connect(client, sockaddr(l.at)))
	server, _, err = unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
	require.NoError(l.t, err)
	return client, server
}

// reset closes sockets with a RST, so that no TIME_WAIT stays.
func reset(t testing.TB, ends ...int) {
	t.Helper()
	for _, fd := range ends {
		require.NoError(t, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
		require.NoError(t, unix.Close(fd))
	}
}

func send(t testing.TB, from, to, n int) {
	t.Helper()
	_, err := unix.Write(from, make([]byte, n))
	require.NoError(t, err)
	read, _, err := unix.Recvfrom(to, make([]byte, n), unix.MSG_WAITALL)
	require.NoError(t, err)
	require.Equal(t, n, read)
}

// finish closes one end, and then the other after it has received the FIN.
func finish(t testing.TB, first, then int) {
	t.Helper()
	require.NoError(t, unix.Close(first))
	n, err := unix.Read(then, make([]byte, 1))
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, unix.Close(then))
}

// newClosedScanner returns a scanner of TCP sockets that subscribes to closed ones.
func newClosedScanner(t testing.TB, config ScannerConfig) *Scanner {
	t.Helper()
	config.Closed, config.Transports, config.TCPInfo = ClosedRequired, []Transport{TransportTCP}, true
	if config.OwnerMethod == OwnersAuto {
		config.OwnerMethod = OwnersOff
	}
	return newScanner(t, config)
}

// awaitClosed waits until at least this many closed sockets are queued for a namespace. The kernel sends them from a work queue,
// and an earlier scan would age the cached processes.
func awaitClosed(t *testing.T, of *trackedNamespace, want int) {
	t.Helper()
	c := of.closed.(*closedEvents)
	require.Eventually(t, func() (all bool) {
		c.sync(func() { all = c.queue.waiting() >= want })
		return all
	}, 10*time.Second, time.Millisecond)
}

// closedOf scans until it has seen this many closed sockets, and once more.
func closedOf[T any](t *testing.T, s *Scanner, want int, visit func(*Socket) T) (seen []T) {
	t.Helper()
	look := func() {
		for _, seenNow := range mustScan(t, s, func(s *Socket) *T {
			if !s.Closed || !s.HasPeer() {
				return nil
			}
			v := visit(s)
			return &v
		}) {
			if seenNow != nil {
				seen = append(seen, *seenNow)
			}
		}
	}
	for end := time.Now().Add(10 * time.Second); len(seen) < want && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		look()
	}
	look()
	require.Len(t, seen, want)
	return seen
}

// described is what is known of a closed socket, but for how it went.
func described(s *Socket) string {
	return fmt.Sprintf("%d %s %s %s %s %v %v %d %d %d %d fields %b", s.Cookie, s.Transport, s.Family, s.State, s.Namespace,
		s.Local, s.Remote, s.Interface, s.TCP.BytesAcked, s.TCP.BytesReceived, s.TCP.BytesSent, s.fields)
}

// Both ends of every closed connection are handed out once, with all their counters.
func TestClosedSockets(t *testing.T) {
	testnet.Isolate(t, func() {
		for _, network := range listenerNetworks {
			t.Run(network.name, func(t *testing.T) {
				const connections, asked, answered = 2000, 100, 5000 // bytes
				s := newClosedScanner(t, ScannerConfig{})
				l := listenOn(t, network.family, network.listenAt, network.to)
				clientIs, serverIs, serverAt := FamilyIPv4, FamilyIPv4, l.at
				if network.family == unix.AF_INET6 {
					serverIs = FamilyIPv6
				}
				mapped := func(a netip.AddrPort) netip.AddrPort { return a }
				if network.to.Is6() {
					clientIs = FamilyIPv6
				} else if serverIs == FamilyIPv6 {
					mapped = func(a netip.AddrPort) netip.AddrPort {
						return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
					}
					serverAt = mapped(l.at)
				}
				want := map[uint64][]string{}
				var late []int
				for i := range connections {
					client, server := l.open()
					at := netip.AddrPortFrom(network.to, portOf(t, client))
					send(t, client, server, asked)
					send(t, server, client, answered)
					expect := func(fd int, family Family, local, remote netip.AddrPort, acked, got, sent int) {
						cookie := cookieOf(t, fd)
						want[cookie] = append(want[cookie], fmt.Sprintf("%d tcp %s CLOSE self %v %v 0 %d %d %d fields %b", cookie, family,
							local, remote, acked, got, sent, closedFields))
					}
					// BytesAcked includes the FIN, and on the client the SYN.
					expectClient := func(got int) { expect(client, clientIs, at, l.at, asked+2, got, asked) }
					expectServer := func(got int) { expect(server, serverIs, serverAt, mapped(at), answered+1, got, answered) }

					// BytesReceived includes the FIN of the peer, except at the end that closes first if its own FIN has
					// been acknowledged before: its socket is then replaced by a TIME_WAIT entry, which counts nothing.
					// The peer delays the acknowledgment by 40 ms ("pingpong mode", tcp_fin in net/ipv4/tcp_input.c).
					// If it closes earlier, its FIN is the acknowledgment, and is counted.
					first, then := client, server
					expectFirst, expectThen, payload, other := expectClient, expectServer, answered, asked
					if i%2 == 1 {
						first, then = server, client
						expectFirst, expectThen, payload, other = expectServer, expectClient, asked, answered
					}
					expectFirst(payload)
					expectThen(other + 1)
					if i%10 < 2 {
						require.NoError(t, unix.Close(first))
						late = append(late, then)
					} else {
						expectFirst(payload + 1)
						finish(t, first, then)
					}
				}
				time.Sleep(300 * time.Millisecond)
				for _, fd := range late {
					require.NoError(t, unix.Close(fd))
				}
				for _, got := range closedOf(t, s, 2*connections, func(s *Socket) closedLine {
					require.Empty(t, s.Owners())
					require.Zero(t, s.Inode)
					require.Zero(t, s.UID)
					require.Equal(t, s.Namespace.Inode, s.NetNS)
					require.True(t, s.TCP.SegsIn >= 3 && s.TCP.SegsOut >= 3 && s.TCP.RTT > 0, "%+v", s.TCP)
					return closedLine{s.Cookie, described(s)}
				}) {
					require.Contains(t, want[got.cookie], got.text)
					delete(want, got.cookie)
				}
				require.Empty(t, want)
				require.Zero(t, s.Stats().ClosedLost)
			})
		}
	})
}

type closedLine struct {
	cookie uint64
	text   string
}

// No socket is handed out live after it was handed out closed, and each is handed out closed exactly once. A TIME_WAIT socket is
// not live.
func TestClosedOrder(t *testing.T) {
	testnet.Isolate(t, func() {
		s := newClosedScanner(t, ScannerConfig{})
		var opened sync.Map
		var count atomic.Int64
		stop := make(chan struct{})
		var busy sync.WaitGroup
		for range 2 {
			l := listenIPv4(t)
			busy.Go(func() {
				var open [][2]int
				finishFirst := func() {
					if ends := open[0]; count.Load()%10 == 0 {
						finish(t, ends[0], ends[1])
					} else {
						reset(t, ends[0], ends[1])
					}
					open = open[1:]
				}
				for {
					select {
					case <-stop:
						for len(open) > 0 {
							finishFirst()
						}
						return
					default:
					}
					client, server := l.open()
					opened.Store(cookieOf(t, client), true)
					opened.Store(cookieOf(t, server), true)
					count.Add(2)
					if open = append(open, [2]int{client, server}); len(open) > 50 {
						finishFirst()
					}
				}
			})
		}
		live, closed := map[uint64]int{}, map[uint64]bool{}
		look := func(again int) {
			for range again {
				mustScan(t, s, func(s *Socket) bool {
					isStub := !s.Has(FieldTCPInfo) && !s.Closed
					switch {
					case s.State == TCPListen, isStub:
					case s.Closed:
						require.False(t, closed[s.Cookie], "closed twice")
						closed[s.Cookie] = true
					default:
						require.False(t, closed[s.Cookie], "live after it was closed")
						live[s.Cookie]++
					}
					return true
				})
			}
		}
		for end := time.Now().Add(time.Second); time.Now().Before(end) || len(live) == 0; {
			look(1)
		}
		close(stop)
		busy.Wait()
		require.Eventually(t, func() bool { look(1); return len(closed) >= int(count.Load()) }, 10*time.Second, time.Millisecond)
		look(2)
		require.Len(t, closed, int(count.Load()))
		opened.Range(func(cookie, _ any) bool {
			require.True(t, closed[cookie.(uint64)], "not handed out closed")
			return true
		})
		for cookie := range live {
			require.True(t, closed[cookie])
		}
		require.NotEmpty(t, live)
		t.Logf("%d sockets were closed, %d of them seen live before", len(closed), len(live))
	})
}

// Events that exceed the receive buffer or the queue are counted.
func TestClosedLost(t *testing.T) {
	testnet.Isolate(t, func() {
		l := listenIPv4(t) // the listener is not destroyed before the end
		for name, squeeze := range map[string]func(c *closedEvents){
			"kernel": func(c *closedEvents) { c.setRoom(16 << 10) },
			"queue":  func(c *closedEvents) { c.queue.budget = newClosedBudget(1400) },
		} {
			t.Run(name, func(t *testing.T) {
				const connections = 1000
				s := newClosedScanner(t, ScannerConfig{})
				c := s.namespaces.self.closed.(*closedEvents)
				squeeze(c)
				for range 2 {
					c.sync(func() { // nobody reads meanwhile
						before := eventDrops(t)
						for range connections {
							client, server := l.open()
							reset(t, client, server)
						}
						if name == "kernel" { // the kernel sends events from a work queue
							require.Eventually(t, func() bool { return eventDrops(t) > before }, 10*time.Second, time.Millisecond)
						}
					})
					require.Eventually(t, func() (all bool) {
						c.sync(func() { all = c.queue.waiting()+c.queue.lost >= 2*connections })
						return all
					}, 10*time.Second, time.Millisecond)
					handedOut := len(mustScan(t, s, inode)) - 1 // the listener
					lost := s.Stats().ClosedLost
					require.Equal(t, 2*connections, handedOut+lost)
					require.NotZero(t, lost)
					require.NotZero(t, handedOut)
					t.Logf("%d handed out, %d lost", handedOut, lost)
				}
			})
		}
	})
}

// eventDrops counts the multicast messages that the sock_diag sockets of this network namespace dropped because of full receive
// buffers.
func eventDrops(t *testing.T) (drops int) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/netlink")
	require.NoError(t, err)
	for line := range strings.Lines(string(table)) {
		const protocol, groups, dropped = 1, 3, 8 // Eth, Groups, Drops
		columns := strings.Fields(line)
		if columns[protocol] != "4" || columns[groups] == "00000000" { // NETLINK_SOCK_DIAG
			continue
		}
		n, err := strconv.Atoi(columns[dropped])
		require.NoError(t, err)
		drops += n
	}
	return drops
}

// After a refused connect a socket has its peer's address but no ports, and mostly no local address. After a RST it has lost its
// port and its counters. Sockets that never had a port are not handed out.
func TestClosedWithoutPort(t *testing.T) {
	testnet.Isolate(t, func() {
		s := newClosedScanner(t, ScannerConfig{})
		l := listenIPv4(t)
		client, server := l.open()
		send(t, client, server, 100)
		aborted := cookieOf(t, client)
		reset(t, client)
		require.NoError(t, unix.Close(server))

		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		refused := cookieOf(t, fd)
		require.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 9}}))
		require.NoError(t, unix.Close(fd))
		for range 10 {
			require.NoError(t, unix.Close(newSocket(t)))
		}
		seen := map[uint64]string{}
		closedOf(t, s, 3, func(s *Socket) bool {
			seen[s.Cookie] = fmt.Sprintf("%v %v %d %d", s.Local.Addr(), s.Remote, s.TCP.BytesAcked, s.TCP.SegsOut)
			return true
		})
		require.Regexp(t, `^(0\.0\.0\.0|127\.0\.0\.1) 127\.0\.0\.1:0 0 0$`, seen[aborted])
		require.Regexp(t, `^(0\.0\.0\.0|127\.0\.0\.1) 127\.0\.0\.9:0 0 [01]$`, seen[refused])
	})
}

func newSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	return fd
}

// fakeConnects has the initiators of a test.
type fakeConnects struct {
	mu         sync.Mutex
	initiators map[uint64]bpf.Connect
	closed     bool
}

func (f *fakeConnects) Lookup(cookie uint64) (bpf.Connect, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	initiator, ok := f.initiators[cookie]
	return initiator, ok
}

func (*fakeConnects) Drain(func(*bpf.End)) {}
func (*fakeConnects) Lost() uint64         { return 0 }
func (*fakeConnects) Wait(func())          {}
func (f *fakeConnects) Close()             { f.closed = true }

// The owner of a closed socket is the initiator of the connection, even if it has ended.
func TestClosedOwners(t *testing.T) {
	testnet.Isolate(t, func() {
		s := newClosedScanner(t, ScannerConfig{OwnerMethod: OwnersProcfs})
		known := &fakeConnects{initiators: map[uint64]bpf.Connect{}}
		s.setConnects(known)
		l := listenIPv4(t)
		holder := testnet.Start(t, testnet.Process{Name: "holder", UID: 65534})
		held := holder.Connect(l.at, 1)[0]
		initiatedBy := func(pid int, startTime uint64, name string) bpf.Connect {
			p := bpf.Process{PID: uint32(pid), StartBootTime: startTime*10_000_000 + 9_999_999, UID: 77}
			copy(p.Comm[:], name)
			return bpf.Connect{CgroupID: 5, Initiator: p, Port: 4444, Attempt: bpf.Attempt{ConnectTime: 1}}
		}
		var live *Process
		mustScan(t, s, func(s *Socket) bool {
			if s.Inode == held.Inode && held.Inode != 0 {
				live = s.Owners()[0]
				known.mu.Lock()
				known.initiators[s.Cookie] = initiatedBy(live.PID, live.StartTime, "before")
				known.mu.Unlock()
			}
			return true
		})
		require.NotNil(t, live)
		holder.Close(held)
		server, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		require.NoError(t, err)
		require.NoError(t, unix.Close(server))
		awaitClosed(t, s.namespaces.self, 2)
		owned := 0
		closedOf(t, s, 2, func(s *Socket) bool {
			if len(s.Owners()) > 0 {
				owned++
				require.Same(t, live, s.Owners()[0])
				initiator, cgroup := s.Initiator()
				require.Same(t, live, initiator)
				require.EqualValues(t, 5, cgroup)
				require.Equal(t, []any{"holder", uint64(5), held.Remote, true},
					[]any{s.Owners()[0].Name, s.CgroupID, s.Remote, s.Has(FieldCgroupID)})
			}
			return true
		})
		require.Equal(t, 1, owned)

		var past *Process
		for range 3 {
			client, server := l.open()
			known.mu.Lock()
			known.initiators[cookieOf(t, client)] = initiatedBy(1<<22+1, 12, "past")
			known.mu.Unlock()
			reset(t, client, server)
			owned := 0
			awaitClosed(t, s.namespaces.self, 2)
			closedOf(t, s, 2, func(s *Socket) bool {
				for _, p := range s.Owners() {
					owned++
					if past == nil {
						past = p
					}
					require.Same(t, past, p)
					uid, ok := p.UID()
					require.Equal(t, []any{"past", uint32(77), true, uint16(4444)}, []any{p.Name, uid, ok, s.Remote.Port()})
					require.Empty(t, p.Exe())
				}
				return true
			})
			require.Equal(t, 1, owned)
		}
		require.NoError(t, s.Close())
		require.True(t, known.closed)
	})
}

// The filter applies to closed connections.
func TestClosedFilter(t *testing.T) {
	testnet.Isolate(t, func() {
		l, other := listenIPv4(t), listenIPv4(t)
		port := l.at.Port()
		s := newClosedScanner(t, ScannerConfig{TCPFilter: newFilter(t, FilterConfig{LocalPorts: []PortRange{{port, port}}})})
		for _, l := range []*tcpListener{other, l, other} {
			client, server := l.open()
			finish(t, client, server)
		}
		require.Equal(t, []uint16{port}, closedOf(t, s, 1, func(s *Socket) uint16 { return s.Local.Port() }))
	})
}

// If a loop stops, the next scan hands out the remaining closed sockets.
func TestClosedStopped(t *testing.T) {
	testnet.Isolate(t, func() {
		const connections, each = 500, 300
		s := newClosedScanner(t, ScannerConfig{})
		l := listenIPv4(t)
		seen := map[uint64]bool{}
		for range connections {
			client, server := l.open()
			reset(t, client, server)
		}
		for end := time.Now().Add(10 * time.Second); len(seen) < 2*connections && time.Now().Before(end); {
			n := 0
			for socket, err := range s.Sockets(t.Context()) {
				require.NoError(t, err)
				if !socket.Closed {
					continue
				}
				require.False(t, seen[socket.Cookie])
				seen[socket.Cookie] = true
				if n++; n == each {
					break
				}
			}
		}
		require.Len(t, seen, 2*connections)
	})
}

// The closed sockets of a namespace follow its live ones. Those of an ended namespace are handed out by one more scan.
func TestClosedNamespaces(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		s := newClosedScanner(t, ScannerConfig{Namespaces: []string{"all"}})
		l := listenIPv4(t)
		mustScan(t, s, inode)
		without := ownDescriptors(t)
		other := startInNamespace(t, 3, testnet.Process{Name: "other", Netns: true})
		mustScan(t, s, inode)
		n := namespaceOf(t, s, other)
		require.True(t, n.ClosedEvents())
		require.Len(t, ownDescriptors(t), len(without)+2)

		client, server := l.open()
		finish(t, client, server)
		other.process.Close(other.sockets[3:]...)
		byNamespace := map[uint64]int{}
		closedOf(t, s, 2+6, func(s *Socket) bool {
			byNamespace[s.NetNS]++
			return true
		})
		require.Equal(t, map[uint64]int{s.namespaces.self.Inode: 2, other.inode: 6}, byNamespace)

		other.process.Connect(sharedAddr, 5)
		other.process.Stop()
		awaitClosed(t, trackedOf(t, s, n), 10)
		order := closedOf(t, s, 10, func(s *Socket) *Namespace {
			require.Equal(t, other.inode, s.NetNS)
			return s.Namespace
		})
		require.Equal(t, slices.Repeat([]*Namespace{n}, 10), order)
		require.NotContains(t, s.Namespaces(), n)
		require.Empty(t, s.namespaces.ended)
		require.Equal(t, without, ownDescriptors(t))
	})
}

// Events that arrive during the owner lookup are not lost, even if the namespace has ended before.
func TestClosedAfterNamespaceEnded(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		const connections = 3
		s := newClosedScanner(t, ScannerConfig{Namespaces: []string{"all"}})
		mustScan(t, s, inode)
		without := ownDescriptors(t)
		last := testnet.Start(t, testnet.Process{Name: "last", Netns: true})
		holder := testnet.Start(t, testnet.Process{Name: "holder"}) // outside of the namespace of its sockets
		listener := holder.In(last.Netns()).Listen("tcp4", sharedAddr, connections)
		ends := holder.In(last.Netns()).Connect(listener.Local, connections)
		ends = append(ends, holder.Accept(listener, connections)...)
		mustScan(t, s, inode)
		require.Len(t, s.Namespaces(), 2)
		n := s.Namespaces()[1]

		last.Stop()
		tracked := trackedOf(t, s, n)
		s.finder = &hookedFinder{ownerFinder: s.finder, before: func() {
			require.NotContains(t, s.Namespaces(), n)
			holder.Close(ends...)
			awaitClosed(t, tracked, 2*connections)
		}}
		of := map[*Namespace]int{}
		mustScan(t, s, func(s *Socket) struct{} {
			if s.Closed && s.HasPeer() {
				of[s.Namespace]++
			}
			return struct{}{}
		})
		require.Equal(t, map[*Namespace]int{n: 2 * connections}, of)
		require.Equal(t, without, ownDescriptors(t))
	})
}

// Closed sockets have their namespace even if it ended before any scan read it.
func TestClosedOfUnreadNamespace(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		s := newClosedScanner(t, ScannerConfig{Namespaces: []string{"all"}})
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		require.NoError(t, openFound(s))
		tracked := s.namespaces.known[1]
		other.process.Stop()
		awaitClosed(t, tracked, 2)
		for _, n := range closedOf(t, s, 2, func(s *Socket) *Namespace { return s.Namespace }) {
			require.Equal(t, []any{tracked.ID, other.inode, SourceNetlink, true},
				[]any{n.ID, n.Inode, n.SourceOf(TransportTCP), n.ClosedEvents()})
		}
	})
}

// If the scanner's own namespace is not among those to read, its closed sockets are discarded.
func TestClosedOfUnreadSelf(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		s := newClosedScanner(t, ScannerConfig{Namespaces: []string{other.pid()}})
		l := listenIPv4(t)
		client, server := l.open()
		finish(t, client, server)
		time.Sleep(50 * time.Millisecond)
		closedOf(t, s, 0, inode)
		self := s.namespaces.self.closed.(*closedEvents)
		self.sync(func() { require.Zero(t, self.queue.waiting()) })
	})
}

func TestClosedRefused(t *testing.T) {
	testnet.Isolate(t, func() {
		l := listenIPv4(t)
		config := func(mode ClosedMode, source Source, warned *[]string) ScannerConfig {
			return ScannerConfig{Closed: mode, Source: source, OwnerMethod: OwnersOff, Transports: []Transport{TransportTCP},
				Warn: func(err error) { *warned = append(*warned, err.Error()) }}
		}
		requireRefused := func(t *testing.T, source Source, want string) {
			t.Helper()
			var warned []string
			s := newScanner(t, config(ClosedAuto, source, &warned))
			for range 2 {
				var elsewhere sync.WaitGroup
				elsewhere.Go(func() { // on a thread without the seccomp filter
					client, server := l.open()
					reset(t, client, server)
				})
				elsewhere.Wait()
				time.Sleep(5 * time.Millisecond)
				closedOf(t, s, 0, inode)
				require.False(t, s.Namespaces()[0].ClosedEvents())
			}
			require.Equal(t, []string{want}, warned)
			_, err := NewScanner(config(ClosedRequired, source, &warned))
			require.EqualError(t, err, want)
		}
		const tooOld, denied = "requires Linux 4.12: ", "denied by a security module or a seccomp filter: "
		for errno, requirement := range map[unix.Errno]string{
			unix.EPERM: denied, unix.EACCES: denied, unix.EINVAL: tooOld,
			unix.EOPNOTSUPP: "", unix.ENOENT: "", unix.EPROTONOSUPPORT: "",
		} {
			t.Run(errno.Error(), func(t *testing.T) {
				testnet.Forbid(t, unix.SYS_BIND, errno)
				requireRefused(t, SourceNetlink, "closed TCP sockets unavailable: subscribing to destroyed sockets: "+
					requirement+"unsupported operation: "+errno.Error())
			})
		}
		t.Run("before Linux 4.12", func(t *testing.T) {
			testnet.Forbid(t, unix.SYS_GETSOCKOPT, unix.ENOPROTOOPT)
			requireRefused(t, SourceNetlink, "closed TCP sockets unavailable: subscribing to destroyed sockets: "+
				tooOld+"unsupported operation: "+unix.ENOPROTOOPT.Error())
		})
		t.Run("without tcp_diag", func(t *testing.T) {
			var warned []string
			s := newScanner(t, config(ClosedAuto, SourceProcfs, &warned))
			s.namespaces.self.diag = &fakeDiag{dumps: []fakeDump{{err: fmt.Errorf("%w: no such module", errors.ErrUnsupported)}}}
			require.NoError(t, s.subscribeSelf())
			require.Equal(t, []string{"closed TCP sockets unavailable: unsupported operation: no such module (module tcp_diag)"}, warned)
		})
		t.Run("procfs", func(t *testing.T) {
			var warned []string
			s, err := NewScanner(config(ClosedAuto, SourceProcfs, &warned))
			require.NoError(t, err)
			require.False(t, s.Namespaces()[0].ClosedEvents())
			require.NoError(t, s.Close())
			require.Empty(t, warned, "procfs was requested")
			_, err = NewScanner(config(ClosedRequired, SourceProcfs, &warned))
			require.EqualError(t, err, "closed TCP sockets unavailable: /proc/net has no socket cookies")
		})
		t.Run("out of descriptors", func(t *testing.T) {
			var warned []string
			testnet.Forbid(t, unix.SYS_BIND, unix.EMFILE)
			_, err := NewScanner(config(ClosedAuto, SourceNetlink, &warned))
			require.ErrorIs(t, err, unix.EMFILE)
			require.Empty(t, warned)
		})
		t.Run("without TCP", func(t *testing.T) {
			var warned []string
			c := config(ClosedRequired, SourceNetlink, &warned)
			c.Transports = []Transport{TransportUDP}
			_, err := NewScanner(c)
			require.EqualError(t, err, "closed sockets require transport tcp")
			c.Closed = ClosedAuto
			s := newScanner(t, c)
			mustScan(t, s, inode)
			require.False(t, s.Namespaces()[0].ClosedEvents())
			require.Empty(t, warned)
		})
		t.Run("invalid mode", func(t *testing.T) {
			_, err := NewScanner(ScannerConfig{Closed: 9})
			require.EqualError(t, err, "ClosedMode(9) is not a closed mode")
		})
		t.Run("as nobody", func(t *testing.T) {
			testnet.BecomeNobody(t)
			s := newClosedScanner(t, ScannerConfig{})
			client, server := l.open()
			open := map[uint64]bool{cookieOf(t, client): true, cookieOf(t, server): true}
			finish(t, client, server)
			for end := time.Now().Add(10 * time.Second); len(open) > 0 && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
				mustScan(t, s, func(s *Socket) struct{} {
					if s.Closed {
						delete(open, s.Cookie)
					}
					return struct{}{}
				})
			}
			require.Empty(t, open)
		})
	})
}

// A namespace is read even if the subscription fails for lack of resources, and the next scan subscribes again.
func TestClosedFailsInNamespace(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		for name, test := range map[string]struct {
			err   error
			fails bool
		}{
			"for now": {unix.EMFILE, true},
			"refused": {fmt.Errorf("%w: not here", errors.ErrUnsupported), false},
		} {
			t.Run(name, func(t *testing.T) {
				var warned []string
				s := newScanner(t, ScannerConfig{
					Namespaces: []string{other.pid()}, Closed: ClosedAuto, OwnerMethod: OwnersOff,
					Warn: func(err error) { warned = append(warned, err.Error()) },
				})
				subscribe := s.namespaces.subscribe
				s.namespaces.subscribe = func(int) (closedConn, error) { return nil, test.err }
				_, _ = scan(s, inode)
				before := ownDescriptors(t)
				for range 2 {
					sockets, errs := scan(s, inode)
					require.Len(t, sockets, 5)
					require.Equal(t, test.fails, len(errs) == 1)
					require.False(t, s.Namespaces()[0].ClosedEvents())
				}
				s.namespaces.subscribe = subscribe
				mustScan(t, s, inode)
				require.Equal(t, test.fails, s.Namespaces()[0].ClosedEvents())
				if test.fails {
					require.Empty(t, warned)
				} else {
					require.Equal(t, []string{"closed TCP sockets unavailable: network namespace of process " + other.pid() +
						": unsupported operation: not here"}, warned)
				}
				require.Len(t, ownDescriptors(t), len(before)+2*boolToInt(test.fails))
			})
		}
	})
}

func TestClosedReleasesResources(t *testing.T) {
	testnet.Isolate(t, func() {
		_ = mustScan(t, newScanner(t, ScannerConfig{}), inode) // opens what the runtime keeps open
		before, goroutines := openDescriptors(t), runtime.NumGoroutine()
		for range 20 {
			s, err := NewScanner(ScannerConfig{Closed: ClosedRequired})
			require.NoError(t, err)
			start := time.Now()
			require.NoError(t, s.Close())
			require.Less(t, time.Since(start), 10*time.Second)
		}
		require.Equal(t, before, openDescriptors(t))
		testnet.WaitForGoroutines(t, goroutines)

		c, err := openClosedConn(&connects{}, newClosedBudget(maxClosed), closedRoom)
		require.NoError(t, err)
		c.close()
		c.close()
		_, lost, err := c.take(nil)
		require.NoError(t, err)
		require.Zero(t, lost)
	})
}

// BenchmarkClosedReader reports the CPU time that reading events takes while another process closes connections, for b.N
// milliseconds: use -benchtime 10000x. With BPF the scanner records connects too: bpf-%cpu is the run time of the program,
// which %cpu does not include. It includes the kernel's measurement, connections of other programs, and preemption: measure on
// an idle machine.
func BenchmarkClosedReader(b *testing.B) {
	testnet.Isolate(b, func() {
		for _, load := range []closingLoad{{}, {accepted: 1_000}, {accepted: 10_000}, {accepted: 5_000, refused: 5_000}} {
			for _, as := range []string{"root", "root with BPF", "nobody"} {
				b.Run(fmt.Sprintf("%v, as %s", load, as), func(b *testing.B) {
					opened, stop := load.start(b)
					defer stop()
					var s *Scanner
					switch as {
					case "nobody":
						onNewThread(func() {
							testnet.BecomeNobody(b)
							s = newClosedScanner(b, ScannerConfig{})
						})
					case "root with BPF":
						s = newClosedScanner(b, ScannerConfig{OwnerMethod: OwnersBPF})
					default:
						s = newClosedScanner(b, ScannerConfig{})
					}
					stats := enableProgramStats(b)
					start, before, programBefore := opened(), processorTime(b), readProgramStats(b)
					b.ResetTimer()
					time.Sleep(time.Duration(b.N) * time.Millisecond)
					b.StopTimer()
					used, sockets := processorTime(b)-before, opened()-start
					program := readProgramStats(b)
					require.NoError(b, stats.Close())
					closed := 0
					for socket, err := range s.Sockets(b.Context()) {
						require.NoError(b, err)
						if socket.Closed {
							closed++
						}
					}
					b.ReportMetric(100*used.Seconds()/b.Elapsed().Seconds(), "%cpu")
					b.ReportMetric(float64(sockets)/b.Elapsed().Seconds(), "opened/s")
					b.ReportMetric(float64(closed)/b.Elapsed().Seconds(), "closed/s")
					b.ReportMetric(float64(s.Stats().ClosedLost), "lost")
					if as == "root with BPF" {
						runTime := program.runTime - programBefore.runTime
						b.ReportMetric(100*runTime.Seconds()/b.Elapsed().Seconds(), "bpf-%cpu")
						b.ReportMetric(float64(program.runs-programBefore.runs)/b.Elapsed().Seconds(), "bpf-runs/s")
					}
					b.ReportMetric(residentMiB(b), "MiB-RSS")
				})
			}
		}
	})
}

// closingLoad is the number of connections that other processes open and close in a second.
type closingLoad struct{ accepted, refused int }

func (l closingLoad) String() string {
	text := fmt.Sprintf("%d connections a second", l.accepted)
	if l.refused > 0 {
		text += fmt.Sprintf(" and %d refused ones", l.refused)
	}
	return text
}

// start returns a function that counts the sockets that were opened so far.
func (l closingLoad) start(tb testing.TB) (opened func() int, stop func()) {
	tb.Helper()
	noListener := netip.MustParseAddrPort("127.0.0.1:9")
	var accepted, refused *testnet.Proc
	if l.accepted > 0 {
		accepted = testnet.Start(tb, testnet.Process{Name: "churn"})
		accepted.Churn(testnet.Churn{Connections: l.accepted, Lifetime: 10 * time.Millisecond})
	}
	if l.refused > 0 {
		refused = testnet.Start(tb, testnet.Process{Name: "refused"})
		refused.AttemptAtRate(testnet.Attempts{To: noListener, N: math.MaxInt}, l.refused)
	}
	opened = func() (sockets int) {
		if accepted != nil {
			sockets += accepted.ChurnStats().Sockets
		}
		if refused != nil {
			sockets += refused.AttemptTotals(noListener).Ended
		}
		return sockets
	}
	return opened, func() {
		for _, p := range []*testnet.Proc{accepted, refused} {
			if p != nil {
				p.Stop()
			}
		}
	}
}

// processorTime returns the CPU time that this process has used.
func processorTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage unix.Rusage
	require.NoError(tb, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// enableProgramStats makes the kernel count the run time of BPF programs until the result is closed.
func enableProgramStats(tb testing.TB) io.Closer {
	tb.Helper()
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	require.NoError(tb, err)
	return stats
}

// programStats are sums over the BPF programs of this process.
type programStats struct {
	runTime time.Duration
	runs    int
}

// readProgramStats reads what the kernel counted while enableProgramStats was in force (bpf_prog_show_fdinfo,
// kernel/bpf/syscall.c).
func readProgramStats(tb testing.TB) (sum programStats) {
	tb.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	require.NoError(tb, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) { // closed since
			continue
		}
		require.NoError(tb, err)
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			if key != "run_time_ns" && key != "run_cnt" {
				continue
			}
			n, err := strconv.Atoi(value)
			require.NoError(tb, err)
			if key == "run_cnt" {
				sum.runs += n
			} else {
				sum.runTime += time.Duration(n)
			}
		}
	}
	return sum
}

func residentMiB(tb testing.TB) float64 {
	tb.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	require.NoError(tb, err)
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	require.NoError(tb, err)
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// fakeClosed is a subscription with the events of a test.
type fakeClosed struct {
	chunks []*closedChunk
	lost   int
	room   int
	closed bool
}

var _ closedConn = (*fakeClosed)(nil)

func (f *fakeClosed) take(to []*closedChunk) (chunks []*closedChunk, lost int, err error) {
	to, lost = append(to, f.chunks...), f.lost
	f.chunks, f.lost = nil, 0
	return to, lost, nil
}

func (f *fakeClosed) setRoom(bytes int) { f.room = bytes }
func (f *fakeClosed) close()            { f.closed = true }

// ClosedLost is the sum over all namespaces.
func TestClosedLostInNamespaces(t *testing.T) {
	s := newFakeScanner(t, ScannerConfig{OwnerMethod: OwnersOff, Transports: []Transport{TransportTCP}}, &fakeDiag{})
	s.namespaces.known = []*trackedNamespace{
		{Namespace: Namespace{Self: true}, netlinkSockets: netlinkSockets{diag: &fakeDiag{}, closed: &fakeClosed{lost: 3}}},
		{Namespace: Namespace{Inode: 2}, netlinkSockets: netlinkSockets{diag: &fakeDiag{}, closed: &fakeClosed{lost: 4}}},
		{Namespace: Namespace{Inode: 3}, netlinkSockets: netlinkSockets{diag: &fakeDiag{}, closed: &fakeClosed{}}},
	}
	for _, want := range []int{7, 0} {
		_, errs := scan(s, inode)
		require.Empty(t, errs)
		require.Equal(t, want, s.Stats().ClosedLost)
	}
}

// An unknown cgroup is absent.
func TestClosedCgroup(t *testing.T) {
	for _, id := range []uint64{0, 77} {
		s := newFakeScanner(t, ScannerConfig{OwnerMethod: OwnersOff, Transports: []Transport{TransportTCP}}, &fakeDiag{})
		q := testQueue(s.budget, every(bpf.Connect{CgroupID: id, Initiator: bpf.Process{PID: 7}}))
		q.add(closedMessage(1))
		chunks, _, _ := q.take(nil)
		s.namespaces.self.closed = &fakeClosed{chunks: chunks}
		cgroups, errs := scan(s, func(s *Socket) [2]any { return [2]any{s.CgroupID, s.Has(FieldCgroupID)} })
		require.Empty(t, errs)
		require.Equal(t, [][2]any{{id, id != 0}}, cgroups)
	}
}

// All subscriptions share the receive buffers, including those of ended namespaces.
func TestClosedShareRoom(t *testing.T) {
	s := newFakeScanner(t, ScannerConfig{Namespaces: []string{"all"}, OwnerMethod: OwnersOff}, &fakeDiag{})
	own, ended := &fakeClosed{}, &fakeClosed{}
	subscribed := func(closed *fakeClosed) *trackedNamespace {
		return &trackedNamespace{netlinkSockets: netlinkSockets{closed: closed}}
	}
	rooms := func(opening int) (rooms []int) {
		s.namespaces.shareRoom(opening)
		for _, n := range s.namespaces.known {
			if n.closed != nil {
				rooms = append(rooms, n.closed.(*fakeClosed).room)
			}
		}
		return append(rooms, own.room)
	}
	s.namespaces.self.closed = own
	require.Equal(t, []int{closedRoom}, rooms(0))
	require.Equal(t, []int{closedRoom / 4}, rooms(3))
	s.namespaces.known = []*trackedNamespace{s.namespaces.self, subscribed(&fakeClosed{}), subscribed(&fakeClosed{}), {}}
	require.Equal(t, []int{closedRoom / 3, closedRoom / 3, closedRoom / 3, closedRoom / 3}, rooms(0))
	s.namespaces.ended = []*trackedNamespace{subscribed(ended)}
	require.Equal(t, []int{closedRoom / 4, closedRoom / 4, closedRoom / 4, closedRoom / 4}, rooms(0))
	require.Equal(t, closedRoom/4, ended.room)
	s.namespaces.known, s.namespaces.ended = nil, nil
	require.Equal(t, []int{closedRoom}, rooms(0))

	testnet.IsolatePIDs(t, func() { // the same with real sockets
		s := newClosedScanner(t, ScannerConfig{Namespaces: []string{"all"}})
		for n := range 3 {
			testnet.Netns(t, fmt.Sprint("blue", n))
			mustScan(t, s, inode)
			require.Len(t, s.Namespaces(), n+2)
			require.Equal(t, slices.Repeat([]int{2 * (closedRoom / (n + 2))}, n+2), subscriptionBuffers(t))
		}
	})
}

// subscriptionBuffers returns the receive buffer sizes of this process's netlink sockets that are in a multicast group.
func subscriptionBuffers(t *testing.T) (buffers []int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		require.NoError(t, err)
		name, _ := unix.Getsockname(fd) // an error if it is not a socket
		if netlink, ok := name.(*unix.SockaddrNetlink); ok && netlink.Groups != 0 {
			buffer, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
			require.NoError(t, err)
			buffers = append(buffers, buffer)
		}
	}
	return buffers
}

// Events that arrived before close can be taken after it.
func TestClosedTakenAfterClose(t *testing.T) {
	testnet.Isolate(t, func() {
		l := listenIPv4(t)
		c, err := openClosedConn(&connects{}, newClosedBudget(maxClosed), closedRoom)
		require.NoError(t, err)
		client, server := l.open()
		reset(t, client, server)
		awaitClosed(t, &trackedNamespace{netlinkSockets: netlinkSockets{closed: c}}, 2)
		c.close()
		chunks, lost, err := c.take(nil)
		require.NoError(t, err)
		require.Zero(t, lost)
		require.Len(t, chunks, 1)
		require.Equal(t, 2, chunks[0].used)
	})
}

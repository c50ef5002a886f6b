package netstat

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

// Live and closed sockets get their zones from the scanner.
func TestScannerAddsZones(t *testing.T) {
	message := sockdiagtest.Inet{
		Family: sockdiag.AFInet6, State: uint8(TCPEstablished), Local: "[fe80::1]:80", Remote: "[fe80::2]:1024", Interface: 2, Inode: 7,
	}
	udp := message
	udp.Inode = 8
	diag := &fakeDiag{
		devices: map[uint32]string{2: "eth0"},
		dumps:   []fakeDump{{}, {payloads: [][]byte{message.Bytes()}}, {}, {payloads: [][]byte{udp.Bytes()}}},
	}
	s := newFakeScanner(t, ScannerConfig{OwnerMethod: OwnersOff}, diag)
	q := testQueue(newClosedBudget(maxClosed), &connects{})
	q.add(mustParseInet(message.Bytes()))
	chunks, _, err := q.take(nil)
	require.NoError(t, err)
	s.namespaces.self.closed = &fakeClosed{chunks: chunks}
	seen, errs := scan(s, func(s *Socket) string { return fmt.Sprint(s.Transport, " ", s.Closed, " ", s.Local, " ", s.Remote) })
	require.Empty(t, errs)
	const ends = " [fe80::1%eth0]:80 [fe80::2%eth0]:1024"
	require.Equal(t, []string{"tcp false" + ends, "udp false" + ends, "tcp true" + ends}, seen)
}

// ip runs ip(8) in the network namespace of this process.
func ip(t *testing.T, args ...string) {
	t.Helper()
	testnet.Require(t, "ip")
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(t, err, "ip %s: %s", args, out)
}

// linkTo connects this network namespace to that of the process by a pair of veth devices, both called name, with the addresses
// fe80::2 here and fe80::1 there.
func linkTo(t *testing.T, p *testnet.Proc, name string) {
	t.Helper()
	pid := strconv.Itoa(p.PID)
	ip(t, "link", "add", name, "type", "veth", "peer", "name", name, "netns", pid)
	ip(t, "addr", "add", "fe80::2/64", "dev", name, "nodad")
	ip(t, "link", "set", name, "up")
	for _, args := range [][]string{{"addr", "add", "fe80::1/64", "dev", name, "nodad"}, {"link", "set", name, "up"}} {
		out, err := exec.Command("nsenter", append([]string{"--net=" + p.Netns(), "ip"}, args...)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// dial opens a connection of this process.
func dial(t *testing.T, network, to string) net.Conn {
	t.Helper()
	var conn net.Conn
	require.Eventually(t, func() (ok bool) { // the device may not have its carrier yet
		var err error
		conn, err = (&net.Dialer{}).DialContext(t.Context(), network, to)
		return err == nil
	}, 10*time.Second, time.Millisecond, "no connection to %s", to)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// The peers fe80::1 of two links are two: each has its device as a zone, as in ss.
func TestZonesOfLinks(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		one := testnet.Start(t, testnet.Process{Name: "one", Netns: true})
		two := testnet.Start(t, testnet.Process{Name: "two", Netns: true})
		linkTo(t, one, "veth0")
		linkTo(t, two, "veth1")
		s := newScanner(t, ScannerConfig{OwnerMethod: OwnersOff, Namespaces: []string{NamespaceAll}, Closed: ClosedRequired})
		mustScan(t, s, inode)

		want := map[string]int{}
		var conns []net.Conn
		for device, p := range map[string]*testnet.Proc{"veth0": one, "veth1": two} {
			tcp, udp := p.Listen("tcp6", netip.AddrPort{}, 16), p.UDP("udp6", netip.AddrPort{}, netip.AddrPort{})
			n := map[string]int{"veth0": 1, "veth1": 2}[device]
			for range n {
				conn := dial(t, "tcp6", fmt.Sprintf("[fe80::1%%%s]:%d", device, tcp.Local.Port()))
				conns = append(conns, conn)
				want[fmt.Sprintf("tcp %s %s", conn.LocalAddr(), conn.RemoteAddr())]++
				want[fmt.Sprintf("tcp %s %s", conn.RemoteAddr(), conn.LocalAddr())]++ // in the other namespace
			}
			p.Accept(tcp, n)
			other := p.Listen("tcp6", netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(device), 0), 16)
			want[fmt.Sprintf("tcp [fe80::1%%%s]:%d [::]:0", device, other.Local.Port())]++
			conn := dial(t, "udp6", fmt.Sprintf("[fe80::1%%%s]:%d", device, udp.Local.Port()))
			want[fmt.Sprintf("udp %s %s", conn.LocalAddr(), conn.RemoteAddr())]++
			listener, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.ParseIP("fe80::2"), Zone: device})
			require.NoError(t, err)
			t.Cleanup(func() { _ = listener.Close() })
			port := listener.Addr().(*net.TCPAddr).Port // its address lacks the zone
			want[fmt.Sprintf("tcp [fe80::2%%%s]:%d [::]:0", device, port)]++
			bound, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.ParseIP("fe80::2"), Zone: device})
			require.NoError(t, err)
			t.Cleanup(func() { _ = bound.Close() })
			want[fmt.Sprintf("udp %s [::]:0", bound.LocalAddr())]++
		}

		live, closed := map[string]int{}, map[string]int{}
		locals := map[uint64]string{} // by cookie
		look := func() {
			clear(live)
			mustScan(t, s, func(s *Socket) any {
				switch {
				case s.Closed && s.HasPeer() && s.Namespace.Self: // a RST clears its local address and the ports
					closed[s.Remote.Addr().String()]++
				case s.Local.Addr().IsLinkLocalUnicast():
					live[fmt.Sprintf("%s %s %s", s.Transport, s.Local, s.Remote)]++
					require.Equal(t, s.Local.Addr().Zone(), s.Namespace.InterfaceName(s.Interface))
					if s.Namespace.Self {
						locals[s.Cookie] = s.Local.String()
					}
				}
				return nil
			})
		}
		look()
		require.Equal(t, want, live)

		rows := map[uint64]string{}
		for _, row := range testnet.SS(t, "-t", "-u") {
			if addr := row.Local.Addr(); addr.IsLinkLocalUnicast() {
				rows[row.Cookie] = netip.AddrPortFrom(addr.WithZone(row.Interface), row.Local.Port()).String()
			}
		}
		require.Equal(t, rows, locals)

		// The names follow the devices; of a closed socket too.
		ip(t, "link", "set", "veth0", "down")
		ip(t, "link", "set", "veth0", "name", "lan")
		ip(t, "link", "set", "lan", "up")
		for _, conn := range conns {
			require.NoError(t, conn.(*net.TCPConn).SetLinger(0))
			require.NoError(t, conn.Close())
		}
		awaitClosed(t, s.namespaces.self, len(conns))
		look()
		require.Equal(t, map[string]int{"fe80::1%lan": 1, "fe80::1%veth1": 2}, closed)
		require.Contains(t, fmt.Sprint(live), "%lan")
		require.Contains(t, fmt.Sprint(live), "%veth0", "at the other end of the link")
	})
}

// Reading a name needs no privilege.
func TestZonesAsNobody(t *testing.T) {
	testnet.Isolate(t, func() {
		one := testnet.Start(t, testnet.Process{Name: "one", Netns: true})
		linkTo(t, one, "veth0")
		conn := dial(t, "udp6", "[fe80::1%veth0]:9")
		onNewThread(func() {
			testnet.BecomeNobody(t)
			s := newScanner(t, ScannerConfig{OwnerMethod: OwnersOff, Transports: []Transport{TransportUDP}})
			require.Equal(t, []string{conn.LocalAddr().String()}, mustScan(t, s, func(s *Socket) string { return s.Local.String() }))
		})
	})
}

package procnetstat

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// command runs a program, and fails the test if that fails.
func command(t *testing.T, args ...string) {
	t.Helper()
	testnet.Require(t, args[0])
	cmd := exec.Command(args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%v: %s", cmd, out)
}

// inNetnsOf returns the arguments that run a command in the network namespace of a process.
func inNetnsOf(p *testnet.Proc, args ...string) []string {
	return append([]string{"nsenter", "--net=" + p.Netns()}, args...)
}

// addDevice creates a network device, and skips the test if the kernel does not have devices of the type.
func addDevice(t *testing.T, name, typ string, args ...string) {
	t.Helper()
	testnet.Require(t, "ip")
	add := exec.Command("ip", append([]string{"link", "add", name, "type", typ}, args...)...)
	out, err := add.CombinedOutput()
	if strings.Contains(string(out), "Unknown device type") {
		t.Skipf("%v: %s", add, out) // also in CI: make test-kernels runs it
	}
	require.NoError(t, err, "%v: %s", add, out)
}

// connectVeth connects this network namespace to that of another process by a pair of veth devices with an address each.
func connectVeth(t *testing.T, device, address string, peer *testnet.Proc, peerDevice, peerAddress string) {
	t.Helper()
	addDevice(t, device, "veth", "peer", "name", peerDevice, "netns", strconv.Itoa(peer.PID))
	add := func(device, address string) []string {
		args := []string{"ip", "address", "add", address, "dev", device}
		if netip.MustParsePrefix(address).Addr().Is6() {
			args = append(args, "nodad") // without duplicate address detection it can be used at once
		}
		return args
	}
	command(t, add(device, address)...)
	command(t, "ip", "link", "set", device, "up")
	command(t, inNetnsOf(peer, add(peerDevice, peerAddress)...)...)
	command(t, inNetnsOf(peer, "ip", "link", "set", peerDevice, "up")...)
	eventually(t, func() bool { // a packet that is sent too early is lost
		for _, show := range [][]string{{"ip", "-o", "link", "show", device}, inNetnsOf(peer, "ip", "-o", "link", "show", peerDevice)} {
			out, err := exec.Command(show[0], show[1:]...).Output()
			require.NoError(t, err, show)
			if !strings.Contains(string(out), "state UP") {
				return false
			}
		}
		return true
	})
}

// atDevice are the connections of a listener that is bound to a device, or to none.
type atDevice struct {
	device, name string // the tags interface and process_name
	established  int64
}

// requireAtDevices requires that the listeners at a port have these connections, and the tag interface if they are bound to a device.
func (g gathered) requireAtDevices(port uint16, want ...atDevice) {
	g.Helper()
	var got []atDevice
	for tags, fields := range g.all("procnetstat_listener", listenerTags(port)...) {
		at := atDevice{name: valueOf(g.T, tags, "process_name"), established: fields["tcp_established"]}
		if strings.Contains(tags, "interface=") {
			at.device = valueOf(g.T, tags, "interface")
		}
		require.Equal(g, int64(1), fields["tcp_listen"], tags)
		got = append(got, at)
	}
	require.ElementsMatch(g, want, got)
}

// Listeners at the same address and port, bound to different devices or to none, have their own connections each.
func TestListenersOfDevices(t *testing.T) {
	testnet.Isolate(t, func() {
		local, remote := testnet.Start(t, testnet.Process{Name: "local"}), testnet.Start(t, testnet.Process{Name: "remote", Netns: true})
		connectVeth(t, "left", "10.1.0.1/24", remote, "eth0", "10.1.0.2/24")
		connectVeth(t, "right", "10.2.0.1/24", remote, "eth1", "10.2.0.2/24")
		const port = 8080
		services := []struct {
			atDevice
			client  *testnet.Proc
			address string
			waiting int
		}{
			{atDevice{"", "elsewhere", 1}, remote, "10.2.0.1", 0},
			{atDevice{"lo", "on-lo", 2}, local, "127.0.0.1", 0},
			{atDevice{"left", "on-left", 3}, remote, "10.1.0.1", 1},
		}
		var want []atDevice
		var servers []*testnet.Proc
		var listeners []testnet.Socket
		for _, s := range services {
			want = append(want, s.atDevice)
			server := testnet.Start(t, testnet.Process{Name: s.name})
			// The option allows a listener that is bound to no device beside those that are. The kernel takes the first one of a
			// list that it adds to at the front: inet_lhash2_lookup (net/ipv4/inet_hashtables.c).
			options := testnet.SocketOptions{ReusePort: true, Device: s.device}
			servers = append(servers, server)
			listeners = append(listeners, server.With(options).Listen("tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), port), 16))
		}
		for i, s := range services {
			s.client.Connect(netip.AddrPortFrom(netip.MustParseAddr(s.address), port), int(s.established))
			servers[i].Accept(listeners[i], int(s.established)-s.waiting)
			awaitQueued(t, listeners[i], uint32(s.waiting))
		}
		v := startViews(t, "netlink")
		for i := range 2 {
			v.check(t, fmt.Sprintf("gather %d", i), func(g gathered, _ string) {
				g.requireAtDevices(port, want...)
				g.requireAtPort(port, "accept_queue", map[string]int64{"on-left": 1})
				g.requireOutgoingTo(port)
			})
		}
		for i := range services {
			servers[i].Close(listeners[i])
		}
		eventually(t, func() bool { // the one that waits is reset
			established := 0
			for _, row := range testnet.SS(t, "-t") {
				if row.Local.Port() == port && row.State == "ESTABLISHED" {
					established++
				}
			}
			return established == 5
		})
		v.check(t, "drained", func(g gathered, _ string) {
			g.requireAtPort(port, "tcp_established", map[string]int64{"on-lo": 2, "on-left": 2, "elsewhere": 1})
			for _, device := range []string{"lo", "left"} {
				require.Len(g, g.all("procnetstat_listener", listenerTags(port, "interface="+device)...), 1, device)
			}
			g.requireOutgoingTo(port)
		})
	})
}

// The same address and port in two VRFs are two listeners. A listener that is bound to none has the connections of both.
func TestVRFListeners(t *testing.T) {
	testnet.Isolate(t, func() {
		require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/tcp_l3mdev_accept", []byte("1"), 0o600))
		const connections = 3
		at, shared := netip.MustParseAddrPort("10.9.8.1:8080"), netip.MustParseAddrPort("10.9.8.1:9090")
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		unbound := server.Listen("tcp4", netip.AddrPortFrom(netip.IPv4Unspecified(), shared.Port()), 16)
		var want []atDevice
		for i, vrf := range []string{"red", "blue"} {
			addDevice(t, vrf, "vrf", "table", strconv.Itoa(10+i))
			command(t, "ip", "address", "add", "10.9.8.1/24", "dev", vrf)
			command(t, "ip", "link", "set", vrf, "up")
			inVRF := testnet.SocketOptions{Device: vrf}
			listener := server.With(inVRF).Listen("tcp4", at, 16)
			client.With(inVRF).Connect(at, connections+i)
			server.Accept(listener, connections) // of the second VRF, one waits
			awaitQueued(t, listener, uint32(i))
			client.With(inVRF).Connect(shared, 1)
			want = append(want, atDevice{vrf, "server", int64(connections + i)})
		}
		server.Accept(unbound, 2)
		v := startViews(t, "netlink")
		for i := range 2 {
			v.check(t, fmt.Sprintf("gather %d", i), func(g gathered, _ string) {
				g.requireAtDevices(at.Port(), want...)
				g.requireAtDevices(shared.Port(), atDevice{"", "server", 2})
				g.requireOutgoingTo(at.Port(), shared.Port())
				require.Equal(g, int64(2*connections+1+2), g.sum("procnetstat_remote")["tcp_established"])
			})
		}
	})
}

// The same link-local address on two links is two peers.
func TestLinkLocalPeers(t *testing.T) {
	testnet.Isolate(t, func() {
		const port = 8080
		server := testnet.Start(t, testnet.Process{Name: "server", Netns: true})
		client := testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp6", netip.AddrPortFrom(netip.IPv6Unspecified(), port), 16)
		devices := []string{"left", "right"}
		for i, device := range devices {
			connectVeth(t, device, "fe80::2/64", server, fmt.Sprintf("eth%d", i), "fe80::1/64")
			peer := netip.MustParseAddr("fe80::1%" + device)
			client.Connect(netip.AddrPortFrom(peer, port), 1+i)
			server.Accept(listener, 1+i)
		}
		v := startViews(t, "netlink")
		for i := range 2 {
			v.check(t, fmt.Sprintf("gather %d", i), func(g gathered, _ string) {
				require.Len(g, g.all("procnetstat_remote"), len(devices))
				for i, device := range devices {
					tags := []string{"process_name=client", "remote_port=8080", "remote_address=fe80::1%" + device}
					require.Equal(g, int64(1+i), g.one("procnetstat_remote", tags...)["tcp_established"], tags)
				}
				g.requireAtPort(port, "tcp_established", nil)
			})
		}
	})
}

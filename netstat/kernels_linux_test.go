package netstat_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat"
)

// These tests take devices and modules that many kernels lack. make test-kernels runs them with kernels that have all of them.

// The kernel returns the VRF of a socket, whether its process bound it or it was accepted there.
func TestVRF(t *testing.T) {
	testnet.Isolate(t, func() {
		for _, sysctl := range []string{"tcp_l3mdev_accept", "udp_l3mdev_accept"} {
			require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/"+sysctl, []byte("1"), 0o600))
		}
		configure(t, "ip", "link", "add", "red", "type", "vrf", "table", "10")
		configure(t, "ip", "link", "set", "red", "up")
		configure(t, "ip", "link", "add", "port", "type", "dummy")
		configure(t, "ip", "link", "set", "port", "master", "red", "up")
		configure(t, "ip", "addr", "add", "10.9.8.1/24", "dev", "port")
		red, port := interfaceIndex(t, "red"), interfaceIndex(t, "port")

		const inVRF, sharedAddr = "10.9.8.1", "0.0.0.0" // only a socket bound to a VRF can have its address
		want := make(map[string]uint32)
		for _, l := range []struct {
			device, address string
			index           uint32
		}{{"red", inVRF, red}, {"", sharedAddr, 0}} {
			bound := net.ListenConfig{Control: bindToDevice(l.device)}
			listener, err := bound.Listen(t.Context(), "tcp4", l.address+":0")
			require.NoError(t, err)
			defer listener.Close()
			_, port, err := net.SplitHostPort(listener.Addr().String())
			require.NoError(t, err)
			client, server := connect(t, listener, net.JoinHostPort(inVRF, port), "red")
			want[described("tcp", listener.Addr(), nil)] = l.index
			want[described("tcp", server.LocalAddr(), server.RemoteAddr())] = red
			want[described("tcp", client.LocalAddr(), client.RemoteAddr())] = red
		}
		for _, l := range []struct {
			device, address string
			index           uint32
		}{{"red", inVRF, red}, {"port", inVRF, port}, {"", sharedAddr, 0}} {
			bound := net.ListenConfig{Control: bindToDevice(l.device)}
			socket, err := bound.ListenPacket(t.Context(), "udp4", l.address+":0")
			require.NoError(t, err)
			defer socket.Close()
			want[described("udp", socket.LocalAddr(), nil)] = l.index
		}

		found := make(map[string]uint32)
		for _, s := range scanAll(t, netstat.ScannerConfig{OwnerMethod: netstat.OwnersOff}) {
			require.True(t, s.Has(netstat.FieldInterface))
			found[key(s)] = s.Interface
		}
		require.Equal(t, want, found)
		inProcfs := scanAll(t, netstat.ScannerConfig{OwnerMethod: netstat.OwnersOff, Source: netstat.SourceProcfs})
		require.Len(t, inProcfs, len(want))
		for _, s := range inProcfs {
			require.Contains(t, want, key(s))
			require.False(t, s.Has(netstat.FieldInterface))
		}
	})
}

// The round-trip time includes the delay of the queueing discipline.
func TestDelay(t *testing.T) {
	testnet.Isolate(t, func() {
		const delay = 50 * time.Millisecond
		before, server := connectLoopback(t)
		for range 10 {
			exchange(t, before, server)
		}
		require.Less(t, tcpInfo(t, before).MinRTT, uint32(delay.Microseconds()), "no delay yet")

		configure(t, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", delay.String())
		after, server := connectLoopback(t)
		exchange(t, after, server)
		for _, end := range []net.Conn{after, server} {
			info := tcpInfo(t, end)
			require.GreaterOrEqual(t, info.MinRTT, uint32(2*delay.Microseconds()), "both directions pass lo")
			require.GreaterOrEqual(t, info.RTT, info.MinRTT)
			require.Less(t, info.RTT, uint32((20 * delay).Microseconds()))
		}
	})
}

// Lost segments are counted as retransmitted at the sending end.
func TestLoss(t *testing.T) {
	testnet.Isolate(t, func() {
		client, server := connectLoopback(t)
		exchange(t, client, server)
		configure(t, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", "100%")
		text := []byte(strings.Repeat("x", 100))
		_, err := client.Write(text)
		require.NoError(t, err)
		var lossy netstat.TCPInfo
		require.Eventually(t, func() bool {
			lossy = tcpInfo(t, client)
			return lossy.Retransmits >= 2
		}, 30*time.Second, 10*time.Millisecond)
		require.GreaterOrEqual(t, lossy.RetransSegs, uint32(lossy.Retransmits), "Retransmits does not count probes")
		require.EqualValues(t, 1, lossy.Lost)
		require.Zero(t, tcpInfo(t, server).RetransSegs)

		configure(t, "tc", "qdisc", "del", "dev", "lo", "root")
		_, err = io.ReadFull(server, make([]byte, len(text)))
		require.NoError(t, err)
		var recovered netstat.TCPInfo
		require.Eventually(t, func() bool {
			recovered = tcpInfo(t, client)
			return recovered.Retransmits == 0 && recovered.Lost == 0
		}, 30*time.Second, 10*time.Millisecond)
		require.Greater(t, recovered.RetransSegs, lossy.RetransSegs, "one more retransmission, which arrived")
		require.Equal(t, uint64(len(greeting))+uint64(len(text))*uint64(1+recovered.RetransSegs), recovered.BytesSent)
	})
}

// Without the diag modules the same sockets are read from procfs. When the modules can be loaded again, they are read from
// sock_diag.
func TestWithoutModules(t *testing.T) {
	if os.Getenv("TESTNET_MACHINE") != "disposable" {
		t.Skip("unloads kernel modules that other programs use: make test-kernels runs it in a virtual machine")
	}
	testnet.Isolate(t, func() {
		transports := []netstat.Transport{
			netstat.TransportTCP, netstat.TransportUDP, netstat.TransportUDPLite, netstat.TransportRaw, netstat.TransportUnix,
		}
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			testnet.States(t, network)
		}
		testnet.UDP(t)
		testnet.UDPLite(t)
		testnet.Raw(t)
		testnet.Unix(t)
		read := func() (sockets []string, sources map[string]netstat.Source, warnings []string) {
			config := netstat.ScannerConfig{
				Transports: transports, OwnerMethod: netstat.OwnersOff,
				Warn: func(err error) { warnings = append(warnings, err.Error()) },
			}
			sources = make(map[string]netstat.Source)
			scanner, err := netstat.NewScanner(config)
			require.NoError(t, err)
			defer scanner.Close()
			for s, err := range scanner.Sockets(t.Context()) {
				require.NoError(t, err)
				sockets = append(sockets, fmt.Sprint(key(s), " ", s.State, " ", s.Inode))
			}
			for _, transport := range transports {
				sources[transport.String()] = scanner.Namespaces()[0].SourceOf(transport)
			}
			return sockets, sources, warnings
		}
		allFrom := func(source netstat.Source) map[string]netstat.Source {
			sources := make(map[string]netstat.Source)
			for _, transport := range transports {
				sources[transport.String()] = source
			}
			return sources
		}
		want, sources, warnings := read()
		require.Equal(t, allFrom(netstat.SourceNetlink), sources)
		require.Empty(t, warnings)

		forbidModules(t)
		modules := map[string][]string{
			"udp_diag": {"udp", "udplite"}, "tcp_diag": {"tcp"}, "raw_diag": {"raw"}, "unix_diag": {"unix"},
		}
		procfs := allFrom(netstat.SourceNetlink)
		var missing []missingTable
		for module, of := range modules {
			unload(t, module)
			for _, transport := range of {
				procfs[transport] = netstat.SourceProcfs
				missing = append(missing, missingTable{transport, module})
			}
			sockets, sources, warnings := read()
			require.ElementsMatch(t, want, sockets, "without %s", module)
			require.Equal(t, procfs, sources, "without %s", module)
			require.Len(t, warnings, len(missing))
			for _, table := range missing {
				require.True(t, slices.ContainsFunc(warnings, table.isNamed), "%v in %q", table, warnings)
			}
		}
		unload(t, "inet_diag")
		sockets, sources, _ := read()
		require.ElementsMatch(t, want, sockets)
		require.Equal(t, allFrom(netstat.SourceProcfs), sources)
		_, err := netstat.NewScanner(netstat.ScannerConfig{Source: netstat.SourceNetlink})
		require.ErrorContains(t, err, "(module tcp_diag)")
		_, err = netstat.NewScanner(netstat.ScannerConfig{Closed: netstat.ClosedRequired})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "(module tcp_diag)")

		permitModules(t)
		sockets, sources, warnings = read()
		require.ElementsMatch(t, want, sockets)
		require.Equal(t, allFrom(netstat.SourceNetlink), sources)
		require.Empty(t, warnings)
	})
}

// A missingTable is a transport that sock_diag lacks because its module is not loaded.
type missingTable struct{ transport, module string }

// isNamed reports whether a warning is about the table.
func (m missingTable) isNamed(warning string) bool {
	return strings.HasPrefix(warning, "reading "+m.transport+" sockets from /proc/net: ") &&
		strings.HasSuffix(warning, "(module "+m.module+")")
}

const modprobe = "/proc/sys/kernel/modprobe"

// forbidModules disables the loading of modules by the kernel until the test ends.
func forbidModules(t *testing.T) {
	t.Helper()
	require.NoError(t, os.WriteFile(modprobe, []byte("\n"), 0o600))
	t.Cleanup(func() { permitModules(t) })
}

func permitModules(t *testing.T) {
	t.Helper()
	require.NoError(t, os.WriteFile(modprobe, []byte("/sbin/modprobe\n"), 0o600))
}

// unload unloads a module, and before it the modules that use it.
func unload(t *testing.T, module string) {
	t.Helper()
	users, err := os.ReadDir("/sys/module/" + module + "/holders")
	require.NoError(t, err)
	for _, user := range users {
		unload(t, user.Name())
	}
	require.NoError(t, unix.DeleteModule(module, unix.O_NONBLOCK), module)
}

// configure runs a program of iproute2, and skips the test if the kernel lacks the device or qdisc.
func configure(t *testing.T, program string, args ...string) {
	t.Helper()
	testnet.Require(t, program)
	out, err := exec.Command(program, args...).CombinedOutput()
	for _, lack := range []string{"Unknown device type", "Specified qdisc kind is unknown", "Specified qdisc not found"} {
		if bytes.Contains(out, []byte(lack)) {
			t.Skipf("%s %s: %s", program, strings.Join(args, " "), out)
		}
	}
	require.NoError(t, err, "%s %s: %s", program, strings.Join(args, " "), out)
}

func interfaceIndex(t *testing.T, name string) uint32 {
	t.Helper()
	device, err := net.InterfaceByName(name)
	require.NoError(t, err)
	return uint32(device.Index)
}

// bindToDevice binds a socket to a device, or does nothing for an empty name.
func bindToDevice(name string) func(network, address string, socket syscall.RawConn) error {
	return func(_, _ string, socket syscall.RawConn) (err error) {
		if name == "" {
			return nil
		}
		return errors.Join(socket.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), name) }), err)
	}
}

// connect opens a connection from a socket that is bound to a device. Both ends are closed when the test ends.
func connect(t *testing.T, listener net.Listener, to, device string) (client, server net.Conn) {
	t.Helper()
	dialer := net.Dialer{Control: bindToDevice(device), Timeout: 10 * time.Second}
	client, err := dialer.DialContext(t.Context(), "tcp4", to)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	server, err = listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

const greeting = "hello"

// connectLoopback opens a connection over lo.
func connectLoopback(t *testing.T) (client, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return connect(t, listener, listener.Addr().String(), "")
}

// exchange sends the greeting in both directions.
func exchange(t *testing.T, client, server net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		_, err := way[0].Write([]byte(greeting))
		require.NoError(t, err)
		_, err = io.ReadFull(way[1], make([]byte, len(greeting)))
		require.NoError(t, err)
	}
}

func scanAll(t *testing.T, config netstat.ScannerConfig) (sockets []*netstat.Socket) {
	t.Helper()
	scanner, err := netstat.NewScanner(config)
	require.NoError(t, err)
	defer scanner.Close()
	for s, err := range scanner.Sockets(t.Context()) {
		require.NoError(t, err)
		sockets = append(sockets, s.Clone())
	}
	return sockets
}

// tcpInfo returns the TCPInfo of one end of a connection from a scan.
func tcpInfo(t *testing.T, end net.Conn) netstat.TCPInfo {
	t.Helper()
	config := netstat.ScannerConfig{
		TCPInfo: true, OwnerMethod: netstat.OwnersOff, Transports: []netstat.Transport{netstat.TransportTCP},
	}
	for _, s := range scanAll(t, config) {
		if key(s) == described("tcp", end.LocalAddr(), end.RemoteAddr()) {
			require.True(t, s.Has(netstat.FieldTCPInfo))
			return s.TCP
		}
	}
	t.Fatalf("no socket %v", end.LocalAddr())
	return netstat.TCPInfo{}
}

func described(transport string, local, remote net.Addr) string {
	if remote == nil {
		remote = net.TCPAddrFromAddrPort(netip.MustParseAddrPort("0.0.0.0:0"))
	}
	return fmt.Sprint(transport, " ", local, " ", remote)
}

func key(s *netstat.Socket) string {
	return fmt.Sprint(s.Transport, " ", s.Local, " ", s.Remote)
}

//go:build amd64 || arm64

package netstat

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// initiators returns the state and the initiator of every live connection, by its local and remote port.
func initiators(t *testing.T, s *Scanner) map[string]string {
	t.Helper()
	found := map[string]string{}
	mustScan(t, s, func(s *Socket) any {
		if !s.Closed && s.HasPeer() {
			found[ports(s.Local.Port(), s.Remote.Port())] = s.State.String() + " " + initiatorOf(s)
		}
		return nil
	})
	return found
}

func ports(local, remote uint16) string { return fmt.Sprintf("%d to %d", local, remote) }

func initiatorOf(s *Socket) string {
	process, cgroup := s.Initiator()
	if process == nil {
		return fmt.Sprintf("nobody, cgroup %d", cgroup)
	}
	return fmt.Sprintf("%s, cgroup %d", owner(process.PID, process.Name, process.StartTime), cgroup)
}

// A connection has the process that called connect(2) as its initiator, in every state; an accepted one has none.
func TestInitiator(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		s := newClosedScanner(t, ScannerConfig{OwnerMethod: OwnersBPF})
		cgroup := ownCgroupID(t)
		server := testnet.Start(t, testnet.Process{Name: "server"})
		client := testnet.Start(t, testnet.Process{Name: "client", UID: 65534})
		ended := testnet.Start(t, testnet.Process{Name: "ended"})
		listener := server.Listen("tcp4", netip.AddrPort{}, 16)
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listener.Local.Port())
		by := func(p string) string { return fmt.Sprintf("%s, cgroup %d", p, cgroup) }
		ofClient, ofEnded := by(processFromProc(t, client.PID)), by(processFromProc(t, ended.PID))
		const nobody = "nobody, cgroup 0"

		want := map[string]string{}
		expect := func(client testnet.Socket, state, initiator string, accepted ...string) {
			want[ports(client.Local.Port(), to.Port())] = state + " " + initiator
			for _, state := range accepted {
				want[ports(to.Port(), client.Local.Port())] = state + " " + nobody
			}
		}
		live := client.Connect(to, 1)[0]
		server.Accept(listener, 1)
		expect(live, "ESTABLISHED", ofClient, "ESTABLISHED")

		short := ended.Connect(to, 1)[0]
		accepted := server.Accept(listener, 1)
		ended.Close(short)
		server.Close(accepted...)
		expect(short, "TIME_WAIT", ofEnded)

		orphan := ended.Connect(to, 1)[0]
		server.Accept(listener, 1)
		ended.Close(orphan)
		expect(orphan, "FIN_WAIT2", ofEnded, "CLOSE_WAIT")
		ended.Stop()

		loop := server.Connect(to, 1)[0] // the process holds both ends
		server.Accept(listener, 1)
		expect(loop, "ESTABLISHED", by(processFromProc(t, server.PID)), "ESTABLISHED")

		// The process of this test dials from the port that it listens at, and accepts a connection there.
		own := openReusable(t, 0)
		require.NoError(t, unix.Listen(own, 4))
		dialed := openReusable(t, portOf(t, own))
		require.NoError(t, unix.Connect(dialed, sockaddr(to)))
		server.Accept(listener, 1)
		want[ports(portOf(t, own), to.Port())] = "ESTABLISHED " + by(processFromProc(t, os.Getpid()))
		want[ports(to.Port(), portOf(t, own))] = "ESTABLISHED " + nobody
		incoming := client.Connect(netip.AddrPortFrom(to.Addr(), portOf(t, own)), 1)[0]
		want[ports(incoming.Local.Port(), portOf(t, own))] = "ESTABLISHED " + ofClient
		want[ports(portOf(t, own), incoming.Local.Port())] = "ESTABLISHED " + nobody

		var found map[string]string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if found = initiators(t, s); fmt.Sprint(found) == fmt.Sprint(want) { // the FINs are underway
				break
			}
		}
		require.Equal(t, want, found)
		require.True(t, s.Stats().Initiators)
	})
}

// openReusable returns a TCP socket that shares the port with others of this user; port 0 is a free one.
func openReusable(t *testing.T, port uint16) int {
	t.Helper()
	fd := openTCP(t, unix.AF_INET)
	require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	require.NoError(t, unix.Bind(fd, loopback(port)))
	return fd
}

// A socket that listens has no initiator, even if it connected before.
func TestInitiatorOfListener(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		s := newClosedScanner(t, ScannerConfig{OwnerMethod: OwnersBPF})
		fd := openTCP(t, unix.AF_INET)
		require.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, loopback(unusedPort(t))))
		require.NotEmpty(t, known(&s.connects, cookieOf(t, fd)))
		if err := unix.Listen(fd, 1); err != nil {
			require.ErrorIs(t, err, unix.EINVAL)
			t.Log("this kernel does not let a socket listen that has tried to connect")
			return
		}
		seen := 0
		mustScan(t, s, func(s *Socket) any {
			if s.Cookie == cookieOf(t, fd) && !s.Closed { // that of the attempt is an end
				seen++
				require.Equal(t, TCPListen, s.State)
				require.Equal(t, "nobody, cgroup 0", initiatorOf(s))
			}
			return nil
		})
		require.Equal(t, 1, seen)
	})
}

// A clone keeps the initiator, a plain copy loses it with the next socket, and the lookup allocates nothing.
func TestInitiatorOfCopies(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		s := newClosedScanner(t, ScannerConfig{OwnerMethod: OwnersBPF})
		l := listenIPv4(t)
		client, server := l.open()
		defer reset(t, client, server)
		want := fmt.Sprintf("%s, cgroup %d", processFromProc(t, os.Getpid()), ownCgroupID(t))
		seen := 0
		runtime.GC()
		var clone *Socket
		var copied Socket
		mustScan(t, s, func(s *Socket) any {
			if clone != nil && s.Cookie != clone.Cookie {
				require.Equal(t, "nobody, cgroup 0", initiatorOf(&copied))
			}
			if s.Cookie != cookieOf(t, client) {
				return nil
			}
			seen++
			clone, copied = s.Clone(), *s
			require.Equal(t, want, initiatorOf(s))
			require.Equal(t, want, initiatorOf(&copied))
			require.Zero(t, testing.AllocsPerRun(100, func() {
				s.scan.initiated = 0 // look it up again
				s.Initiator()
			}))
			return nil
		})
		require.Equal(t, 1, seen)
		mustScan(t, s, inode)
		require.Equal(t, "nobody, cgroup 0", initiatorOf(&copied))
		require.Equal(t, want, initiatorOf(clone))
	})
}

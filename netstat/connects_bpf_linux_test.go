//go:build amd64 || arm64

package netstat

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

func openBPFConnects(tb testing.TB) *bpf.Connects {
	tb.Helper()
	testnet.RequireBPF(tb)
	connects, err := bpf.OpenConnects("/proc", 0)
	require.NoError(tb, err)
	tb.Cleanup(connects.Close)
	return connects
}

// initiated describes the initiator and the destination port of a connection.
func initiated(process string, uid uint32, port uint16, cgroup uint64) string {
	return fmt.Sprintf("%s, user %d, to port %d, cgroup %d", process, uid, port, cgroup)
}

// known describes the recorded connect of a socket; it is empty if there is none.
func known(c interface {
	Lookup(cookie uint64) (bpf.Connect, bool)
}, cookie uint64) string {
	connect, ok := c.Lookup(cookie)
	if !ok {
		return ""
	}
	p := connect.Initiator
	process := owner(int(p.PID), string(p.Name()), newProcessCache("/proc", nil).clock.Ticks(p.StartBootTime))
	return initiated(process, p.UID, connect.Port, connect.CgroupID)
}

// cgroupIDs returns the cgroup IDs of the TCP sockets in this network namespace, by cookie.
func cgroupIDs(t *testing.T) map[uint64]uint64 {
	t.Helper()
	ids := map[uint64]uint64{}
	mustScan(t, newScanner(t, ScannerConfig{OwnerMethod: OwnersOff}), func(s *Socket) any {
		if s.Has(FieldCgroupID) { // all but those in TIME_WAIT or SYN_RECV
			ids[s.Cookie] = s.CgroupID
		}
		return nil
	})
	return ids
}

// ownCgroupID returns the cgroup ID of this process.
func ownCgroupID(t *testing.T) uint64 {
	t.Helper()
	fd := openTCP(t, unix.AF_INET)
	require.NoError(t, unix.Listen(fd, 1))
	return cgroupIDs(t)[cookieOf(t, fd)]
}

// openTCP returns a TCP socket that is closed when the test ends.
func openTCP(t testing.TB, family int) int {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func loopback(port uint16) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}
}

// unusedPort returns a port without a listener.
func unusedPort(t testing.TB) uint16 {
	t.Helper()
	fd := openTCP(t, unix.AF_INET)
	require.NoError(t, unix.Bind(fd, loopback(0)))
	at, err := unix.Getsockname(fd)
	require.NoError(t, err)
	return uint16(at.(*unix.SockaddrInet4).Port)
}

func TestConnects(t *testing.T) {
	testnet.Isolate(t, func() {
		connects := openBPFConnects(t)
		dir, _ := testnet.Cgroup(t, "user.service")
		server := testnet.Start(t, testnet.Process{Name: "server"})
		clients := []struct {
			proc *testnet.Proc
			uid  uint32
		}{
			{testnet.Start(t, testnet.Process{Name: "client"}), 0},
			{testnet.Start(t, testnet.Process{Name: "two words, more than fifteen", UID: 65534, Cgroup: dir}), 65534},
		}
		want, accepted := map[uint64]string{}, []testnet.Socket{}
		cgroups := map[uint64]bool{}
		for _, network := range []struct {
			name string
			at   netip.Addr
		}{
			{"tcp4", netip.MustParseAddr("127.0.0.1")}, {"tcp6", netip.IPv6Loopback()},
			{"tcp4in6", netip.MustParseAddr("::ffff:127.0.0.1")},
		} {
			listener := server.Listen(network.name, netip.AddrPortFrom(network.at, 0), 16)
			for _, client := range clients {
				sockets := client.proc.Connect(listener.Local, 2)
				accepted = append(accepted, server.Accept(listener, len(sockets))...)
				ids := cgroupIDs(t)
				for _, s := range sockets {
					cgroups[ids[s.Cookie]] = true
					want[s.Cookie] = initiated(processFromProc(t, client.proc.PID), client.uid, listener.Local.Port(), ids[s.Cookie])
				}
			}
		}
		require.Len(t, cgroups, len(clients))
		for _, s := range accepted {
			require.Empty(t, known(connects, s.Cookie), "accepted, not initiated")
		}
		clients[0].proc.Stop()
		for cookie, is := range want {
			require.Equal(t, is, known(connects, cookie))
		}

		other := testnet.Start(t, testnet.Process{Name: "elsewhere", Netns: true})
		at := other.Listen("tcp4", netip.AddrPort{}, 1).Local.Port()
		socket := other.Connect(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at), 1)[0]
		require.Equal(t, initiated(processFromProc(t, other.PID), 0, at, ownCgroupID(t)), known(connects, socket.Cookie))
	})
}

// Connects of this process are recorded on all threads, whatever connect(2) returns.
func TestConnectsOfThisProcess(t *testing.T) {
	testnet.Isolate(t, func() {
		connects := openBPFConnects(t)
		self, cgroup := processFromProc(t, os.Getpid()), ownCgroupID(t)
		initiatedBy := func(uid uint32, port uint16) string { return initiated(self, uid, port, cgroup) }
		server := testnet.Start(t, testnet.Process{Name: "server"})
		const backlog = 3
		listener := server.Listen("tcp4", netip.AddrPort{}, backlog)
		port, unused := listener.Local.Port(), unusedPort(t)

		t.Run("blocking", func(t *testing.T) {
			fd := openTCP(t, unix.AF_INET)
			require.NoError(t, unix.Connect(fd, loopback(port)))
			require.Equal(t, initiatedBy(0, port), known(connects, cookieOf(t, fd)))
			server.Accept(listener, 1)
		})
		t.Run("refused", func(t *testing.T) {
			fd := openTCP(t, unix.AF_INET)
			cookie := cookieOf(t, fd)
			require.Empty(t, known(connects, cookie), "before")
			require.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, loopback(unused)))
			require.Equal(t, initiatedBy(0, unused), known(connects, cookie))

			require.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, loopback(unused)))
			require.NoError(t, unix.Connect(fd, loopback(port)))
			require.Equal(t, initiatedBy(0, port), known(connects, cookie), "second connect")
			server.Accept(listener, 1)
		})
		t.Run("refused, IPv6", func(t *testing.T) {
			fd := openTCP(t, unix.AF_INET6)
			to := &unix.SockaddrInet6{Port: int(unused), Addr: netip.IPv6Loopback().As16()}
			require.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, to))
			require.Equal(t, initiatedBy(0, unused), known(connects, cookieOf(t, fd)))
		})
		t.Run("no route", func(t *testing.T) { // it never enters SYN_SENT
			fd := openTCP(t, unix.AF_INET)
			to := &unix.SockaddrInet4{Port: 1, Addr: [4]byte{192, 0, 2, 1}}
			require.Equal(t, unix.ENETUNREACH, unix.Connect(fd, to))
			require.Empty(t, known(connects, cookieOf(t, fd)))
		})
		t.Run("not UDP", func(t *testing.T) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			defer unix.Close(fd)
			require.NoError(t, unix.Connect(fd, loopback(port)))
			require.Empty(t, known(connects, cookieOf(t, fd)))
		})
		t.Run("thread of another user", func(t *testing.T) {
			fd, done := openTCP(t, unix.AF_INET), make(chan error)
			testnet.StartThread(0, 0, func() {
				name := append([]byte("thread"), 0)
				assert.NoError(t, unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0))
				_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 0) // unix.Setresuid applies to all threads
				assert.Zero(t, errno)
				done <- unix.Connect(fd, loopback(unused))
			})
			require.Equal(t, unix.ECONNREFUSED, <-done)
			require.Equal(t, initiatedBy(65534, unused), known(connects, cookieOf(t, fd)))
		})
		t.Run("Fast Open", func(t *testing.T) {
			// Data in the SYN, without a cookie from the server.
			require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("1541"), 0o600)) // 0x605
			fd := openTCP(t, unix.AF_INET)
			require.NoError(t, unix.Sendto(fd, []byte("data"), unix.MSG_FASTOPEN, loopback(port)))
			require.Equal(t, initiatedBy(0, port), known(connects, cookieOf(t, fd)))
			server.Accept(listener, 1)

			fd = openTCP(t, unix.AF_INET)
			require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1))
			require.NoError(t, unix.Connect(fd, loopback(unused)), "no packet was sent")
			require.Equal(t, initiatedBy(0, unused), known(connects, cookieOf(t, fd)))
			_, err := unix.Write(fd, []byte("data"))
			require.Equal(t, unix.ECONNREFUSED, err)
		})
		t.Run("MPTCP", func(t *testing.T) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
			if err != nil {
				testnet.SkipOrFail(t, fmt.Sprintf("no MPTCP: %v", err))
			}
			defer unix.Close(fd)
			require.NoError(t, unix.Connect(fd, loopback(port)))
			at, err := unix.Getsockname(fd)
			require.NoError(t, err)
			require.Empty(t, known(connects, cookieOf(t, fd)), "the MPTCP socket")
			var of []string
			mustScan(t, newScanner(t, ScannerConfig{OwnerMethod: OwnersOff}), func(s *Socket) any {
				if int(s.Local.Port()) == at.(*unix.SockaddrInet4).Port {
					of = append(of, known(connects, s.Cookie))
				}
				return nil
			})
			require.Equal(t, []string{initiatedBy(0, port)}, of)
			server.Accept(listener, 1)
		})
		t.Run("non-blocking", func(t *testing.T) { // if the queue is full they stay in SYN_SENT
			states := map[TCPState]int{}
			cookies := map[uint64]bool{}
			for range 2*backlog + 2 {
				fd := openTCP(t, unix.AF_INET)
				require.NoError(t, unix.SetNonblock(fd, true))
				if err := unix.Connect(fd, loopback(port)); !errors.Is(err, unix.EINPROGRESS) {
					require.NoError(t, err)
				}
				cookies[cookieOf(t, fd)] = true
			}
			mustScan(t, newScanner(t, ScannerConfig{OwnerMethod: OwnersOff}), func(s *Socket) any {
				if cookies[s.Cookie] {
					states[s.State]++
					require.Equal(t, initiatedBy(0, port), known(connects, s.Cookie), s.State)
				}
				return nil
			})
			require.Positive(t, states[TCPSynSent])
			require.Positive(t, states[TCPEstablished])
		})
	})
}

// A socket that connects repeatedly always has a complete record.
func TestConnectsAgain(t *testing.T) {
	testnet.Isolate(t, func() {
		connects := openBPFConnects(t)
		fd, ports := openTCP(t, unix.AF_INET), []uint16{unusedPort(t), unusedPort(t)}
		cookie := cookieOf(t, fd)
		var started, end atomic.Bool
		done := make(chan struct{})
		testnet.StartThread(0, 0, func() {
			defer close(done)
			for i := 0; !end.Load(); i++ { // one user per port
				_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(i%2)*65534, ^uintptr(0))
				if !assert.Zero(t, errno) || !assert.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, loopback(ports[i%2]))) {
					return
				}
				started.Store(true)
			}
		})
		defer func() { end.Store(true); <-done }()
		users := map[uint16]uint32{ports[0]: 0, ports[1]: 65534}
		var port uint16
		for changes, limit := 0, time.Now().Add(time.Minute); changes < 2000; {
			require.True(t, time.Now().Before(limit), "it connected %d times", changes)
			if !started.Load() {
				continue
			}
			connect, ok := connects.Lookup(cookie)
			require.True(t, ok)
			require.Equal(t, users[connect.Port], connect.Initiator.UID, connect.Port)
			if connect.Port != port {
				changes++
			}
			port = connect.Port
		}
	})
}

// Recording requires these privileges. Without them it returns an error and leaves nothing open.
func TestConnectsPrivileges(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		tree, missing := proctree.Materialize(t, smallTree), filepath.Join(t.TempDir(), "missing")
		server := testnet.Start(t, testnet.Process{Name: "server"})
		listener := server.Listen("tcp4", netip.AddrPort{}, 16)
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listener.Local.Port())
		want := initiated(processFromProc(t, server.PID), 0, to.Port(), ownCgroupID(t))
		nobody := func(keep ...uint) func(*testing.T) {
			return func(t *testing.T) { t.Helper(); testnet.BecomeNobody(t, keep...) }
		}
		without := func(capabilities ...uint) func(*testing.T) {
			return func(t *testing.T) { t.Helper(); dropCapabilities(t, capabilities) }
		}
		forbidden := func(errno unix.Errno, commands ...uint32) func(*testing.T) {
			return func(t *testing.T) {
				t.Helper()
				for _, command := range commands {
					testnet.Forbid(t, unix.SYS_BPF, errno, int(command))
				}
				if len(commands) == 0 {
					testnet.Forbid(t, unix.SYS_BPF, errno)
				}
			}
		}
		const (
			refused = "^recording connection initiators requires CAP_BPF and CAP_PERFMON: " + notPermitted + "$"
			lacks   = "^recording connection initiators requires Linux 5.12 with BTF: unsupported operation: "
			foreign = " is not of the initial PID namespace, whose pids BPF programs see: unsupported operation$"
		)
		for _, test := range []struct {
			name   string
			before func(*testing.T)
			root   string
			err    string // regular expression; empty: no error
		}{
			{"root", nil, "/proc", ""},
			{"nobody with both", nobody(unix.CAP_BPF, unix.CAP_PERFMON), "/proc", ""},
			{"root without CAP_SYS_ADMIN", without(unix.CAP_SYS_ADMIN), "/proc", ""},
			{"nobody", nobody(), "/proc", refused},
			{"nobody with CAP_BPF", nobody(unix.CAP_BPF), "/proc", refused},
			{"nobody with CAP_PERFMON", nobody(unix.CAP_PERFMON), "/proc", refused},
			{"root without CAP_BPF", without(unix.CAP_BPF, unix.CAP_SYS_ADMIN), "/proc", refused},
			{"root without CAP_PERFMON", without(unix.CAP_PERFMON, unix.CAP_SYS_ADMIN), "/proc", refused},
			{"seccomp", forbidden(unix.EPERM), "/proc", refused},
			{"seccomp forbids attaching", forbidden(unix.EPERM, unix.BPF_LINK_CREATE), "/proc", refused},
			{"kernel without links of tracepoints", forbidden(unix.EINVAL, unix.BPF_LINK_CREATE), "/proc", ""}, // before Linux 5.15
			{"kernel without BPF", forbidden(unix.ENOSYS), "/proc", lacks + ".*$"},
			{"kernel without BTF", hideBTF, "/proc", lacks + ".*: no BTF found for kernel version .*: not supported$"},
			{"copy of a proc file system", nil, tree, "^" + tree + foreign},
			{"no proc file system", nil, missing, "^" + missing + foreign},
		} {
			t.Run(test.name, func(t *testing.T) {
				runtime.LockOSThread() // the thread and its restrictions end with the test
				before := openDescriptors(t)
				if test.before != nil {
					test.before(t)
				}
				connects, err := bpf.OpenConnects(test.root, 0)
				if test.err != "" {
					require.Nil(t, connects)
					require.ErrorIs(t, err, errors.ErrUnsupported)
					requireReadable(t, err.Error())
					require.Regexp(t, test.err, err.Error())
				} else {
					require.NoError(t, err)
					socket := server.Connect(to, 1)[0]
					require.Equal(t, want, known(connects, socket.Cookie))
					connects.Close()
				}
				require.Equal(t, before, openDescriptors(t))
			})
		}
	})
}

// Close releases all descriptors, memory and kernel objects.
func TestConnectsReleaseResources(t *testing.T) {
	testnet.RequireBPF(t)
	openBPFConnects(t).Lookup(1) // opens what stays open
	before, memory := openDescriptors(t), bpfMappings(t)
	for range 30 {
		connects, err := bpf.OpenConnects("/proc", 0)
		require.NoError(t, err)
		require.Greater(t, len(openDescriptors(t)), len(before)+2, "a program, a map and a link")
		connects.Close()
	}
	require.Equal(t, before, openDescriptors(t))
	require.Equal(t, memory, bpfMappings(t))

	t.Run("out of descriptors", func(t *testing.T) {
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		works := 0
		for room := range 12 { // descriptors run out at a different step each time
			less := unix.Rlimit{Cur: limitFor(t, room), Max: limit.Max}
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &less))
			connects, err := bpf.OpenConnects("/proc", 0)
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
			if err == nil {
				works++
				connects.Close()
			} else {
				require.ErrorIs(t, err, errors.ErrUnsupported, "with room for %d", room)
			}
			require.Equal(t, before, openDescriptors(t), "with room for %d", room)
		}
		require.Positive(t, works)
		require.Less(t, works, 10)
	})

	connects, err := bpf.OpenConnects("/proc", 0)
	require.NoError(t, err)
	program, records, attached := openedID(t, before, "prog_id"), openedID(t, before, "map_id"), openedID(t, before, "link_id")
	left := func() (left []string) {
		if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(program)); err == nil {
			left = append(left, "program")
			_ = p.Close()
		}
		if m, err := ebpf.NewMapFromID(ebpf.MapID(records)); err == nil {
			left = append(left, "map")
			_ = m.Close()
		}
		if l, err := link.NewFromID(link.ID(attached)); err == nil {
			left = append(left, "link")
			_ = l.Close()
		}
		return left
	}
	require.Equal(t, []string{"program", "map", "link"}, left())
	connects.Close()
	for end := time.Now().Add(10 * time.Second); len(left()) > 0; time.Sleep(10 * time.Millisecond) { // freed later
		require.True(t, time.Now().Before(end), "%s", left())
	}
}

// openedID returns the ID of the BPF object whose descriptor was opened since before. The fdinfo of a link also has the ID of its
// program.
func openedID(t *testing.T, before []string, key string) (id uint32) {
	t.Helper()
	for _, descriptor := range openDescriptors(t) {
		if slices.Contains(before, descriptor) {
			continue
		}
		number, _, _ := strings.Cut(descriptor, " ")
		info, err := os.ReadFile("/proc/self/fdinfo/" + number)
		require.NoError(t, err)
		for line := range strings.Lines(string(info)) {
			if _, err := fmt.Sscanf(line, key+": %d", &id); err == nil {
				return id
			}
		}
	}
	require.Fail(t, "no new descriptor has the key", key)
	return 0
}

// BenchmarkConnect measures what a connection costs both of its ends. Each goes through about five states.
func BenchmarkConnect(b *testing.B) {
	testnet.Isolate(b, func() {
		testnet.RequireBPF(b)
		listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(b, err)
		defer unix.Close(listener)
		require.NoError(b, unix.Bind(listener, loopback(0)))
		require.NoError(b, unix.Listen(listener, 1))
		to, err := unix.Getsockname(listener)
		require.NoError(b, err)
		connect := func(b *testing.B) {
			b.Helper()
			for b.Loop() {
				client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				require.NoError(b, err)
				require.NoError(b, unix.SetsockoptLinger(client, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
				require.NoError(b, unix.Connect(client, to))
				server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
				require.NoError(b, err)
				_ = unix.Close(client)
				_ = unix.Close(server)
			}
		}
		b.Run("not recorded", connect)
		b.Run("recorded", func(b *testing.B) {
			openBPFConnects(b)
			connect(b)
		})
	})
}

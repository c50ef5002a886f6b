//go:build amd64 || arm64

package netstat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
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
)

// newRecorder is newConnects for a test.
func newRecorder(tb testing.TB) *bpfConnects {
	tb.Helper()
	testnet.RequireBPF(tb)
	recorder, err := newConnects("/proc")
	require.NoError(tb, err)
	tb.Cleanup(recorder.close)
	return recorder.(*bpfConnects)
}

// began says who began a connection, and where to.
func began(process string, uid uint32, port uint16, cgroup uint64) string {
	return fmt.Sprintf("%s, user %d, to port %d, cgroup %d", process, uid, port, cgroup)
}

// known is what the recorder knows of a socket; empty if that is nothing.
func known(c connectRecorder, cookie uint64) string {
	r, ok := c.look(cookie)
	if !ok {
		return ""
	}
	return began(owner(int(r.pid), string(r.name()), newBootClock("/proc").ticks(r.startBootTime)), r.uid, r.port, r.cgroupID)
}

// cgroupIDs returns those that sock_diag has of the TCP sockets in this network namespace, by cookie.
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

// ownCgroupID is that of this process.
func ownCgroupID(t *testing.T) uint64 {
	t.Helper()
	fd := openTCP(t, unix.AF_INET)
	require.NoError(t, unix.Listen(fd, 1))
	return cgroupIDs(t)[cookieOf(t, fd)]
}

// openTCP opens a socket until the test ends.
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

// unusedPort is one that nobody listens at.
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
		recorder := newRecorder(t)
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
					want[s.Cookie] = began(processFromProc(t, client.proc.PID), client.uid, listener.Local.Port(), ids[s.Cookie])
				}
			}
		}
		require.Len(t, cgroups, len(clients))
		for _, s := range accepted {
			require.Empty(t, known(recorder, s.Cookie), "it was accepted")
		}
		clients[0].proc.Stop()
		for cookie, is := range want {
			require.Equal(t, is, known(recorder, cookie))
		}

		other := testnet.Start(t, testnet.Process{Name: "elsewhere", Netns: true})
		at := other.Listen("tcp4", netip.AddrPort{}, 1).Local.Port()
		socket := other.Connect(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at), 1)[0]
		require.Equal(t, began(processFromProc(t, other.PID), 0, at, ownCgroupID(t)), known(recorder, socket.Cookie))
	})
}

// What this process does, on any thread, and however connect(2) ends.
func TestConnectsOfThisProcess(t *testing.T) {
	testnet.Isolate(t, func() {
		recorder := newRecorder(t)
		self, cgroup := processFromProc(t, os.Getpid()), ownCgroupID(t)
		by := func(uid uint32, port uint16) string { return began(self, uid, port, cgroup) }
		server := testnet.Start(t, testnet.Process{Name: "server"})
		const backlog = 3
		listener := server.Listen("tcp4", netip.AddrPort{}, backlog)
		port, unused := listener.Local.Port(), unusedPort(t)

		t.Run("blocking", func(t *testing.T) {
			fd := openTCP(t, unix.AF_INET)
			require.NoError(t, unix.Connect(fd, loopback(port)))
			require.Equal(t, by(0, port), known(recorder, cookieOf(t, fd)))
			server.Accept(listener, 1)
		})
		t.Run("refused", func(t *testing.T) {
			fd := openTCP(t, unix.AF_INET)
			cookie := cookieOf(t, fd)
			require.Empty(t, known(recorder, cookie), "before")
			require.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, loopback(unused)))
			require.Equal(t, by(0, unused), known(recorder, cookie))

			require.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, loopback(unused)))
			require.NoError(t, unix.Connect(fd, loopback(port)))
			require.Equal(t, by(0, port), known(recorder, cookie), "it connected again")
			server.Accept(listener, 1)
		})
		t.Run("refused, IPv6", func(t *testing.T) {
			fd := openTCP(t, unix.AF_INET6)
			to := &unix.SockaddrInet6{Port: int(unused), Addr: netip.IPv6Loopback().As16()}
			require.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, to))
			require.Equal(t, by(0, unused), known(recorder, cookieOf(t, fd)))
		})
		t.Run("no route", func(t *testing.T) { // then it never is in SYN_SENT
			fd := openTCP(t, unix.AF_INET)
			to := &unix.SockaddrInet4{Port: 1, Addr: [4]byte{192, 0, 2, 1}}
			require.Equal(t, unix.ENETUNREACH, unix.Connect(fd, to))
			require.Empty(t, known(recorder, cookieOf(t, fd)))
		})
		t.Run("not UDP", func(t *testing.T) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			defer unix.Close(fd)
			require.NoError(t, unix.Connect(fd, loopback(port)))
			require.Empty(t, known(recorder, cookieOf(t, fd)))
		})
		t.Run("thread of another user", func(t *testing.T) {
			fd, done := openTCP(t, unix.AF_INET), make(chan error)
			startThread(0, 0, func() {
				name := append([]byte("thread"), 0)
				assert.NoError(t, unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0))
				_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 0) // unix.Setresuid would be of all threads
				assert.Zero(t, errno)
				done <- unix.Connect(fd, loopback(unused))
			})
			require.Equal(t, unix.ECONNREFUSED, <-done)
			require.Equal(t, by(65534, unused), known(recorder, cookieOf(t, fd)))
		})
		t.Run("Fast Open", func(t *testing.T) {
			// With data in the SYN, without a cookie of the server's.
			require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/tcp_fastopen", []byte("1541"), 0o600)) // 0x605
			fd := openTCP(t, unix.AF_INET)
			require.NoError(t, unix.Sendto(fd, []byte("data"), unix.MSG_FASTOPEN, loopback(port)))
			require.Equal(t, by(0, port), known(recorder, cookieOf(t, fd)))
			server.Accept(listener, 1)

			fd = openTCP(t, unix.AF_INET)
			require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1))
			require.NoError(t, unix.Connect(fd, loopback(unused)), "no packet has been sent")
			require.Equal(t, by(0, unused), known(recorder, cookieOf(t, fd)))
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
			require.Empty(t, known(recorder, cookieOf(t, fd)), "the whole")
			var of []string
			mustScan(t, newScanner(t, ScannerConfig{OwnerMethod: OwnersOff}), func(s *Socket) any {
				if int(s.Local.Port()) == at.(*unix.SockaddrInet4).Port {
					of = append(of, known(recorder, s.Cookie))
				}
				return nil
			})
			require.Equal(t, []string{by(0, port)}, of)
			server.Accept(listener, 1)
		})
		t.Run("non-blocking", func(t *testing.T) { // those that find the queue full stay in SYN_SENT
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
					require.Equal(t, by(0, port), known(recorder, s.Cookie), s.State)
				}
				return nil
			})
			require.Positive(t, states[TCPSynSent])
			require.Positive(t, states[TCPEstablished])
		})
	})
}

// refusedOnes begins connections that are refused at once, and returns their cookies.
func refusedOnes(t testing.TB, n int) []uint64 {
	t.Helper()
	to := loopback(unusedPort(t))
	cookies := make([]uint64, 0, n)
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		if err := unix.Connect(fd, to); !errors.Is(err, unix.ECONNREFUSED) {
			require.NoError(t, err)
		}
		cookies = append(cookies, cookieOf(t, fd))
		require.NoError(t, unix.Close(fd))
	}
	return cookies
}

// Of more connections than there is room for the last are known.
func TestConnectsOverflow(t *testing.T) {
	testnet.Isolate(t, func() {
		recorder := newRecorder(t)
		room := int(recorder.objects.Records.MaxEntries())
		cookies := refusedOnes(t, room+room/2)
		last := cookies[len(cookies)-room/2:] // other processes of this machine connect meanwhile, too
		for _, cookie := range last {
			_, ok := recorder.look(cookie)
			require.True(t, ok, "the socket with the cookie %d, of those from %d on", cookie, last[0])
		}
		for _, cookie := range cookies[:len(cookies)-room] {
			_, ok := recorder.look(cookie)
			require.False(t, ok, "its record has been replaced")
		}
	})
}

// A socket that connects again and again has a record at any time, and a whole one.
func TestConnectsAgain(t *testing.T) {
	testnet.Isolate(t, func() {
		recorder := newRecorder(t)
		fd, ports := openTCP(t, unix.AF_INET), []uint16{unusedPort(t), unusedPort(t)}
		cookie := cookieOf(t, fd)
		var begun, end atomic.Bool
		done := make(chan struct{})
		startThread(0, 0, func() {
			defer close(done)
			for i := 0; !end.Load(); i++ { // each of the two ports has a user
				_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(i%2)*65534, ^uintptr(0))
				if !assert.Zero(t, errno) || !assert.Equal(t, unix.ECONNREFUSED, unix.Connect(fd, loopback(ports[i%2]))) {
					return
				}
				begun.Store(true)
			}
		})
		defer func() { end.Store(true); <-done }()
		users := map[uint16]uint32{ports[0]: 0, ports[1]: 65534}
		var port uint16
		for changes, limit := 0, time.Now().Add(time.Minute); changes < 2000; {
			require.True(t, time.Now().Before(limit), "it connected %d times", changes)
			if !begun.Load() {
				continue
			}
			r, ok := recorder.look(cookie)
			require.True(t, ok)
			require.Equal(t, users[r.port], r.uid, r.port)
			if r.port != port {
				changes++
			}
			port = r.port
		}
	})
}

func TestConnectsAllocateNothing(t *testing.T) {
	testnet.Isolate(t, func() {
		recorder := newRecorder(t)
		cookie := refusedOnes(t, 1)[0]
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if _, ok := recorder.look(cookie); !ok {
				t.Error("not known")
			}
			if _, ok := recorder.look(1 << 63); ok {
				t.Error("known")
			}
		}))
	})
}

func TestDecodeConnect(t *testing.T) {
	var b [connectLen]byte
	for i := range b {
		b[i] = byte(i + 1)
	}
	require.Equal(t, connectRecord{
		cgroupID: binary.NativeEndian.Uint64(b[0:]), startBootTime: binary.NativeEndian.Uint64(b[8:]),
		pid: binary.NativeEndian.Uint32(b[16:]), uid: binary.NativeEndian.Uint32(b[20:]),
		comm: [16]byte(b[24:40]), port: binary.NativeEndian.Uint16(b[40:]),
	}, decodeConnect(&b))
}

// Who may record, and what it says where that is not possible. Nothing is left of it then.
func TestConnectsPrivileges(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		tree, missing := proctree.Materialize(t, smallTree), filepath.Join(t.TempDir(), "missing")
		server := testnet.Start(t, testnet.Process{Name: "server"})
		listener := server.Listen("tcp4", netip.AddrPort{}, 16)
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listener.Local.Port())
		want := began(processFromProc(t, server.PID), 0, to.Port(), ownCgroupID(t))
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
			refused = "^recording who connects takes CAP_BPF and CAP_PERFMON: " + notPermitted + "$"
			lacks   = "^recording who connects takes Linux 5.12 with BTF: unsupported operation: "
			foreign = " is not of the initial PID namespace, whose pids BPF programs see: unsupported operation$"
		)
		for _, test := range []struct {
			name   string
			before func(*testing.T)
			root   string
			err    string // a regular expression; empty: it works
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
			{"seccomp lets nothing be attached", forbidden(unix.EPERM, unix.BPF_LINK_CREATE), "/proc", refused},
			{"kernel without links of tracepoints", forbidden(unix.EINVAL, unix.BPF_LINK_CREATE), "/proc", ""}, // before Linux 5.15
			{"kernel without BPF", forbidden(unix.ENOSYS), "/proc", lacks + ".*$"},
			{"kernel without BTF", hideBTF, "/proc", lacks + ".*: no BTF found for kernel version .*: not supported$"},
			{"copy of a proc file system", nil, tree, "^" + tree + foreign},
			{"no proc file system", nil, missing, "^" + missing + foreign},
		} {
			t.Run(test.name, func(t *testing.T) {
				runtime.LockOSThread() // the thread ends with the test, and with it what it may not do
				before := openDescriptors(t)
				if test.before != nil {
					test.before(t)
				}
				recorder, err := newConnects(test.root)
				if test.err != "" {
					require.Nil(t, recorder)
					require.ErrorIs(t, err, errors.ErrUnsupported)
					requireReadable(t, err.Error())
					require.Regexp(t, test.err, err.Error())
				} else {
					require.NoError(t, err)
					socket := server.Connect(to, 1)[0]
					require.Equal(t, want, known(recorder, socket.Cookie))
					recorder.close()
				}
				require.Equal(t, before, openDescriptors(t))
			})
		}
	})
}

// Nothing is left of many recorders: no descriptor, no memory, and nothing in the kernel.
func TestConnectsGiveBack(t *testing.T) {
	testnet.RequireBPF(t)
	newRecorder(t).look(1) // what is opened once
	before, memory := openDescriptors(t), bpfMemory(t)
	for range 30 {
		recorder, err := newConnects("/proc")
		require.NoError(t, err)
		require.Greater(t, len(openDescriptors(t)), len(before)+2, "a program, a map and a link")
		recorder.close()
	}
	require.Equal(t, before, openDescriptors(t))
	require.Equal(t, memory, bpfMemory(t))

	t.Run("out of descriptors", func(t *testing.T) {
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		works := 0
		for room := range 12 { // they run out at one place after the other
			less := unix.Rlimit{Cur: limitFor(t, room), Max: limit.Max}
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &less))
			recorder, err := newConnects("/proc")
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
			if err == nil {
				works++
				recorder.close()
			} else {
				require.ErrorIs(t, err, errors.ErrUnsupported, "with room for %d", room)
			}
			require.Equal(t, before, openDescriptors(t), "with room for %d", room)
		}
		require.Positive(t, works)
		require.Less(t, works, 10)
	})

	recorder, err := newConnects("/proc")
	require.NoError(t, err)
	c := recorder.(*bpfConnects)
	programInfo, err := c.objects.Connects.Info()
	require.NoError(t, err)
	mapInfo, err := c.objects.Records.Info()
	require.NoError(t, err)
	linkInfo, err := c.link.Info()
	require.NoError(t, err)
	left := func() (left []string) {
		programID, _ := programInfo.ID()
		if p, err := ebpf.NewProgramFromID(programID); err == nil {
			left = append(left, "program")
			_ = p.Close()
		}
		mapID, _ := mapInfo.ID()
		if m, err := ebpf.NewMapFromID(mapID); err == nil {
			left = append(left, "map")
			_ = m.Close()
		}
		if l, err := link.NewFromID(linkInfo.ID); err == nil {
			left = append(left, "link")
			_ = l.Close()
		}
		return left
	}
	require.Equal(t, []string{"program", "map", "link"}, left())
	c.close()
	for end := time.Now().Add(10 * time.Second); len(left()) > 0; time.Sleep(10 * time.Millisecond) { // the kernel takes its time
		require.True(t, time.Now().Before(end), "%s", left())
	}
}

func BenchmarkConnectsLook(b *testing.B) {
	testnet.Isolate(b, func() {
		recorder := newRecorder(b)
		cookies := refusedOnes(b, 10_000)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			recorder.look(cookies[i%len(cookies)])
		}
	})
}

// BenchmarkConnect is what a connection costs those who make it, both ends: each goes through five states or so.
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
			newRecorder(b)
			connect(b)
		})
	})
}

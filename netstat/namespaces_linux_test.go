package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/netns"
)

// The addresses that are in use in every namespace of a test.
var (
	sharedAddr  = netip.MustParseAddrPort("127.0.0.1:5000")
	sharedAddr6 = netip.MustParseAddrPort("[::1]:5000")
)

// inEachSource runs f for each source.
func inEachSource(t *testing.T, f func(t *testing.T, source Source)) {
	t.Helper()
	for _, source := range []Source{SourceNetlink, SourceProcfs} {
		t.Run(source.String(), func(t *testing.T) { f(t, source) })
	}
}

// testNamespace is a network namespace, with the sockets of one process in it.
type testNamespace struct {
	inode   uint64
	process *testnet.Proc
	owner   string // of the sockets, as ownersText returns it
	sockets []testnet.Socket
}

// ownerOf is what ownersOf has of a process.
func ownerOf(process *testnet.Proc, name string) string {
	return fmt.Sprintf("%d/%s", process.PID, name)
}

// startInNamespace starts a process that opens listeners, a UDP socket and n connections in its namespace.
func startInNamespace(t *testing.T, n int, p testnet.Process) *testNamespace {
	t.Helper()
	process := testnet.Start(t, p)
	ns := &testNamespace{inode: netNS(t, process.Netns()), process: process, owner: ownerOf(process, p.Name)}
	listener := process.Listen("tcp4", sharedAddr, 10)
	ns.sockets = slices.Concat([]testnet.Socket{
		listener, process.Listen("tcp6", sharedAddr6, 10), process.UDP("udp4", sharedAddr, netip.AddrPort{}),
	}, process.Connect(sharedAddr, n), process.Accept(listener, n))
	return ns
}

func (ns *testNamespace) pid() string { return strconv.Itoa(ns.process.PID) }

// socketLine describes a socket, its namespace and its owners.
func socketLine(namespace uint64, s testnet.Socket, owners string) string {
	return fmt.Sprintf("%d: %s %s %v %v %d %s", namespace, s.Protocol, s.State, s.Local, s.Remote, s.Inode, owners)
}

// requireScan requires that a scan reads these namespaces, in this order, and each of their sockets once.
func requireScan(t *testing.T, s *Scanner, want ...*testNamespace) {
	t.Helper()
	sockets := mustScan(t, s, func(s *Socket) string {
		require.Equal(t, s.NetNS, s.Namespace.Inode)
		return socketLine(s.NetNS, toTestnet(s), ownersOf(s))
	})
	requireNamespaces(t, s, want...)
	requireSockets(t, sockets, want...)
}

func requireNamespaces(t *testing.T, s *Scanner, want ...*testNamespace) {
	t.Helper()
	var read, wantRead []uint64
	for _, n := range s.Namespaces() {
		read = append(read, n.Inode)
	}
	for _, ns := range want {
		wantRead = append(wantRead, ns.inode)
	}
	require.Equal(t, wantRead, read)
}

func requireSockets(t *testing.T, sockets []string, want ...*testNamespace) {
	t.Helper()
	var wantSockets []string
	for _, ns := range want {
		for _, socket := range ns.sockets {
			wantSockets = append(wantSockets, socketLine(ns.inode, socket, ns.owner))
		}
	}
	require.ElementsMatch(t, wantSockets, sockets)
}

// warnings collects the warnings of a scanner.
type warnings struct{ texts []string }

// take returns the warnings since the last call.
func (w *warnings) take() []string {
	texts := w.texts
	w.texts = nil
	return texts
}

func newNamespaceScanner(t *testing.T, source Source, namespaces ...string) (*Scanner, *warnings) {
	t.Helper()
	w := &warnings{}
	return newScanner(t, ScannerConfig{
		Source: source, Namespaces: namespaces, OwnerMethod: OwnersProcfs,
		Warn: func(err error) { w.texts = append(w.texts, err.Error()) },
	}), w
}

// namespaceOf returns the namespace as the last scan read it.
func namespaceOf(t *testing.T, s *Scanner, ns *testNamespace) *Namespace {
	t.Helper()
	i := slices.IndexFunc(s.Namespaces(), func(n *Namespace) bool { return n.Inode == ns.inode })
	require.GreaterOrEqual(t, i, 0, "not read")
	return s.Namespaces()[i]
}

// trackedOf returns the state that the scanner keeps of a namespace.
func trackedOf(t *testing.T, s *Scanner, of *Namespace) *trackedNamespace {
	t.Helper()
	i := slices.IndexFunc(s.namespaces.known, func(n *trackedNamespace) bool { return n.ID == of.ID })
	require.GreaterOrEqual(t, i, 0, "not known")
	return s.namespaces.known[i]
}

// Each namespace is read once, however it is named and however often, although all of them use the same addresses.
func TestNamespaces(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		own := startInNamespace(t, 1, testnet.Process{Name: "own"})
		blue := startInNamespace(t, 2, testnet.Process{Name: "blue", In: path})
		other := startInNamespace(t, 3, testnet.Process{Name: "other", Netns: true})
		testnet.NameNetns(t, "red", path)
		self := strconv.Itoa(os.Getpid())
		for _, test := range []struct {
			namespaces []string
			want       []*testNamespace
		}{
			{nil, []*testNamespace{own}},
			{[]string{"self"}, []*testNamespace{own}},
			{[]string{"host"}, []*testNamespace{own}},
			{[]string{"blue"}, []*testNamespace{blue}},
			{[]string{"red"}, []*testNamespace{blue}},
			{[]string{other.pid()}, []*testNamespace{other}},
			{[]string{own.pid()}, []*testNamespace{own}},
			{[]string{"self", self}, []*testNamespace{own}},
			{[]string{self, "self"}, []*testNamespace{own}},
			{[]string{own.pid(), "host", "self"}, []*testNamespace{own}},
			{[]string{"blue", blue.pid(), "red"}, []*testNamespace{blue}},
			{[]string{blue.pid(), "blue"}, []*testNamespace{blue}},
			{[]string{"self", "blue"}, []*testNamespace{own, blue}},
			{[]string{"blue", "self"}, []*testNamespace{blue, own}},
			{[]string{other.pid(), "blue", "self", blue.pid()}, []*testNamespace{other, blue, own}},
			{[]string{"all"}, []*testNamespace{own, blue, other}},
			{[]string{"all", "self", "host", "blue", other.pid()}, []*testNamespace{own, blue, other}},
			{[]string{other.pid(), "all"}, []*testNamespace{other, own, blue}},
		} {
			t.Run(strings.Join(test.namespaces, " "), func(t *testing.T) {
				inEachSource(t, func(t *testing.T, source Source) {
					s, w := newNamespaceScanner(t, source, test.namespaces...)
					var first []*Namespace
					for range 3 {
						requireScan(t, s, test.want...)
						if first == nil {
							first = slices.Clone(s.Namespaces())
						}
						for i, n := range s.Namespaces() {
							require.Same(t, first[i], n, "the value stays the same")
							require.Equal(t, n.Inode == own.inode, n.Self)
							require.Equal(t, source, n.SourceOf(TransportTCP))
						}
						require.Equal(t, source, s.Stats().Source)
					}
					require.Empty(t, w.take())
				})
			})
		}
	})
}

// A namespace has its name in /run/netns only while the name exists, however the namespace was found.
func TestNamespaceNames(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		third := startInNamespace(t, 2, testnet.Process{Name: "third", Netns: true})
		for _, namespaces := range [][]string{{"all"}, {other.pid(), third.pid()}} {
			t.Run(strings.Join(namespaces, " "), func(t *testing.T) {
				inEachSource(t, func(t *testing.T, source Source) {
					s, w := newNamespaceScanner(t, source, namespaces...)
					names := func() string {
						mustScan(t, s, inode)
						return namespaceOf(t, s, other).Name + "," + namespaceOf(t, s, third).Name
					}
					require.Equal(t, ",", names())
					same := namespaceOf(t, s, other)
					testnet.NameNetns(t, "blue", other.process.Netns())
					require.Equal(t, "blue,", names())
					testnet.NameNetns(t, "a", other.process.Netns())
					require.Equal(t, "a,", names(), "the first of two names")
					testnet.UnnameNetns(t, "a")
					testnet.UnnameNetns(t, "blue")
					require.Equal(t, ",", names())
					testnet.NameNetns(t, "blue", third.process.Netns())
					require.Equal(t, ",blue", names())
					require.Equal(t, same.ID, namespaceOf(t, s, other).ID)
					require.Empty(t, same.Name, "a value that was handed out does not change")
					testnet.UnnameNetns(t, "blue")
					require.Empty(t, w.take())
				})
			})
		}
	})
}

// A namespace that takes the name of an ended one gets a new ID.
func TestNamespaceRecreated(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		inEachSource(t, func(t *testing.T, source Source) {
			for _, namespaces := range []string{"all", "blue"} {
				testnet.Netns(t, "blue")
				s, w := newNamespaceScanner(t, source, namespaces)
				var ids []uint64
				for n := range 5 {
					blue := startInNamespace(t, 1+n, testnet.Process{Name: "blue", In: filepath.Join(testnet.NetnsDir, "blue")})
					sockets := mustScan(t, s, func(s *Socket) string { return socketLine(s.NetNS, toTestnet(s), ownersOf(s)) })
					requireSockets(t, sockets, blue)
					found := namespaceOf(t, s, blue)
					require.Equal(t, "blue", found.Name)
					require.NotContains(t, ids, found.ID)
					ids = append(ids, found.ID)
					blue.process.Stop()
					testnet.UnnameNetns(t, "blue")
					testnet.Netns(t, "blue")
				}
				testnet.UnnameNetns(t, "blue")
				require.Empty(t, w.take())
			}
		})
	})
}

// A named namespace without processes is read by a thread that enters it, including the tables that only procfs has.
func TestNamespaceWithoutProcess(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		holder := testnet.Start(t, testnet.Process{Name: "holder"})
		away := holder.In(path)
		blue := &testNamespace{inode: netns.Inode(path), owner: ownerOf(holder, "holder")}
		blue.sockets = []testnet.Socket{
			away.Listen("tcp4", sharedAddr, 1), away.Listen("tcp6", sharedAddr6, 1), away.UDP("udp4", sharedAddr, netip.AddrPort{}),
		}
		require.NotEqual(t, blue.inode, netNS(t, holder.Netns()))
		inEachSource(t, func(t *testing.T, source Source) {
			w := &warnings{}
			if source == SourceNetlink {
				source = SourceAuto // netlink lacks ping sockets
			}
			s := newScanner(t, ScannerConfig{
				Source: source, Namespaces: []string{"blue", "self"}, OwnerMethod: OwnersProcfs,
				Transports: []Transport{TransportICMP, TransportTCP, TransportUDP},
				Warn:       func(err error) { w.texts = append(w.texts, err.Error()) },
			})
			for range 3 {
				requireScan(t, s, blue, &testNamespace{inode: netNS(t, "/proc/self/ns/net")})
				n := namespaceOf(t, s, blue)
				require.Zero(t, n.PID)
				require.Empty(t, n.Cgroup())
				counts, err := n.ReadSockstat()
				require.NoError(t, err)
				require.EqualValues(t, 1, *counts.TCPInUse)
				require.EqualValues(t, 1, *counts.TCP6InUse)
			}
			require.Empty(t, w.take())
		})
		testnet.ThreadsReturn(t)
	})
}

// ReadSockstat fails if the process has moved to another namespace, instead of returning its counts.
func TestNamespaceReadSockstat(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		other := startInNamespace(t, 3, testnet.Process{Name: "other", Netns: true})
		s, _ := newNamespaceScanner(t, SourceProcfs, "self", other.pid())
		mustScan(t, s, inode)
		n := namespaceOf(t, s, other)
		counts, err := n.ReadSockstat()
		require.NoError(t, err)
		require.EqualValues(t, 7, *counts.TCPInUse)
		counts, err = s.Namespaces()[0].ReadSockstat()
		require.NoError(t, err)
		require.Zero(t, *counts.TCPInUse)

		movingProcess := startMovingProcess(t, path)
		s, _ = newNamespaceScanner(t, SourceProcfs, strconv.Itoa(movingProcess.pid))
		mustScan(t, s, inode)
		n = s.Namespaces()[0]
		_, err = n.ReadSockstat()
		require.NoError(t, err)
		movingProcess.leave(t)
		_, err = n.ReadSockstat()
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.EqualError(t, err, fmt.Sprintf(
			"the socket counts of network namespace of process %d: no process is in it: file does not exist", movingProcess.pid))
	})
}

// movingProcess is a process that can move to another network namespace.
type movingProcess struct {
	pid  int
	from uint64
	path string
	go_  func() error
}

// startMovingProcess starts a process in a new network namespace, which can move to the namespace at path.
func startMovingProcess(t *testing.T, path string) *movingProcess {
	t.Helper()
	testnet.Require(t, "sh", "nsenter", "sleep")
	cmd := exec.Command("sh", "-c", `read line; exec nsenter --net="$0" sleep 100`, path)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	link := fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
	return &movingProcess{pid: cmd.Process.Pid, from: netNS(t, link), path: path, go_: stdin.Close}
}

func (w *movingProcess) leave(t *testing.T) {
	t.Helper()
	require.NoError(t, w.go_())
	require.Eventually(t, func() bool {
		return netns.Inode(fmt.Sprintf("/proc/%d/ns/net", w.pid)) == netns.Inode(w.path)
	}, 10*time.Second, time.Millisecond)
}

// A missing namespace causes one warning, and is read as soon as it exists.
func TestNamespacesMissing(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		left := filepath.Join(testnet.NetnsDir, "left")
		require.NoError(t, os.WriteFile(left, nil, 0o444))
		own := &testNamespace{inode: netNS(t, "/proc/self/ns/net")}
		inEachSource(t, func(t *testing.T, source Source) {
			s, w := newNamespaceScanner(t, source, "blue", "left", "31999", "-1", "self")
			requireScan(t, s, own)
			require.Equal(t, []string{
				`cannot read network namespace "blue": statfs /run/netns/blue: no such file or directory`,
				`cannot read network namespace "left": /run/netns/left: no namespace is mounted there: file does not exist`,
				`cannot read network namespace "31999": there is no process 31999: no such file or directory`,
				`cannot read network namespace "-1": statfs /run/netns/-1: no such file or directory`,
			}, w.take())
			requireScan(t, s, own)
			blue := startInNamespace(t, 2, testnet.Process{Name: "blue", In: testnet.Netns(t, "blue")})
			requireScan(t, s, own, blue)
			blue.process.Stop()
			testnet.UnnameNetns(t, "blue")
			requireScan(t, s, own)
			require.Empty(t, w.take())

			s, w = newNamespaceScanner(t, source, "all")
			requireScan(t, s, own)
			require.Empty(t, w.take(), "a stale name is not a missing namespace")
		})
	})
}

// createVethPair creates a pair of veth devices, one of them in the namespace of the process. The kernel removes both with that
// namespace.
func createVethPair(t *testing.T, process *testnet.Proc) (device string) {
	t.Helper()
	testnet.Require(t, "ip")
	device = fmt.Sprintf("test%d", process.PID)
	out, err := exec.Command("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(process.PID)).
		CombinedOutput()
	if err != nil {
		testnet.SkipOrFail(t, fmt.Sprintf("no veth devices: %v: %s", err, out))
	}
	return device
}

func deviceExists(device string) bool {
	_, err := os.Stat(filepath.Join("/proc/sys/net/ipv4/conf", device))
	return err == nil
}

// ownDescriptors returns the open descriptors of the kinds that a scanner opens.
func ownDescriptors(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(openDescriptors(t), func(of string) bool {
		_, target, _ := strings.Cut(of, " ")
		return !strings.HasPrefix(target, "socket:") && !strings.HasPrefix(target, "/proc") && !strings.HasPrefix(target, "net:")
	})
}

// The scan after a namespace has ended closes all descriptors of it, so that the kernel frees it.
func TestNamespaceEnds(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := &testNamespace{inode: netNS(t, "/proc/self/ns/net")}
		inEachSource(t, func(t *testing.T, source Source) {
			s, w := newNamespaceScanner(t, source, "all")
			requireScan(t, s, own)
			before := ownDescriptors(t)
			other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
			device := createVethPair(t, other.process)
			requireScan(t, s, own, other)
			require.True(t, deviceExists(device))
			kept := ownDescriptors(t)
			require.Len(t, kept, len(before)+1)
			requireScan(t, s, own, other)
			require.Equal(t, kept, ownDescriptors(t), "opened once")

			other.process.Stop()
			requireScan(t, s, own)
			require.Equal(t, before, ownDescriptors(t))
			require.Eventually(t, func() bool { return !deviceExists(device) }, 10*time.Second, 10*time.Millisecond)
			require.Empty(t, w.take())
		})
		testnet.ThreadsReturn(t)
	})
}

// As long as the scanner has not noticed that a namespace has ended, it keeps the namespace alive: the kernel does not reuse its
// numbers.
func TestNamespaceNumbersAreNotReused(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		inEachSource(t, func(t *testing.T, source Source) {
			s, _ := newNamespaceScanner(t, source, "all")
			other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
			mustScan(t, s, inode)
			table := namespaceOf(t, s, other).table
			require.NotZero(t, table)
			device := createVethPair(t, other.process)
			other.process.Stop()
			for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				require.True(t, deviceExists(device), "the kernel has freed the namespace")
				onNewThread(func() {
					require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
					assert.NotEqual(t, other.inode, netns.Of(netns.ThreadDir))
					assert.NotEqual(t, table, netns.TableOf(netns.ThreadDir))
				})
			}
		})
	})
}

// Namespaces that start and end during scans cause no errors and leave no descriptors.
func TestNamespaceChurn(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := startInNamespace(t, 3, testnet.Process{Name: "own"})
		// Namespaces of the churn have no sockets.
		inEachSource(t, func(t *testing.T, source Source) {
			s, w := newNamespaceScanner(t, source, "all")
			requireScan(t, s, own)
			before := ownDescriptors(t)
			churn := testnet.ChurnNetns(t, time.Millisecond)
			seen, scans := map[uint64]bool{}, 0
			for ; churn.InProgress() || len(seen) < 2; scans++ {
				sockets := mustScan(t, s, func(s *Socket) string { return socketLine(s.NetNS, toTestnet(s), ownersOf(s)) })
				requireSockets(t, sockets, own)
				for _, n := range s.Namespaces() {
					seen[n.Inode] = true
				}
			}
			churn.Stop()
			t.Logf("%d scans saw %d namespaces", scans, len(seen))
			require.Eventually(t, func() bool {
				_, errs := scan(s, inode)
				return len(s.Namespaces()) == 1 || len(errs) > 0
			}, 10*time.Second, time.Millisecond)
			require.Empty(t, w.take())
			require.Equal(t, before, ownDescriptors(t))
			testnet.ThreadsReturn(t)
		})
	})
}

// The process through which a namespace is read can end between two tables. The other tables are read through another process of
// the namespace, if there is one. Other namespaces are not affected.
func TestNamespaceProcessEndsInScan(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := startInNamespace(t, 1, testnet.Process{Name: "own"})
		third := startInNamespace(t, 2, testnet.Process{Name: "third", Netns: true})
		for _, test := range []struct {
			name                   string
			reaped, another, named bool
		}{
			{name: "reaped", reaped: true},
			{name: "not reaped yet"},
			{name: "one of two", reaped: true, another: true},
			{name: "one of two, not reaped yet", another: true},
			{name: "in a namespace with a name", reaped: true, named: true},
		} {
			t.Run(test.name, func(t *testing.T) {
				first := testnet.Start(t, testnet.Process{Name: "first", Netns: true})
				file := first.Netns()
				if test.named {
					file = testnet.NameNetns(t, "other", file)
				}
				p := testnet.Process{Name: "holder"}
				if test.another {
					p.In = file
				}
				holder := testnet.Start(t, p)
				in := holder.In(file)
				other := &testNamespace{inode: netNS(t, first.Netns()), owner: ownerOf(holder, "holder"), sockets: []testnet.Socket{
					in.Listen("tcp4", sharedAddr, 1), in.Listen("tcp6", sharedAddr6, 1), in.UDP("udp4", sharedAddr, netip.AddrPort{}),
				}}
				s, w := newNamespaceScanner(t, SourceProcfs, strconv.Itoa(first.PID), third.pid(), "self")
				requireScan(t, s, other, third, own)

				var sockets []string
				for socket, err := range s.Sockets(t.Context()) {
					require.NoError(t, err)
					if len(sockets) == 0 {
						require.Equal(t, other.inode, socket.NetNS)
						require.NoError(t, unix.Kill(first.PID, unix.SIGKILL))
						if test.reaped {
							first.Stop()
						}
						dir := fmt.Sprintf("/proc/%d", first.PID)
						require.Eventually(t, func() bool { return netns.TableOf(dir) == 0 }, 10*time.Second, time.Millisecond)
						require.Equal(t, !test.reaped, netns.Inode(dir) != 0)
					}
					sockets = append(sockets, socketLine(socket.NetNS, toTestnet(socket), ownersOf(socket)))
				}
				if test.another || test.named {
					requireNamespaces(t, s, other, third, own)
				} else {
					other.sockets = other.sockets[:1]
					requireNamespaces(t, s, third, own)
				}
				requireSockets(t, sockets, other, third, own)
				require.Empty(t, w.take())
			})
		}
	})
}

// If the process of a namespace has ended, the transports that netlink lacks are not read.
func TestNamespaceProcessEndsBeforeProcfs(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := startInNamespace(t, 1, testnet.Process{Name: "own"})
		other := startInNamespace(t, 2, testnet.Process{Name: "other", Netns: true})
		w := &warnings{}
		s := newScanner(t, ScannerConfig{
			Namespaces: []string{"self", other.pid()}, OwnerMethod: OwnersOff,
			Transports: []Transport{TransportICMP, TransportTCP, TransportUDP},
			Warn:       func(err error) { w.texts = append(w.texts, err.Error()) },
		})
		require.Len(t, mustScan(t, s, inode), len(own.sockets)+len(other.sockets))
		seen := 0
		for socket, err := range s.Sockets(t.Context()) {
			require.NoError(t, err)
			require.True(t, socket.Namespace.Self)
			if seen == 0 {
				other.process.Stop()
			}
			seen++
		}
		require.Len(t, own.sockets, seen)
		requireNamespaces(t, s, own)
		require.Empty(t, w.take())
		require.Len(t, mustScan(t, s, inode), len(own.sockets))
		require.Equal(t, []string{
			fmt.Sprintf("cannot read network namespace %[1]q: there is no process %[1]s: no such file or directory", other.pid()),
		}, w.take())
	})
}

// A namespace is not read through a process that has left it.
func TestNamespaceProcessLeavesInScan(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		blue := startInNamespace(t, 2, testnet.Process{Name: "blue", In: path})
		movingProcess := startMovingProcess(t, path)
		holder := testnet.Start(t, testnet.Process{Name: "holder"})
		other := &testNamespace{inode: movingProcess.from, owner: ownerOf(holder, "holder"), sockets: []testnet.Socket{
			holder.In(fmt.Sprintf("/proc/%d/ns/net", movingProcess.pid)).Listen("tcp4", sharedAddr, 1),
		}}
		s, w := newNamespaceScanner(t, SourceProcfs, strconv.Itoa(movingProcess.pid), "blue")
		requireScan(t, s, other, blue)
		var sockets []string
		for socket, err := range s.Sockets(t.Context()) {
			require.NoError(t, err)
			if len(sockets) == 0 {
				require.Equal(t, other.inode, socket.NetNS)
				movingProcess.leave(t)
			}
			sockets = append(sockets, socketLine(socket.NetNS, toTestnet(socket), ownersOf(socket)))
		}
		requireNamespaces(t, s, blue)
		requireSockets(t, sockets, other, blue)
		requireScan(t, s, blue)
		require.Empty(t, w.take())
	})
}

// The inode and table numbers of a process belong to the same namespace, even if the process moves between two namespaces
// meanwhile.
func TestNamespaceOfMovingProcess(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		blue := testnet.Netns(t, "blue")
		tables := map[uint64]uint64{netns.Of(netns.ThreadDir): netns.TableOf(netns.ThreadDir)}
		_, err := netns.Enter(blue, 0, func() error {
			tables[netns.Of(netns.ThreadDir)] = netns.TableOf(netns.ThreadDir)
			return nil
		})
		require.NoError(t, err)
		require.Len(t, tables, 2)

		const stay = 50 * time.Microsecond
		tid, stop, ended := make(chan int), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			onNewThread(func() { // netns.ThreadDir is that of the thread
				var files []int
				for _, path := range []string{blue, netns.ThreadDir + "/ns/net"} {
					file, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
					assert.NoError(t, err)
					defer unix.Close(file)
					files = append(files, file)
				}
				tid <- unix.Gettid()
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
						assert.NoError(t, unix.Setns(files[i%2], unix.CLONE_NEWNET))
						for start := time.Now(); time.Since(start) < stay; {
							continue
						}
					}
				}
			})
		}()
		pid := <-tid
		observed := map[uint64]bool{}
		var all namespaces
		require.NoError(t, all.dir.Open("/proc"))
		defer all.dir.Close()
		for i := 0; i < 20_000 || len(observed) < 2; i++ {
			start := time.Now()
			n, inode, err := all.ofProcess(pid)
			require.NoError(t, err)
			if time.Since(start) < stay { // too short to move there and back
				require.Equal(t, tables[inode], n.table)
				observed[inode] = true
			}
		}
		close(stop)
		<-ended
	})
}

// A process that has just ended refuses access, like one that may not be read. It causes no warning.
func TestNamespaceProcessHasJustEnded(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := testnet.Start(t, testnet.Process{Name: "other", Netns: true})
		ended := testnet.Start(t, testnet.Process{Name: "ended", Netns: true})
		of := &trackedNamespace{Namespace: Namespace{root: "/proc", table: netns.TableOf(fmt.Sprintf("/proc/%d", ended.PID))}}
		of.setProcess(ended.PID)
		ended.Stop()
		there := &trackedNamespace{Namespace: Namespace{root: "/proc", table: netns.TableOf(fmt.Sprintf("/proc/%d", other.PID))}}
		there.setProcess(other.PID)
		dropCapabilities(t, []uint{unix.CAP_SYS_PTRACE})
		all := &namespaces{withDiag: true}
		require.NoError(t, all.enter(there, other.Netns()))
		require.ErrorIs(t, there.refused, fs.ErrPermission)
		require.True(t, vanished(all.enter(of, other.Netns())))
		require.NoError(t, of.refused)
	})
}

// Without descriptors no namespace can be entered, and each scan reports that once. With descriptors, the next scan enters them.
func TestNamespacesOutOfDescriptors(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := startInNamespace(t, 1, testnet.Process{Name: "own"})
		s, w := newNamespaceScanner(t, SourceAuto, "all")
		requireScan(t, s, own)
		all := []*testNamespace{own}
		for n := range 3 {
			all = append(all, startInNamespace(t, 1+n, testnet.Process{Name: "other", Netns: true}))
		}
		all = append(all, startInNamespace(t, 4, testnet.Process{Name: "blue", In: testnet.Netns(t, "blue")}))
		before := len(ownDescriptors(t))
		sources := func() (sources []Source) {
			for _, n := range s.Namespaces() {
				sources = append(sources, n.SourceOf(TransportTCP))
			}
			return sources
		}

		const toEnter = 3 // descriptors that entering takes
		full := fillDescriptors(t)
		full.leave(t, toEnter-1)
		for range 3 {
			sockets, errs := scan(s, func(s *Socket) string { return socketLine(s.NetNS, toTestnet(s), ownersOf(s)) })
			require.Len(t, errs, 1)
			require.ErrorIs(t, errs[0], unix.EMFILE)
			require.Regexp(t, `^network namespace ("all"|of process \d+): .*: too many open files \(and 3 more\)$`, errs[0].Error())
			requireNamespaces(t, s, all...)
			requireSockets(t, sockets, all...)
			require.Equal(t, []Source{SourceNetlink, SourceProcfs, SourceProcfs, SourceProcfs, SourceProcfs}, sources())
			require.Equal(t, SourceMixed, s.Stats().Source)
		}
		full.leave(t, 0)
		_, errs := scan(s, inode)
		require.NotEmpty(t, errs)
		for _, err := range errs {
			require.ErrorIs(t, err, unix.EMFILE)
		}
		requireNamespaces(t, s, all...)

		full.release(t)
		requireScan(t, s, all...)
		require.Equal(t, slices.Repeat([]Source{SourceNetlink}, len(all)), sources())
		require.Len(t, ownDescriptors(t), before+len(all)-1, "one per entered namespace")
		require.Empty(t, w.take())
	})
}

// fullDescriptorTable opens files until few descriptors are free.
type fullDescriptorTable struct {
	limit  unix.Rlimit
	filled []int
}

func fillDescriptors(t *testing.T) *fullDescriptorTable {
	t.Helper()
	f := &fullDescriptorTable{}
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &f.limit))
	t.Cleanup(func() { f.release(t) })
	const maxDescriptors = 1000
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: maxDescriptors, Max: f.limit.Max}))
	f.leave(t, 0)
	return f
}

// leave leaves n descriptors free.
func (f *fullDescriptorTable) leave(t *testing.T, free int) {
	t.Helper()
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.EMFILE) {
			break
		}
		require.NoError(t, err)
		f.filled = append(f.filled, fd)
	}
	for range free {
		last := len(f.filled) - 1
		require.NoError(t, unix.Close(f.filled[last]))
		f.filled = f.filled[:last]
	}
}

func (f *fullDescriptorTable) release(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &f.limit))
	for _, fd := range f.filled {
		require.NoError(t, unix.Close(fd))
	}
	f.filled = nil
}

// A proc file system of another PID namespace counts as that of a host: host is its process 1, and only its processes are found.
func TestNamespacesOfOtherProc(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := startInNamespace(t, 1, testnet.Process{Name: "own"})
		own.owner = ""
		for _, apart := range []bool{true, false} {
			t.Run(fmt.Sprint("in another network namespace: ", apart), func(t *testing.T) {
				proc := t.TempDir()
				process := testnet.Start(t, testnet.Process{Name: "init", Netns: apart, Proc: proc})
				host := &testNamespace{inode: netNS(t, process.Netns()), owner: "1/init"}
				host.sockets = []testnet.Socket{process.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})}
				testnet.NameNetns(t, "blue", process.Netns())
				inEachSource(t, func(t *testing.T, source Source) {
					for _, namespaces := range []string{"host", "1", "blue", "all", "self host", "host self", "blue self 1"} {
						w := &warnings{}
						s := newScanner(t, ScannerConfig{
							ProcRoot: proc, Source: source, Namespaces: strings.Fields(namespaces), OwnerMethod: OwnersProcfs,
							Warn: func(err error) { w.texts = append(w.texts, err.Error()) },
						})
						for range 2 {
							sockets := mustScan(t, s, func(s *Socket) string { return socketLine(s.NetNS, toTestnet(s), ownersOf(s)) })
							switch namespaces {
							case "host", "1", "blue":
								requireNamespaces(t, s, host)
							case "host self", "blue self 1":
								requireNamespaces(t, s, []*testNamespace{host, own}[:1+boolToInt(apart)]...)
							default:
								requireNamespaces(t, s, []*testNamespace{own, host}[:1+boolToInt(apart)]...)
							}
							if apart && len(s.Namespaces()) == 1 {
								requireSockets(t, sockets, host)
							} else {
								requireSockets(t, sockets, own, host)
							}
						}
						require.Empty(t, w.take())
					}
				})
				testnet.UnnameNetns(t, "blue")
			})
		}
	})
}

func boolToInt(is bool) int {
	if is {
		return 1
	}
	return 0
}

// userNamespaceEnv is set in the test process that is root only in a user namespace.
const userNamespaceEnv = "NETSTAT_TEST_IN_USER_NAMESPACE"

// Root of a user namespace can enter the network namespaces of containers in it, but cannot return to its own. Threads that
// cannot return end, except the main thread, which must not enter.
func TestNamespacesOfUserNamespace(t *testing.T) {
	testnet.SkipIfShort(t)
	if os.Getenv(userNamespaceEnv) == "" {
		exe, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), userNamespaceEnv+"=1")
		id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: id, GidMappings: id, Pdeathsig: unix.SIGKILL,
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
			testnet.SkipOrFail(t, "no user namespaces: "+err.Error())
		}
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	container := testnet.Start(t, testnet.Process{Name: "container", Netns: true})
	listener := container.Listen("tcp4", sharedAddr, 1)
	look := func() {
		s, w := newNamespaceScanner(t, SourceNetlink, strconv.Itoa(container.PID))
		assert.Equal(t, []uint64{listener.Inode}, mustScan(t, s, inode))
		assert.Equal(t, SourceNetlink, s.Namespaces()[0].SourceOf(TransportTCP))
		assert.Empty(t, w.take())
	}
	look()
	onFirstThread(t, func() {
		for range 20 {
			look()
		}
	})
	testnet.ThreadsReturn(t)
}

// onFirstThread runs f in a goroutine on the main thread of the process, which will probably stay there.
func onFirstThread(t *testing.T, f func()) {
	t.Helper()
	const maxThreads = 1000
	found, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	for range maxThreads {
		looked := make(chan bool)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			isFirst := unix.Gettid() == unix.Getpid()
			looked <- isFirst
			if !isFirst {
				<-release // the next goroutine then runs on another thread
				return
			}
			runtime.UnlockOSThread()
			f()
			close(found)
		}()
		if <-looked {
			<-found
			return
		}
		time.Sleep(time.Millisecond) // the main thread may be waiting for timers
	}
	t.Fatal("nothing runs on the first thread")
}

// If /proc cannot be read, known namespaces do not count as ended and are still read.
func TestNamespacesWithoutProc(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := startInNamespace(t, 1, testnet.Process{Name: "own"})
		other := startInNamespace(t, 2, testnet.Process{Name: "other", Netns: true})
		inEachSource(t, func(t *testing.T, source Source) {
			s, w := newNamespaceScanner(t, source, "all")
			requireScan(t, s, own, other)
			before := namespaceOf(t, s, other)
			s.namespaces.dir.Close()
			require.NoError(t, s.namespaces.dir.Open("/proc/version")) // not a directory
			for range 2 {
				sockets, errs := scan(s, func(s *Socket) string { return socketLine(s.NetNS, toTestnet(s), ownersOf(s)) })
				require.Len(t, errs, 1)
				require.EqualError(t, errs[0], `network namespace "all": not a directory`)
				requireNamespaces(t, s, own, other)
				requireSockets(t, sockets, own, other)
			}
			s.namespaces.dir.Close()
			requireScan(t, s, own, other)
			require.Same(t, before, namespaceOf(t, s, other))
			require.Empty(t, w.take())
		})
	})
}

// BenchmarkNamespaces measures the search for namespaces when nothing has changed: by inode numbers, and by tables for a user who
// cannot read the inode numbers.
func BenchmarkNamespaces(b *testing.B) {
	testnet.IsolatePIDs(b, func() {
		const namespaces, processes = 20, 200
		for range namespaces {
			script := fmt.Sprintf("for i in $(seq %d); do sleep 1000 & done; exec sleep 1000", processes/namespaces-1)
			cmd := exec.Command("sh", "-c", script)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
			require.NoError(b, cmd.Start())
		}
		require.Eventually(b, func() bool {
			pids, err := filepath.Glob("/proc/[0-9]*/net/dev")
			return err == nil && len(pids) == processes+1
		}, 10*time.Second, 10*time.Millisecond)
		for _, source := range []Source{SourceNetlink, SourceProcfs} {
			b.Run(source.String(), func(b *testing.B) {
				s := newScanner(b, ScannerConfig{Source: source, Namespaces: []string{"all"}, OwnerMethod: OwnersOff})
				benchmarkRefresh(b, s, namespaces+1)
			})
		}
		b.Run("procfs, by tables", func(b *testing.B) {
			dropCapabilities(b, []uint{unix.CAP_SYS_PTRACE})
			s := newScanner(b, ScannerConfig{Source: SourceProcfs, Namespaces: []string{"all"}, OwnerMethod: OwnersOff})
			benchmarkRefresh(b, s, namespaces+1)
			require.Zero(b, s.Namespaces()[namespaces].Inode)
		})
		b.Run("scan", func(b *testing.B) {
			s := newScanner(b, ScannerConfig{Namespaces: []string{"all"}, OwnerMethod: OwnersOff})
			b.ReportAllocs()
			for b.Loop() {
				readAll(b, s)
			}
		})
	})
}

// openFound finds all namespaces, and opens the new ones.
func openFound(s *Scanner) error {
	if err := s.namespaces.find(); err != nil {
		return err
	}
	return s.namespaces.enterFound()
}

func benchmarkRefresh(b *testing.B, s *Scanner, namespaces int) {
	b.Helper()
	require.NoError(b, openFound(s))
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, openFound(s))
	}
	require.Len(b, s.Namespaces(), namespaces)
}

// A namespace file that now leads to another namespace is detected by the table number, even if the inode number matches.
func TestNamespaceFileChanged(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		s, _ := newNamespaceScanner(t, SourceAuto, "all")
		mustScan(t, s, inode)
		path := testnet.Netns(t, "blue")
		before := ownDescriptors(t)
		for table, want := range map[uint64]error{0: nil, s.namespaces.self.table: netns.ErrMoved} {
			n := &trackedNamespace{Namespace: Namespace{Inode: netns.Inode(path), table: table, path: path, root: "/proc"}}
			err := s.namespaces.enter(n, path)
			require.ErrorIs(t, err, want)
			require.Equal(t, want == nil, n.diag != nil)
			require.Equal(t, want == nil, n.entry == entryDone)
			n.close()
			require.Equal(t, before, ownDescriptors(t))
		}
	})
}

// namespaceMaker creates n network namespaces, and returns their inode numbers and a function that ends them.
type namespaceMaker func(t *testing.T, n int) (inodes map[uint64]bool, end func())

func namedNamespaces(t *testing.T, n int) (inodes map[uint64]bool, end func()) {
	t.Helper()
	inodes = map[uint64]bool{}
	for i := range n {
		inodes[netns.Inode(testnet.Netns(t, fmt.Sprint("blue", i)))] = true
	}
	return inodes, func() {
		for i := range n {
			testnet.UnnameNetns(t, fmt.Sprint("blue", i))
		}
	}
}

func namespacesOfProcesses(t *testing.T, n int) (inodes map[uint64]bool, end func()) {
	t.Helper()
	inodes = map[uint64]bool{}
	var processes []*exec.Cmd
	for range n {
		process := exec.Command("sleep", "1000")
		process.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
		require.NoError(t, process.Start())
		processes = append(processes, process)
		inodes[netNS(t, fmt.Sprintf("/proc/%d/ns/net", process.Process.Pid))] = true
	}
	return inodes, func() {
		for _, process := range processes {
			require.NoError(t, process.Process.Kill())
			_ = process.Wait()
		}
	}
}

// pinnedNamespaces returns the inode numbers of the namespaces that a socket of this process keeps alive.
func pinnedNamespaces(t *testing.T) map[uint64]bool {
	t.Helper()
	const siocgskns = 0x894c // include/uapi/linux/sockios.h
	pinned := map[uint64]bool{}
	for _, line := range openDescriptors(t) {
		number, target, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(target, "socket:") {
			continue
		}
		fd, err := strconv.Atoi(number)
		require.NoError(t, err)
		ns, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), siocgskns, 0)
		require.Zero(t, errno)
		var stat unix.Stat_t
		require.NoError(t, unix.Fstat(int(ns), &stat))
		require.NoError(t, unix.Close(int(ns)))
		pinned[stat.Ino] = true
	}
	return pinned
}

// When namespaces end, their descriptors are used for new namespaces: each scan reads as many as the descriptor limit allows.
func TestNamespacesReplacedWithoutDescriptors(t *testing.T) {
	const there, room, descriptors = 30, 11, 3 // of each: for dumps, for closed sockets, and to wait for those
	for name, newNamespaces := range map[string]namespaceMaker{"named": namedNamespaces, "of processes": namespacesOfProcesses} {
		t.Run(name, func(t *testing.T) {
			testnet.IsolatePIDs(t, func() {
				own := netNS(t, "/proc/self/ns/net")
				s := newScanner(t, ScannerConfig{
					Namespaces: []string{NamespaceAll}, OwnerMethod: OwnersProcfs, Closed: ClosedRequired, TCPInfo: true,
				})
				mustScan(t, s, inode)
				entered := 0
				for round := range 6 {
					const toEnter = 2 // descriptors that entering takes for a moment
					limit := room*descriptors + toEnter
					if round%2 == 1 {
						limit -= toEnter // then none is free when the scan starts
					}
					inodes, end := newNamespaces(t, there)
					full := fillDescriptors(t)
					full.leave(t, limit-entered*descriptors)
					_, errs := scan(s, inode)
					require.NotEmpty(t, errs)
					for _, err := range errs {
						require.ErrorIs(t, err, unix.EMFILE)
					}
					full.release(t)
					entered = 0
					for _, n := range s.namespaces.known {
						require.True(t, n.Self || inodes[n.Inode], "round %d: %+v", round, n)
						entered += boolToInt(!n.Self && n.diag != nil && n.closed != nil)
					}
					require.Equal(t, (limit-toEnter)/descriptors, entered, "round %d", round)
					for pinned := range pinnedNamespaces(t) {
						require.True(t, pinned == own || inodes[pinned], "round %d: a namespace that has ended is pinned", round)
					}
					end()
				}
				mustScan(t, s, inode)
				require.Len(t, s.Namespaces(), 1)
				require.Equal(t, map[uint64]bool{own: true}, pinnedNamespaces(t))
			})
		})
	}
}

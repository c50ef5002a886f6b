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
	everywhere  = netip.MustParseAddrPort("127.0.0.1:5000")
	everywhere6 = netip.MustParseAddrPort("[::1]:5000")
)

// inEachSource runs f for each source of sockets.
func inEachSource(t *testing.T, f func(t *testing.T, source Source)) {
	t.Helper()
	for _, source := range []Source{SourceNetlink, SourceProcfs} {
		t.Run(source.String(), func(t *testing.T) { f(t, source) })
	}
}

// quarter is a network namespace and what is in it.
type quarter struct {
	inode   uint64
	process *testnet.Proc
	owner   string // of the sockets, as ownersOf has it
	sockets []testnet.Socket
}

// ownerOf is what ownersOf has of a process.
func ownerOf(process *testnet.Proc, name string) string {
	return fmt.Sprintf("%d/%s", process.PID, name)
}

// settle has a process open sockets in the namespace that it is in, and n connections.
func settle(t *testing.T, n int, p testnet.Process) *quarter {
	t.Helper()
	process := testnet.Start(t, p)
	q := &quarter{inode: netNS(t, process.Netns()), process: process, owner: ownerOf(process, p.Name)}
	listener := process.Listen("tcp4", everywhere, 10)
	q.sockets = slices.Concat([]testnet.Socket{
		listener, process.Listen("tcp6", everywhere6, 10), process.UDP("udp4", everywhere, netip.AddrPort{}),
	}, process.Connect(everywhere, n), process.Accept(listener, n))
	return q
}

func (q *quarter) pid() string { return strconv.Itoa(q.process.PID) }

// scanned describes a socket: where it is, what it is, and who holds it.
func scanned(namespace uint64, s testnet.Socket, owners string) string {
	return fmt.Sprintf("%d: %s %s %v %v %d %s", namespace, s.Protocol, s.State, s.Local, s.Remote, s.Inode, owners)
}

// requireScan requires that a scan reads these namespaces, in this order, and in each every socket once.
func requireScan(t *testing.T, s *Scanner, want ...*quarter) {
	t.Helper()
	sockets := mustScan(t, s, func(s *Socket) string {
		require.Equal(t, s.NetNS, s.Namespace.Inode)
		return scanned(s.NetNS, inTerms(s), ownersOf(s))
	})
	requireRead(t, s, want...)
	requireSockets(t, sockets, want...)
}

func requireRead(t *testing.T, s *Scanner, want ...*quarter) {
	t.Helper()
	var read, wantRead []uint64
	for _, n := range s.Namespaces() {
		read = append(read, n.Inode)
	}
	for _, q := range want {
		wantRead = append(wantRead, q.inode)
	}
	require.Equal(t, wantRead, read)
}

func requireSockets(t *testing.T, sockets []string, want ...*quarter) {
	t.Helper()
	var wantSockets []string
	for _, q := range want {
		for _, socket := range q.sockets {
			wantSockets = append(wantSockets, scanned(q.inode, socket, q.owner))
		}
	}
	require.ElementsMatch(t, wantSockets, sockets)
}

// warnings collects what a scanner says.
type warnings struct{ said []string }

// take returns what was said since it was called last.
func (w *warnings) take() []string {
	said := w.said
	w.said = nil
	return said
}

func newNamespaceScanner(t *testing.T, source Source, namespaces ...string) (*Scanner, *warnings) {
	t.Helper()
	w := &warnings{}
	return newScanner(t, ScannerConfig{
		Source: source, Namespaces: namespaces, OwnerMethod: OwnersProcfs,
		Warn: func(err error) { w.said = append(w.said, err.Error()) },
	}), w
}

// namespaceOf returns the namespace of the last scan.
func namespaceOf(t *testing.T, s *Scanner, q *quarter) *Namespace {
	t.Helper()
	i := slices.IndexFunc(s.Namespaces(), func(n *Namespace) bool { return n.Inode == q.inode })
	require.GreaterOrEqual(t, i, 0, "it was not read")
	return s.Namespaces()[i]
}

// trackedOf returns what the scanner knows of a namespace that it has handed out.
func trackedOf(t *testing.T, s *Scanner, of *Namespace) *trackedNamespace {
	t.Helper()
	i := slices.IndexFunc(s.namespaces.known, func(n *trackedNamespace) bool { return n.ID == of.ID })
	require.GreaterOrEqual(t, i, 0, "it is not known")
	return s.namespaces.known[i]
}

// Each namespace is read once, whatever and however often it is called, with the same addresses in all of them.
func TestNamespaces(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		own := settle(t, 1, testnet.Process{Name: "own"})
		blue := settle(t, 2, testnet.Process{Name: "blue", In: path})
		hut := settle(t, 3, testnet.Process{Name: "hut", Netns: true})
		testnet.NameNetns(t, "red", path)
		self := strconv.Itoa(os.Getpid())
		for _, test := range []struct {
			namespaces []string
			want       []*quarter
		}{
			{nil, []*quarter{own}},
			{[]string{"self"}, []*quarter{own}},
			{[]string{"host"}, []*quarter{own}},
			{[]string{"blue"}, []*quarter{blue}},
			{[]string{"red"}, []*quarter{blue}},
			{[]string{hut.pid()}, []*quarter{hut}},
			{[]string{own.pid()}, []*quarter{own}},
			{[]string{"self", self}, []*quarter{own}},
			{[]string{self, "self"}, []*quarter{own}},
			{[]string{own.pid(), "host", "self"}, []*quarter{own}},
			{[]string{"blue", blue.pid(), "red"}, []*quarter{blue}},
			{[]string{blue.pid(), "blue"}, []*quarter{blue}},
			{[]string{"self", "blue"}, []*quarter{own, blue}},
			{[]string{"blue", "self"}, []*quarter{blue, own}},
			{[]string{hut.pid(), "blue", "self", blue.pid()}, []*quarter{hut, blue, own}},
			{[]string{"all"}, []*quarter{own, blue, hut}},
			{[]string{"all", "self", "host", "blue", hut.pid()}, []*quarter{own, blue, hut}},
			{[]string{hut.pid(), "all"}, []*quarter{hut, own, blue}},
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
							require.Same(t, first[i], n, "it is the same as long as it is found")
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

// A name is that of a namespace for as long as it is in /run/netns, however the namespace was found.
func TestNamespaceNames(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		hut := settle(t, 1, testnet.Process{Name: "hut", Netns: true})
		barn := settle(t, 2, testnet.Process{Name: "barn", Netns: true})
		for _, namespaces := range [][]string{{"all"}, {hut.pid(), barn.pid()}} {
			t.Run(strings.Join(namespaces, " "), func(t *testing.T) {
				inEachSource(t, func(t *testing.T, source Source) {
					s, w := newNamespaceScanner(t, source, namespaces...)
					names := func() string {
						mustScan(t, s, inode)
						return namespaceOf(t, s, hut).Name + "," + namespaceOf(t, s, barn).Name
					}
					require.Equal(t, ",", names())
					same := namespaceOf(t, s, hut)
					testnet.NameNetns(t, "blue", hut.process.Netns())
					require.Equal(t, "blue,", names())
					testnet.NameNetns(t, "a", hut.process.Netns())
					require.Equal(t, "a,", names(), "the first of two")
					testnet.UnnameNetns(t, "a")
					testnet.UnnameNetns(t, "blue")
					require.Equal(t, ",", names())
					testnet.NameNetns(t, "blue", barn.process.Netns())
					require.Equal(t, ",blue", names())
					require.Equal(t, same.ID, namespaceOf(t, s, hut).ID)
					require.Empty(t, same.Name, "what was handed out does not change")
					testnet.UnnameNetns(t, "blue")
					require.Empty(t, w.take())
				})
			})
		}
	})
}

// A name that is given to a new namespace is not mistaken for the old one.
func TestNamespaceMadeAnew(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		inEachSource(t, func(t *testing.T, source Source) {
			for _, namespaces := range []string{"all", "blue"} {
				testnet.Netns(t, "blue")
				s, w := newNamespaceScanner(t, source, namespaces)
				var ids []uint64
				for n := range 5 {
					blue := settle(t, 1+n, testnet.Process{Name: "blue", In: filepath.Join(testnet.NetnsDir, "blue")})
					sockets := mustScan(t, s, func(s *Socket) string { return scanned(s.NetNS, inTerms(s), ownersOf(s)) })
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

// A namespace that has a name and no process is read through a thread: also what there is in procfs only.
func TestNamespaceWithoutProcess(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		holder := testnet.Start(t, testnet.Process{Name: "holder"})
		away := holder.In(path)
		blue := &quarter{inode: netns.Inode(path), owner: ownerOf(holder, "holder")}
		blue.sockets = []testnet.Socket{
			away.Listen("tcp4", everywhere, 1), away.Listen("tcp6", everywhere6, 1), away.UDP("udp4", everywhere, netip.AddrPort{}),
		}
		require.NotEqual(t, blue.inode, netNS(t, holder.Netns()))
		inEachSource(t, func(t *testing.T, source Source) {
			w := &warnings{}
			if source == SourceNetlink {
				source = SourceAuto // netlink does not have ping sockets
			}
			s := newScanner(t, ScannerConfig{
				Source: source, Namespaces: []string{"blue", "self"}, OwnerMethod: OwnersProcfs,
				Transports: []Transport{TransportICMP, TransportTCP, TransportUDP},
				Warn:       func(err error) { w.said = append(w.said, err.Error()) },
			})
			for range 3 {
				requireScan(t, s, blue, &quarter{inode: netNS(t, "/proc/self/ns/net")})
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

// The counts of a namespace are not those of another that its process has gone to.
func TestNamespaceReadSockstat(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		hut := settle(t, 3, testnet.Process{Name: "hut", Netns: true})
		s, _ := newNamespaceScanner(t, SourceProcfs, "self", hut.pid())
		mustScan(t, s, inode)
		n := namespaceOf(t, s, hut)
		counts, err := n.ReadSockstat()
		require.NoError(t, err)
		require.EqualValues(t, 7, *counts.TCPInUse)
		counts, err = s.Namespaces()[0].ReadSockstat()
		require.NoError(t, err)
		require.Zero(t, *counts.TCPInUse)

		wanderer := newWanderer(t, path)
		s, _ = newNamespaceScanner(t, SourceProcfs, strconv.Itoa(wanderer.pid))
		mustScan(t, s, inode)
		n = s.Namespaces()[0]
		_, err = n.ReadSockstat()
		require.NoError(t, err)
		wanderer.leave(t)
		_, err = n.ReadSockstat()
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.EqualError(t, err, fmt.Sprintf(
			"the socket counts of network namespace of process %d: no process is in it: file does not exist", wanderer.pid))
	})
}

// wanderer is a process that can go to another namespace.
type wanderer struct {
	pid  int
	from uint64
	path string
	go_  func() error
}

// newWanderer starts a process in a new network namespace; it can go to that of the file.
func newWanderer(t *testing.T, path string) *wanderer {
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
	return &wanderer{pid: cmd.Process.Pid, from: netNS(t, link), path: path, go_: stdin.Close}
}

func (w *wanderer) leave(t *testing.T) {
	t.Helper()
	require.NoError(t, w.go_())
	require.Eventually(t, func() bool {
		return netns.Inode(fmt.Sprintf("/proc/%d/ns/net", w.pid)) == netns.Inode(w.path)
	}, 10*time.Second, time.Millisecond)
}

// What is not there is said once, and read when it comes into being.
func TestNamespacesThatAreAbsent(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		left := filepath.Join(testnet.NetnsDir, "left")
		require.NoError(t, os.WriteFile(left, nil, 0o444))
		own := &quarter{inode: netNS(t, "/proc/self/ns/net")}
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
			blue := settle(t, 2, testnet.Process{Name: "blue", In: testnet.Netns(t, "blue")})
			requireScan(t, s, own, blue)
			blue.process.Stop()
			testnet.UnnameNetns(t, "blue")
			requireScan(t, s, own)
			require.Empty(t, w.take())

			s, w = newNamespaceScanner(t, source, "all")
			requireScan(t, s, own)
			require.Empty(t, w.take(), "what is left of a name is nothing that is missed")
		})
	})
}

// bridge makes a pair of network devices: the one here vanishes with the namespace in which the other one is.
func bridge(t *testing.T, process *testnet.Proc) (device string) {
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

func deviceIsThere(device string) bool {
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

// A namespace that has ended is let go in the next scan: nothing of it is left open, and the kernel frees it.
func TestNamespaceEnds(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := &quarter{inode: netNS(t, "/proc/self/ns/net")}
		inEachSource(t, func(t *testing.T, source Source) {
			s, w := newNamespaceScanner(t, source, "all")
			requireScan(t, s, own)
			before := ownDescriptors(t)
			hut := settle(t, 1, testnet.Process{Name: "hut", Netns: true})
			device := bridge(t, hut.process)
			requireScan(t, s, own, hut)
			require.True(t, deviceIsThere(device))
			kept := ownDescriptors(t)
			require.Len(t, kept, len(before)+1)
			requireScan(t, s, own, hut)
			require.Equal(t, kept, ownDescriptors(t), "it is opened once")

			hut.process.Stop()
			requireScan(t, s, own)
			require.Equal(t, before, ownDescriptors(t))
			require.Eventually(t, func() bool { return !deviceIsThere(device) }, 10*time.Second, 10*time.Millisecond)
			require.Empty(t, w.take())
		})
		testnet.ThreadsReturn(t)
	})
}

// The number of a namespace that has ended is not another's until that is known: it would be taken for it.
func TestNamespaceNumbersAreNotReused(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		inEachSource(t, func(t *testing.T, source Source) {
			s, _ := newNamespaceScanner(t, source, "all")
			hut := settle(t, 1, testnet.Process{Name: "hut", Netns: true})
			mustScan(t, s, inode)
			table := namespaceOf(t, s, hut).table
			require.NotZero(t, table)
			device := bridge(t, hut.process)
			hut.process.Stop()
			for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				require.True(t, deviceIsThere(device), "the kernel has freed it")
				onThread(func() {
					require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
					assert.NotEqual(t, hut.inode, netns.Of(netns.ThreadDir))
					assert.NotEqual(t, table, netns.TableOf(netns.ThreadDir))
				})
			}
		})
	})
}

// Namespaces come and go while they are read, and leave nothing behind.
func TestNamespaceChurn(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := settle(t, 3, testnet.Process{Name: "own"})
		// What comes and goes has no sockets.
		inEachSource(t, func(t *testing.T, source Source) {
			s, w := newNamespaceScanner(t, source, "all")
			requireScan(t, s, own)
			before := ownDescriptors(t)
			churn := testnet.ChurnNetns(t, time.Millisecond)
			seen, scans := map[uint64]bool{}, 0
			for ; churn.InProgress() || len(seen) < 2; scans++ {
				sockets := mustScan(t, s, func(s *Socket) string { return scanned(s.NetNS, inTerms(s), ownersOf(s)) })
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

// The process through which a namespace is read can end between two of its tables. The others are not touched; what is left of
// the namespace is read through another process in it, if there is one.
func TestNamespaceProcessEndsInScan(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := settle(t, 1, testnet.Process{Name: "own"})
		barn := settle(t, 2, testnet.Process{Name: "barn", Netns: true})
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
					file = testnet.NameNetns(t, "hut", file)
				}
				p := testnet.Process{Name: "holder"}
				if test.another {
					p.In = file
				}
				holder := testnet.Start(t, p)
				in := holder.In(file)
				hut := &quarter{inode: netNS(t, first.Netns()), owner: ownerOf(holder, "holder"), sockets: []testnet.Socket{
					in.Listen("tcp4", everywhere, 1), in.Listen("tcp6", everywhere6, 1), in.UDP("udp4", everywhere, netip.AddrPort{}),
				}}
				s, w := newNamespaceScanner(t, SourceProcfs, strconv.Itoa(first.PID), barn.pid(), "self")
				requireScan(t, s, hut, barn, own)

				var sockets []string
				for socket, err := range s.Sockets(t.Context()) {
					require.NoError(t, err)
					if len(sockets) == 0 {
						require.Equal(t, hut.inode, socket.NetNS)
						require.NoError(t, unix.Kill(first.PID, unix.SIGKILL))
						if test.reaped {
							first.Stop()
						}
						dir := fmt.Sprintf("/proc/%d", first.PID)
						require.Eventually(t, func() bool { return netns.TableOf(dir) == 0 }, 10*time.Second, time.Millisecond)
						require.Equal(t, !test.reaped, netns.Inode(dir) != 0)
					}
					sockets = append(sockets, scanned(socket.NetNS, inTerms(socket), ownersOf(socket)))
				}
				if test.another || test.named {
					requireRead(t, s, hut, barn, own)
				} else {
					hut.sockets = hut.sockets[:1]
					requireRead(t, s, barn, own)
				}
				requireSockets(t, sockets, hut, barn, own)
				require.Empty(t, w.take())
			})
		}
	})
}

// What netlink does not give is read through the process, which can have ended: then the rest is not read either.
func TestNamespaceProcessEndsBeforeProcfs(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := settle(t, 1, testnet.Process{Name: "own"})
		hut := settle(t, 2, testnet.Process{Name: "hut", Netns: true})
		w := &warnings{}
		s := newScanner(t, ScannerConfig{
			Namespaces: []string{"self", hut.pid()}, OwnerMethod: OwnersOff,
			Transports: []Transport{TransportICMP, TransportTCP, TransportUDP},
			Warn:       func(err error) { w.said = append(w.said, err.Error()) },
		})
		require.Len(t, mustScan(t, s, inode), len(own.sockets)+len(hut.sockets))
		seen := 0
		for socket, err := range s.Sockets(t.Context()) {
			require.NoError(t, err)
			require.True(t, socket.Namespace.Self)
			if seen == 0 {
				hut.process.Stop()
			}
			seen++
		}
		require.Len(t, own.sockets, seen)
		requireRead(t, s, own)
		require.Empty(t, w.take())
		require.Len(t, mustScan(t, s, inode), len(own.sockets))
		require.Equal(t, []string{
			fmt.Sprintf("cannot read network namespace %[1]q: there is no process %[1]s: no such file or directory", hut.pid()),
		}, w.take())
	})
}

// Nor is a namespace read through a process that has left it.
func TestNamespaceProcessLeavesInScan(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		path := testnet.Netns(t, "blue")
		blue := settle(t, 2, testnet.Process{Name: "blue", In: path})
		wanderer := newWanderer(t, path)
		holder := testnet.Start(t, testnet.Process{Name: "holder"})
		hut := &quarter{inode: wanderer.from, owner: ownerOf(holder, "holder"), sockets: []testnet.Socket{
			holder.In(fmt.Sprintf("/proc/%d/ns/net", wanderer.pid)).Listen("tcp4", everywhere, 1),
		}}
		s, w := newNamespaceScanner(t, SourceProcfs, strconv.Itoa(wanderer.pid), "blue")
		requireScan(t, s, hut, blue)
		var sockets []string
		for socket, err := range s.Sockets(t.Context()) {
			require.NoError(t, err)
			if len(sockets) == 0 {
				require.Equal(t, hut.inode, socket.NetNS)
				wanderer.leave(t)
			}
			sockets = append(sockets, scanned(socket.NetNS, inTerms(socket), ownersOf(socket)))
		}
		requireRead(t, s, blue)
		requireSockets(t, sockets, hut, blue)
		requireScan(t, s, blue)
		require.Empty(t, w.take())
	})
}

// What identifies a namespace belongs together, even if the process goes from one to the other meanwhile.
func TestNamespaceOfRestlessProcess(t *testing.T) {
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
			onThread(func() { // a thread is a process here
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
		met := map[uint64]bool{}
		var all namespaces
		require.NoError(t, all.dir.Open("/proc"))
		defer all.dir.Close()
		for i := 0; i < 20_000 || len(met) < 2; i++ {
			start := time.Now()
			n, inode, err := all.ofProcess(pid)
			require.NoError(t, err)
			if time.Since(start) < stay { // it cannot have gone and come back
				require.Equal(t, tables[inode], n.table)
				met[inode] = true
			}
		}
		close(stop)
		<-ended
	})
}

// A process that has just ended refuses to be looked at, as one does that may not be: that is nothing to be said.
func TestNamespaceProcessHasJustEnded(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		hut := testnet.Start(t, testnet.Process{Name: "hut", Netns: true})
		ended := testnet.Start(t, testnet.Process{Name: "ended", Netns: true})
		of := &trackedNamespace{Namespace: Namespace{root: "/proc", table: netns.TableOf(fmt.Sprintf("/proc/%d", ended.PID))}}
		of.setProcess(ended.PID)
		ended.Stop()
		there := &trackedNamespace{Namespace: Namespace{root: "/proc", table: netns.TableOf(fmt.Sprintf("/proc/%d", hut.PID))}}
		there.setProcess(hut.PID)
		dropCapabilities(t, []uint{unix.CAP_SYS_PTRACE})
		all := &namespaces{withDiag: true}
		require.NoError(t, all.enter(there, hut.Netns()))
		require.ErrorIs(t, there.refused, fs.ErrPermission)
		require.True(t, vanished(all.enter(of, hut.Netns())))
		require.NoError(t, of.refused)
	})
}

// Without descriptors no namespace can be entered, which each scan says once; with descriptors they are.
func TestNamespacesOutOfDescriptors(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := settle(t, 1, testnet.Process{Name: "own"})
		s, w := newNamespaceScanner(t, SourceAuto, "all")
		requireScan(t, s, own)
		all := []*quarter{own}
		for n := range 3 {
			all = append(all, settle(t, 1+n, testnet.Process{Name: "hut", Netns: true}))
		}
		all = append(all, settle(t, 4, testnet.Process{Name: "blue", In: testnet.Netns(t, "blue")}))
		before := len(ownDescriptors(t))
		sources := func() (sources []Source) {
			for _, n := range s.Namespaces() {
				sources = append(sources, n.SourceOf(TransportTCP))
			}
			return sources
		}

		const toEnter = 3 // descriptors
		full := fillDescriptors(t)
		full.leave(t, toEnter-1)
		for range 3 {
			sockets, errs := scan(s, func(s *Socket) string { return scanned(s.NetNS, inTerms(s), ownersOf(s)) })
			require.Len(t, errs, 1)
			require.ErrorIs(t, errs[0], unix.EMFILE)
			require.Regexp(t, `^network namespace ("all"|of process \d+): .*: too many open files \(and 3 more\)$`, errs[0].Error())
			requireRead(t, s, all...)
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
		requireRead(t, s, all...)

		full.release(t)
		requireScan(t, s, all...)
		require.Equal(t, slices.Repeat([]Source{SourceNetlink}, len(all)), sources())
		require.Len(t, ownDescriptors(t), before+len(all)-1, "one for each")
		require.Empty(t, w.take())
	})
}

// fullTable is a table of descriptors of which few are free.
type fullTable struct {
	limit  unix.Rlimit
	filled []int
}

func fillDescriptors(t *testing.T) *fullTable {
	t.Helper()
	f := &fullTable{}
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &f.limit))
	t.Cleanup(func() { f.release(t) })
	const most = 1000
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: f.limit.Max}))
	f.leave(t, 0)
	return f
}

// leave leaves so many descriptors free.
func (f *fullTable) leave(t *testing.T, free int) {
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

func (f *fullTable) release(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &f.limit))
	for _, fd := range f.filled {
		require.NoError(t, unix.Close(fd))
	}
	f.filled = nil
}

// A proc file system of another PID namespace is that of a host: its process 1 and its names are meant, and in it only its
// processes are seen.
func TestNamespacesOfOtherProc(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := settle(t, 1, testnet.Process{Name: "own"})
		own.owner = ""
		for _, apart := range []bool{true, false} {
			t.Run(fmt.Sprint("in another network namespace: ", apart), func(t *testing.T) {
				proc := t.TempDir()
				process := testnet.Start(t, testnet.Process{Name: "init", Netns: apart, Proc: proc})
				host := &quarter{inode: netNS(t, process.Netns()), owner: "1/init"}
				host.sockets = []testnet.Socket{process.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})}
				testnet.NameNetns(t, "blue", process.Netns())
				inEachSource(t, func(t *testing.T, source Source) {
					for _, namespaces := range []string{"host", "1", "blue", "all", "self host", "host self", "blue self 1"} {
						w := &warnings{}
						s := newScanner(t, ScannerConfig{
							ProcRoot: proc, Source: source, Namespaces: strings.Fields(namespaces), OwnerMethod: OwnersProcfs,
							Warn: func(err error) { w.said = append(w.said, err.Error()) },
						})
						for range 2 {
							sockets := mustScan(t, s, func(s *Socket) string { return scanned(s.NetNS, inTerms(s), ownersOf(s)) })
							switch namespaces {
							case "host", "1", "blue":
								requireRead(t, s, host)
							case "host self", "blue self 1":
								requireRead(t, s, []*quarter{host, own}[:1+oneIf(apart)]...)
							default:
								requireRead(t, s, []*quarter{own, host}[:1+oneIf(apart)]...)
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

func oneIf(is bool) int {
	if is {
		return 1
	}
	return 0
}

// inUserNamespace tells the test process that it is root in a user namespace only.
const inUserNamespace = "NETSTAT_TEST_IN_USER_NAMESPACE"

// Who is root in a user namespace only can enter the network namespaces of containers there, but not come back to the one that
// it is in itself. The threads that did end; the first, which stands for the process, is spared.
func TestNamespacesOfUserNamespace(t *testing.T) {
	if os.Getenv(inUserNamespace) == "" {
		exe, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inUserNamespace+"=1")
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
	listener := container.Listen("tcp4", everywhere, 1)
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

// onFirstThread runs f in a goroutine that is on the thread that stands for the process, and that is likely to stay there.
func onFirstThread(t *testing.T, f func()) {
	t.Helper()
	const most = 1000 // threads
	found, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	for range most {
		looked := make(chan bool)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			isFirst := unix.Gettid() == unix.Getpid()
			looked <- isFirst
			if !isFirst {
				<-release // so that another thread runs the next one
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
		time.Sleep(time.Millisecond) // the first thread may be the one that waits for timers
	}
	t.Fatal("nothing runs on the first thread")
}

// What cannot be looked for has not ended: it is read on.
func TestNamespacesWithoutProc(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := settle(t, 1, testnet.Process{Name: "own"})
		hut := settle(t, 2, testnet.Process{Name: "hut", Netns: true})
		inEachSource(t, func(t *testing.T, source Source) {
			s, w := newNamespaceScanner(t, source, "all")
			requireScan(t, s, own, hut)
			before := namespaceOf(t, s, hut)
			s.namespaces.dir.Close()
			require.NoError(t, s.namespaces.dir.Open("/proc/version")) // no directory
			for range 2 {
				sockets, errs := scan(s, func(s *Socket) string { return scanned(s.NetNS, inTerms(s), ownersOf(s)) })
				require.Len(t, errs, 1)
				require.EqualError(t, errs[0], `network namespace "all": not a directory`)
				requireRead(t, s, own, hut)
				requireSockets(t, sockets, own, hut)
			}
			s.namespaces.dir.Close()
			requireScan(t, s, own, hut)
			require.Same(t, before, namespaceOf(t, s, hut))
			require.Empty(t, w.take())
		})
	})
}

// BenchmarkNamespaces is looking for namespaces where nothing has changed: by their numbers, and by their tables for who may not
// see the numbers.
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

// openFound finds the namespaces that there are, and opens those that are new.
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

// A file that leads to another namespace than was found is not taken for it, whatever its number says.
func TestNamespaceBehindFileIsAnother(t *testing.T) {
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

// makeNamespaces makes so many network namespaces, and returns their numbers and what ends them.
type makeNamespaces func(t *testing.T, n int) (inodes map[uint64]bool, end func())

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

// pinnedNamespaces are those that a socket of this process keeps.
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

// Descriptors that have run out come back when namespaces end: as many of the new ones are read as the descriptors allow.
func TestNamespacesReplacedWithoutDescriptors(t *testing.T) {
	const there, room, descriptors = 30, 11, 3 // of each: a socket for dumps, one for closed sockets, and what waits for that
	for name, newNamespaces := range map[string]makeNamespaces{"named": namedNamespaces, "of processes": namespacesOfProcesses} {
		t.Run(name, func(t *testing.T) {
			testnet.IsolatePIDs(t, func() {
				own := netNS(t, "/proc/self/ns/net")
				s := newScanner(t, ScannerConfig{
					Namespaces: []string{NamespaceAll}, OwnerMethod: OwnersProcfs, Closed: ClosedRequired, TCPInfo: true,
				})
				mustScan(t, s, inode)
				entered := 0
				for round := range 6 {
					const toEnter = 2 // descriptors that are closed again
					limit := room*descriptors + toEnter
					if round%2 == 1 {
						limit -= toEnter // then none is left when the scan begins
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
						entered += oneIf(!n.Self && n.diag != nil && n.closed != nil)
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

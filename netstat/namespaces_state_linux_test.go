package netstat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/netns"
)

// A table of another namespace than expected is closed again.
func TestNamespaceTableOfOtherNamespace(t *testing.T) {
	before := openDescriptors(t)
	n := &Namespace{PID: os.Getpid(), procDir: "/proc/self", table: 1}
	_, err := n.openTable("net/dev")
	require.ErrorIs(t, err, errNamespaceGone)
	require.Equal(t, before, openDescriptors(t))
}

// If the namespace has open sockets, the adopted ones are closed. Otherwise it takes them over, and closes the file that kept it
// alive.
func TestNamespaceAdopts(t *testing.T) {
	for _, isOpen := range []bool{true, false} {
		held, err := os.Open("/proc/self/net/dev")
		require.NoError(t, err)
		diag, closed, namedDiag, namedClosed := &fakeDiag{}, &fakeClosed{}, &fakeDiag{}, &fakeClosed{}
		budget := newClosedBudget(maxClosed)
		queue := testQueue(budget, &connects{})
		queue.add(closedMessage(1))
		namedClosed.chunks, _, _ = queue.take(nil)
		n := &trackedNamespace{Namespace: Namespace{table: 7}, held: held}
		if isOpen {
			n.netlinkSockets = netlinkSockets{diag: diag, closed: closed}
		}
		n.adopt(&trackedNamespace{
			Namespace:      Namespace{Inode: 5, Name: "blue", path: "/run/netns/blue"},
			netlinkSockets: netlinkSockets{diag: namedDiag, closed: namedClosed}, entry: entryDone, tried: 3,
		})
		require.Equal(t, []any{uint64(5), "blue", "/run/netns/blue", entryDone, uint64(3)},
			[]any{n.Inode, n.Name, n.path, n.entry, n.tried})
		require.Equal(t, isOpen, namedDiag.closed)
		require.Equal(t, isOpen, namedClosed.closed)
		require.EqualValues(t, maxClosed/closedChunkLen-boolToInt(!isOpen), budget.left.Load(), "its events are dropped")
		require.False(t, diag.closed || closed.closed)
		require.Equal(t, isOpen, n.diag == diagConn(diag))
		require.Equal(t, isOpen, n.closed == closedConn(closed))
		if isOpen {
			require.NoError(t, held.Close())
		} else {
			require.Nil(t, n.held)
			require.ErrorIs(t, held.Close(), os.ErrClosed)
		}
	}
	n := &trackedNamespace{}
	n.adopt(&trackedNamespace{Namespace: Namespace{Inode: 5}}) // opening it failed
	require.Nil(t, n.diag)
}

// New sockets replace the old ones, except a subscription: it may still have events to take.
func TestNamespaceTakes(t *testing.T) {
	diag, closed := &fakeDiag{}, &fakeClosed{}
	n := &trackedNamespace{netlinkSockets: netlinkSockets{diag: diag, closed: closed}}
	openedDiag, openedClosed := &fakeDiag{}, &fakeClosed{}
	n.take(netlinkSockets{diag: openedDiag, closed: openedClosed})
	require.Equal(t, []bool{true, false, false, true}, []bool{diag.closed, openedDiag.closed, closed.closed, openedClosed.closed})
	require.True(t, n.diag == diagConn(openedDiag) && n.closed == closedConn(closed))
	n.take(netlinkSockets{diag: &fakeDiag{}, refusedClosed: errors.ErrUnsupported})
	require.True(t, n.closed == closedConn(closed))
	require.NoError(t, n.refusedClosed, "it keeps its subscription")
}

// find closes the subscriptions of ended namespaces, even if their events have not been taken.
func TestEndedNamespacesAreClosed(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		s, _ := newNamespaceScanner(t, SourceAuto, "all")
		ended := &fakeClosed{}
		s.namespaces.ended = []*trackedNamespace{{netlinkSockets: netlinkSockets{closed: ended}}}
		require.NoError(t, s.namespaces.find())
		require.True(t, ended.closed)
		require.Len(t, s.namespaces.ended, 1, "its events are handed out later")
	})
}

// If the process of a namespace has ended since it was found, the namespace is entered through another one, if there is one.
func TestNamespaceProcessEndsBeforeEntering(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		for _, another := range []bool{true, false} {
			s, w := newNamespaceScanner(t, SourceAuto, "all")
			mustScan(t, s, inode)
			before := ownDescriptors(t)
			first := startInNamespace(t, 1, testnet.Process{Name: "first", Netns: true})
			second := testnet.Start(t, testnet.Process{Name: "second", In: first.process.Netns()})
			require.NoError(t, s.namespaces.find())
			require.Len(t, s.Namespaces(), 2)
			n := namespaceOf(t, s, first)
			require.Equal(t, first.process.PID, n.PID)
			tracked := trackedOf(t, s, n)
			first.process.Stop()
			if !another {
				second.Stop()
			}
			require.NoError(t, s.namespaces.enterFound())
			if another {
				now := namespaceOf(t, s, first)
				require.Equal(t, []any{n.ID, second.PID, SourceNetlink, true},
					[]any{now.ID, now.PID, now.SourceOf(TransportTCP), tracked.diag != nil})
			} else {
				require.NotContains(t, s.namespaces.known, tracked)
				require.Equal(t, before, ownDescriptors(t))
			}
			require.Empty(t, w.take())
			require.NoError(t, s.Close())
			second.Stop()
		}
	})
}

// When the process that represents a namespace has ended, another one replaces it.
func TestNamespaceProcessIsReplaced(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		s, _ := newNamespaceScanner(t, SourceAuto, "all")
		first := startInNamespace(t, 1, testnet.Process{Name: "first", Netns: true})
		second := testnet.Start(t, testnet.Process{Name: "second", In: first.process.Netns()})
		mustScan(t, s, inode)
		n := namespaceOf(t, s, first)
		require.Equal(t, first.process.PID, n.PID)
		first.process.Stop()
		mustScan(t, s, inode)
		now := namespaceOf(t, s, first)
		require.Equal(t, []any{n.ID, second.PID}, []any{now.ID, now.PID})
		require.Equal(t, first.process.PID, n.PID, "a value that was handed out does not change")
	})
}

// A namespace known only by its tables is entered as soon as a process shows its inode number.
func TestNamespaceIdentifiedLater(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		s, w := newNamespaceScanner(t, SourceAuto, "all")
		mustScan(t, s, inode)
		n := trackedOf(t, s, namespaceOf(t, s, other))
		number := n.Inode
		n.leave() // as if its processes could not be read
		delete(s.namespaces.byInode, n.Inode)
		n.Inode, n.entry, n.refused = 0, entryRefused, fmt.Errorf("setns: %w", unix.EPERM)

		mustScan(t, s, inode)
		now := namespaceOf(t, s, other)
		require.Equal(t, []any{n.ID, number, SourceNetlink, true}, []any{now.ID, n.Inode, now.SourceOf(TransportTCP), n.diag != nil})
		require.Empty(t, w.take())
	})
}

// A namespace known only by its tables is matched by them with the one that has a name.
func TestNamespaceMatchedWithName(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		path := testnet.NameNetns(t, "blue", other.process.Netns())
		s, w := newNamespaceScanner(t, SourceAuto, "all")
		all := &s.namespaces
		all.scan = 1
		n := &trackedNamespace{
			Namespace: Namespace{root: "/proc", table: netns.TableOf(filepath.Join("/proc", other.pid()))}, tried: 1, entry: entryUnneeded,
		}
		all.see(n)
		n.setProcess(other.process.PID)
		require.NoError(t, all.addName("blue"))
		require.Len(t, all.known, 2, "they are not matched yet")
		require.NoError(t, all.enterFound())
		require.True(t, len(all.known) == 1 && all.known[0] == n)
		require.Equal(t, []any{other.inode, "blue", path, true}, []any{n.Inode, n.Name, n.path, n.diag != nil})
		require.Same(t, n, all.byInode[other.inode])
		requireScan(t, s, other, &testNamespace{inode: netNS(t, "/proc/self/ns/net")})
		require.Empty(t, w.take())
	})
}

// The inode and table numbers of ended namespaces that nothing kept alive can be those of new namespaces.
func TestNamespaceNumbersOfEndedOnes(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		table := netns.TableOf(filepath.Join("/proc", other.pid()))
		failed := func(n Namespace) *trackedNamespace {
			return &trackedNamespace{Namespace: n, tried: 1, entry: entryFailed}
		}
		for name, test := range map[string]struct {
			ended *trackedNamespace
			scans int // until it is found: if the inode number is wrong, the first scan detects it
		}{
			"table":  {failed(Namespace{root: "/proc", Inode: other.inode + 1000, table: table}), 1},
			"number": {failed(Namespace{root: "/proc", Inode: other.inode, table: table + 1000}), 2},
		} {
			t.Run(name, func(t *testing.T) {
				s, w := newNamespaceScanner(t, SourceAuto, "all")
				mustScan(t, s, inode)
				s.namespaces.forget(trackedOf(t, s, namespaceOf(t, s, other)))
				s.namespaces.see(test.ended)
				for range test.scans {
					_, errs := scan(s, inode)
					require.Empty(t, errs)
				}
				requireNamespaces(t, s, &testNamespace{inode: netNS(t, "/proc/self/ns/net")}, other)
				require.Equal(t, SourceNetlink, namespaceOf(t, s, other).SourceOf(TransportTCP))
				require.Same(t, s.namespaces.known[1], s.namespaces.byTable[table])
				require.Same(t, s.namespaces.known[1], s.namespaces.byInode[other.inode])
				require.Empty(t, w.take())
			})
		}
	})
}

// A named namespace that cannot be entered is read through one of its processes, which each scan looks up.
func TestNamedNamespaceReadThroughProcess(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		blue := startInNamespace(t, 1, testnet.Process{Name: "blue", In: testnet.Netns(t, "blue")})
		s, w := newNamespaceScanner(t, SourceAuto, "blue")
		s.namespaces.openDiag = refuseDiag
		for range 3 {
			requireScan(t, s, blue)
			n := namespaceOf(t, s, blue)
			require.Equal(t, []any{SourceProcfs, blue.process.PID, "/proc/" + blue.pid()},
				[]any{n.SourceOf(TransportTCP), n.PID, n.procDir})
		}
		require.Len(t, w.take(), 1)
		s, w = newNamespaceScanner(t, SourceProcfs, "blue")
		requireScan(t, s, blue)
		require.Empty(t, w.take(), "procfs was requested")
	})
}

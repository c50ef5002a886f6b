package netstat

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

// clock is a settable clock.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

// setClock replaces the clock of the scanner's fallbacks.
func setClock(s *Scanner) *clock {
	c := &clock{time.Now()}
	s.fallbacks.now = c.now
	for what := range s.fallbacks.retryAt {
		s.fallbacks.retryAt[what] = c.Add(retryInterval)
	}
	return c
}

func TestFallbacks(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	var warned []string
	f := newFallbacks(func(err error) { warned = append(warned, err.Error()) })
	f.now = c.now
	refused, scarce := errors.New("refused"), fmt.Errorf("opening it: %w", unix.EMFILE)

	f.markUnavailable("a", refused)
	f.markUnavailable("b", scarce)
	f.startScan()
	require.False(t, f.retryDue("a"))
	require.True(t, f.retryDue("b"), "lack of resources is retried in the next scan")
	require.False(t, f.retryDue("c"), "never refused")

	c.Time = c.Add(retryInterval - 1)
	f.startScan()
	require.False(t, f.retryDue("a"))
	c.Time = c.Add(1)
	f.startScan()
	require.True(t, f.retryDue("a"))
	f.markUnavailable("a", refused)
	require.True(t, f.retryDue("a"), "for the rest of this scan")
	f.startScan()
	require.False(t, f.retryDue("a"))
	require.Equal(t, []string{"refused", "opening it: too many open files"}, warned, "each is reported once")

	f.markAvailable("a")
	c.Time = c.Add(time.Hour)
	f.startScan()
	require.False(t, f.retryDue("a"))
	f.markUnavailable("a", refused)
	require.Equal(t, []string{"refused", "opening it: too many open files", "refused"}, warned)
	newFallbacks(nil).warnOnce("d", refused) // without Warn
}

// The scanner uses a diag module that is loaded later.
func TestScannerRetriesTransport(t *testing.T) {
	refused := fmt.Errorf("%w: no such module", errors.ErrUnsupported)
	diag := &fakeDiag{dumps: []fakeDump{{err: refused}}}
	var warned []string
	s := newFakeScanner(t, ScannerConfig{
		ProcRoot: proctree.Materialize(t, smallTree), Transports: []Transport{TransportRaw},
		Warn: func(err error) { warned = append(warned, err.Error()) },
	}, diag)
	c := setClock(s)
	requireSource := func(want Source, sockets, requests int) {
		t.Helper()
		inodes, errs := scan(s, inode)
		require.Empty(t, errs)
		require.Len(t, inodes, sockets)
		require.Equal(t, want, s.Stats().Source)
		require.Equal(t, want, s.Namespaces()[0].SourceOf(TransportRaw))
		require.Len(t, diag.requests, requests)
	}
	requireSource(SourceProcfs, 2, 1)
	c.Time = c.Add(retryInterval - 1)
	requireSource(SourceProcfs, 2, 1)

	c.Time = c.Add(1)
	diag.dumps = []fakeDump{{err: refused}}
	requireSource(SourceProcfs, 2, 2)
	requireSource(SourceProcfs, 2, 2)
	require.Len(t, warned, 1)

	c.Time = c.Add(retryInterval)
	diag.dumps = []fakeDump{{payloads: tcpMessages(7, 8, 9)}}
	requireSource(SourceNetlink, 3, 4)
	requireSource(SourceNetlink, 0, 6)
	require.Len(t, warned, 1)
}

// A required source is not replaced, even if it stops working.
func TestScannerRequiredSource(t *testing.T) {
	testnet.Isolate(t, func() {
		s := newScanner(t, ScannerConfig{Source: SourceNetlink, OwnerMethod: OwnersOff, Transports: []Transport{TransportTCP}})
		mustScan(t, s, inode)
		require.NoError(t, s.namespaces.self.diag.Close())
		s.namespaces.self.diag = &fakeDiag{dumps: []fakeDump{{err: fmt.Errorf("%w: no such module", errors.ErrUnsupported)}}}
		_, errs := scan(s, inode)
		require.Equal(t, []string{`source "netlink" is required: sock_diag is unavailable for this transport: unsupported operation: ` +
			"no such module (module tcp_diag)"}, messages(errs))
		require.Equal(t, SourceNetlink, s.Stats().Source)

		_, err := NewScanner(ScannerConfig{Source: SourceNetlink, Transports: []Transport{TransportICMP}})
		require.EqualError(t, err, `source "netlink" is required: sock_diag does not support icmp sockets`)
		err = rawDump(t)
		_, required := NewScanner(ScannerConfig{Source: SourceNetlink, Transports: []Transport{TransportTCP, TransportRaw}})
		if err == nil {
			require.NoError(t, required)
		} else {
			require.EqualError(t, required, `source "netlink" is required: `+err.Error()+" (module raw_diag)")
		}
	})
}

// A required source is required in every namespace.
func TestScannerRequiredInNamespaces(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		config := ScannerConfig{Source: SourceNetlink, OwnerMethod: OwnersOff, Namespaces: []string{"self", other.pid()}}
		s := newScanner(t, config)
		require.Len(t, mustScan(t, s, inode), len(other.sockets))

		later := startInNamespace(t, 1, testnet.Process{Name: "later", Netns: true}) // after the start
		s.namespaces.wanted = []string{"self", later.pid()}
		s.namespaces.openDiag = refuseDiag
		sockets, errs := scan(s, inode)
		require.Empty(t, sockets)
		refused := "network namespace of process " + later.pid() + `: source "netlink" is required: entering requires CAP_SYS_ADMIN, and ` +
			"CAP_SYS_PTRACE for a namespace without a name: unsupported operation: not permitted"
		require.Equal(t, []string{refused, refused}, messages(errs), "tcp and udp")
		for _, err := range errs {
			failed := (*TableError)(nil)
			require.ErrorAs(t, err, &failed)
		}
		c := setClock(s)
		s.namespaces.openDiag = s.openDiag
		_, errs = scan(s, inode)
		require.Len(t, errs, 2, "too early for a retry")
		c.Time = c.Add(retryInterval)
		require.Len(t, mustScan(t, s, inode), len(later.sockets))

		testnet.Netns(t, "blue") // it has no process, so only netlink can read it
		s.namespaces.wanted = []string{"blue"}
		s.namespaces.openDiag = refuseDiag
		for range 2 {
			_, errs = scan(s, inode)
			require.Equal(t, []string{`network namespace blue: source "netlink" is required: /run/netns/blue: entering requires ` +
				"CAP_SYS_ADMIN, finding a process in it CAP_SYS_PTRACE: permission denied"}, messages(errs))
		}
		s.namespaces.openDiag = s.openDiag
		require.Empty(t, mustScan(t, s, inode))
		require.Len(t, s.Namespaces(), 1)
	})
}

func refuseDiag() (diagConn, error) {
	return nil, fmt.Errorf("%w: not permitted", errors.ErrUnsupported)
}

// newScannerWithoutNetlink returns a scanner that was refused netlink sockets at its creation, but may open them from then on.
func newScannerWithoutNetlink(t *testing.T, warned *[]string) (s *Scanner) {
	t.Helper()
	testnet.Failing(t, func() {
		s = newScanner(t, ScannerConfig{
			OwnerMethod: OwnersOff, Closed: ClosedAuto, Warn: func(err error) { *warned = append(*warned, err.Error()) },
		})
	}, testnet.Fails(unix.SYS_SOCKET, unix.EPERM, unix.AF_NETLINK))
	return s
}

// A scanner that was refused netlink uses it once it is permitted.
func TestScannerRetriesNetlink(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		own := startInNamespace(t, 1, testnet.Process{Name: "own"})
		l := listenIPv4(t)
		var warned []string
		s := newScannerWithoutNetlink(t, &warned)
		c := setClock(s)
		mustScan(t, s, inode)
		require.Equal(t, SourceProcfs, s.Stats().Source)
		require.Len(t, warned, 1)
		require.False(t, s.Namespaces()[0].ClosedEvents())

		before := len(openDescriptors(t))
		c.Time = c.Add(retryInterval)
		onNewThread(func() { // a thread in another namespace does not retry
			require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
			mustScan(t, s, inode)
			require.Equal(t, SourceProcfs, s.Stats().Source)
		})
		require.Len(t, mustScan(t, s, inode), len(own.sockets)+1)
		require.Equal(t, SourceNetlink, s.Stats().Source)
		require.True(t, s.Namespaces()[0].ClosedEvents())
		require.Len(t, openDescriptors(t), before+3)
		client, server := l.open()
		reset(t, client, server)
		awaitClosed(t, s.namespaces.self, 2)
		closedOf(t, s, 2, inode)
		c.Time = c.Add(retryInterval)
		mustScan(t, s, inode)
		require.Len(t, openDescriptors(t), before+3, "opened once")
		require.Len(t, warned, 1)
	})
}

// If netlink becomes permitted but there is no descriptor left for the subscription, the subscription follows later.
func TestScannerRetriesNetlinkWithoutDescriptors(t *testing.T) {
	testnet.Isolate(t, func() {
		var warned []string
		s := newScannerWithoutNetlink(t, &warned)
		c := setClock(s)
		mustScan(t, s, inode)
		require.Len(t, warned, 1)
		c.Time = c.Add(retryInterval)
		full := fillDescriptors(t)
		full.leave(t, 1)
		for range 3 {
			mustScan(t, s, inode)
			require.Equal(t, SourceNetlink, s.Stats().Source)
			require.False(t, s.Namespaces()[0].ClosedEvents())
		}
		require.Equal(t, []string{"cannot subscribe to closed TCP sockets: opening a sock_diag socket: too many open files"}, warned[1:])
		full.release(t)
		mustScan(t, s, inode)
		require.True(t, s.Namespaces()[0].ClosedEvents())
	})
}

// A refused subscription to closed sockets is retried in each namespace.
func TestScannerRetriesClosed(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		var warned []string
		var s *Scanner
		testnet.Failing(t, func() {
			s = newScanner(t, ScannerConfig{
				OwnerMethod: OwnersOff, Closed: ClosedAuto, Namespaces: []string{"self", other.pid()},
				Warn: func(err error) { warned = append(warned, err.Error()) },
			})
		}, testnet.Fails(unix.SYS_BIND, unix.EPERM))
		subscribe := s.namespaces.subscribe
		s.namespaces.subscribe = func(int) (closedConn, error) { return nil, fmt.Errorf("%w: not here", errors.ErrUnsupported) }
		c := setClock(s)
		subscribed := func() (subscribed []bool) {
			for _, n := range s.Namespaces() {
				subscribed = append(subscribed, n.ClosedEvents())
			}
			return subscribed
		}
		mustScan(t, s, inode)
		require.Equal(t, []bool{false, false}, subscribed())
		s.namespaces.subscribe = subscribe
		mustScan(t, s, inode)
		require.Equal(t, []bool{false, false}, subscribed(), "too early for a retry")
		before := len(openDescriptors(t))
		c.Time = c.Add(retryInterval)
		require.Len(t, mustScan(t, s, inode), len(other.sockets))
		require.Equal(t, []bool{true, true}, subscribed())
		require.Len(t, openDescriptors(t), before+4, "two per subscription")
		require.Len(t, warned, 1)
	})
}

// A namespace that could not be entered is entered once it is permitted.
func TestScannerRetriesEntering(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		other := startInNamespace(t, 1, testnet.Process{Name: "other", Netns: true})
		s, w := newNamespaceScanner(t, SourceAuto, other.pid())
		c := setClock(s)
		openDiag := s.namespaces.openDiag
		s.namespaces.openDiag = refuseDiag
		requireScan(t, s, other)
		require.Equal(t, SourceProcfs, s.Namespaces()[0].SourceOf(TransportTCP))
		require.Len(t, w.take(), 1)
		s.namespaces.openDiag = openDiag
		requireScan(t, s, other)
		require.Equal(t, SourceProcfs, s.Namespaces()[0].SourceOf(TransportTCP), "too early for a retry")
		before := len(ownDescriptors(t))
		c.Time = c.Add(retryInterval)
		requireScan(t, s, other)
		require.Equal(t, SourceNetlink, s.Namespaces()[0].SourceOf(TransportTCP))
		require.Len(t, ownDescriptors(t), before, "a netlink socket replaces the file that kept the namespace alive")
		require.Empty(t, w.take())
	})
}

package netstat

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

func TestCheckNamespace(t *testing.T) {
	for _, text := range []string{"self", "host", "all", "blue", "4711", "-1", "a b", "..."} {
		require.NoError(t, CheckNamespace(text))
	}
	for _, text := range []string{"", ".", "..", "a/b", "/run/netns/blue", "a\x00"} {
		require.EqualError(t, CheckNamespace(text), fmt.Sprintf("%q is not one of self, host, all, a name in /run/netns, a pid", text))
	}
}

func TestTableErrorNamesNamespace(t *testing.T) {
	broken := errors.New("broken")
	for want, n := range map[string]*Namespace{
		"broken":                                 {Self: true, Inode: 1, Name: "blue", PID: 7},
		"network namespace blue: broken":         {Inode: 1, Name: "blue", PID: 7},
		"network namespace of process 7: broken": {Inode: 1, PID: 7},
		"network namespace 4026532345: broken":   {Inode: 4026532345},
	} {
		err := &TableError{n, TransportTCP, broken}
		require.EqualError(t, err, want)
		require.ErrorIs(t, err, broken)
	}
	require.EqualError(t, &TableError{nil, TransportTCP, broken}, "broken")
}

// A Namespace does not change after it was handed out, and all sockets of a scan share one. What the scan learns is in the next
// value.
func TestNamespaceValues(t *testing.T) {
	diag := &fakeDiag{dumps: []fakeDump{
		{payloads: tcpMessages(7)}, {payloads: tcpMessages(8)}, {err: fmt.Errorf("%w: no such module", errors.ErrUnsupported)},
	}}
	s := newFakeScanner(t, ScannerConfig{
		ProcRoot: proctree.Materialize(t, smallTree), Transports: []Transport{TransportUDP, TransportRaw}, OwnerMethod: OwnersOff,
	}, diag)
	var during *Namespace
	sources := func(n *Namespace) []Source { return []Source{n.SourceOf(TransportUDP), n.SourceOf(TransportRaw)} }
	seen := map[Transport]int{}
	_, errs := scan(s, func(of *Socket) struct{} {
		if during == nil {
			during = of.Namespace
		}
		require.Same(t, during, of.Namespace)
		seen[of.Transport]++
		s.Namespaces() // does not affect the scan
		return struct{}{}
	})
	require.Empty(t, errs)
	require.Equal(t, map[Transport]int{TransportUDP: 2, TransportRaw: 2}, seen)
	require.Equal(t, []Source{SourceNetlink, SourceNetlink}, sources(during))
	after := s.Namespaces()[0]
	require.Equal(t, []Source{SourceNetlink, SourceProcfs}, sources(after))
	require.Equal(t, during.ID, after.ID)
	require.NotZero(t, after.ID)

	_, errs = scan(s, func(of *Socket) struct{} {
		require.Same(t, after, of.Namespace)
		return struct{}{}
	})
	require.Empty(t, errs)
	require.Same(t, after, s.Namespaces()[0], "unchanged")
}

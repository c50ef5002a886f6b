package netstat

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

const fieldsAll = FieldCookie | FieldInterface | FieldCgroupID | FieldAcceptQueue | FieldAcceptQueueLimit | FieldDrops |
	FieldTCPInfo | FieldTCPBytes | FieldTCPSegs

// describe formats a socket in one line: the fields that every source has, and the given fields that the socket has.
func describe(s *Socket, fields Field) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", s.Transport, s.Family, s.State)
	if s.Family != FamilyUnix {
		fmt.Fprintf(&b, " %s %s", s.Local, s.Remote)
	}
	fmt.Fprintf(&b, " inode=%d uid=%d recv=%d send=%d", s.Inode, s.UID, s.RecvQueue, s.SendQueue)
	part := func(field Field, format string, values ...any) {
		if fields&field != 0 && s.Has(field) {
			fmt.Fprintf(&b, format, values...)
		}
	}
	part(FieldAcceptQueue, " accept=%d", s.AcceptQueue)
	part(FieldAcceptQueueLimit, " limit=%d", s.AcceptQueueLimit)
	part(FieldDrops, " drops=%d", s.Drops)
	part(FieldInterface, " interface=%d", s.Interface)
	part(FieldCookie, " cookie=%d", s.Cookie)
	part(FieldCgroupID, " cgroup=%d", s.CgroupID)
	part(FieldTCPInfo, " rtt=%d rttvar=%d minrtt=%d cwnd=%d mss=%d retrans=%d",
		s.TCP.RTT, s.TCP.RTTVar, s.TCP.MinRTT, s.TCP.CWnd, s.TCP.SndMSS, s.TCP.RetransSegs)
	part(FieldTCPBytes, " acked=%d received=%d", s.TCP.BytesAcked, s.TCP.BytesReceived)
	part(FieldTCPSegs, " segs_out=%d segs_in=%d", s.TCP.SegsOut, s.TCP.SegsIn)
	for _, p := range s.Owners() {
		fmt.Fprintf(&b, " %d/%s", p.PID, p.Name)
	}
	return b.String()
}

// newScanner returns a scanner that is closed when the test ends.
func newScanner(tb testing.TB, config ScannerConfig) *Scanner {
	tb.Helper()
	s, err := NewScanner(config)
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, s.Close()) })
	return s
}

// scan returns the results of visit for all sockets, and the errors.
func scan[T any](s *Scanner, visit func(*Socket) T) (seen []T, errs []error) {
	for socket, err := range s.Sockets(context.Background()) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seen = append(seen, visit(socket))
	}
	return seen, errs
}

func inode(s *Socket) uint64 { return s.Inode }

// fakeDiag answers each request with the next of its dumps, and all further ones with an empty dump.
type fakeDiag struct {
	dumps    []fakeDump
	requests []sockdiag.Request
	closed   bool

	devices      map[uint32]string // names by index
	devicesAsked int
}

type fakeDump struct {
	payloads    [][]byte
	interrupted bool
	err         error
}

var _ diagConn = (*fakeDiag)(nil)

func (f *fakeDiag) Dump(ctx context.Context, r sockdiag.Request, socket func(payload []byte) bool) (interrupted bool, err error) {
	f.requests = append(f.requests, r)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if len(f.dumps) == 0 {
		return false, nil
	}
	d := f.dumps[0]
	f.dumps = f.dumps[1:]
	for _, payload := range d.payloads {
		if !socket(payload) {
			return d.interrupted, sockdiag.ErrStopped
		}
	}
	return d.interrupted, d.err
}

func (f *fakeDiag) AppendDeviceName(name []byte, index uint32) ([]byte, error) {
	f.devicesAsked++
	known, ok := f.devices[index]
	if !ok {
		return name, syscall.ENODEV
	}
	return append(name, known...), nil
}

func (f *fakeDiag) Close() error {
	f.closed = true
	return nil
}

// newFakeScanner returns a scanner that sends its requests to diag. Its proc file system is an empty directory unless config has
// another.
func newFakeScanner(tb testing.TB, config ScannerConfig, diag diagConn) *Scanner {
	tb.Helper()
	if config.ProcRoot == "" {
		config.ProcRoot = tb.TempDir()
	}
	s := newScanner(tb, config)
	self := s.namespaces.self
	self.close()
	self.diag, s.stats.Source = diag, SourceNetlink
	return s
}

// tcpMessages returns messages of established connections with these inodes.
func tcpMessages(inodes ...uint32) [][]byte {
	var payloads [][]byte
	for _, inode := range inodes {
		payloads = append(payloads, sockdiagtest.Inet{
			Family: sockdiag.AFInet, State: uint8(TCPEstablished), Local: "192.0.2.1:80", Remote: "198.51.100.7:50000", Inode: inode,
		}.Bytes())
	}
	return payloads
}

// tcpListeners is the index of the request for listening sockets; the others follow.
const tcpListeners, tcpConnections, udp4Sockets = 0, 1, 2

func TestNewScannerErrors(t *testing.T) {
	for _, test := range []struct {
		name   string
		config ScannerConfig
		want   string
	}{
		{"transport 0", ScannerConfig{Transports: []Transport{0}}, "Transport(0) is not a transport"},
		{"transport too high", ScannerConfig{Transports: []Transport{TransportTCP, 7}}, "Transport(7) is not a transport"},
		{"transport twice", ScannerConfig{Transports: []Transport{TransportUDP, TransportTCP, TransportUDP}},
			"transport udp is given twice"},
		{"owners", ScannerConfig{OwnerMethod: 4}, "OwnerMethod(4) is not an owner method"},
		{"source", ScannerConfig{Source: 4}, "Source(4) is not a source"},
		{"not a source to choose", ScannerConfig{Source: SourceMixed}, "mixed is not a source"},
		{"netlink and a copy", ScannerConfig{Source: SourceNetlink, ProcRoot: "testdata"},
			`source "netlink" is required: sock_diag reads the running kernel, but testdata is not its proc file system`},
		{"namespace", ScannerConfig{Namespaces: []string{"self", "a/b"}},
			`network namespace "a/b" is not one of self, host, all, a name in /run/netns, a pid`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := NewScanner(test.config)
			require.EqualError(t, err, test.want)
			require.Nil(t, s)
		})
	}
}

func TestNewScannerCopiesConfig(t *testing.T) {
	transports := []Transport{TransportTCP}
	s := newScanner(t, ScannerConfig{
		ProcRoot: proctree.Materialize(t, smallTree), Transports: transports, Source: SourceProcfs, OwnerMethod: OwnersOff,
	})
	transports[0] = TransportUnix
	families, errs := scan(s, func(s *Socket) Transport { return s.Transport })
	require.Empty(t, errs)
	require.NotContains(t, families, TransportUnix)
}

// text is an enumeration with a text form.
type text interface {
	encoding.TextMarshaler
	encoding.TextUnmarshaler
	fmt.Stringer
}

func TestEnumerationsAsText(t *testing.T) {
	for _, test := range []struct {
		names string
		new   func() text
	}{
		{"tcp, udp, udplite, raw, icmp, unix", func() text { return new(Transport) }},
		{"auto, netlink, procfs", func() text { return new(Source) }},
		{"auto, bpf, procfs, none", func() text { return new(OwnerMethod) }},
		{"off, auto, on", func() text { return new(ClosedMode) }},
	} {
		for name := range strings.SplitSeq(test.names, ", ") {
			value := test.new()
			require.NoError(t, value.UnmarshalText([]byte(name)))
			require.Equal(t, name, value.String())
			written, err := value.MarshalText()
			require.NoError(t, err)
			require.Equal(t, name, string(written))
		}
		for _, name := range []string{"", "TCP", "mixed", "sock_diag\n", "Procfs"} {
			require.EqualError(t, test.new().UnmarshalText([]byte(name)), fmt.Sprintf("%q is not one of %s", name, test.names))
		}
	}
	for value, want := range map[encoding.TextMarshaler]string{
		Transport(0): "Transport(0) is invalid", Transport(7): "Transport(7) is invalid", Source(4): "Source(4) is invalid",
		OwnerMethod(200): "OwnerMethod(200) is invalid", ClosedMode(3): "ClosedMode(3) is invalid",
	} {
		_, err := value.MarshalText()
		require.EqualError(t, err, want)
	}
}

func TestNamesOfUnknownNumbers(t *testing.T) {
	for _, test := range []struct {
		value fmt.Stringer
		want  string
	}{
		{Transport(0), "Transport(0)"},
		{Transport(255), "Transport(255)"},
		{Family(0), "Family(0)"},
		{FamilyIPv4, "ipv4"},
		{FamilyIPv6, "ipv6"},
		{FamilyUnix, "unix"},
		{Family(9), "Family(9)"},
		{Source(9), "Source(9)"},
		{OwnerMethod(9), "OwnerMethod(9)"},
	} {
		require.Equal(t, test.want, test.value.String())
	}
}

// With the copy of a proc file system, the scanner reads nothing of the host.
func TestScannerReadsCopy(t *testing.T) {
	UseLittleEndian(t)
	s := newScanner(t, ScannerConfig{
		ProcRoot: proctree.Materialize(t, smallTree),
		Warn:     func(err error) { t.Error("warned of", err) },
	})
	sockets, errs := scan(s, func(s *Socket) string { return describe(s, fieldsAll) })
	require.Empty(t, errs)
	require.Equal(t, SourceProcfs, s.Stats().Source)
	require.Equal(t, OwnersProcfs, s.Stats().OwnerMethod)
	require.Equal(t, len(sockets), s.Stats().Sockets)
	require.Equal(t, 7, s.Stats().Processes)
	require.Contains(t, sockets, "tcp ipv4 LISTEN 0.0.0.0:80 0.0.0.0:0 inode=20020 uid=0 recv=0 send=0 accept=1 1001/nginx 1002/nginx")
	require.Contains(t, sockets,
		"tcp ipv4 ESTABLISHED 192.0.2.10:80 198.51.100.7:50000 inode=20021 uid=33 recv=256 send=80 1002/nginx")
	require.True(t, slices.IsSortedFunc(sockets, func(a, b string) int {
		return strings.Compare(a[:3], b[:3])
	}), "transport by transport")
}

func TestScannerRequests(t *testing.T) {
	for _, test := range []struct {
		transport Transport
		want      []sockdiag.Request
	}{
		{TransportTCP, []sockdiag.Request{
			tcpListeners:   {Protocol: sockdiag.ProtocolTCP, States: sockdiag.StatesListen, MemInfo: true},
			tcpConnections: {Protocol: sockdiag.ProtocolTCP, States: sockdiag.StatesConnected, TCPInfo: true},
		}},
		{TransportUDP, []sockdiag.Request{
			{Family: sockdiag.AFInet, Protocol: sockdiag.ProtocolUDP, States: sockdiag.StatesAll, MemInfo: true},
			{Family: sockdiag.AFInet6, Protocol: sockdiag.ProtocolUDP, States: sockdiag.StatesAll, MemInfo: true},
		}},
		{TransportUDPLite, []sockdiag.Request{
			{Family: sockdiag.AFInet, Protocol: sockdiag.ProtocolUDPLite, States: sockdiag.StatesAll, MemInfo: true},
			{Family: sockdiag.AFInet6, Protocol: sockdiag.ProtocolUDPLite, States: sockdiag.StatesAll, MemInfo: true},
		}},
		{TransportRaw, []sockdiag.Request{
			{Family: sockdiag.AFInet, Protocol: sockdiag.ProtocolRaw, States: sockdiag.StatesAll, MemInfo: true},
			{Family: sockdiag.AFInet6, Protocol: sockdiag.ProtocolRaw, States: sockdiag.StatesAll, MemInfo: true},
		}},
		{TransportUnix, []sockdiag.Request{{Family: sockdiag.AFUnix, States: sockdiag.StatesAll}}},
		{TransportICMP, nil}, // sock_diag lacks them
	} {
		t.Run(test.transport.String(), func(t *testing.T) {
			diag := &fakeDiag{}
			config := ScannerConfig{Transports: []Transport{test.transport}, TCPInfo: true, OwnerMethod: OwnersOff}
			_, errs := scan(newFakeScanner(t, config, diag), inode)
			require.Empty(t, errs)
			require.Equal(t, test.want, diag.requests)
		})
	}
}

func TestScannerFallsBackToProcfs(t *testing.T) {
	refused := fmt.Errorf("%w: no such module", errors.ErrUnsupported)
	diag := &fakeDiag{dumps: []fakeDump{{err: refused}}}
	var warned []string
	s := newFakeScanner(t, ScannerConfig{
		ProcRoot:   proctree.Materialize(t, smallTree),
		Transports: []Transport{TransportRaw, TransportICMP},
		Warn:       func(err error) { warned = append(warned, err.Error()) },
	}, diag)
	for range 3 {
		transports, errs := scan(s, func(s *Socket) Transport { return s.Transport })
		require.Empty(t, errs)
		require.Equal(t, []Transport{TransportRaw, TransportRaw, TransportICMP, TransportICMP}, transports)
		require.Equal(t, SourceProcfs, s.Stats().Source)
	}
	require.Equal(t, []string{"reading raw sockets from /proc/net: sock_diag is unavailable for this transport: " +
		"unsupported operation: no such module (module raw_diag)"}, warned)
	require.Len(t, diag.requests, 1, "a transport that was refused is not requested again")
}

func TestScannerWithoutWarn(t *testing.T) {
	diag := &fakeDiag{dumps: []fakeDump{{err: errors.ErrUnsupported}}}
	_, errs := scan(newFakeScanner(t, ScannerConfig{Transports: []Transport{TransportRaw}}, diag), inode)
	require.Empty(t, errs)
}

// A failed dump is reported, and all other sockets are handed out once.
func TestScannerDumpErrors(t *testing.T) {
	broken := errors.New("input/output error")
	tree := proctree.Materialize(t, smallTree)
	for _, test := range []struct {
		name       string
		dumps      []fakeDump
		wantInodes []uint64
		wantErrs   []string
		requests   int
	}{
		{
			name: "before the first socket",
			dumps: []fakeDump{
				tcpListeners:   {err: broken},
				tcpConnections: {payloads: tcpMessages(3)},
			},
			wantInodes: []uint64{3},
			wantErrs:   []string{"reading tcp sockets by sock_diag: input/output error"},
			requests:   2,
		},
		{
			name: "within two dumps",
			dumps: []fakeDump{
				tcpListeners:   {payloads: tcpMessages(1, 2), err: broken},
				tcpConnections: {payloads: tcpMessages(3), err: broken},
			},
			wantInodes: []uint64{1, 2, 3},
			wantErrs: []string{"reading tcp sockets by sock_diag: input/output error\n" +
				"reading tcp sockets by sock_diag: input/output error"},
			requests: 2,
		},
		{
			name:       "not supported, too late for another source",
			dumps:      []fakeDump{tcpListeners: {payloads: tcpMessages(1)}, tcpConnections: {err: errors.ErrUnsupported}},
			wantInodes: []uint64{1},
			wantErrs:   []string{"reading tcp sockets by sock_diag: unsupported operation"},
			requests:   2,
		},
		{
			name:       "not supported after the first socket",
			dumps:      []fakeDump{tcpListeners: {payloads: tcpMessages(1), err: errors.ErrUnsupported}},
			wantInodes: []uint64{1},
			wantErrs:   []string{"reading tcp sockets by sock_diag: unsupported operation"},
			requests:   2,
		},
		{
			name:     "a silent kernel gets no second request",
			dumps:    []fakeDump{tcpListeners: {err: fmt.Errorf("%w in 5s", sockdiag.ErrNoAnswer)}},
			wantErrs: []string{"reading tcp sockets by sock_diag: no answer from the kernel in 5s"},
			requests: 1,
		},
		{
			name: "a message that cannot be decoded",
			dumps: []fakeDump{tcpConnections: {payloads: [][]byte{
				tcpMessages(1)[0],
				make([]byte, 71),
				sockdiagtest.Inet{Family: 99, Local: "192.0.2.1:1", Remote: "192.0.2.1:1"}.Bytes(),
				sockdiagtest.Inet{
					Family: sockdiag.AFInet, State: uint8(TCPListen), Local: "192.0.2.1:1", Remote: "192.0.2.1:1",
					Attributes: []byte{1, 0, sockdiag.InetInfo, 0},
				}.Bytes(),
				tcpMessages(2)[0],
			}}},
			wantInodes: []uint64{1, 2},
			wantErrs: []string{
				"inet_diag_msg of 71 bytes: message is cut off",
				"inet_diag_msg of unknown address family 99",
				"attributes of inet_diag_msg: message is cut off",
			},
			requests: 2,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			diag := &fakeDiag{dumps: test.dumps}
			s := newFakeScanner(t, ScannerConfig{
				ProcRoot:   tree,
				Transports: []Transport{TransportTCP},
				Warn:       func(err error) { t.Error("warned of", err) },
			}, diag)
			inodes, errs := scan(s, inode)
			require.Equal(t, test.wantInodes, inodes)
			require.Equal(t, test.wantErrs, messages(errs))
			require.Len(t, diag.requests, test.requests)
			require.Equal(t, len(test.wantInodes), s.Stats().Sockets)
		})
	}
}

// A kernel that does not answer gets one request per transport.
func TestScannerSilentKernel(t *testing.T) {
	silent := fakeDump{err: fmt.Errorf("%w in 5s", sockdiag.ErrNoAnswer)}
	diag := &fakeDiag{dumps: slices.Repeat([]fakeDump{silent}, 20)}
	s := newFakeScanner(t, ScannerConfig{
		OwnerMethod: OwnersOff, Transports: []Transport{TransportTCP, TransportUDP, TransportUDPLite, TransportRaw, TransportUnix},
	}, diag)
	sockets, errs := scan(s, inode)
	require.Empty(t, sockets)
	require.Len(t, errs, 5, "one per transport")
	for _, err := range errs {
		require.ErrorIs(t, err, sockdiag.ErrNoAnswer)
	}
	require.Len(t, diag.requests, 5)
}

func messages(errs []error) []string {
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return texts
}

func TestScannerUnixDumpError(t *testing.T) {
	diag := &fakeDiag{dumps: []fakeDump{{payloads: [][]byte{{sockdiag.AFUnix}, make([]byte, 16)}}}}
	sockets, errs := scan(newFakeScanner(t, ScannerConfig{Transports: []Transport{TransportUnix}}, diag), inode)
	require.Empty(t, sockets)
	require.Equal(t, []string{
		"unix_diag_msg of 1 bytes: message is cut off",
		"unix_diag_msg of unknown address family 0",
	}, messages(errs))
}

func TestScannerCountsInterruptedDumps(t *testing.T) {
	diag := &fakeDiag{dumps: []fakeDump{
		tcpListeners:    {interrupted: true, payloads: tcpMessages(1)},
		tcpConnections:  {payloads: tcpMessages(2)},
		udp4Sockets:     {interrupted: true},
		udp4Sockets + 1: {interrupted: true, err: errors.New("failed")},
	}}
	s := newFakeScanner(t, ScannerConfig{}, diag)
	inodes, errs := scan(s, inode)
	require.Equal(t, []uint64{1, 2}, inodes)
	require.Len(t, errs, 1)
	require.Equal(t, 3, s.Stats().Interrupted)

	_, errs = scan(s, inode)
	require.Empty(t, errs)
	require.Zero(t, s.Stats().Interrupted, "the last scan counts")
}

func TestScannerStops(t *testing.T) {
	diag := &fakeDiag{dumps: []fakeDump{tcpListeners: {payloads: tcpMessages(1, 2, 3)}}}
	s := newFakeScanner(t, ScannerConfig{}, diag)
	for _, err := range s.Sockets(t.Context()) {
		require.NoError(t, err)
		break
	}
	require.Equal(t, 1, s.Stats().Sockets)
	require.Len(t, diag.requests, 1)

	t.Run("at an error", func(t *testing.T) {
		diag := &fakeDiag{dumps: []fakeDump{
			tcpListeners: {payloads: [][]byte{nil, tcpMessages(1)[0]}},
		}}
		for _, err := range newFakeScanner(t, ScannerConfig{}, diag).Sockets(t.Context()) {
			require.ErrorIs(t, err, sockdiag.ErrShort)
			break
		}
		require.Len(t, diag.requests, 1)
	})
	t.Run("at the error of a part", func(t *testing.T) {
		diag := &fakeDiag{dumps: []fakeDump{tcpListeners: {err: sockdiag.ErrNoAnswer}}}
		for _, err := range newFakeScanner(t, ScannerConfig{}, diag).Sockets(t.Context()) {
			require.ErrorContains(t, err, sockdiag.ErrNoAnswer.Error())
			break
		}
		require.Len(t, diag.requests, 1, "udp is not requested")
	})
	t.Run("at the error of the owners", func(t *testing.T) {
		diag := &fakeDiag{}
		s := newFakeScanner(t, ScannerConfig{}, diag)
		s.finder = failingFinder{}
		for _, err := range s.Sockets(t.Context()) {
			require.ErrorIs(t, err, errFinder)
			break
		}
		require.Empty(t, diag.requests)
	})
	t.Run("in a table", func(t *testing.T) {
		s := newScanner(t, ScannerConfig{ProcRoot: proctree.Materialize(t, smallTree)})
		for _, err := range s.Sockets(t.Context()) {
			require.NoError(t, err)
			break
		}
		require.Equal(t, 1, s.Stats().Sockets)
	})
}

// The end of the context is the last error, and is reported once.
func TestScannerContextEnds(t *testing.T) {
	for _, test := range []struct {
		name       string
		endsAt     uint64 // inode of the socket at which the context ends; 0: before the scan
		wantInodes []uint64
	}{
		{"before", 0, nil},
		{"in a dump", 1, []uint64{1, 2}}, // fakeDiag checks the context between dumps, a real one between buffers
		{"with the last socket of a dump", 2, []uint64{1, 2}},
		{"with the last socket of a transport", 4, []uint64{1, 2, 3, 4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			diag := &fakeDiag{dumps: []fakeDump{
				tcpListeners:    {payloads: tcpMessages(1, 2)},
				tcpConnections:  {payloads: tcpMessages(3)},
				udp4Sockets:     {payloads: tcpMessages(4)},
				udp4Sockets + 1: {payloads: tcpMessages(5)},
			}}
			s := newFakeScanner(t, ScannerConfig{}, diag)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if test.endsAt == 0 {
				cancel()
			}
			var inodes []uint64
			var errs []error
			for socket, err := range s.Sockets(ctx) {
				if err != nil {
					errs = append(errs, err)
					continue
				}
				inodes = append(inodes, socket.Inode)
				if socket.Inode == test.endsAt {
					cancel()
				}
			}
			require.Equal(t, test.wantInodes, inodes)
			require.Equal(t, []error{context.Canceled}, errs)
		})
	}
}

func TestScannerContextEndsAtError(t *testing.T) {
	diag := &fakeDiag{dumps: []fakeDump{tcpListeners: {err: sockdiag.ErrNoAnswer}}}
	s := newFakeScanner(t, ScannerConfig{}, diag)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs []error
	for _, err := range s.Sockets(ctx) {
		errs = append(errs, err)
		cancel()
	}
	require.Len(t, errs, 2)
	require.ErrorContains(t, errs[0], sockdiag.ErrNoAnswer.Error())
	require.Equal(t, context.Canceled, errs[1])
}

func TestScannerContextEndsInTable(t *testing.T) {
	const rows = 5000
	var table strings.Builder
	table.WriteString("header\n")
	for i := range rows {
		fmt.Fprintf(&table, "%d: 0100007F:0050 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 %d 1\n", i, i+1)
	}
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "net"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "net", "tcp"), []byte(table.String()), 0o600))
	s := newScanner(t, ScannerConfig{ProcRoot: root, OwnerMethod: OwnersOff})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := 0
	var errs []error
	for _, err := range s.Sockets(ctx) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if seen++; seen == 10 {
			cancel()
		}
	}
	require.Equal(t, []error{context.Canceled}, errs)
	require.Less(t, seen, rows/2)

	seen = 0
	for _, err := range s.Sockets(ctx) {
		require.Equal(t, context.Canceled, err)
		seen++
	}
	require.Equal(t, 1, seen, "no socket after the end of the context")
}

var errFinder = errors.New("no processes today")

type failingFinder struct{ noOwners }

func (failingFinder) refresh(context.Context, *ownerTable) (ownerStats, error) {
	return ownerStats{processes: 1, denied: 2}, errFinder
}

func TestScannerOwnerErrors(t *testing.T) {
	diag := &fakeDiag{dumps: []fakeDump{tcpConnections: {payloads: tcpMessages(1, 2)}}}
	s := newFakeScanner(t, ScannerConfig{}, diag)
	s.finder = failingFinder{}
	inodes, errs := scan(s, inode)
	require.Equal(t, []error{errFinder}, errs)
	require.Equal(t, []uint64{1, 2}, inodes)
	require.Equal(t, 1, s.Stats().Processes)
	require.Equal(t, 2, s.Stats().Denied)
}

func TestScannerWithoutProcRoot(t *testing.T) {
	root := filepath.Join(t.TempDir(), "missing")
	diag := &fakeDiag{dumps: []fakeDump{tcpConnections: {payloads: tcpMessages(1)}}}
	s := newFakeScanner(t, ScannerConfig{ProcRoot: root}, diag)
	inodes, errs := scan(s, inode)
	require.Equal(t, []uint64{1}, inodes)
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], fs.ErrNotExist)
	require.ErrorContains(t, errs[0], "proc file system")

	s = newScanner(t, ScannerConfig{ProcRoot: root, OwnerMethod: OwnersOff})
	inodes, errs = scan(s, inode)
	require.Empty(t, inodes)
	require.Len(t, errs, 1, "a missing udp table is a warning; a missing tcp table is an error")
	require.ErrorIs(t, errs[0], fs.ErrNotExist)
	require.ErrorContains(t, errs[0], "opening the tcp table: open "+filepath.Join(root, "net", "tcp"))
}

func TestScannerMissingTables(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	for _, table := range []string{"tcp6", "udplite", "udplite6", "unix"} {
		require.NoError(t, os.Remove(filepath.Join(root, "net", table)))
	}
	var warned []string
	s := newScanner(t, ScannerConfig{
		ProcRoot:   root,
		Transports: []Transport{TransportTCP, TransportUDPLite, TransportUnix},
		Warn:       func(err error) { warned = append(warned, err.Error()) },
	})
	for range 2 {
		transports, errs := scan(s, func(s *Socket) Transport { return s.Transport })
		require.Empty(t, errs)
		require.Equal(t, []Transport{TransportTCP}, slices.Compact(transports))
	}
	require.Len(t, warned, 2)
	require.Regexp(t, `^the kernel has no udplite sockets: opening the udplite table: open .*net/udplite: `, warned[0])
	require.Regexp(t, `^the kernel has no unix sockets: opening the unix table: open .*net/unix: `, warned[1])
}

func TestScannerBrokenRows(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	table := filepath.Join(root, "net", "tcp")
	content, err := os.ReadFile(table)
	require.NoError(t, err)
	lines := strings.SplitAfter(string(content), "\n")
	lines[1] = "0: broken\n"
	lines[3] = "2: 0100007F:XYZ 0 0 0 0 0 0 0 0\n"
	require.NoError(t, os.WriteFile(table, []byte(strings.Join(lines, "")), 0o600))

	s := newScanner(t, ScannerConfig{ProcRoot: root})
	inodes, errs := scan(s, inode)
	require.Equal(t, []string{
		table + `:2: row "0: broken" has 2 columns, at least 10 expected (and 1 more)`,
	}, messages(errs))
	require.Contains(t, inodes, uint64(20020))
	require.NotContains(t, inodes, uint64(20021))
}

func TestScannerClose(t *testing.T) {
	diag := &fakeDiag{}
	s, err := NewScanner(ScannerConfig{ProcRoot: proctree.Materialize(t, smallTree)})
	require.NoError(t, err)
	s.namespaces.self.diag = diag
	_, errs := scan(s, inode)
	require.Empty(t, errs)
	require.NoError(t, s.Close())
	require.True(t, diag.closed)
}

// Owners returns the owners of the current socket of the loop.
func TestSocketOwners(t *testing.T) {
	s := newScanner(t, ScannerConfig{ProcRoot: proctree.Materialize(t, smallTree)})
	owners := map[uint64][]string{}
	_, errs := scan(s, func(s *Socket) struct{} {
		for range 2 { // both calls return the same
			owners[s.Inode] = nil
			for _, p := range s.Owners() {
				owners[s.Inode] = append(owners[s.Inode], fmt.Sprintf("%d/%s", p.PID, p.Name))
			}
		}
		return struct{}{}
	})
	require.Empty(t, errs)
	require.Equal(t, []string{"1001/nginx", "1002/nginx"}, owners[20020])
	require.Equal(t, []string{"1/systemd", "700/sshd"}, owners[20010])
	require.Empty(t, owners[0])

	s = newScanner(t, ScannerConfig{ProcRoot: proctree.Materialize(t, smallTree), OwnerMethod: OwnersOff})
	_, errs = scan(s, func(s *Socket) struct{} {
		require.Empty(t, s.Owners())
		return struct{}{}
	})
	require.Empty(t, errs)
	require.Equal(t, OwnersOff, s.Stats().OwnerMethod)
}

// A clone keeps its owners. A plain copy has no owners once the loop has moved on.
func TestSocketClone(t *testing.T) {
	s := newScanner(t, ScannerConfig{ProcRoot: proctree.Materialize(t, smallTree)})
	names := func(s *Socket) (names []string) {
		for _, p := range s.Owners() {
			names = append(names, fmt.Sprintf("%d/%s", p.PID, p.Name))
		}
		return names
	}
	type kept struct {
		clone       *Socket
		copy, asked Socket
		want        []string
	}
	var all []kept
	collect := func(s *Socket) struct{} {
		k := kept{copy: *s, clone: s.Clone(), want: names(s)}
		k.asked = *s // a copy after the owner lookup
		require.Equal(t, k.want, names(&k.asked))
		all = append(all, k)
		return struct{}{}
	}
	requireKept := func() {
		t.Helper()
		for i, k := range all {
			require.Equal(t, k.want, names(k.clone))
			require.Equal(t, k.want, names(k.clone.Clone()), "clone of a clone")
			if i < len(all)-1 { // the last one is still the current socket
				require.Empty(t, names(&k.copy))
				require.Empty(t, names(&k.asked))
			}
			require.Equal(t, []any{k.copy.Local, k.copy.Inode, k.copy.Namespace}, []any{k.clone.Local, k.clone.Inode, k.clone.Namespace})
		}
	}
	_, errs := scan(s, collect)
	require.Empty(t, errs)
	require.Greater(t, len(all), 10)
	requireKept()
	held := 0
	for _, k := range all {
		held += len(k.want)
	}
	require.Greater(t, held, 3)
	last := all[len(all)-1]
	require.NoError(t, s.findOwners(t.Context()))
	require.Empty(t, names(&last.copy), "after the next owner lookup")
	for i, err := range s.Sockets(t.Context()) { // which looks up owners again
		require.NoError(t, err)
		require.NotNil(t, i)
		require.Empty(t, names(&last.copy))
		break
	}
	requireKept()
	require.NoError(t, s.Close())
	requireKept()
}

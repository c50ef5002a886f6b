package netstat

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

func TestOutcomeOf(t *testing.T) {
	for _, test := range []struct {
		end  bpf.End
		want Outcome
	}{
		{bpf.End{Failed: true}, OutcomeConnectAborted},
		{bpf.End{Failed: true, NoPort: true}, OutcomeConnectNoPort},
		{bpf.End{Failed: true, Error: uint16(syscall.ECONNABORTED)}, OutcomeConnectAborted},
		{bpf.End{Failed: true, Error: uint16(syscall.ECONNREFUSED)}, OutcomeConnectRefused},
		{bpf.End{Failed: true, Error: uint16(syscall.ECONNRESET), NoPort: true}, OutcomeConnectNoPort},
		{bpf.End{Failed: true, Error: uint16(syscall.ECONNRESET)}, OutcomeConnectRefused},
		{bpf.End{Failed: true, Error: uint16(syscall.ETIMEDOUT)}, OutcomeConnectTimedOut},
		{bpf.End{Failed: true, Error: uint16(syscall.EHOSTUNREACH)}, OutcomeConnectUnreachable},
		{bpf.End{Failed: true, Error: uint16(syscall.ENETUNREACH)}, OutcomeConnectUnreachable},
		{bpf.End{Failed: true, Error: uint16(syscall.ENOPROTOOPT)}, OutcomeConnectUnreachable},
		{bpf.End{Failed: true, Error: uint16(syscall.EACCES)}, OutcomeConnectUnreachable},
		{bpf.End{Failed: true, SoftError: uint16(syscall.EHOSTUNREACH)}, OutcomeConnectUnreachable},
		{bpf.End{Failed: true, SoftError: uint16(syscall.ECONNREFUSED)}, OutcomeConnectRefused},
		{bpf.End{Failed: true, Error: uint16(syscall.ETIMEDOUT), SoftError: uint16(syscall.EHOSTUNREACH)}, OutcomeConnectTimedOut},
		{bpf.End{Error: uint16(syscall.ECONNRESET)}, OutcomeReset},
		{bpf.End{Error: uint16(syscall.EPIPE)}, OutcomeReset},
		{bpf.End{Error: uint16(syscall.ETIMEDOUT)}, OutcomeTimedOut},
		{bpf.End{Error: uint16(syscall.EHOSTUNREACH), SoftError: uint16(syscall.EHOSTUNREACH)}, OutcomeTimedOut},
		{bpf.End{Error: uint16(syscall.EHOSTUNREACH)}, OutcomeUnknown}, // IP_RECVERR
		{bpf.End{SoftError: uint16(syscall.EHOSTUNREACH)}, OutcomeUnknown},
		{bpf.End{Error: uint16(syscall.ECONNABORTED)}, OutcomeUnknown}, // ss -K
	} {
		require.Equal(t, test.want, outcomeOf(&test.end), "%+v", test.end)
	}
}

// fakeEnds are records with the ends of a test, which are drained once.
type fakeEnds struct {
	attempts map[uint64]bpf.Connect
	ends     []bpf.End
	lost     uint64
}

func (f *fakeEnds) Lookup(cookie uint64) (bpf.Connect, bool) {
	connect, ok := f.attempts[cookie]
	return connect, ok
}

func (f *fakeEnds) Drain(each func(*bpf.End)) {
	for i := range f.ends {
		each(&f.ends[i])
	}
	f.ends = nil
}

func (f *fakeEnds) Lost() uint64 { return f.lost }

func (*fakeEnds) Wait(func()) {}
func (*fakeEnds) Close()      {}

const testNetNS = 7

// endsOfTest is a namespace whose ends are those of a test.
type endsOfTest struct {
	*fakeEnds
	connects *connects
	ends     *endQueue
	destroy  *closedQueue
}

func newEndsOfTest(t *testing.T, budget int) *endsOfTest {
	t.Helper()
	e := &endsOfTest{fakeEnds: &fakeEnds{attempts: map[uint64]bpf.Connect{}}, connects: &connects{}}
	e.connects.open(e.fakeEnds)
	t.Cleanup(e.connects.Close)
	e.destroy = testQueue(newClosedBudget(budget), e.connects)
	e.ends = e.destroy.ends
	e.connects.follow(testNetNS, e.ends)
	return e
}

// end is an attempt of the socket with the cookie that was refused, unless it is another one.
func (e *endsOfTest) end(cookie uint64, change func(*bpf.End)) {
	end := bpf.End{
		Cookie: cookie, NetNS: testNetNS, Failed: true, Error: uint16(syscall.ECONNREFUSED), Device: 3, SegsOut: 2, SegsIn: 1,
		Local: netip.MustParseAddrPort("127.0.0.1:5000"), Remote: netip.MustParseAddrPort("127.0.0.2:6000"),
		Connect: bpf.Connect{Attempt: bpf.Attempt{Number: uint32(cookie), ConnectTime: 1500, SynRetrans: 1}},
	}
	if change != nil {
		change(&end)
	}
	e.fakeEnds.ends = append(e.fakeEnds.ends, end)
}

func wasReset(e *bpf.End) { e.Failed, e.Error = false, uint16(syscall.ECONNRESET) }

// destroyed is the event of a destroyed socket, with the bytes that the peer has acknowledged.
func (e *endsOfTest) destroyed(cookie, acknowledged uint64) {
	m := closedMessage(cookie)
	if acknowledged == 0 {
		m = mustParseInet(sockdiagtest.Inet{
			Family: sockdiag.AFInet, State: uint8(TCPClose), Local: "127.0.0.1:5000", Remote: "127.0.0.2:6000", Cookie: cookie,
			Attributes: attribute(sockdiag.InetInfo, make([]byte, 248)),
		}.Bytes())
	}
	e.destroy.add(m)
}

// taken describes what a scan takes.
func (e *endsOfTest) taken() (taken []string) {
	all := takenClosed{chunks: e.destroy.takeChunks(e.connects.takeEnds(e.ends, nil))}
	var s Socket
	for {
		connect, isKnown, ok := all.next(&s)
		if !ok {
			return taken
		}
		description := s.Outcome.String()
		if !s.Closed {
			description += ", held"
		}
		if isKnown {
			description += ", " + time.Duration(connect.ConnectTime*uint32(time.Microsecond)).String()
		}
		taken = append(taken, description)
	}
}

// Each failed attempt is taken once, when it has failed, and the destruction of its socket is no second end.
func TestFailedAttemptsAreTakenOnce(t *testing.T) {
	const refused = "connect refused, 1.5ms"
	e := newEndsOfTest(t, maxClosed)
	e.end(1, nil)
	require.Equal(t, []string{refused}, e.taken())
	require.Empty(t, e.taken())
	e.destroyed(1, 0)
	require.Empty(t, e.taken(), "destroyed after a scan")

	e.end(2, nil)
	e.destroyed(2, 0)
	require.Equal(t, []string{refused}, e.taken(), "destroyed before the scan")

	for range 3 {
		e.end(3, nil)
	}
	require.Equal(t, []string{refused, refused, refused}, e.taken(), "attempts of the same socket")
	e.attempts[3] = bpf.Connect{Attempt: bpf.Attempt{Number: 9, ConnectTime: 700}}
	e.destroyed(3, 102)
	require.Equal(t, []string{"closed, 700µs"}, e.taken(), "established by the fourth attempt")

	e.end(4, nil)
	e.taken()
	e.destroyed(4, 102)
	require.Equal(t, []string{"closed"}, e.taken(), "established by an attempt whose record is gone")

	e.attempts[5] = bpf.Connect{Attempt: bpf.Attempt{Number: 5}}
	e.destroyed(5, 0)
	require.Empty(t, e.taken(), "its end was lost")
	require.Equal(t, 1, e.connects.takeLost())

	e.destroyed(6, 0)
	require.Equal(t, []string{"closed"}, e.taken(), "accepted, and closed before anything was sent")

	e.attempts[7] = bpf.Connect{Attempt: bpf.Attempt{Number: 7}}
	e.destroyed(7, 102)
	require.Equal(t, []string{"closed, 0s"}, e.taken(), "established, but the program could not see it")
}

// A connection that was reset is taken when it was, if its process still holds the socket then, and when its socket is destroyed.
func TestHeldConnections(t *testing.T) {
	e := newEndsOfTest(t, maxClosed)
	e.end(1, wasReset)
	require.Equal(t, []string{"reset, held, 1.5ms"}, e.taken())
	require.Empty(t, e.taken())
	e.destroyed(1, 102)
	require.Equal(t, []string{"reset"}, e.taken())

	e.end(2, wasReset)
	e.destroyed(2, 102)
	require.Equal(t, []string{"reset"}, e.taken(), "destroyed before the scan")
	e.end(3, wasReset)
	e.end(4, func(e *bpf.End) { wasReset(e); e.Error = uint16(syscall.ETIMEDOUT) })
	e.destroyed(3, 102)
	require.Equal(t, []string{"timed out, held, 1.5ms", "reset"}, e.taken())
	e.destroyed(3, 102)
	require.Equal(t, []string{"closed"}, e.taken(), "the outcome is forgotten")
	require.Zero(t, e.connects.takeLost())
}

// Ends are those of the namespaces that are read, and the number of a namespace can be that of another one later.
func TestEndsOfNamespaces(t *testing.T) {
	e := newEndsOfTest(t, maxClosed)
	other := newEndQueue(newClosedBudget(maxClosed))
	e.end(1, func(e *bpf.End) { e.NetNS = 8 })
	require.Empty(t, e.taken())
	e.end(2, func(e *bpf.End) { e.NetNS = 8 })
	e.connects.follow(8, other)
	require.Empty(t, other.takeChunks(nil), "before it is followed")
	e.end(3, func(e *bpf.End) { e.NetNS = 8 })
	require.Empty(t, e.taken())
	require.Equal(t, 1, other.waiting())

	e.end(4, nil)
	second := newEndQueue(newClosedBudget(maxClosed))
	e.connects.follow(testNetNS, second)
	e.connects.unfollow(testNetNS, second)
	e.end(5, nil)
	e.connects.follow(testNetNS, second)
	e.connects.unfollow(testNetNS, e.ends)
	require.Len(t, e.taken(), 2, "until then")
	e.end(6, nil)
	e.connects.drain()
	require.Empty(t, e.taken())
	require.Equal(t, 1, second.waiting(), "the queue that is left")
	e.connects.unfollow(testNetNS, second)
	require.Len(t, e.connects.queues, 1)
}

// What there is no room for is counted, once.
func TestLostEnds(t *testing.T) {
	e := newEndsOfTest(t, 4*closedChunkLen)
	e.lost = 5
	e.connects.drain()
	require.Equal(t, 5, e.connects.takeLost())
	require.Zero(t, e.connects.takeLost())
	const sockets = 1000
	for i := range uint64(sockets) {
		e.end(1+i, nil)
	}
	e.lost++
	taken := len(e.taken())
	require.Less(t, taken, sockets)
	require.Equal(t, sockets-taken+1, e.connects.takeLost())
}

// Ends of sockets whose events never come are forgotten after a while, the oldest first, and take no room from other namespaces.
func TestHeldEndsAreBounded(t *testing.T) {
	e := newEndsOfTest(t, 16*maxHeld)
	other := newEndQueue(e.ends.budget)
	e.connects.follow(8, other)
	e.end(1, func(e *bpf.End) { wasReset(e); e.NetNS = 8 })
	e.connects.drain()
	e.connects.takeEnds(other, nil)
	for i := range uint64(3 * maxHeld) {
		e.end(1+i, wasReset)
		if i%1000 == 0 {
			e.taken()
		}
	}
	e.taken()
	require.LessOrEqual(t, len(e.ends.held[0])+len(e.ends.held[1]), maxHeld/2)
	e.destroyed(3*maxHeld, 102)
	e.destroyed(1, 102)
	require.Equal(t, []string{"reset", "closed"}, e.taken(), "a recent one, and the oldest")
	outcome, _ := other.forget(1)
	require.Equal(t, OutcomeReset, outcome)
	require.Zero(t, e.connects.takeLost())
}

// An attempt whose end was not reported is lost once, also if the program has counted it.
func TestMissedEnds(t *testing.T) {
	e := newEndsOfTest(t, maxClosed)
	for cookie := range uint64(10) {
		e.attempts[1+cookie] = bpf.Connect{Attempt: bpf.Attempt{Number: uint32(1 + cookie)}}
	}
	e.end(1, nil)
	e.destroyed(1, 0)
	require.Zero(t, e.connects.takeLost())
	e.destroyed(2, 0)
	e.destroyed(3, 0)
	require.Equal(t, 2, e.connects.takeLost())
	e.lost = 2
	e.destroyed(4, 0)
	e.destroyed(5, 0)
	require.Equal(t, 2, e.connects.takeLost())
	e.destroyed(6, 0)
	require.Equal(t, 1, e.connects.takeLost())
	e.destroyed(11, 0)
	require.Zero(t, e.connects.takeLost(), "not known")

	for i := range uint64(maxHeld) {
		e.end(100+i, wasReset)
	}
	e.taken()
	e.end(7, nil)
	e.taken()
	e.destroyed(7, 0)
	require.Zero(t, e.connects.takeLost(), "reported, but not held")
}

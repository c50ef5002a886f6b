//go:build linux

package procnetstat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// closed returns the connection of sent as the event of its end shows it.
func closed(cookie, bytes uint64) *netstat.Socket {
	s := sent(cookie, bytes)
	s.Closed, s.State = true, netstat.TCPClose
	s.Local, s.Remote = netip.MustParseAddrPort("192.0.2.1:50000"), netip.MustParseAddrPort("198.51.100.1:443")
	return s
}

// listening are the flows of one namespace with events of closed sockets.
type listening struct {
	flows
	in *scope
}

func newListening() *listening {
	return &listening{flows: newFlows(everyDetail), in: &scope{namespace: &own, read: tcpOnly, closedEvents: true}}
}

// pass is a pass over the sockets, live ones first.
func (l *listening) pass(sockets ...*netstat.Socket) (sum traffic) {
	l.enter(l.in)
	for _, s := range sockets {
		if s.Closed {
			_, did := l.destroyed(s)
			sum.add(&did)
			continue
		}
		sum.addLive(&l.flows, s)
	}
	l.end(&scopes{protocols: tcpOnly, all: []*scope{l.in}})
	return sum
}

// addLive adds what a live socket did since the previous pass.
func (t *traffic) addLive(f *flows, s *netstat.Socket) {
	var did traffic
	if _, idle := f.live(s, &did); !idle {
		t.add(&did)
	}
}

func with(t traffic, opened, closed int64) traffic {
	t[countOpened], t[countClosed] = opened, closed
	return t
}

// What a connection did until its end counts once, whenever the event arrives.
func TestClosedConnections(t *testing.T) {
	l := newListening()
	require.Zero(t, l.pass(sent(1, 100), closed(8, 50)), "what was before is not replayed")
	require.Equal(t, with(of(10), 0, 1), l.pass(closed(1, 110), closed(1, 110)), "the last part of one that was seen, once")
	require.Equal(t, with(of(7), 1, 1), l.pass(closed(2, 7)), "the whole of one that never was")

	require.Equal(t, with(of(5), 1, 0), l.pass(sent(3, 5)))
	require.Equal(t, with(of(4), 0, 1), l.pass(sent(3, 6), closed(3, 9)), "destroyed while it is read")
	require.Zero(t, l.pass())
	require.Empty(t, l.table.all)

	require.Equal(t, with(of(5), 1, 0), l.pass(sent(4, 5)))
	for range 10 * maxMissedPasses {
		require.Zero(t, l.pass())
	}
	require.Equal(t, with(of(2), 0, 1), l.pass(closed(4, 7)), "one that a process held after a reset, or whose event is late")
	require.Empty(t, l.table.all)

	require.Equal(t, with(of(5), 1, 0), l.pass(sent(5, 5)))
	require.Equal(t, traffic{countClosed: 1}, l.pass(closed(5, 0)), "an abort leaves nothing to count, and nothing goes back")
	require.Equal(t, traffic{countOpened: 1, countClosed: 1}, l.pass(closed(6, 0)))
}

// What a connection did since its process closed it counts when it has been destroyed, for what it belonged to while it had a
// process: an orphan has no known owner.
func TestOrphans(t *testing.T) {
	orphan := func(cookie, bytes uint64, state netstat.TCPState) *netstat.Socket {
		s := sent(cookie, bytes)
		s.State = state
		return s
	}
	l := newListening()
	l.pass(orphan(7, 3, netstat.TCPFinWait1))
	require.Equal(t, with(of(5), 1, 0), l.pass(sent(1, 5)))
	for _, state := range []netstat.TCPState{netstat.TCPFinWait1, netstat.TCPFinWait2, netstat.TCPClosing, netstat.TCPLastAck} {
		require.Zero(t, l.pass(orphan(1, 9, state), orphan(2, 8, state)), state)
	}
	require.Equal(t, with(of(6), 0, 1), l.pass(closed(1, 11)))
	require.Equal(t, with(of(8), 1, 1), l.pass(closed(2, 8)), "one that was an orphan when it was first seen")
	require.Equal(t, with(of(1), 0, 1), l.pass(closed(7, 4)), "of one that was there before, what was before is not replayed")

	l.in.closedEvents = false
	require.Equal(t, of(5), l.pass(orphan(3, 5, netstat.TCPFinWait1)), "without an event of its end")
}

// Without the details of connections, opened is exact too: connections that were there before the subscription to their ends are not
// new, and neither are those that a process had closed before the first pass.
func TestLifecycleAlone(t *testing.T) {
	plain := func(cookie uint64, state netstat.TCPState) *netstat.Socket {
		s := &netstat.Socket{
			Transport: netstat.TransportTCP, State: state, Cookie: cookie,
			Local: netip.MustParseAddrPort(web), Remote: netip.MustParseAddrPort(visitor),
		}
		s.Set(netstat.FieldCookie)
		return s
	}
	const established = netstat.TCPEstablished
	l := newListening()
	l.flows = newFlows(detailLifecycle)
	l.in.closedEvents = false
	require.Zero(t, l.pass(plain(1, established), plain(2, established)))
	l.in.closedEvents = true
	require.Zero(t, l.pass(plain(1, established), plain(2, established)), "the subscription is late")
	require.Equal(t, traffic{countOpened: 1, countClosed: 1}, l.pass(plain(1, established), plain(3, established), closed(2, 0)))
	require.Equal(t, traffic{countOpened: 1, countClosed: 2}, l.pass(closed(1, 0), closed(4, 0), plain(3, established)))

	l = newListening()
	l.flows = newFlows(detailLifecycle)
	require.Zero(t, l.pass(plain(1, netstat.TCPFinWait1), plain(2, netstat.TCPLastAck)))
	require.Equal(t, traffic{countClosed: 2}, l.pass(closed(1, 0), closed(2, 0)))
}

// A TIME_WAIT entry, also in the state FIN_WAIT2, is what is left of a connection whose end has been reported. In the first pass that
// does not count.
func TestTimeWaitEntryInFirstPass(t *testing.T) {
	for _, state := range []netstat.TCPState{netstat.TCPFinWait2, netstat.TCPTimeWait} {
		entry := &netstat.Socket{
			Transport: netstat.TransportTCP, State: state, Cookie: 1,
			Local: netip.MustParseAddrPort(web), Remote: netip.MustParseAddrPort(visitor),
		}
		entry.Set(netstat.FieldCookie)
		l := newListening()
		require.Zero(t, l.pass(entry, closed(1, 50)), state)
		require.Zero(t, l.pass(entry), state)
		require.Equal(t, with(of(50), 1, 1), l.pass(closed(2, 50)), state)
	}
}

// Each pass determines anew whether ends of sockets are reported.
func TestReportsThatBeginAndEnd(t *testing.T) {
	l := newListening()
	l.in.closedEvents = false
	l.pass(sent(1, 5))
	l.in.closedEvents = true
	l.pass(sent(1, 5))
	for range 10 * maxMissedPasses {
		require.Zero(t, l.pass())
	}
	require.Equal(t, with(of(2), 0, 1), l.pass(closed(1, 7)), "it is remembered until its end is reported")

	l.pass(sent(2, 5))
	l.in.closedEvents = false
	l.pass(sent(2, 5))
	for range maxMissedPasses + 1 {
		l.pass()
	}
	require.Empty(t, l.table.all, "it is not, where that is not reported")
}

// A socket that had no peer was no connection.
func TestClosedListener(t *testing.T) {
	l := newListening()
	l.pass(socket(80, 1, 3))
	over := socket(80, 1, 0)
	over.Closed, over.State = true, netstat.TCPClose
	over.Set(netstat.FieldTCPInfo)
	over.Remote = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	unknown := *over
	unknown.Cookie = 2
	require.Zero(t, l.pass(over, &unknown))
	require.Zero(t, l.pass())
	require.Empty(t, l.table.all)
	require.Equal(t, traffic{countListenDrops: 3}, l.pass(socket(80, 3, 3)), "nor is a new one")
}

// The event of a destroyed connection has no drops.
func TestClosedConnectionThatDropped(t *testing.T) {
	l := newListening()
	connection := sent(1, 5)
	connection.Drops = 3
	l.pass(connection)
	require.Equal(t, with(of(2), 0, 1), l.pass(closed(1, 7)))
}

// Sockets without an event, because it was lost or the namespace has ended, are remembered up to a limit.
func TestClosedConnectionsThatAreNotToldOf(t *testing.T) {
	l := newListening()
	var sockets []*netstat.Socket
	for i := range maxUnreported + 1000 {
		sockets = append(sockets, sent(uint64(i+1), 5))
	}
	l.pass(sockets...)
	for range maxMissedPasses + 2 {
		require.Zero(t, l.pass())
	}
	require.Len(t, l.table.all, maxUnreported)
	require.Equal(t, with(of(1), 0, 1), l.pass(closed(maxUnreported+1000, 6)), "the oldest are forgotten")
	require.Len(t, l.table.all, maxUnreported-1)

	other := &scope{namespace: &netstat.Namespace{ID: 2}, read: tcpOnly, closedEvents: true}
	l.enter(other)
	l.end(&scopes{protocols: tcpOnly, all: []*scope{other}})
	require.Empty(t, l.table.all)

	l = newListening()
	l.in.closedEvents = false
	l.pass(sent(1, 5))
	for range maxMissedPasses + 2 {
		require.Zero(t, l.pass(), "without events nothing counts as opened or closed")
	}
	require.Empty(t, l.table.all)
}

// A TIME_WAIT entry has the cookie of its connection, which has been destroyed. It is remembered for as long as it is there.
func TestTimeWait(t *testing.T) {
	l := newListening()
	l.pass()
	require.Equal(t, with(of(5), 1, 0), l.pass(sent(1, 5)))
	timeWait := &netstat.Socket{
		Transport: netstat.TransportTCP, State: netstat.TCPTimeWait, Cookie: 1,
		Local: netip.MustParseAddrPort(web), Remote: netip.MustParseAddrPort(visitor),
	}
	timeWait.Set(netstat.FieldCookie)
	require.Equal(t, with(of(2), 0, 1), l.pass(timeWait, closed(1, 7)))
	for range 10 * maxMissedPasses {
		require.Zero(t, l.pass(timeWait))
		require.Len(t, l.table.all, 1)
	}
	require.Zero(t, l.pass())
	require.Empty(t, l.table.all)
}

// With procfs, a connection without an inode number is known by its addresses.
func TestFlowOfProcfs(t *testing.T) {
	f := newFlows(everyDetail)
	in := &scope{namespace: &own, read: tcpOnly}
	f.enter(in)
	connection := &netstat.Socket{
		Transport: netstat.TransportTCP, State: netstat.TCPSynRecv,
		Local: netip.MustParseAddrPort(web), Remote: netip.MustParseAddrPort(visitor),
	}
	first, _ := f.live(connection, new(traffic))
	first.flags |= flowDecided
	for _, state := range []netstat.TCPState{netstat.TCPEstablished, netstat.TCPFinWait2, netstat.TCPTimeWait} {
		connection.State, connection.Inode = state, 7*uint64(state&1)
		again, idle := f.live(connection, new(traffic))
		require.True(t, again.has(flowDecided), state)
		require.True(t, idle)
	}
	for _, other := range []string{"198.51.100.1:50001", "198.51.100.2:50000"} {
		another := *connection
		another.Remote = netip.MustParseAddrPort(other)
		found, _ := f.live(&another, new(traffic))
		require.False(t, found.has(flowDecided), other)
	}
	f.enter(&scope{namespace: &netstat.Namespace{ID: 2}, read: tcpOnly})
	found, _ := f.live(connection, new(traffic))
	require.False(t, found.has(flowDecided), "of another namespace")
}

// A connection costs at most 160 bytes of memory, its share of the tables included, and at most 56 more with the set stalls.
func TestFlowMemory(t *testing.T) {
	for details, limit := range map[detail]uint64{everyDetail &^ detailStalls: 160, everyDetail: 160 + 56} {
		requireFlowMemory(t, details, limit)
	}
}

func requireFlowMemory(t *testing.T, details detail, limit uint64) {
	t.Helper()
	const connections = 200_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	f := newFlows(details)
	in := &scope{namespace: &own, read: tcpOnly, closedEvents: true}
	for range 2 {
		f.enter(in)
		for cookie := range uint64(connections) {
			s := sent(cookie+1, 1)
			s.Local = netip.MustParseAddrPort(web)
			s.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(cookie >> 8), byte(cookie)}), uint16(cookie>>16))
			found, _ := f.live(s, new(traffic))
			found.flags |= flowDecided
		}
		f.end(&scopes{protocols: tcpOnly, all: []*scope{in}})
	}
	used := heap() - before
	require.Len(t, f.table.all, connections)
	t.Logf("%d bytes a connection", used/connections)
	require.LessOrEqual(t, used, limit*connections)
}

// Connections that belong to the same share an index, seen or not.
func TestBelongingsAreShared(t *testing.T) {
	b := newBelongings()
	cgroup := &cgroupEntry{path: "/a"}
	first := b.indexOf(0, nil, nil, cgroup)
	for range 1000 {
		require.Equal(t, first, b.indexOf(0, nil, nil, cgroup))
	}
	for range 3 {
		b.beginSweep()
		b.keep(first)
		b.endSweep()
		require.Equal(t, first, b.indexOf(0, nil, nil, cgroup))
		require.Len(t, b.all, 2)
	}
	b.beginSweep()
	b.endSweep()
	require.Empty(t, b.indexes)
	require.Equal(t, first, b.indexOf(0, nil, nil, &cgroupEntry{path: "/b"}), "its place is free")
}

// TestBelongings compares belongings with a map, through passes in which connections come and go.
func TestBelongings(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	people := make([]*owner, 6)
	for i := range people {
		people[i] = &owner{number: uint64(i + 1), process: &netstat.Process{PID: i + 1, Name: fmt.Sprint("process", i)}}
	}
	fronts, cgroups := []*listener{nil, {}, {}}, []*cgroupEntry{nil, {path: "/a"}, {path: "/b"}}
	type content struct {
		owners   []*owner
		listener *listener
		cgroup   *cgroupEntry
	}
	b := newBelongings()
	model := map[int]content{}
	indexes := map[int]uint32{}
	for range 200 {
		for connection := range 40 {
			if random.IntN(2) == 0 {
				continue
			}
			first := random.IntN(len(people))
			c := content{
				people[first : first+random.IntN(len(people)-first)], fronts[random.IntN(3)], cgroups[random.IntN(3)],
			}
			indexes[connection] = b.indexOf(indexes[connection], c.owners, c.listener, c.cgroup)
			model[connection] = c
		}
		gone := random.IntN(40)
		delete(model, gone)
		delete(indexes, gone)
		b.beginSweep()
		for _, index := range indexes {
			b.keep(index)
		}
		b.endSweep()
		for connection, c := range model {
			got := b.get(indexes[connection])
			require.True(t, got.is(c.owners, c.listener, c.cgroup), connection)
		}
		require.LessOrEqual(t, len(b.all), 81)
		require.LessOrEqual(t, len(b.indexes), 40)
	}
}

// A connection that no process has initiated, as far as the library records that, and whose listener opened while the tables were
// read, is looked up once more: in the next pass its listener is known. Without that record it stays outgoing.
func TestUnexplainedConnection(t *testing.T) {
	for _, recorded := range []bool{true, false} {
		s := newClosedScene(t)
		s.initiatorsKnown = recorded
		connection := sent(2, 5)
		connection.Local, connection.Remote = netip.MustParseAddrPort(web), netip.MustParseAddrPort(visitor)
		s.gather(0, socketsIn{&own: nil})
		want := map[string]int64{"remote self " + visitor: 0}
		require.Equal(t, want, s.gather(interval, socketsIn{&own: {connection}}))
		if recorded {
			want = map[string]int64{"listener self 192.0.2.1:80": 0}
		} else {
			want["listener self 192.0.2.1:80"] = 0
		}
		for range 3 {
			require.Equal(t, want, s.gather(interval, socketsIn{&own: {listeningAt(1, web), connection}}))
		}
		delete(want, "listener self 192.0.2.1:80")
		if recorded {
			want["listener self 192.0.2.1:80"] = 0
		}
		require.Equal(t, want, s.gather(interval, socketsIn{&own: {connection}}), "it is decided for good")
	}
}

// A process can connect an accepted socket to another peer between two gathers: it is outgoing then, and so is its end.
func TestAcceptedSocketConnectedBetweenGathers(t *testing.T) {
	s := newClosedScene(t)
	connection := sent(2, 5)
	connection.Local, connection.Remote = netip.MustParseAddrPort(web), netip.MustParseAddrPort(visitor)
	s.gather(0, socketsIn{&own: {listeningAt(1, web), connection}})
	const peer = "198.51.100.7:443"
	connection.Local, connection.Remote = netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort(peer)
	for range 2 {
		require.Contains(t, s.gather(interval, socketsIn{&own: {listeningAt(1, web), connection}}), "remote self "+peer)
	}
	got := s.gather(interval, socketsIn{&own: {listeningAt(1, web), closedAt(2, "192.0.2.1:40000", "198.51.100.7:0")}})
	require.Equal(t, int64(1), got["remote self "+peer])
}

// A connection that is decided at the end, and of which nothing is known, does not belong to the owner of the socket before.
func TestUndecidedConnectionOfNobody(t *testing.T) {
	p := newPass(noFilters(t), everyDetail, newUserNames(nil), newCgroups(false, "", nil))
	connection := sent(2, 5)
	connection.Local, connection.Remote = netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort(visitor)
	connection.Namespace = &own
	for pass := range 2 {
		p.begin(time.Unix(int64(1000+pass), 0), false)
		in := &scope{namespace: &own, read: tcpOnly, closedEvents: true}
		p.enter(in)
		if pass == 1 {
			require.False(t, p.observe(connection).wanted)
			p.current.owners = []*owner{{name: "server"}}
			settled := 0
			p.settle(func(o *observation) {
				settled++
				require.Empty(t, o.owners)
			})
			require.Equal(t, 1, settled)
		}
		p.end(&scopes{protocols: tcpOnly, all: []*scope{in}})
	}
}

// A connection that is gone before it is looked up once more counts for its listener at its end.
func TestUnexplainedConnectionThatEnds(t *testing.T) {
	s := newClosedScene(t)
	s.initiatorsKnown = true
	connection := sent(2, 5)
	connection.Local, connection.Remote = netip.MustParseAddrPort(web), netip.MustParseAddrPort(visitor)
	s.gather(0, socketsIn{&own: nil})
	s.gather(interval, socketsIn{&own: {connection}})
	require.Equal(t, map[string]int64{"listener self 192.0.2.1:80": 1},
		s.gather(interval, socketsIn{&own: {listeningAt(1, web), closedAt(2, web, visitor)}}))
}

// A listener can open, accept and close after a pass has read the table and before it takes the events.
func TestListenerBetweenTableAndEvents(t *testing.T) {
	s := newClosedScene(t)
	s.gather(0, socketsIn{&own: nil})
	connection := sent(2, 5)
	connection.Local, connection.Remote = netip.MustParseAddrPort(web), netip.MustParseAddrPort(visitor)
	s.gather(interval, socketsIn{&own: {closedListener(web)}})
	for range 3 {
		require.Equal(t, map[string]int64{"listener self 192.0.2.1:80": 0}, s.gather(interval, socketsIn{&own: {connection}}))
	}
}

// A namespace whose table cannot be read keeps nothing of the others.
func TestClosedConnectionsBesideFailingNamespace(t *testing.T) {
	f := newFlows(everyDetail)
	good := &scope{namespace: &own, read: tcpOnly, closedEvents: true}
	failing := &scope{namespace: &netstat.Namespace{ID: 2}, read: protocolSet{}, closedEvents: true}
	cookie := uint64(0)
	for range 20 {
		f.enter(good)
		for range 100 {
			cookie++
			f.live(sent(cookie, 1), new(traffic))
			f.destroyed(closed(cookie, 2))
		}
		f.enter(failing)
		f.end(&scopes{protocols: tcpOnly, all: []*scope{good, failing}})
		require.LessOrEqual(t, len(f.table.all), 100)
	}
	f.enter(good)
	f.live(sent(cookie+1, 1), new(traffic))
	for range maxMissedPasses + 1 {
		f.end(&scopes{protocols: tcpOnly, all: []*scope{failing}})
	}
	f.end(&scopes{protocols: tcpOnly, all: []*scope{failing}})
	require.Empty(t, f.table.all, "the namespace is gone")
}

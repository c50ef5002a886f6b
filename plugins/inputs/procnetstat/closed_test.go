//go:build linux

package procnetstat

import (
	"fmt"
	"net/netip"
	"testing"

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

// listening is a tracker of one namespace with events of closed sockets.
type listening struct {
	tracker
	in *scope
}

func newListening() *listening {
	return &listening{in: &scope{namespace: &own, read: tcpOnly, closedEvents: true}}
}

// pass is a pass over the sockets, live ones first.
func (l *listening) pass(sockets ...*netstat.Socket) (sum traffic) {
	l.enter(l.in)
	for _, s := range sockets {
		if s.Closed {
			did, _ := l.updateClosed(s)
			sum.add(&did)
			continue
		}
		did, _ := l.update(s)
		sum.add(&did)
	}
	l.end(&scopes{protocols: tcpOnly, all: []*scope{l.in}}, func(*reading) {})
	return sum
}

func with(t traffic, opened, closed int64) traffic {
	t.opened, t.closed = opened, closed
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
	require.Empty(t, l.readings.all)

	require.Equal(t, with(of(5), 1, 0), l.pass(sent(4, 5)))
	for range 10 * maxMissedPasses {
		require.Zero(t, l.pass())
	}
	require.Equal(t, with(of(2), 0, 1), l.pass(closed(4, 7)), "one that a process held after a reset, or whose event is late")
	require.Empty(t, l.readings.all)

	require.Equal(t, with(of(5), 1, 0), l.pass(sent(5, 5)))
	require.Equal(t, traffic{closed: 1}, l.pass(closed(5, 0)), "an abort leaves nothing to count, and nothing goes back")
	require.Equal(t, traffic{opened: 1, closed: 1}, l.pass(closed(6, 0)))
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
	l.readings.find(1).attribution = 42
	for _, state := range []netstat.TCPState{netstat.TCPFinWait1, netstat.TCPFinWait2, netstat.TCPClosing, netstat.TCPLastAck} {
		require.Zero(t, l.pass(orphan(1, 9, state), orphan(2, 8, state)), state)
		l.enter(l.in)
		l.update(orphan(1, 9, state))
		require.Nil(t, l.updated, "nothing replaces what it belonged to")
	}
	l.enter(l.in)
	did, last := l.updateClosed(closed(1, 11))
	require.Equal(t, with(of(6), 0, 1), did)
	require.EqualValues(t, 42, last.attribution)
	require.Equal(t, with(of(8), 1, 1), l.pass(closed(2, 8)), "one that was an orphan when it was first seen")
	require.Equal(t, with(of(1), 0, 1), l.pass(closed(7, 4)), "of one that was there before, what was before is not replayed")

	l.in.closedEvents = false
	require.Equal(t, of(5), l.pass(orphan(3, 5, netstat.TCPFinWait1)), "without an event of its end")
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
	require.Empty(t, l.readings.all, "it is not, where that is not reported")
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
	require.Empty(t, l.readings.all)
	require.Equal(t, traffic{listenDrops: 3}, l.pass(socket(80, 3, 3)), "nor is a new one")
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
	require.Len(t, l.readings.all, maxUnreported)
	require.Equal(t, with(of(1), 0, 1), l.pass(closed(maxUnreported+1000, 6)), "the oldest are forgotten")
	require.Len(t, l.readings.all, maxUnreported-1)

	other := &scope{namespace: &netstat.Namespace{ID: 2}, read: tcpOnly, closedEvents: true}
	l.enter(other)
	l.end(&scopes{protocols: tcpOnly, all: []*scope{other}}, func(*reading) {})
	require.Empty(t, l.readings.all)

	l = newListening()
	l.in.closedEvents = false
	l.pass(sent(1, 5))
	for range maxMissedPasses + 2 {
		require.Zero(t, l.pass(), "without events nothing counts as opened or closed")
	}
	require.Empty(t, l.readings.all)
}

// A listener that processes share by sockets of their own is remembered as that of all.
func TestBelongingsOfSharedListener(t *testing.T) {
	var b attributions
	first, second := &owner{process: &netstat.Process{PID: 1}}, &owner{process: &netstat.Process{PID: 2}}
	shared := &listener{port: 80, owners: []*owner{first}}
	b.begin()
	of := b.of(&observation{owners: shared.owners, listener: shared})
	shared.owners = []*owner{first, second}
	b.of(&observation{owners: []*owner{second}, listener: shared})
	require.Equal(t, []*netstat.Process{first.process, second.process}, b.get(of).listener.owners)
}

// What many sockets belonged to is remembered once, seen or not.
func TestBelongingsOfManySockets(t *testing.T) {
	var b attributions
	b.begin()
	same := observation{cgroup: &cgroupEntry{path: "/a"}}
	remembered := make([]reading, 1000)
	for i := range remembered {
		remembered[i].attribution = b.of(&same)
	}
	for range 3 {
		require.Len(t, b.lists[b.current], 1)
		b.begin()
		for i := range remembered {
			b.carryOver(&remembered[i])
		}
	}
	for _, r := range remembered {
		require.Equal(t, &attribution{cgroup: "/a"}, b.get(r.attribution))
	}
}

// What sockets belonged to is remembered from pass to pass, for as long as they are.
func TestBelongings(t *testing.T) {
	var b attributions
	people := make([]*owner, 4)
	for i := range people {
		people[i] = &owner{process: &netstat.Process{PID: i + 1, Name: fmt.Sprint("process", i)}}
	}
	front := &listener{addr: netip.MustParseAddr("192.0.2.1"), port: 80, owners: people[:1], cgroup: &cgroupEntry{path: "/front"}}
	seen := []observation{
		{},
		{owners: people[:1]},
		{owners: people[:1], listener: front},
		{owners: people[1:3]},
		{owners: []*owner{people[1], people[3]}},
		{cgroup: &cgroupEntry{path: "/a"}},
		{owners: people[2:], listener: front, cgroup: &cgroupEntry{path: "/b"}},
	}
	of := func(o observation) *attribution {
		if o.owners == nil && o.listener == nil && o.cgroup == nil {
			return nil
		}
		var was *formerListener
		if o.listener != nil {
			was = &formerListener{front.addr, front.port, processesOf(front.owners), "/front"}
		}
		return &attribution{processesOf(o.owners), was, o.cgroup.pathIfKnown()}
	}
	b.begin()
	remembered := make([]reading, len(seen))
	for range 2 {
		for i := range seen {
			remembered[i].attribution = b.of(&seen[i])
		}
	}
	require.Len(t, b.lists[b.current], len(seen)-1, "once each")
	for range 5 {
		for i := range seen {
			require.Equal(t, of(seen[i]), b.get(remembered[i].attribution), i)
		}
		b.begin()
		for _, o := range people {
			o.ownerInScope = ownerInScope{}
		}
		for i := range remembered {
			if i%2 == 1 { // it is seen again
				remembered[i].attribution = b.of(&seen[i])
			} else {
				b.carryOver(&remembered[i])
				b.carryOver(&remembered[i])
			}
		}
		require.LessOrEqual(t, len(b.lists[b.current]), len(seen))
	}
}

//go:build linux

package procnetstat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// listeningOn returns a listening socket without a cookie.
func listeningOn(local string) *netstat.Socket {
	return &netstat.Socket{
		Transport: netstat.TransportTCP, State: netstat.TCPListen, Namespace: &own, Local: netip.MustParseAddrPort(local),
	}
}

func connectionTo(local string, device uint32) *netstat.Socket {
	return &netstat.Socket{
		Transport: netstat.TransportTCP, State: netstat.TCPEstablished, Namespace: &own, Interface: device,
		Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(visitor),
	}
}

func TestListenersByAddress(t *testing.T) {
	for _, ended := range []bool{false, true} {
		e := newListeners()
		e.begin(time.Unix(1000, 0))
		all := map[string]*listener{}
		for _, local := range []string{"192.0.2.1:80", "0.0.0.0:80", "[::]:81", "0.0.0.0:82", "[::]:82"} {
			if s := listeningOn(local); ended {
				e.observeEnd(s)
			} else {
				e.observe(s, nil, nil)
			}
			all[local] = e.byEndpoint[endpointOf(listeningOn(local))]
			require.NotNil(t, all[local])
		}
		for local, want := range map[string]string{
			"192.0.2.1:80":          "192.0.2.1:80",
			"192.0.2.2:80":          "0.0.0.0:80",
			"[::ffff:192.0.2.1]:80": "192.0.2.1:80",
			"[::ffff:192.0.2.2]:80": "0.0.0.0:80",
			"[2001:db8::1]:80":      "",
			"192.0.2.1:81":          "",
			"[::ffff:192.0.2.1]:81": "[::]:81",
			"[2001:db8::1]:81":      "[::]:81",
			"192.0.2.1:82":          "0.0.0.0:82",
			"[::ffff:192.0.2.1]:82": "[::]:82",
			"192.0.2.1:83":          "",
		} {
			s := connectionTo(local, 0)
			require.Same(t, all[want], e.findForLive(s), local)
			require.Same(t, all[want], e.findForClosed(s), local)
			s.Namespace = &netstat.Namespace{ID: 2}
			require.Nil(t, e.findForClosed(s), "of another namespace")
		}
	}
}

// A connection at a device is that of the listener at the device, also if that is a wildcard, else that of one at any device.
func TestListenersByDevice(t *testing.T) {
	e := newListeners()
	e.begin(time.Unix(1000, 0))
	const red, blue, green = 4, 5, 6
	at := func(local string, device uint32) *listener {
		s := listeningOn(local)
		s.Interface = device
		return e.observe(s, nil, nil)
	}
	atRed, atBlue, exact := at("0.0.0.0:80", red), at("0.0.0.0:80", blue), at("192.0.2.1:80", 0)
	require.Same(t, atRed, e.findForLive(connectionTo("192.0.2.1:80", red)))
	require.Same(t, atBlue, e.findForLive(connectionTo("192.0.2.1:80", blue)))
	require.Same(t, exact, e.findForLive(connectionTo("192.0.2.1:80", green)), "its device is that of its link-local peer, or a VRF")
	require.Same(t, exact, e.findForLive(connectionTo("192.0.2.1:80", 0)))
	require.Nil(t, e.findForLive(connectionTo("192.0.2.2:80", 0)))
}

// An ended listener is remembered for some passes and for some time, whichever is longer.
func TestEndedListenersAreForgotten(t *testing.T) {
	for name, test := range map[string]struct {
		every time.Duration // a pass
		last  int           // the last pass that remembers it
	}{
		"rare passes":  {time.Minute, minEndedPasses},
		"many passes":  {minEndedTime / 10, 10},
		"some seconds": {minEndedTime / minEndedPasses, minEndedPasses},
	} {
		t.Run(name, func(t *testing.T) {
			e := newListeners()
			now := time.Unix(1000, 0)
			e.begin(now)
			e.observeEnd(listeningOn(web))
			e.finish(&scopes{})
			for pass := 1; pass <= test.last+1; pass++ {
				now = now.Add(test.every)
				e.begin(now)
				require.Equal(t, pass <= test.last, e.findForClosed(connectionTo(web, 0)) != nil, "pass %d", pass)
				// A pass can have read the table before the connection was accepted, and taken the event of the end later.
				require.Equal(t, pass <= 1, e.findForLive(connectionTo(web, 0)) != nil, "pass %d", pass)
				e.finish(&scopes{})
			}
			require.Empty(t, e.byEndpoint)
			require.Empty(t, e.ports)
			require.Zero(t, e.ended.Len())
		})
	}
}

// A listener that the last pass saw may have accepted a connection since. If the pass could not read its table, it may listen.
func TestListenersOfLastPass(t *testing.T) {
	e := newListeners()
	now := time.Unix(1000, 0)
	pass := func(read protocolSet, f func()) {
		now = now.Add(time.Minute)
		e.begin(now)
		f()
		e.finish(&scopes{all: []*scope{{namespace: &own, read: read}}})
	}
	var l *listener
	pass(tcpOnly, func() { l = e.observe(listeningOn(web), nil, nil) })
	for range 3 * minEndedPasses {
		pass(udpOnly, func() { require.Same(t, l, e.findForLive(connectionTo(web, 0))) })
	}
	pass(tcpOnly, func() { require.Same(t, l, e.findForLive(connectionTo(web, 0))) })
	require.NotNil(t, l.ended)
	pass(tcpOnly, func() {
		require.Nil(t, e.findForLive(connectionTo(web, 0)))
		require.Same(t, l, e.findForClosed(connectionTo(web, 0)))
		require.Same(t, l, e.observe(listeningOn(web), nil, nil), "it listens again")
	})
	require.Nil(t, l.ended)
	require.Zero(t, e.ended.Len())
}

// Many processes can hold many sockets at one endpoint.
func TestListenerOfMany(t *testing.T) {
	e := newListeners()
	e.begin(time.Unix(1000, 0))
	people := make([]*owner, 5000)
	for i := range people {
		people[i] = &owner{process: &netstat.Process{PID: i + 1}}
	}
	var l *listener
	for range 100 {
		l = e.observe(listeningOn(web), people[:3000], nil)
		e.observe(listeningOn(web), people[2000:], nil)
	}
	require.Equal(t, people, l.holders)
	e.begin(time.Unix(1000, 0))
	e.observe(listeningOn(web), people[:20], nil)
	e.observe(listeningOn(web), people[10:30], nil)
	require.Equal(t, people[:30], l.holders)
}

// All namespaces together have one bound, beyond which the oldest are forgotten, also within a pass.
func TestEndedListenersAreBounded(t *testing.T) {
	const rounds = 2 * maxEnded
	at := func(i int) *netstat.Socket {
		s := listeningOn(web)
		s.Namespace = &netstat.Namespace{ID: own.ID + 1 + uint64(i%3)}
		s.Local = netip.AddrPortFrom(s.Local.Addr(), uint16(i+1))
		return s
	}
	e := newListeners()
	e.begin(time.Unix(1000, 0))
	for i := range rounds {
		e.observeEnd(at(i))
		require.LessOrEqual(t, e.ended.Len(), maxEnded)
	}
	require.Len(t, e.byEndpoint, maxEnded)
	for i := range rounds {
		require.Equal(t, i >= rounds-maxEnded, e.findForClosed(at(i)) != nil, i)
	}
	e.observeEnd(at(rounds - maxEnded)) // the oldest ends again
	e.observeEnd(listeningOn(web))
	require.NotNil(t, e.findForClosed(at(rounds-maxEnded)))
	require.Nil(t, e.findForClosed(at(rounds-maxEnded+1)), "now the oldest")
}

// closedScene is a pass with the listener and remote measurements, fed by hand, in namespaces that report closed sockets.
type closedScene struct {
	*testing.T
	pass     *pass
	listener *listenerMeasurement
	remote   *remoteMeasurement
	now      time.Time

	initiatorsKnown bool
}

func newClosedScene(t *testing.T) *closedScene {
	t.Helper()
	options := seriesOptions{details: everyDetail, maxSeries: 1000, netNS: true, log: testutil.Logger{Quiet: true}}
	return &closedScene{
		T:        t,
		pass:     newPass(noFilters(t), everyDetail, newUserNames(nil), newCgroups(false, "", nil)),
		listener: newListenerMeasurement(false, options), remote: newRemoteMeasurement(false, 32, 128, nobodyAt, options),
		now: time.Unix(1000, 0),
	}
}

// gather is one gather of the sockets of namespaces, after the time. It returns tcp_closed by netns and listener or remote
// endpoint: "listener own 192.0.2.1:80".
func (s *closedScene) gather(after time.Duration, sockets socketsIn) map[string]int64 {
	s.Helper()
	s.now = s.now.Add(after)
	s.pass.begin(s.now, s.initiatorsKnown)
	all := &scopes{protocols: tcpOnly}
	all.begin()
	count := func(o *observation) {
		if o.wanted {
			s.listener.observe(o)
			s.remote.observe(o)
		}
	}
	for namespace, of := range sockets {
		in := all.get(namespace)
		in.closedEvents = true
		s.pass.enter(in)
		s.listener.enter(in)
		s.remote.enter(in)
		for _, socket := range of {
			socket.Namespace = namespace
			if s.pass.mustSettle(socket) {
				s.pass.settle(count)
			}
			count(s.pass.observe(socket))
		}
		s.pass.settle(count)
	}
	for _, set := range []*seriesSet{s.listener.series, s.remote.series} {
		for _, of := range set.byKey {
			of.begun = ^uint(0) // new ones too show at once what they count
		}
	}
	acc := &testutil.Accumulator{}
	s.pass.end(all)
	s.listener.emit(emission{acc: acc, now: s.now, scopes: all})
	s.remote.emit(emission{acc: acc, now: s.now, scopes: all})
	closed := map[string]int64{}
	for _, m := range acc.GetTelegrafMetrics() {
		n, ok := m.GetField("tcp_closed")
		if !ok {
			continue
		}
		tags := m.Tags()
		what := fmt.Sprintf("listener %s %s:%s", tags[tagNetNS], tags["local_address"], tags["local_port"])
		if m.Name() == "procnetstat_remote" {
			what = fmt.Sprintf("remote %s %s:%s", tags[tagNetNS], tags["remote_address"], tags["remote_port"])
		}
		closed[what] = n.(int64)
	}
	return closed
}

// closedAt returns a closed connection from the local to the remote address.
func closedAt(cookie uint64, local, remote string) *netstat.Socket {
	s := closed(cookie, 5)
	s.Local, s.Remote = netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)
	return s
}

// closedListener returns the listening socket with the cookie 1 whose end is reported.
func closedListener(local string) *netstat.Socket {
	return closedAt(1, local, "0.0.0.0:0")
}

// listeningAt returns a listening socket.
func listeningAt(cookie uint64, local string) *netstat.Socket {
	s := socket(0, cookie, 0)
	s.Local = netip.MustParseAddrPort(local)
	return s
}

const (
	visitor = "198.51.100.1:50000"
	web     = "192.0.2.1:80"
)

// Connections of a listener that lived between two gathers came in, also those that are reported some gathers later.
func TestListenerThatLivedBetweenGathers(t *testing.T) {
	s := newClosedScene(t)
	s.gather(0, socketsIn{&own: nil})
	cookie := uint64(100)
	visit := func() *netstat.Socket {
		cookie++
		return closedAt(cookie, web, visitor)
	}
	const came = "listener self 192.0.2.1:80"
	require.Equal(t, map[string]int64{came: 1}, s.gather(interval, socketsIn{&own: {closedListener(web), visit()}}))
	require.Equal(t, map[string]int64{came: 2}, s.gather(interval, socketsIn{&own: {visit()}}))
	require.Equal(t, map[string]int64{came: 4}, s.gather(interval, socketsIn{&own: {visit(), visit()}}))
	require.Equal(t, map[string]int64{came: 5}, s.gather(interval, socketsIn{&own: {visit()}}))
	require.Equal(t, map[string]int64{"remote self " + visitor: 1}, s.gather(interval, socketsIn{&own: {visit()}}), "after the bound")
}

// Connections of a listener that the last gather saw came in, whichever end is reported first.
func TestListenerWhoseEndIsReportedLate(t *testing.T) {
	s := newClosedScene(t)
	s.gather(0, socketsIn{&own: {listeningAt(1, "0.0.0.0:80")}})
	s.gather(interval, socketsIn{&own: {listeningAt(1, "0.0.0.0:80")}})
	const came = "listener self 0.0.0.0:80"
	require.Equal(t, int64(1), s.gather(interval, socketsIn{&own: {closedAt(2, web, visitor)}})[came])
	require.Equal(t, int64(2), s.gather(interval, socketsIn{&own: {closedAt(3, web, visitor)}})[came], "not reported yet")
	require.Equal(t, int64(3), s.gather(interval, socketsIn{&own: {closedListener("0.0.0.0:80"), closedAt(4, web, visitor)}})[came])
	require.Equal(t, map[string]int64{came: 4}, s.gather(interval, socketsIn{&own: {closedAt(5, web, visitor)}}))
}

// What nobody holds counts for one of those that hold the listener: the program that accepts, else the one with the most processes,
// else the one with the lowest pid.
func TestRepresentative(t *testing.T) {
	p := newPass(noFilters(t), everyDetail, newUserNames(nil), newCgroups(false, "", nil))
	person := func(pid int, name string) *owner {
		return &owner{process: &netstat.Process{PID: pid, Name: name}, name: name}
	}
	p.begin(time.Unix(1000, 0), false)
	master, worker1, worker2, other := person(1, "master"), person(2, "worker"), person(3, "worker"), person(4, "other")
	for name, test := range map[string]struct {
		holders   []*owner
		accepting []*owner
		want      *owner
	}{
		"nobody":             {nil, nil, nil},
		"one":                {[]*owner{other}, nil, other},
		"most processes":     {[]*owner{master, worker1, worker2}, nil, worker1},
		"lowest pid":         {[]*owner{other, worker1}, nil, worker1},
		"lowest pid, others": {[]*owner{worker2, other, worker1, master}, nil, worker1},
		"who accepts":        {[]*owner{master, worker1, worker2, other}, []*owner{other}, other},
		"who accepts, most":  {[]*owner{master, worker1, worker2}, []*owner{worker2, master}, worker1},
	} {
		t.Run(name, func(t *testing.T) {
			l := &listener{holders: test.holders}
			l.observeHolders(test.accepting, 1)
			l.observeHolders([]*owner{person(9, "stranger")}, 1)
			require.Same(t, test.want, p.representativeOf(l))
		})
	}
}

// Several sockets at one endpoint are one listener, with the holders of all.
func TestListenerOfSeveral(t *testing.T) {
	e := newListeners()
	first, second := &owner{process: &netstat.Process{PID: 1}}, &owner{process: &netstat.Process{PID: 2}}
	for range 3 {
		e.begin(time.Unix(1000, 0))
		l := e.observe(listeningOn(web), []*owner{first}, nil)
		require.Same(t, l, e.observe(listeningOn(web), []*owner{first, second}, nil))
		require.Equal(t, []*owner{first, second}, l.holders)
		l.observeHolders([]*owner{second}, e.pass)
		require.NotZero(t, l.accepting[second])
		e.finish(&scopes{})
	}
	e.begin(time.Unix(1000, 0))
	l := e.observe(listeningOn(web), []*owner{first}, nil)
	e.finish(&scopes{})
	require.Empty(t, l.accepting, "the second does not hold it any more")
}

// An ended listener is that of its namespace alone.
func TestEndedListenerOfNamespace(t *testing.T) {
	s := newClosedScene(t)
	blue := &netstat.Namespace{ID: 2, Name: "blue", Inode: 2}
	s.gather(0, socketsIn{&own: nil, blue: nil})
	s.gather(interval, socketsIn{&own: nil, blue: {closedListener(web)}})
	require.Equal(t, map[string]int64{"listener blue 192.0.2.1:80": 1, "remote self " + visitor: 1}, s.gather(interval, socketsIn{
		&own: {closedAt(2, web, visitor)}, blue: {closedAt(3, web, visitor)},
	}))
}

// A connection that its process has closed belongs to what it belonged to before, also if its listener has ended since.
func TestOrphanOfEndedListener(t *testing.T) {
	s := newClosedScene(t)
	connection := sent(2, 5)
	connection.Local, connection.Remote = netip.MustParseAddrPort(web), netip.MustParseAddrPort(visitor)
	s.gather(0, socketsIn{&own: nil})
	s.gather(interval, socketsIn{&own: {listeningAt(1, web), connection}})
	orphan := *connection
	orphan.State = netstat.TCPFinWait1
	for range 2 * minEndedPasses {
		s.gather(interval, socketsIn{&own: {&orphan}})
	}
	require.Equal(t, int64(1), s.gather(interval, socketsIn{&own: {closedAt(2, web, visitor)}})["listener self 192.0.2.1:80"])
}

// What went out from the port of an ended listener is not taken for what came in: while it lives, and after a gather saw it.
func TestPortOfEndedListenerIsUsedAgain(t *testing.T) {
	s := newClosedScene(t)
	s.gather(0, socketsIn{&own: nil})
	s.gather(interval, socketsIn{&own: {closedListener(web)}})
	s.gather(interval, socketsIn{&own: nil})
	out := sent(2, 5)
	out.Local, out.Remote = netip.MustParseAddrPort(web), netip.MustParseAddrPort(visitor)
	require.Equal(t, map[string]int64{"remote self " + visitor: 0}, s.gather(interval, socketsIn{&own: {out}}))
	require.Equal(t, map[string]int64{"remote self " + visitor: 1, "listener self 192.0.2.1:80": 1}, s.gather(interval, socketsIn{
		&own: {closedAt(3, web, "198.51.100.1:50001"), closedAt(2, web, visitor)},
	}), "one of each")
	require.Equal(t, map[string]int64{"listener self 192.0.2.1:80": 2}, s.gather(interval, socketsIn{
		&own: {listeningAt(4, web), closedAt(5, web, visitor)},
	}), "who listens there now is who it came in through")
}

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

// endedAtPort returns a listener that has ended, with owners of these pids.
func endedAtPort(addr string, port uint16, pids ...int) *formerListener {
	was := &formerListener{addr: netip.MustParseAddr(addr), port: port}
	for _, pid := range pids {
		was.owners = append(was.owners, &netstat.Process{PID: pid})
	}
	return was
}

func TestEndedListenersByAddress(t *testing.T) {
	const other = 2
	exact, any4, any6 := endedAtPort("192.0.2.1", 80), endedAtPort("0.0.0.0", 80), endedAtPort("::", 81)
	both4, both6 := endedAtPort("0.0.0.0", 82), endedAtPort("::", 82)
	var e endedListeners
	e.begin(time.Unix(1000, 0))
	for _, was := range []*formerListener{exact, any4, any6, both4, both6} {
		e.add(own.ID, was)
	}
	for local, want := range map[string]*formerListener{
		"192.0.2.1:80":          exact,
		"192.0.2.2:80":          any4,
		"[::ffff:192.0.2.1]:80": exact,
		"[::ffff:192.0.2.2]:80": any4,
		"[2001:db8::1]:80":      nil,
		"192.0.2.1:81":          nil,
		"[::ffff:192.0.2.1]:81": any6,
		"[2001:db8::1]:81":      any6,
		"192.0.2.1:82":          both4,
		"[::ffff:192.0.2.1]:82": both6,
		"192.0.2.1:83":          nil,
	} {
		require.Same(t, want, e.find(own.ID, netip.MustParseAddrPort(local)), local)
		require.Nil(t, e.find(other, netip.MustParseAddrPort(local)), "of another namespace")
	}
}

// An ended listener is remembered for some passes and for some time, whichever is longer.
func TestEndedListenersAreForgotten(t *testing.T) {
	local := netip.MustParseAddrPort("192.0.2.1:80")
	for name, test := range map[string]struct {
		every time.Duration // a pass
		last  int           // the last pass that remembers it
	}{
		"rare passes":  {time.Minute, minEndedPasses},
		"many passes":  {minEndedTime / 10, 10},
		"some seconds": {minEndedTime / minEndedPasses, minEndedPasses},
	} {
		t.Run(name, func(t *testing.T) {
			var e endedListeners
			now := time.Unix(1000, 0)
			e.begin(now)
			e.add(own.ID, endedAtPort("192.0.2.1", 80))
			e.end()
			for pass := 1; pass <= test.last+1; pass++ {
				now = now.Add(test.every)
				e.begin(now)
				require.Equal(t, pass <= test.last, e.find(own.ID, local) != nil, "pass %d", pass)
				e.end()
			}
			require.Empty(t, e.byEndpoint)
			require.Zero(t, e.byAge.Len())
		})
	}
}

// A listener that has ended once more is remembered from then on, for those who held it.
func TestEndedListenersThatEndAgain(t *testing.T) {
	local := netip.MustParseAddrPort("192.0.2.1:80")
	var e endedListeners
	now := time.Unix(1000, 0)
	pass := func(ended ...*formerListener) *formerListener {
		now = now.Add(time.Minute)
		e.begin(now)
		for _, was := range ended {
			e.add(own.ID, was)
		}
		e.end()
		return e.find(own.ID, local)
	}
	unknown, first, second := endedAtPort("192.0.2.1", 80), endedAtPort("192.0.2.1", 80, 1), endedAtPort("192.0.2.1", 80, 2)
	require.Same(t, unknown, pass(unknown))
	require.Same(t, first, pass(first))
	require.Same(t, first, pass(endedAtPort("192.0.2.1", 80)), "one that no pass saw has fewer details")
	require.Same(t, second, pass(second, endedAtPort("192.0.2.1", 81)))
	require.Equal(t, 2, e.byAge.Len())
	for range minEndedPasses {
		require.Same(t, second, pass())
	}
	require.Nil(t, pass())
}

// All namespaces together have one bound, beyond which the oldest are forgotten.
func TestEndedListenersAreBounded(t *testing.T) {
	const rounds = 2 * maxEnded
	at := func(i int) (namespace uint64, local netip.AddrPort) {
		return own.ID + 1 + uint64(i%3), netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1))
	}
	ended := func(i int) (uint64, *formerListener) {
		namespace, local := at(i)
		return namespace, &formerListener{addr: local.Addr(), port: local.Port()}
	}
	var e endedListeners
	e.begin(time.Unix(1000, 0))
	for i := range rounds {
		e.add(ended(i))
		require.LessOrEqual(t, len(e.byEndpoint), maxEnded)
	}
	require.Equal(t, maxEnded, e.byAge.Len())
	for i := range rounds {
		require.Equal(t, i >= rounds-maxEnded, e.find(at(i)) != nil, i)
	}
	e.add(ended(rounds - maxEnded)) // the oldest ends again
	e.add(own.ID, endedAtPort("192.0.2.1", 80))
	require.NotNil(t, e.find(at(rounds-maxEnded)))
	require.Nil(t, e.find(at(rounds-maxEnded+1)), "now the oldest")
}

// A listener that a pass saw has ended if the next does not see it.
func TestEndedListenersWithoutReport(t *testing.T) {
	held := &listener{addr: netip.MustParseAddr("192.0.2.1"), port: 80, owners: []*owner{{process: &netstat.Process{PID: 1}}}}
	local := netip.MustParseAddrPort("192.0.2.1:80")
	var e endedListeners
	now := time.Unix(1000, 0)
	begin := func() {
		now = now.Add(time.Minute)
		e.begin(now)
	}
	for range 3 * minEndedPasses {
		begin()
		e.observe(own.ID, held)
		e.end()
		require.Empty(t, e.byEndpoint)
	}
	for range 1 + minEndedPasses {
		begin()
		require.Equal(t, &formerListener{held.addr, 80, []*netstat.Process{{PID: 1}}, ""}, e.find(own.ID, local))
		require.Nil(t, e.find(own.ID+1, local))
		e.end()
	}
	begin()
	require.Nil(t, e.find(own.ID, local))
}

// closedScene is a pass with the listener and remote measurements, fed by hand, in namespaces that report closed sockets.
type closedScene struct {
	*testing.T
	pass     *pass
	listener *listenerMeasurement
	remote   *remoteMeasurement
	now      time.Time
}

func newClosedScene(t *testing.T) *closedScene {
	t.Helper()
	options := seriesOptions{maxSeries: 1000, netNS: true, log: testutil.Logger{Quiet: true}}
	return &closedScene{
		T:        t,
		pass:     newPass(noFilters(t), newUserNames(nil), newCgroups(false, "", nil)),
		listener: newListenerMeasurement(false, options), remote: newRemoteMeasurement(false, 32, 128, options),
		now: time.Unix(1000, 0),
	}
}

// gather is one gather of the sockets of namespaces, after the time. It returns tcp_closed by netns and listener or remote
// endpoint: "listener own 192.0.2.1:80".
func (s *closedScene) gather(after time.Duration, sockets socketsIn) map[string]int64 {
	s.Helper()
	s.now = s.now.Add(after)
	s.pass.begin(s.now)
	all := &scopes{protocols: tcpOnly}
	all.begin()
	for namespace, of := range sockets {
		in := all.get(namespace)
		in.closedEvents = true
		s.pass.enter(in)
		s.listener.enter(in)
		s.remote.enter(in)
		for _, socket := range of {
			socket.Namespace = namespace
			if o, wanted := s.pass.observe(socket); wanted {
				s.listener.observe(o)
				s.remote.observe(o)
			}
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
	require.Empty(t, s.pass.restored, "what an earlier pass made of it is not kept")
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

// A listener that several processes share is remembered with the owners of all its sockets.
func TestEndedListenerOfSeveral(t *testing.T) {
	p := newPass(noFilters(t), newUserNames(nil), newCgroups(false, "", nil))
	first, second := &owner{process: &netstat.Process{PID: 1}}, &owner{process: &netstat.Process{PID: 2}}
	p.begin(time.Unix(1000, 0))
	p.enter(&scope{namespace: &own})
	l := p.observeListener(&observation{Socket: listeningAt(1, web), owners: []*owner{first}})
	require.Same(t, l, p.observeListener(&observation{Socket: listeningAt(2, web), owners: []*owner{first, second}}))
	p.ended.end()
	require.Equal(t, []*netstat.Process{first.process, second.process}, p.ended.find(own.ID, netip.MustParseAddrPort(web)).owners)
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

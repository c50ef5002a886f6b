//go:build linux

package procnetstat

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// stalling returns a connection with counters of the set stalls.
func stalling(cookie, bytes uint64, stalls kernelStalls) *netstat.Socket {
	s := sent(cookie, bytes)
	s.TCP.BusyTime, s.TCP.RwndLimited, s.TCP.SndbufLimited = stalls.busy, stalls.rwndLimited, stalls.sndbufLimited
	s.TCP.RcvOOOPack, s.TCP.DSACKDups, s.TCP.TotalRTO = stalls.rcvOOOPack, stalls.dsackDups, stalls.rto
	return s
}

// ended returns the event of the end of a connection.
func ended(s *netstat.Socket) *netstat.Socket {
	end := closed(s.Cookie, 0)
	end.TCP = s.TCP
	return end
}

// stalls is a pass over the sockets, live ones first. It returns the increase of the counters of the set stalls.
func (l *listening) stalls(sockets ...*netstat.Socket) (sum stallCounts) {
	l.enter(l.in)
	for _, s := range sockets {
		if s.Closed {
			l.destroyed(s)
		} else {
			l.live(s, new(traffic))
		}
		sum.add(&l.stall.counts)
	}
	l.end(&scopes{protocols: tcpOnly, all: []*scope{l.in}})
	return sum
}

func (c stallCounts) times(n int64) stallCounts {
	for i := range c {
		c[i] *= n
	}
	return c
}

// What a connection counts until its end counts once, as its traffic does.
func TestStallsOfConnections(t *testing.T) {
	l := newListening()
	one := stallCounts{countBusy: 6, countRwndLimited: 1, countSndbufLimited: 2, countRcvOOOPack: 3, countDSACKDups: 4, countRTO: 5}
	at := func(cookie uint64, n uint64) *netstat.Socket {
		return stalling(cookie, n, kernelStalls{6 * n, n, 2 * n, uint32(3 * n), uint32(4 * n), uint16(5 * n)})
	}
	require.Zero(t, l.stalls(at(1, 100), ended(at(8, 50))), "what was before is not counted")
	require.Equal(t, one.times(10), l.stalls(at(1, 110)))
	require.Zero(t, l.stalls(at(1, 110)))
	require.Equal(t, one.times(3), l.stalls(at(1, 110), at(2, 3)), "the whole of a new one")
	require.Equal(t, one.times(2), l.stalls(ended(at(1, 112)), ended(at(1, 112))), "the last part of one that was seen, once")
	require.Equal(t, one.times(7), l.stalls(ended(at(3, 7))), "the whole of one that never was")
	require.Zero(t, l.stalls(at(2, 3)))

	orphan := at(2, 5)
	orphan.State, orphan.Inode = netstat.TCPFinWait1, 0
	require.Zero(t, l.stalls(orphan), "counted at its end")
	require.Equal(t, one.times(3), l.stalls(ended(at(2, 6))))
	require.Empty(t, l.table.stalls)

	l.stalls(at(4, 1), at(5, 1), at(6, 1))
	for range maxMissedPasses + 1 {
		l.stalls(ended(at(4, 1)), at(5, 1), at(6, 1))
	}
	require.Len(t, l.table.stalls, 2)
	require.Equal(t, one.times(10), l.stalls(at(5, 1), at(6, 11)), "the rows of the others have moved")

	busy := at(7, 1)
	l.stalls(busy)
	busy.TCP.BusyTime += 1000
	require.Equal(t, stallCounts{countBusy: 1000}, l.stalls(busy), "while nothing is sent")
}

// tcp_disconnect resets the counts, but not the times; that shows in the other counters if not in these. All of them wrap.
func TestStallsThatGoBack(t *testing.T) {
	const highest = math.MaxUint32
	for name, test := range map[string]struct {
		last, now *netstat.Socket
		want      stallCounts
	}{
		"connected again": {
			stalling(1, 100, kernelStalls{500, 100, 200, 7, 8, 9}), stalling(1, 1, kernelStalls{600, 101, 202, 7, 9, 10}),
			stallCounts{100, 1, 2, 7, 9, 10},
		},
		"connected again, with more bytes": {
			stalling(1, 100, kernelStalls{rcvOOOPack: 5, dsackDups: 5, rto: 5}),
			stalling(1, 200, kernelStalls{rcvOOOPack: 5, dsackDups: 6, rto: 1}), stallCounts{countRcvOOOPack: 5, countDSACKDups: 6, countRTO: 1},
		},
		"wrapped": {
			stalling(1, 100, kernelStalls{busy: 1 << 42, rcvOOOPack: highest, dsackDups: highest - 1, rto: math.MaxUint16}),
			stalling(1, 100, kernelStalls{busy: 5, rcvOOOPack: 1, dsackDups: highest, rto: 3}),
			stallCounts{countBusy: 5, countRcvOOOPack: 2, countDSACKDups: 1, countRTO: 4},
		},
	} {
		for _, isEnd := range []bool{false, true} {
			l := newListening()
			l.stalls(test.last)
			if now := test.now; isEnd {
				require.Equal(t, test.want, l.stalls(ended(now)), name)
			} else {
				require.Equal(t, test.want, l.stalls(now), name)
			}
		}
	}
}

// Without other sets, a socket that has been connected again is found by its traffic all the same; without the set there is no table.
func TestStallsAlone(t *testing.T) {
	l := newListening()
	l.flows = newFlows(detailStalls)
	l.stalls(stalling(1, 100, kernelStalls{rto: 3}))
	require.Equal(t, stallCounts{countRTO: 3}, l.stalls(stalling(1, 50, kernelStalls{rto: 3})))

	l.flows = newFlows(everyDetail &^ detailStalls)
	l.pass(stalling(1, 100, kernelStalls{rto: 3}), ended(stalling(2, 100, kernelStalls{rto: 3})))
	require.Nil(t, l.stall)
	require.Nil(t, l.table.stalls)
}

// A connection is idle if it is established and had no data in either direction for idle_after.
func TestIdle(t *testing.T) {
	l := newListening()
	l.idleAfter = 1000
	for _, test := range []struct {
		state      netstat.TCPState
		sent, recv uint32
		want       bool
	}{
		{netstat.TCPEstablished, 1000, 1000, true},
		{netstat.TCPEstablished, 999, 5000, false},
		{netstat.TCPEstablished, 5000, 999, false},
		{netstat.TCPCloseWait, 5000, 5000, false},
		{netstat.TCPFinWait2, 5000, 5000, false},
		{netstat.TCPSynSent, 5000, 5000, false},
	} {
		s := sent(1, 1)
		s.State, s.TCP.LastDataSent, s.TCP.LastDataRecv = test.state, test.sent, test.recv
		l.stalls(s)
		require.Equal(t, test.want, l.stall.idle, "%+v", test)
	}
	l.stalls(closedListener(web))
	require.False(t, l.stall.idle)
	l.idleAfter = 0
	withoutInfo := &netstat.Socket{Transport: netstat.TransportTCP, State: netstat.TCPEstablished, Cookie: 2}
	withoutInfo.Set(netstat.FieldCookie)
	l.stalls(withoutInfo)
	require.False(t, l.stall.idle, "the kernel does not say")
}

// A connection that is decided at the end of the pass has its own stalls, and not those of the socket that was seen last.
func TestStallsOfUndecided(t *testing.T) {
	p := newPass(noFilters(t), everyDetail, newUserNames(nil), newCgroups(false, "", nil))
	p.flows.idleAfter = 1
	connection := func(cookie uint64, notsent uint32, at string) *netstat.Socket {
		s := stalling(cookie, 5, kernelStalls{rto: uint16(cookie)})
		s.TCP.NotsentBytes, s.Namespace = notsent, &own
		s.Local, s.Remote = netip.MustParseAddrPort(at), netip.MustParseAddrPort(visitor)
		return s
	}
	first, second := connection(2, 20, "192.0.2.1:40000"), connection(3, 30, "192.0.2.1:40001")
	old := connection(4, 40, "192.0.2.1:40002")
	in := &scope{namespace: &own, read: tcpOnly, closedEvents: true}
	got := map[uint64]stall{}
	count := func(o *observation) { got[o.Cookie] = *o.stall }
	for pass, sockets := range [][]*netstat.Socket{{old}, {first, second, old}} {
		p.begin(time.Unix(int64(1000+pass), 0), false)
		p.enter(in)
		for _, s := range sockets {
			if o := p.observe(s); pass == 1 && o.wanted {
				count(o)
			}
		}
		p.settle(count)
		p.end(&scopes{protocols: tcpOnly, all: []*scope{in}})
	}
	require.Equal(t, map[uint64]stall{
		2: {notsent: 20, counts: stallCounts{countRTO: 2}},
		3: {notsent: 30, counts: stallCounts{countRTO: 3}},
		4: {notsent: 40},
	}, got)
}

// A series that has only counters of the set stalls is emitted once more too, and with what it counted in its first gather.
func TestStallsBeginWithZero(t *testing.T) {
	tr := newProcessScene(t, 10)
	tr.pass.flows = newFlows(detailStalls)
	tr.measurement = newProcessMeasurement([]string{tagProcessName}, tr.pass.owners, seriesOptions{details: detailStalls, maxSeries: 10})
	tr.gather(0)
	one := stalling(1, 0, kernelStalls{busy: 7000, rto: 3})
	require.Zero(t, tr.gather(interval, holding{"a", one})["a"]["tcp_rto"])
	got := tr.gather(interval)
	require.EqualValues(t, 3, got["a"]["tcp_rto"])
	require.EqualValues(t, 7000, got["a"]["tcp_busy_us"])
	require.Empty(t, tr.gather(interval))
	two := stalling(2, 0, kernelStalls{rto: 2})
	require.EqualValues(t, 5, tr.gather(interval, holding{"a", two})["a"]["tcp_rto"], "the counters are remembered")
}

// Of a connection that has ended the counters count, and what it had not sent does not.
func TestStallsOfClosed(t *testing.T) {
	var st stats
	s := ended(stalling(1, 5, kernelStalls{}))
	s.TCP.NotsentBytes = 9
	o := observation{Socket: s, stall: &stall{notsent: 9, counts: stallCounts{countRTO: 2}}}
	st.add(&o)
	require.Zero(t, st, "it does not count")
	o.delta[countClosed] = 1
	st.add(&o)
	require.Equal(t, stallCounts{countRTO: 2}, st.stalls)
	require.Zero(t, st.notsent)
}

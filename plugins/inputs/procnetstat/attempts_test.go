//go:build linux

package procnetstat

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// attempting are flows whose sockets have the attempts of a test.
type attempting struct {
	*listening
	attempts map[*netstat.Socket]netstat.Attempt
}

func newAttempting() *attempting {
	a := &attempting{newListening(), map[*netstat.Socket]netstat.Attempt{}}
	a.attemptOf = func(s *netstat.Socket) (netstat.Attempt, bool) {
		attempt, ok := a.attempts[s]
		return attempt, ok
	}
	a.pass()
	return a
}

// socket is a socket at the attempt with the number, 0: none is known, after so many retransmitted SYNs.
func (a *attempting) socket(cookie uint64, state netstat.TCPState, number, retrans uint32) *netstat.Socket {
	s := sent(cookie, 0)
	s.State = state
	s.Local, s.Remote = netip.MustParseAddrPort("192.0.2.1:50000"), netip.MustParseAddrPort("198.51.100.1:443")
	s.TCP.SegsOut, s.TCP.SegsIn, s.TCP.RetransSegs = 1+retrans, 0, retrans
	if number != 0 {
		a.attempts[s] = netstat.Attempt{Number: number, ConnectTime: time.Duration(number) * time.Millisecond, SynRetrans: retrans}
	}
	return s
}

func (a *attempting) trying(cookie uint64, number, retrans uint32) *netstat.Socket {
	return a.socket(cookie, netstat.TCPSynSent, number, retrans)
}

func (a *attempting) established(cookie uint64, number, retrans uint32) *netstat.Socket {
	return a.socket(cookie, netstat.TCPEstablished, number, retrans)
}

// ended is an end with an outcome.
func (a *attempting) ended(cookie uint64, outcome netstat.Outcome, number, retrans uint32) *netstat.Socket {
	s := a.socket(cookie, netstat.TCPClose, number, retrans)
	s.Outcome = outcome
	s.Closed = outcome.IsFailedConnect() || outcome == netstat.OutcomeClosed
	return s
}

func (a *attempting) refused(cookie uint64, number, retrans uint32) *netstat.Socket {
	return a.ended(cookie, netstat.OutcomeConnectRefused, number, retrans)
}

// pass returns what the pass counts of attempts and outcomes: opened, closed, refused, reset, retransmitted SYNs. Then follow the times of
// the connections that were established, in milliseconds.
func (a *attempting) pass(sockets ...*netstat.Socket) (counts [5]int64, times []int) {
	var sum traffic
	a.enter(a.in)
	for _, s := range sockets {
		var did traffic
		switch {
		case s.Outcome.IsFailedConnect():
			_, did = a.failed(s)
		case s.Outcome != netstat.OutcomeUnknown && !s.Closed:
			_, did = a.flows.ended(s)
		case s.Closed:
			_, did = a.destroyed(s)
		default:
			if _, idle := a.live(s, &did); idle {
				did = traffic{}
			}
		}
		sum.add(&did)
		if a.connectTime > 0 {
			times = append(times, int(a.connectTime/1000))
		}
	}
	a.end(&scopes{protocols: tcpOnly, all: []*scope{a.in}})
	return [5]int64{sum[countOpened], sum[countClosed], sum[countConnectRefused], sum[countClosedReset], sum[countSynRetrans]}, times
}

// requirePass wants the counts, and the times in milliseconds.
func (a *attempting) requirePass(t *testing.T, want [5]int64, times []int, sockets ...*netstat.Socket) {
	t.Helper()
	counts, got := a.pass(sockets...)
	require.Equal(t, want, counts, "opened, closed, refused, reset, retransmitted SYNs")
	require.Equal(t, times, got)
}

// Each attempt is opened and, when it fails, closed once; retransmitted SYNs count when a gather sees them, and the rest in the end.
func TestAttempts(t *testing.T) {
	const cookie = 1
	opened, failed, none := [5]int64{1}, [5]int64{1, 1, 1}, [5]int64{}
	t.Run("never seen", func(t *testing.T) {
		a := newAttempting()
		a.requirePass(t, [5]int64{3, 3, 3, 0, 2}, nil, a.refused(cookie, 1, 0), a.refused(cookie, 2, 2), a.refused(2, 3, 0))
		require.Empty(t, a.table.all)
	})
	t.Run("seen", func(t *testing.T) {
		a := newAttempting()
		a.requirePass(t, opened, nil, a.trying(cookie, 1, 0))
		a.requirePass(t, [5]int64{0, 0, 0, 0, 2}, nil, a.trying(cookie, 1, 2))
		a.requirePass(t, none, nil, a.trying(cookie, 1, 2))
		a.requirePass(t, [5]int64{0, 1, 1, 0, 1}, nil, a.refused(cookie, 1, 3))
		a.requirePass(t, none, nil)
		require.Empty(t, a.table.all)
	})
	t.Run("fails while it is read", func(t *testing.T) {
		a := newAttempting()
		a.requirePass(t, failed, nil, a.trying(cookie, 1, 0), a.refused(cookie, 1, 0))
		a.requirePass(t, none, nil)
		require.Empty(t, a.table.all)
	})
	t.Run("established", func(t *testing.T) {
		a := newAttempting()
		a.requirePass(t, opened, nil, a.trying(cookie, 1, 0))
		a.requirePass(t, [5]int64{0, 0, 0, 0, 1}, []int{1}, a.established(cookie, 1, 1))
		a.requirePass(t, none, nil, a.established(cookie, 1, 1))
		a.requirePass(t, [5]int64{1, 0, 0, 0, 4}, []int{2}, a.established(cookie, 1, 1), a.established(2, 2, 4))
		a.requirePass(t, [5]int64{0, 1}, nil, a.established(2, 2, 4), a.ended(cookie, netstat.OutcomeClosed, 1, 1))
	})
	t.Run("established and closed between two passes", func(t *testing.T) {
		a := newAttempting()
		a.requirePass(t, [5]int64{1, 1, 0, 0, 1}, []int{1}, a.ended(cookie, netstat.OutcomeClosed, 1, 1))
		a.requirePass(t, [5]int64{1, 0, 0, 0, 1}, nil, a.trying(2, 2, 1))
		a.requirePass(t, [5]int64{0, 1, 0, 0, 1}, []int{2}, a.ended(2, netstat.OutcomeClosed, 2, 2))
	})
	t.Run("again on the same socket", func(t *testing.T) {
		a := newAttempting()
		a.requirePass(t, [5]int64{1, 0, 0, 0, 1}, nil, a.trying(cookie, 1, 1))
		a.requirePass(t, [5]int64{1, 1, 1, 0, 1}, nil, a.trying(cookie, 2, 0), a.refused(cookie, 1, 2))
		a.requirePass(t, [5]int64{2, 2, 2}, nil, a.trying(cookie, 4, 0), a.refused(cookie, 2, 0), a.refused(cookie, 3, 0))
		a.requirePass(t, [5]int64{1, 1, 1}, []int{5}, a.established(cookie, 5, 0), a.refused(cookie, 4, 0))
		a.requirePass(t, [5]int64{0, 1}, nil, a.ended(cookie, netstat.OutcomeClosed, 5, 0))
	})
	t.Run("again later", func(t *testing.T) {
		a := newAttempting()
		a.requirePass(t, failed, nil, a.trying(cookie, 1, 0), a.refused(cookie, 1, 0))
		a.requirePass(t, opened, []int{2}, a.established(cookie, 2, 0))
		a.requirePass(t, [5]int64{0, 1}, nil, a.ended(cookie, netstat.OutcomeClosed, 2, 0))
		a.requirePass(t, failed, nil, a.trying(2, 3, 0), a.refused(2, 3, 0))
		a.requirePass(t, [5]int64{1, 1}, []int{4}, a.ended(2, netstat.OutcomeClosed, 4, 0))
	})
	t.Run("disconnected and connected again", func(t *testing.T) {
		a := newAttempting()
		first := a.established(cookie, 1, 0)
		first.TCP.SegsOut = 9
		a.requirePass(t, opened, []int{1}, first)
		a.requirePass(t, [5]int64{1, 1}, []int{2}, a.established(cookie, 2, 0))
		other := a.established(cookie, 3, 0)
		other.Remote = netip.AddrPortFrom(other.Remote.Addr(), 80)
		other.TCP.SegsOut = 9
		a.requirePass(t, [5]int64{1, 1}, []int{3}, other)
	})
	t.Run("without the set connects", func(t *testing.T) {
		a := newAttempting()
		a.countsConnects = false
		a.requirePass(t, [5]int64{1}, nil, a.trying(cookie, 1, 0))
		a.requirePass(t, [5]int64{1, 1, 1}, nil, a.trying(cookie, 2, 0), a.refused(cookie, 1, 0))
		a.requirePass(t, [5]int64{0, 1, 1}, nil, a.refused(cookie, 2, 0))
		a.requirePass(t, none, nil)
		require.Empty(t, a.table.all)
	})
	t.Run("reset while it is held", func(t *testing.T) {
		a := newAttempting()
		a.requirePass(t, opened, []int{1}, a.established(cookie, 1, 0))
		a.requirePass(t, [5]int64{0, 1, 0, 1}, nil, a.ended(cookie, netstat.OutcomeReset, 1, 0))
		a.requirePass(t, none, nil)
		last := a.ended(cookie, netstat.OutcomeReset, 1, 0)
		last.Closed = true
		a.requirePass(t, none, nil, last)
		a.requirePass(t, none, nil)
		require.Empty(t, a.table.all)

		a.requirePass(t, [5]int64{1, 1, 0, 1}, []int{2}, a.ended(2, netstat.OutcomeReset, 2, 0))
		a.requirePass(t, none, nil)
		last = a.ended(2, netstat.OutcomeReset, 2, 0)
		last.Closed = true
		a.requirePass(t, none, nil, last)
		require.Empty(t, a.table.all)
	})
	t.Run("before the first pass", func(t *testing.T) {
		a := &attempting{newListening(), map[*netstat.Socket]netstat.Attempt{}}
		a.attemptOf = func(s *netstat.Socket) (netstat.Attempt, bool) { attempt, ok := a.attempts[s]; return attempt, ok }
		a.requirePass(t, none, nil, a.trying(1, 1, 3), a.trying(2, 2, 3), a.established(3, 3, 0), a.refused(4, 4, 0))
		a.requirePass(t, [5]int64{0, 1, 1, 0, 1}, []int{2}, a.established(2, 2, 3), a.established(3, 3, 0), a.refused(1, 1, 4))
	})
	t.Run("without records", func(t *testing.T) {
		a := newAttempting()
		a.requirePass(t, [5]int64{1, 0, 0, 0, 1}, nil, a.trying(1, 0, 1))
		a.requirePass(t, [5]int64{0, 0, 0, 0, 1}, nil, a.trying(1, 0, 2))
		a.requirePass(t, none, nil, a.established(1, 0, 2))
		a.requirePass(t, [5]int64{1}, nil, a.established(1, 0, 2), a.trying(2, 0, 0))
		last := a.ended(2, netstat.OutcomeClosed, 0, 3)
		last.Outcome = netstat.OutcomeUnknown
		a.requirePass(t, [5]int64{0, 1, 0, 0, 3}, nil, a.established(1, 0, 2), last)
	})
}

// modelSocket is what the kernel and the library do with a socket that connects, again and again.
type modelSocket struct {
	cookie  uint64
	state   netstat.TCPState // TCPSynSent, TCPEstablished; TCPClose: no attempt, or none any more
	number  uint32
	retrans uint32
	dead    bool
	held    bool // reset
}

// Whatever sockets do between and during passes, each attempt counts once.
func TestAttemptsAtRandom(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			a := newAttempting()
			sockets := []*modelSocket{}
			var number uint32
			var events []*netstat.Socket
			var want, got [5]int64
			established, times := 0, 0
			step := func() {
				if len(sockets) < 4 {
					sockets = append(sockets, &modelSocket{cookie: uint64(1 + len(sockets)), state: netstat.TCPClose})
				}
				s := sockets[random.IntN(len(sockets))]
				switch {
				case s.dead:
					*s = modelSocket{cookie: s.cookie + 100, state: netstat.TCPClose}
				case s.held: // closed by the process
					last := a.ended(s.cookie, netstat.OutcomeReset, s.number, s.retrans)
					last.Closed, s.dead = true, true
					events = append(events, last)
				case s.state == netstat.TCPClose:
					number++
					s.state, s.number, s.retrans = netstat.TCPSynSent, number, 0
					want[0]++
				case s.state == netstat.TCPSynSent:
					switch random.IntN(3) {
					case 0:
						s.retrans++
						want[4]++
					case 1:
						events = append(events, a.refused(s.cookie, s.number, s.retrans))
						s.state = netstat.TCPClose
						want[1]++
						want[2]++
					default:
						s.state = netstat.TCPEstablished
						established++
					}
				case random.IntN(2) == 0:
					events = append(events, a.ended(s.cookie, netstat.OutcomeReset, s.number, s.retrans))
					s.held = true
					want[1]++
					want[3]++
				default:
					events = append(events, a.ended(s.cookie, netstat.OutcomeClosed, s.number, s.retrans))
					s.dead = true
					want[1]++
				}
			}
			pass := func(during int) {
				var seen []*netstat.Socket
				for _, s := range sockets {
					if !s.dead && !s.held && s.state != netstat.TCPClose {
						seen = append(seen, a.socket(s.cookie, s.state, s.number, s.retrans))
					}
				}
				for range during {
					step()
				}
				counts, of := a.pass(append(seen, events...)...)
				events = nil
				times += len(of)
				for i := range got {
					got[i] += counts[i]
				}
			}
			for range 30 {
				for range random.IntN(6) {
					step()
				}
				pass(random.IntN(4))
			}
			pass(0)
			require.Equal(t, want, got, "opened, closed, refused, reset, retransmitted SYNs")
			require.Equal(t, established, times)
		})
	}
}

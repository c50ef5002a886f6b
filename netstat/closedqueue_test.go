package netstat

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

// closedPayload returns the event for a destroyed socket.
func closedPayload(cookie uint64) []byte {
	info := make([]byte, 248)
	binary.NativeEndian.PutUint64(info[120:], 102)
	return sockdiagtest.Inet{
		Family: sockdiag.AFInet, State: uint8(TCPClose), Local: "127.0.0.1:5000", Remote: "127.0.0.2:6000",
		Interface: 3, Cookie: cookie, RecvQueue: 7, SendQueue: 8,
		Attributes: append(attribute(10, []byte{6}), attribute(sockdiag.InetInfo, info)...),
	}.Bytes()
}

func closedMessage(cookie uint64) sockdiag.InetMessage { return mustParseInet(closedPayload(cookie)) }

func mustParseInet(payload []byte) sockdiag.InetMessage {
	m, err := sockdiag.ParseInet(payload)
	if err != nil {
		panic(err)
	}
	return m
}

func takeClosed(t testing.TB, q *closedQueue) (sockets []Socket, lost int, err error) {
	t.Helper()
	var taken takenClosed
	taken.chunks, lost, err = q.take(nil)
	var s Socket
	for {
		if _, _, ok := taken.next(&s); !ok {
			require.Zero(t, q.waiting())
			return sockets, lost, err
		}
		sockets = append(sockets, s)
	}
}

func TestClosedQueue(t *testing.T) {
	q := testQueue(newClosedBudget(3000), &connects{})
	for i := range uint64(2000) {
		q.add(closedMessage(i))
	}
	sockets, lost, err := takeClosed(t, q)
	require.NoError(t, err)
	const room = 3000 / closedChunkLen / 2 * closedChunkLen // the half that one queue may use
	require.Equal(t, 2000-room, lost)
	require.Len(t, sockets, room)
	for i, s := range sockets {
		require.Equal(t, Socket{
			Transport: TransportTCP, Family: FamilyIPv4, State: TCPClose, Closed: true, Interface: 3, Cookie: uint64(i),
			Local: netip.MustParseAddrPort("127.0.0.1:5000"), Remote: netip.MustParseAddrPort("127.0.0.2:6000"),
			TCP: TCPInfo{BytesAcked: 102}, fields: closedFields,
		}, s)
	}
	sockets, lost, err = takeClosed(t, q)
	require.NoError(t, err)
	require.Empty(t, sockets)
	require.Zero(t, lost)
}

// All messages that cannot be decoded are reported as one error.
func TestClosedQueueCutOff(t *testing.T) {
	c := closedEvents{queue: *testQueue(newClosedBudget(maxClosed), &connects{})}
	whole := closedPayload(1)
	const lastAttribute = 72 + 8
	for n := lastAttribute + 4; n < len(whole); n++ {
		c.Destroyed(mustParseInet(whole[:n]))
	}
	_, err := sockdiag.ParseInet(whole[:71])
	c.Failed(err)
	c.Destroyed(mustParseInet(whole))
	q := &c.queue
	sockets, lost, err := takeClosed(t, q)
	require.EqualError(t, err, "attributes of inet_diag_msg: message is cut off (and 248 more)")
	require.ErrorIs(t, err, sockdiag.ErrShort)
	require.Zero(t, lost)
	require.Len(t, sockets, 1)
	_, _, err = q.take(nil)
	require.NoError(t, err)
}

// Adding and taking an event does not allocate.
func TestClosedQueueAllocs(t *testing.T) {
	known := every(bpf.Connect{Initiator: bpf.Process{PID: 7}, Port: 9})
	q := testQueue(newClosedBudget(maxClosed), known)
	message := closedMessage(1)
	taken := takenClosed{chunks: make([]*closedChunk, 0, 10)}
	q.add(message) // allocates the first chunk
	require.Zero(t, testing.AllocsPerRun(closedChunkLen-3, func() { q.add(message) }))
	var s Socket
	taken.chunks, _, _ = q.take(taken.chunks)
	require.Zero(t, testing.AllocsPerRun(closedChunkLen-3, func() {
		initiator, _, ok := taken.next(&s)
		if !ok || initiator.Initiator.PID != 7 {
			t.Fatal("nothing")
		}
	}))
}

type everyConnect bpf.Connect

func (e everyConnect) Lookup(uint64) (bpf.Connect, bool) { return bpf.Connect(e), true }
func (everyConnect) Drain(func(*bpf.End))                {}
func (everyConnect) Lost() uint64                        { return 0 }
func (everyConnect) Wait(func())                         {}
func (everyConnect) Close()                              {}

// every returns the records in which every connection was established by the attempt.
func every(connect bpf.Connect) *connects {
	connect.ConnectTime = 1
	return recorded(everyConnect(connect))
}

// testQueue returns a queue of destroyed sockets.
func testQueue(budget *closedBudget, c *connects) *closedQueue {
	return &closedQueue{budget: budget, connects: c, ends: newEndQueue(budget)}
}

func recorded(records connectRecords) *connects {
	c := &connects{}
	c.records.Store(&records)
	return c
}

// Each closed socket keeps its own initiator.
func TestClosedQueueInitiators(t *testing.T) {
	q := testQueue(newClosedBudget(maxClosed), &connects{})
	for i := range 1000 {
		q.connects = every(bpf.Connect{Initiator: bpf.Process{PID: uint32(1 + i%20)}})
		q.add(closedMessage(uint64(i)))
	}
	var taken takenClosed
	taken.chunks, _, _ = q.take(nil)
	var s Socket
	for i := range 1000 {
		initiator, _, ok := taken.next(&s)
		require.True(t, ok)
		require.EqualValues(t, i, s.Cookie)
		require.EqualValues(t, 1+i%20, initiator.Initiator.PID)
	}
	_, _, ok := taken.next(&s)
	require.False(t, ok)
}

// An event is an error or a closed socket with an address.
func FuzzClosedQueue(f *testing.F) {
	f.Add(closedPayload(1))
	f.Add(closedPayload(1)[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := sockdiag.ParseInet(b)
		if err != nil {
			return
		}
		q := testQueue(newClosedBudget(4*closedChunkLen), &connects{})
		q.add(m)
		broken := q.failed.more
		if q.failed.first != nil {
			broken++
		}
		sockets, lost, err := takeClosed(t, q)
		require.Equal(t, broken > 0, err != nil)
		require.LessOrEqual(t, len(sockets)+broken, 1)
		require.Zero(t, lost)
		for _, s := range sockets {
			require.True(t, (s.HasPeer() || s.Local.Port() != 0) && s.Closed && s.State == TCPClose && s.Transport == TransportTCP)
			require.Equal(t, s.Family == FamilyIPv4, s.Local.Addr().Is4() && s.Remote.Addr().Is4())
			require.Zero(t, s.RecvQueue|s.SendQueue|s.UID)
			require.Equal(t, s.fields&closedFields, s.fields)
			requireAbsentIsZero(t, &s)
		}
	})
}

func BenchmarkClosedQueue(b *testing.B) {
	q := testQueue(newClosedBudget(maxClosed), &connects{})
	message := closedMessage(1)
	var taken takenClosed
	var s Socket
	b.ReportAllocs()
	for i := range b.N {
		q.add(message)
		if i%100_000 == 0 {
			taken.chunks, _, _ = q.take(taken.chunks)
			for ok := true; ok; {
				_, _, ok = taken.next(&s)
			}
		}
	}
}

// Sockets without a peer are taken first, and reused chunks keep nothing of earlier sockets.
func TestClosedQueueUnpaired(t *testing.T) {
	budget := newClosedBudget(maxClosed)
	q := testQueue(budget, &connects{})
	unpaired := func(cookie uint64, port string) sockdiag.InetMessage {
		return mustParseInet(sockdiagtest.Inet{
			Family: sockdiag.AFInet, State: uint8(TCPClose), Local: "127.0.0.1:" + port, Remote: "0.0.0.0:0", Cookie: cookie,
		}.Bytes())
	}
	for range 3 { // reuses chunks
		q.connects = every(bpf.Connect{Initiator: bpf.Process{PID: 9}})
		for i := range uint64(3 * closedChunkLen / 2) {
			q.add(closedMessage(1000 + i))
		}
		q.connects = &connects{}
		for i := range uint64(closedChunkLen + 1) {
			q.add(unpaired(1+i, "80"))
		}
		q.add(unpaired(5000, "0")) // without a port
		var taken takenClosed
		taken.chunks, _, _ = q.take(nil)
		var s Socket
		var cookies []uint64
		for _, isKnown, ok := taken.next(&s); ok; _, isKnown, ok = taken.next(&s) {
			require.Equal(t, s.HasPeer(), isKnown)
			cookies = append(cookies, s.Cookie)
		}
		require.Len(t, cookies, closedChunkLen+1+3*closedChunkLen/2)
		for i, cookie := range cookies {
			want := uint64(1 + i)
			if i > closedChunkLen {
				want = 1000 + uint64(i-closedChunkLen-1)
			}
			require.Equal(t, want, cookie)
		}
		require.EqualValues(t, maxClosed/closedChunkLen, budget.left.Load(), "all chunks are returned")
	}
}

// One namespace can use at most half of the shared budget. Chunks that were handed out or dropped return to it.
func TestClosedBudget(t *testing.T) {
	const chunks = 16
	budget := newClosedBudget(chunks * closedChunkLen)
	flooded, quiet := testQueue(budget, &connects{}), testQueue(budget, &connects{})
	for i := range uint64(chunks * closedChunkLen) {
		flooded.add(closedMessage(i))
	}
	require.Equal(t, chunks/2*closedChunkLen, flooded.waiting())
	require.Equal(t, chunks/2*closedChunkLen, flooded.lost)
	var unread takenClosed // chunks that were taken and not handed out also count for the namespace
	unread.chunks, _, _ = flooded.take(nil)
	flooded.add(closedMessage(1))
	require.Zero(t, flooded.waiting())
	require.Equal(t, 1, flooded.lost)
	for i := range uint64(2 * closedChunkLen) {
		quiet.add(closedMessage(i))
	}
	require.Equal(t, 2*closedChunkLen, quiet.waiting(), "room for the other queue")
	require.Zero(t, quiet.lost)

	for _, give := range []func(*takenClosed){
		func(taken *takenClosed) { taken.drop() },
		func(taken *takenClosed) {
			var s Socket
			for _, _, ok := taken.next(&s); ok; _, _, ok = taken.next(&s) {
			}
		},
	} {
		for i := range uint64(3 * closedChunkLen) {
			quiet.add(closedMessage(i))
		}
		give(&unread)
		for _, q := range []*closedQueue{flooded, quiet} {
			var taken takenClosed
			taken.chunks, _, _ = q.take(nil)
			give(&taken)
		}
		require.EqualValues(t, chunks, budget.left.Load())
	}
}

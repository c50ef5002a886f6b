package netstat

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
	"github.com/procnetstat/procnetstat/netstat/internal/netns"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
)

// closedConn is a subscription to the destroyed TCP sockets of a network namespace, with a queue. Tests replace it.
type closedConn interface {
	// take appends the sockets received since the last call. lost is the number of sockets dropped since then, err the error of
	// messages that could not be received or decoded.
	take(to []*closedChunk) (chunks []*closedChunk, lost int, err error)
	// setRoom sets the receive buffer in bytes: a share of closedRoom.
	setRoom(bytes int)
	// close ends the subscription. Sockets received before can still be taken.
	close()
}

// closedEvents queues the events of a subscription, and the ends that the BPF program reports in the same network namespace.
type closedEvents struct {
	subscription *sockdiag.Subscription
	queue        closedQueue // used under the lock of the subscription: by its goroutine, and in Sync
	netNS        uint64
	ends         *endQueue
}

var (
	_ closedConn       = (*closedEvents)(nil)
	_ sockdiag.Handler = (*closedEvents)(nil)
)

// openClosedConn subscribes to the TCP sockets destroyed in the network namespace of the calling thread, with a receive buffer of
// room bytes. The error is errors.ErrUnsupported if the kernel has no such events or does not permit them.
func openClosedConn(connects *connects, budget *closedBudget, room int) (closedConn, error) {
	c := &closedEvents{
		queue: closedQueue{connects: connects, budget: budget}, netNS: netns.Of(netns.ThreadDir), ends: newEndQueue(budget),
	}
	c.queue.ends = c.ends
	var err error
	if c.subscription, err = sockdiag.Subscribe(c, room); err != nil {
		return nil, err
	}
	connects.follow(c.netNS, c.ends)
	return c, nil
}

// Destroyed implements sockdiag.Handler.
func (c *closedEvents) Destroyed(m sockdiag.InetMessage) { c.queue.add(m) }

// Failed implements sockdiag.Handler.
func (c *closedEvents) Failed(err error) { c.queue.fail(err) }

func (c *closedEvents) setRoom(bytes int) { c.subscription.SetBuffer(bytes) }

func (c *closedEvents) take(to []*closedChunk) (chunks []*closedChunk, lost int, err error) {
	c.sync(func() {
		chunks = c.queue.connects.takeEnds(c.ends, c.queue.takeUnpaired(to))
		chunks, lost, err = c.queue.take(chunks)
	})
	return chunks, lost, err
}

// sync reads the pending events and then calls f with exclusive access to the queue.
func (c *closedEvents) sync(f func()) {
	c.subscription.Sync(func(lost int) {
		c.queue.lost += lost
		f()
	})
}

func (c *closedEvents) close() {
	c.subscription.Close()
	c.queue.connects.unfollow(c.netNS, c.ends)
}

// closedRecord is a closed socket in the queue. It has no pointers, so that the garbage collector does not scan it.
type closedRecord struct {
	tcp                   TCPInfo
	cookie                uint64
	local, remote         [16]byte // IPv4-mapped for FamilyIPv4
	device                uint32
	localPort, remotePort uint16
	attempt               bpf.Attempt // with a number if the attempt is recorded
	fields                Field
	initiator             int16 // 1 + index into closedChunk.initiators; 0: unknown
	family                Family
	outcome               Outcome
	held                  bool // the connection has ended, but the kernel has not destroyed the socket
	omitted               bool
}

// closedFields are the fields that the kernel still reports for a destroyed socket.
const closedFields = FieldInterface | FieldCookie | FieldTCPInfo | FieldTCPBytes | FieldTCPSegs | FieldTCPBytesSent | FieldTCPLimits |
	FieldTCPDSACKDups | FieldTCPRcvOOOPack | FieldTCPTotalRTO

func (r *closedRecord) set(s *Socket) {
	r.family, r.cookie, r.device, r.tcp, r.fields = s.Family, s.Cookie, s.Interface, s.TCP, s.fields&closedFields
	r.local, r.localPort = s.Local.Addr().As16(), s.Local.Port()
	r.remote, r.remotePort = s.Remote.Addr().As16(), s.Remote.Port()
}

func (r *closedRecord) get(s *Socket) {
	addrPort := func(b [16]byte, port uint16) netip.AddrPort {
		addr := netip.AddrFrom16(b)
		if r.family == FamilyIPv4 {
			addr = addr.Unmap()
		}
		return netip.AddrPortFrom(addr, port)
	}
	s.reset(TransportTCP, r.family)
	s.State, s.Closed, s.Outcome = TCPClose, !r.held, r.outcome
	s.Local, s.Remote = addrPort(r.local, r.localPort), addrPort(r.remote, r.remotePort)
	s.Interface, s.Cookie, s.TCP, s.fields = r.device, r.cookie, r.tcp, r.fields
}

// closedChunk holds records of a queue, about 12 KiB. A namespace with few closed sockets needs only one.
type closedChunk struct {
	records    [closedChunkLen]closedRecord
	used       int
	next       int           // the next record to yield
	initiators []bpf.Connect // of the records; successive equal ones are stored once
	budget     *closedBudget // to return it to
	held       *atomic.Int64 // number of chunks of its namespace
}

const closedChunkLen = 64

// closedChunks pools free chunks. The garbage collector frees them after a peak.
var closedChunks = sync.Pool{New: func() any { return new(closedChunk) }}

// maxClosed bounds the closed sockets that a scanner queues: 184 MiB, and less than half of that for the initiators.
const maxClosed = 1 << 20

// closedBudget limits the chunks of all namespaces of a scanner together. It is safe for concurrent use.
type closedBudget struct{ left atomic.Int64 } // in chunks

func newClosedBudget(sockets int) *closedBudget {
	b := &closedBudget{}
	b.left.Store(int64(sockets / closedChunkLen))
	return b
}

// chunk returns an empty chunk for a namespace that already holds *held chunks; nil if the budget is used up. A namespace gets a
// chunk only while more are left than it holds, so that a hostile one cannot take them all.
func (b *closedBudget) chunk(held *atomic.Int64) *closedChunk {
	for {
		left := b.left.Load()
		if left <= held.Load() {
			return nil
		}
		if b.left.CompareAndSwap(left, left-1) {
			break
		}
	}
	chunk := closedChunks.Get().(*closedChunk) //nolint:forcetypeassert // set by New
	held.Add(1)
	chunk.used, chunk.next, chunk.initiators, chunk.budget, chunk.held = 0, 0, chunk.initiators[:0], b, held
	return chunk
}

// free returns the chunk to the budget and the pool.
func (c *closedChunk) free() {
	c.held.Add(-1)
	c.budget.left.Add(1)
	c.budget, c.held = nil, nil
	closedChunks.Put(c)
}

// setConnect records the attempt that made the connection. It looks for an equal initiator among the last few: connections of a
// process tend to end together.
func (c *closedChunk) setConnect(r *closedRecord, connect bpf.Connect) {
	const lookBack = 8
	r.attempt = connect.Attempt
	connect.Port, connect.Attempt = 0, bpf.Attempt{}
	for i := len(c.initiators); i > max(0, len(c.initiators)-lookBack); i-- {
		if c.initiators[i-1] == connect {
			r.initiator = int16(i)
			return
		}
	}
	c.initiators = append(c.initiators, connect)
	r.initiator = int16(len(c.initiators))
}

// connectOf returns the attempt that made the connection; false if it is unknown.
func (c *closedChunk) connectOf(r *closedRecord) (connect bpf.Connect, isKnown bool) {
	if r.initiator == 0 {
		return bpf.Connect{}, false
	}
	connect = c.initiators[r.initiator-1]
	connect.Attempt = r.attempt
	return connect, true
}

// closedQueue queues the closed sockets of a namespace until a scan takes them. It is not safe for concurrent use.
type closedQueue struct {
	connects *connects // nil in an endQueue, like ends
	ends     *endQueue // of the same namespace
	budget   *closedBudget
	held     atomic.Int64   // number of chunks, including taken ones that are not yielded yet
	chunks   []*closedChunk // only the last has free records
	unpaired []*closedChunk // the same for sockets that never had a peer
	lost     int
	failed   errorSummary // messages that could not be decoded
	socket   Socket
}

// fail counts a message that could not be decoded.
func (q *closedQueue) fail(err error) { q.failed.add(err) }

// add queues the socket in a message, unless it never had a port.
func (q *closedQueue) add(m sockdiag.InetMessage) {
	if err := q.socket.setInet(m, TransportTCP); err != nil {
		q.fail(err)
		return
	}
	connect, isKnown := q.connects.Lookup(q.socket.Cookie)
	outcome, isReported := q.connects.destroyed(q.ends, &q.socket, &connect, isKnown)
	chunks := &q.chunks
	switch {
	case q.socket.HasPeer():
		if isReported {
			return
		}
	case q.socket.Local.Port() == 0:
		return
	default:
		chunks = &q.unpaired
	}
	record := q.next(chunks)
	if record == nil {
		q.lost++
		return
	}
	record.set(&q.socket)
	record.outcome = outcome
	if isKnown {
		q.last(chunks).setConnect(record, connect)
		if record.remotePort == 0 {
			record.remotePort = connect.Port
		}
	}
}

// addEnd queues an end that the BPF program has reported. It returns false if there is no room.
func (q *closedQueue) addEnd(e *bpf.End, outcome Outcome) bool {
	record := q.next(&q.chunks)
	if record == nil {
		return false
	}
	s := &q.socket
	s.reset(TransportTCP, FamilyIPv6)
	if e.Local.Addr().Is4() {
		s.Family = FamilyIPv4
	}
	s.Local, s.Remote, s.Interface, s.Cookie, s.fields = e.Local, e.Remote, e.Device, e.Cookie, FieldInterface|FieldCookie
	if e.Failed {
		s.fields |= FieldTCPSegs
		s.TCP.SegsOut, s.TCP.SegsIn, s.TCP.RetransSegs = e.SegsOut, e.SegsIn, e.SynRetrans
	}
	record.set(s)
	record.outcome, record.held = outcome, !e.Failed
	if e.Number != 0 {
		q.last(&q.chunks).setConnect(record, e.Connect)
	}
	return true
}

// next returns the next record; nil if the budget is used up.
func (q *closedQueue) next(chunks *[]*closedChunk) *closedRecord {
	chunk := q.chunkFor(chunks)
	if chunk == nil {
		return nil
	}
	record := &chunk.records[chunk.used]
	chunk.used++
	record.initiator, record.attempt, record.held, record.omitted = 0, bpf.Attempt{}, false, false
	return record
}

func (*closedQueue) last(chunks *[]*closedChunk) *closedChunk { return (*chunks)[len(*chunks)-1] }

// chunkFor returns the chunk for the next record; nil if the budget is used up.
func (q *closedQueue) chunkFor(chunks *[]*closedChunk) *closedChunk {
	if n := len(*chunks); n > 0 && (*chunks)[n-1].used < closedChunkLen {
		return (*chunks)[n-1]
	}
	chunk := q.budget.chunk(&q.held)
	if chunk != nil {
		*chunks = append(*chunks, chunk)
	}
	return chunk
}

// waiting returns the number of queued sockets.
func (q *closedQueue) waiting() (n int) {
	for _, chunks := range [][]*closedChunk{q.chunks, q.unpaired} {
		for _, chunk := range chunks {
			n += chunk.used
		}
	}
	return n
}

// take takes what takeUnpaired has not taken.
func (q *closedQueue) take(to []*closedChunk) (chunks []*closedChunk, lost int, err error) {
	lost, err = q.lost, q.failed.err()
	q.lost, q.failed = 0, errorSummary{}
	return q.takeChunks(q.takeUnpaired(to)), lost, err
}

// takeUnpaired takes the sockets that never had a peer.
func (q *closedQueue) takeUnpaired(to []*closedChunk) []*closedChunk {
	to = append(to, q.unpaired...)
	q.unpaired = nil // usually few
	return to
}

// takeChunks takes the other sockets.
func (q *closedQueue) takeChunks(to []*closedChunk) []*closedChunk {
	const maxKept = 512 // chunks
	to = append(to, q.chunks...)
	clear(q.chunks)
	if q.chunks = q.chunks[:0]; cap(q.chunks) > maxKept {
		q.chunks = nil
	}
	return to
}

// takenClosed are closed sockets that a scan has taken from a queue and yields.
type takenClosed struct{ chunks []*closedChunk }

// next fills s with the next socket, and connect with the attempt that made the connection, if that is known. It is false at the
// end.
func (t *takenClosed) next(s *Socket) (connect bpf.Connect, isKnown, ok bool) {
	for len(t.chunks) > 0 {
		chunk := t.chunks[0]
		if chunk.next < chunk.used {
			record := &chunk.records[chunk.next]
			chunk.next++
			if record.omitted {
				continue
			}
			record.get(s)
			connect, isKnown = chunk.connectOf(record)
			return connect, isKnown, true
		}
		t.chunks[0] = nil
		t.chunks = t.chunks[1:]
		chunk.free()
	}
	t.chunks = nil
	return bpf.Connect{}, false, false
}

// drop discards the remaining sockets.
func (t *takenClosed) drop() {
	for _, chunk := range t.chunks {
		chunk.free()
	}
	t.chunks = nil
}

// discardClosed ends a subscription and discards its events.
func discardClosed(c closedConn) {
	c.close()
	chunks, _, _ := c.take(nil)
	(&takenClosed{chunks}).drop()
}

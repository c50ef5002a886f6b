package netstat

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

// closedConn hears of the TCP sockets that the kernel destroys in a network namespace; an interface for tests to replace.
type closedConn interface {
	// take appends the sockets that were heard of since it was called last. lost is how many more there were, err of what
	// could not be decoded.
	take(to []*closedChunk) (chunks []*closedChunk, lost int, err error)
	// setRoom sets how many bytes of closedRoom the kernel may fill.
	setRoom(bytes int)
	// close ends it. What was heard of until then can still be taken.
	close()
}

// closedRecord is a closed socket that waits to be handed out. It holds no pointers: a million of them cost the garbage collector
// nothing.
type closedRecord struct {
	tcp                   TCPInfo
	cookie                uint64
	local, remote         [16]byte // IPv4-mapped for FamilyIPv4
	device                uint32
	localPort, remotePort uint16
	fields                Field
	begun                 int16 // closedChunk.begun[begun-1] says who began it; 0: not known
	family                Family
}

// closedFields are those that a socket still has when it is destroyed.
const closedFields = FieldInterface | FieldCookie | FieldTCPInfo | FieldTCPBytes | FieldTCPSegs | FieldTCPBytesSent

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
	s.State, s.Closed = TCPClose, true
	s.Local, s.Remote = addrPort(r.local, r.localPort), addrPort(r.remote, r.remotePort)
	s.Interface, s.Cookie, s.TCP, s.fields = r.device, r.cookie, r.tcp, r.fields
}

// closedChunk holds some of the records that wait, about 8 KiB: a namespace in which little is closed takes no more.
type closedChunk struct {
	records [closedChunkLen]closedRecord
	used    int
	next    int           // the record to hand out
	begun   []bpf.Connect // those of the records, each of them once if they follow each other
	budget  *closedBudget // that it is part of
	held    *atomic.Int64 // chunks of its namespace
}

const closedChunkLen = 64

// closedChunks has those that are not in use. A load that has gone gives them to the garbage collector.
var closedChunks = sync.Pool{New: func() any { return new(closedChunk) }}

// maxClosed bounds the closed sockets that wait to be handed out by a scanner: 128 MiB, and less than half as much for who began
// the connections.
const maxClosed = 1 << 20

// closedBudget is what all namespaces of a scanner may take together. It can be used by several goroutines.
type closedBudget struct{ left atomic.Int64 } // chunks

func newClosedBudget(sockets int) *closedBudget {
	b := &closedBudget{}
	b.left.Store(int64(sockets / closedChunkLen))
	return b
}

// chunk returns an empty chunk for a namespace that holds so many; nil if there is no room. A namespace gets a chunk only while more
// are left than it holds: a hostile one cannot take them all.
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
	chunk := closedChunks.Get().(*closedChunk) //nolint:forcetypeassert // it has nothing else
	held.Add(1)
	chunk.used, chunk.next, chunk.begun, chunk.budget, chunk.held = 0, 0, chunk.begun[:0], b, held
	return chunk
}

// free gives the chunk back.
func (c *closedChunk) free() {
	c.held.Add(-1)
	c.budget.left.Add(1)
	c.budget, c.held = nil, nil
	closedChunks.Put(c)
}

// setBegun notes who began the connection. Those that one process began mostly end one after the other.
func (c *closedChunk) setBegun(r *closedRecord, by bpf.Connect) {
	const lookBack = 8
	by.Port = 0
	for i := len(c.begun); i > max(0, len(c.begun)-lookBack); i-- {
		if c.begun[i-1] == by {
			r.begun = int16(i)
			return
		}
	}
	c.begun = append(c.begun, by)
	r.begun = int16(len(c.begun))
}

// by returns who began the connection, or nil.
func (c *closedChunk) by(r *closedRecord) *bpf.Connect {
	if r.begun == 0 {
		return nil
	}
	return &c.begun[r.begun-1]
}

// closedQueue keeps the closed sockets of a namespace until they are taken. It is for one goroutine at a time.
type closedQueue struct {
	connects connectLookup // nil: nobody knows who began connections
	budget   *closedBudget
	held     atomic.Int64   // chunks, those that were taken and are not handed out included
	chunks   []*closedChunk // the last is filled
	unpaired []*closedChunk // the same, of sockets that never had a peer
	lost     int
	failed   errorSummary // messages that could not be decoded
	socket   Socket
}

// nobody has asked for what the kernel sends to a multicast group.
var nobody = exchange{}

// hear takes what the kernel sent at once.
func (q *closedQueue) hear(b []byte) {
	for len(b) > 0 {
		m, rest, err := nextMessage(b)
		if err != nil {
			q.fail(err)
			return
		}
		b = rest
		if m.kind == sockDiagByFamily && m.answers(nobody) {
			q.add(m.payload)
		}
	}
}

// fail counts a message that could not be decoded.
func (q *closedQueue) fail(err error) { q.failed.add(err) }

// add adds the socket in a message, if it ever had a port.
func (q *closedQueue) add(payload []byte) {
	if err := decodeInetMsg(payload, TransportTCP, &q.socket); err != nil {
		q.fail(err)
		return
	}
	var by bpf.Connect
	isKnown := false
	if q.connects != nil {
		by, isKnown = q.connects.Lookup(q.socket.Cookie)
	}
	chunks := &q.chunks
	if !q.socket.HasPeer() {
		if q.socket.Local.Port() == 0 {
			return
		}
		chunks = &q.unpaired
	}
	chunk := q.roomIn(chunks)
	if chunk == nil {
		q.lost++
		return
	}
	record := &chunk.records[chunk.used]
	record.set(&q.socket)
	record.begun = 0
	if isKnown {
		chunk.setBegun(record, by)
		if record.remotePort == 0 {
			record.remotePort = by.Port
		}
	}
	chunk.used++
}

// roomIn returns the chunk that has room, or nil.
func (q *closedQueue) roomIn(chunks *[]*closedChunk) *closedChunk {
	if n := len(*chunks); n > 0 && (*chunks)[n-1].used < closedChunkLen {
		return (*chunks)[n-1]
	}
	chunk := q.budget.chunk(&q.held)
	if chunk != nil {
		*chunks = append(*chunks, chunk)
	}
	return chunk
}

// waiting is the number of sockets to be taken.
func (q *closedQueue) waiting() (n int) {
	for _, chunks := range [][]*closedChunk{q.chunks, q.unpaired} {
		for _, chunk := range chunks {
			n += chunk.used
		}
	}
	return n
}

func (q *closedQueue) take(to []*closedChunk) (chunks []*closedChunk, lost int, err error) {
	lost, err = q.lost, q.failed.err()
	to = append(append(to, q.unpaired...), q.chunks...)
	q.unpaired = nil  // they are few
	const roomy = 512 // chunks
	clear(q.chunks)
	if q.chunks = q.chunks[:0]; cap(q.chunks) > roomy {
		q.chunks = nil
	}
	q.lost, q.failed = 0, errorSummary{}
	return to, lost, err
}

// takenClosed are closed sockets that were taken, and are being handed out.
type takenClosed struct{ chunks []*closedChunk }

// next fills s with the next one, and returns who began the connection, if that is known; false if there is none.
func (t *takenClosed) next(s *Socket) (by *bpf.Connect, ok bool) {
	for len(t.chunks) > 0 {
		chunk := t.chunks[0]
		if chunk.next < chunk.used {
			record := &chunk.records[chunk.next]
			chunk.next++
			record.get(s)
			return chunk.by(record), true
		}
		t.chunks[0] = nil
		t.chunks = t.chunks[1:]
		chunk.free()
	}
	t.chunks = nil
	return nil, false
}

// drop leaves all out.
func (t *takenClosed) drop() {
	for _, chunk := range t.chunks {
		chunk.free()
	}
	t.chunks = nil
}

// discardClosed ends a subscription of which nobody wants to know what it has told.
func discardClosed(c closedConn) {
	c.close()
	chunks, _, _ := c.take(nil)
	(&takenClosed{chunks}).drop()
}

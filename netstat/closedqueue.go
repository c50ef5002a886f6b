package netstat

import (
	"fmt"
	"net/netip"
	"sync"
)

// closedConn hears of the TCP sockets that the kernel destroys in a network namespace; an interface for tests to replace.
type closedConn interface {
	// take appends the sockets that were heard of since it was called last. lost is how many more there were, err of what
	// could not be decoded.
	take(to []*closedChunk) (chunks []*closedChunk, lost int, err error)
	// ready has something to receive when there is something to take.
	ready() <-chan struct{}
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
	r.family, r.cookie, r.device, r.tcp, r.fields = s.Family, s.Cookie, s.Interface, s.TCP, s.Fields&closedFields
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
	s.Interface, s.Cookie, s.TCP, s.Fields = r.device, r.cookie, r.tcp, r.fields
}

// closedChunk holds some of the records that wait, about 64 KiB.
type closedChunk struct {
	records [512]closedRecord
	used    int
	next    int             // the record to hand out
	begun   []connectRecord // those of the records, each of them once if they follow each other
}

// closedChunks has those that are not in use. A load that has gone gives them to the garbage collector.
var closedChunks = sync.Pool{New: func() any { return new(closedChunk) }}

func newClosedChunk() *closedChunk {
	chunk := closedChunks.Get().(*closedChunk) //nolint:forcetypeassert // it has nothing else
	chunk.used, chunk.next, chunk.begun = 0, 0, chunk.begun[:0]
	return chunk
}

// setBegun notes who began the connection. Those that one process began mostly end one after the other.
func (c *closedChunk) setBegun(r *closedRecord, by connectRecord) {
	const lookBack = 8
	by.port = 0
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
func (c *closedChunk) by(r *closedRecord) *connectRecord {
	if r.begun == 0 {
		return nil
	}
	return &c.begun[r.begun-1]
}

// mostClosed bounds the memory for closed sockets that wait in a namespace to be handed out: 128 MiB.
const mostClosed = 1 << 20

// closedQueue keeps the closed sockets of a namespace until they are taken. It is for one goroutine at a time.
type closedQueue struct {
	connects connectRecorder // nil: nobody knows who began connections
	most     int
	chunks   []*closedChunk // the last is filled
	unpaired []*closedChunk // the same, of sockets that never had a peer
	waiting  int
	lost     int
	broken   int   // messages that could not be decoded
	failed   error // the first that went wrong
	socket   Socket
}

// hear takes what the kernel sent at once.
func (q *closedQueue) hear(b []byte) {
	for len(b) > 0 {
		m, rest, err := nextMessage(b)
		if err != nil {
			q.fail(err)
			return
		}
		b = rest
		if m.kind == sockDiagByFamily {
			q.add(m.payload)
		}
	}
}

// fail counts a message that could not be decoded.
func (q *closedQueue) fail(err error) {
	q.broken++
	if q.failed == nil {
		q.failed = err
	}
}

// add adds the socket in a message, if it ever had a port.
func (q *closedQueue) add(payload []byte) {
	if err := decodeInetMsg(payload, TransportTCP, &q.socket); err != nil {
		q.fail(err)
		return
	}
	var by connectRecord
	isKnown := false
	if q.connects != nil {
		by, isKnown = q.connects.look(q.socket.Cookie)
	}
	chunks := &q.chunks
	if !q.socket.HasPeer() {
		if q.socket.Local.Port() == 0 {
			return
		}
		chunks = &q.unpaired
	}
	if q.waiting == q.most {
		q.lost++
		return
	}
	chunk := lastOf(chunks)
	record := &chunk.records[chunk.used]
	record.set(&q.socket)
	record.begun = 0
	if isKnown {
		chunk.setBegun(record, by)
		if record.remotePort == 0 {
			record.remotePort = by.port
		}
	}
	chunk.used++
	q.waiting++
}

// lastOf returns the chunk that has room.
func lastOf(chunks *[]*closedChunk) *closedChunk {
	if n := len(*chunks); n > 0 && (*chunks)[n-1].used < len((*chunks)[n-1].records) {
		return (*chunks)[n-1]
	}
	chunk := newClosedChunk()
	*chunks = append(*chunks, chunk)
	return chunk
}

func (q *closedQueue) take(to []*closedChunk) (chunks []*closedChunk, lost int, err error) {
	lost, err = q.lost, q.failed
	to = append(append(to, q.unpaired...), q.chunks...)
	q.unpaired = nil // they are few
	if q.broken > 1 {
		err = fmt.Errorf("%w (and %d more)", err, q.broken-1)
	}
	const roomy = 64 // chunks
	clear(q.chunks)
	if q.chunks = q.chunks[:0]; cap(q.chunks) > roomy {
		q.chunks = nil
	}
	q.waiting, q.lost, q.broken, q.failed = 0, 0, 0, nil
	return to, lost, err
}

// takenClosed are closed sockets that were taken, and are being handed out.
type takenClosed struct{ chunks []*closedChunk }

// next fills s with the next one, and returns who began the connection, if that is known; false if there is none.
func (t *takenClosed) next(s *Socket) (by *connectRecord, ok bool) {
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
		closedChunks.Put(chunk)
	}
	t.chunks = nil
	return nil, false
}

// drop leaves all out.
func (t *takenClosed) drop() {
	for _, chunk := range t.chunks {
		closedChunks.Put(chunk)
	}
	t.chunks = nil
}

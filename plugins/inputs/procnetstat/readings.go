//go:build linux

package procnetstat

import (
	"math/bits"
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

// reading is the state of a socket in the last pass that saw it.
type reading struct {
	id uint64
	kernelCounters
	pass         uint32
	attribution  uint32 // an index, see attributions
	history      uint32 // history.number of its namespace
	port         uint16 // of the peer
	transport    netstat.Transport
	closedEvents bool // the kernel reports when it is destroyed
	closed       bool // the kernel has reported it
}

// kernelCounters are the counters that the kernel keeps for a socket.
type kernelCounters struct {
	bytesAcked, bytesReceived           uint64
	segsOut, segsIn, retransSegs, drops uint32
}

// readings keeps the readings of all sockets (100,000 on a busy host) in the order in which they were first seen. Dumps return
// sockets in about the same order, so the next lookup is usually the entry after the last one found. All others are found by a
// hash table with open addressing, whose slots hold an index into all plus 1; 0 is a free slot.
type readings struct {
	all   []reading
	next  int // the index that find tries first
	slots []uint32
}

// find returns the reading of the socket, or nil. The pointer is valid until the next add or keep.
func (r *readings) find(id uint64) *reading {
	if r.next < len(r.all) && r.all[r.next].id == id {
		r.next++
		return &r.all[r.next-1]
	}
	if len(r.slots) == 0 {
		return nil
	}
	i := *r.slot(id)
	if i == 0 {
		return nil
	}
	r.next = int(i)
	return &r.all[i-1]
}

// add adds the reading of a socket that has none, and returns a pointer like find.
func (r *readings) add(now reading) *reading {
	r.all = append(r.all, now)
	if 2*len(r.all) > len(r.slots) {
		r.index()
	} else {
		*r.slot(now.id) = uint32(len(r.all))
	}
	return &r.all[len(r.all)-1]
}

// keep removes the readings that are not wanted, and rewinds to the first one.
func (r *readings) keep(wanted func(*reading) bool) {
	r.next = 0
	before := len(r.all)
	kept := r.all[:0]
	for i := range r.all {
		if wanted(&r.all[i]) {
			kept = append(kept, r.all[i])
		}
	}
	r.all = kept
	if len(kept) == before {
		return
	}
	const maxSlack = 4 // capacity per entry: frees memory after a peak
	if cap(kept) > maxSlack*len(kept) {
		r.all = slices.Clone(kept)
	}
	r.index()
}

// index rebuilds the hash table, with room for half as many entries again.
func (r *readings) index() {
	const minSlots = 1 << 8
	size := max(minSlots, 1<<bits.Len(uint(3*len(r.all))))
	if size != len(r.slots) {
		r.slots = make([]uint32, size)
	} else {
		clear(r.slots)
	}
	for i := range r.all {
		*r.slot(r.all[i].id) = uint32(i + 1)
	}
}

// slot returns the slot of the socket, or the free slot for it. The kernel assigns cookies and inodes in sequence: the hash keeps
// blocks of neighbours together, as they are looked up together.
func (r *readings) slot(id uint64) *uint32 {
	const block = 16
	const spread = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	mask := uint64(len(r.slots) - 1)
	i := (id/block*spread)>>bits.LeadingZeros64(mask)&^(block-1) | id%block
	for ; ; i++ {
		if s := &r.slots[i&mask]; *s == 0 || r.all[*s-1].id == id {
			return s
		}
	}
}

//go:build linux

package procnetstat

import (
	"math/bits"
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

// reading is what the kernel told of a socket in the last pass that it was seen in.
type reading struct {
	id uint64
	kernelCounters
	pass         uint32
	attribution  uint32 // see belongings
	history      uint32 // the number of that of its namespace
	port         uint16 // of the peer
	transport    netstat.Transport
	closedEvents bool // the kernel tells when it is destroyed
	closed       bool // it has told
}

// numbers are what the kernel counts for a socket.
type kernelCounters struct {
	bytesAcked, bytesReceived           uint64
	segsOut, segsIn, retransSegs, drops uint32
}

// readings keeps the readings of all sockets, a hundred thousand on a busy host, in the order in which they were first met.
// That is about the order in which every dump has them: mostly the one that is looked for is the one after the last that was
// found. The others are found by a hash table with open addressing, the slots of which hold an index into all, and one more.
type readings struct {
	all   []reading
	next  int // where the next socket is looked for first
	slots []uint32
}

// find returns the reading of the socket, or nil. It is valid until the next add.
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

// add adds a reading of a socket that has none yet, and returns it as find does.
func (r *readings) add(now reading) *reading {
	r.all = append(r.all, now)
	if 2*len(r.all) > len(r.slots) {
		r.index()
	} else {
		*r.slot(now.id) = uint32(len(r.all))
	}
	return &r.all[len(r.all)-1]
}

// keep forgets the readings that are not wanted any more, and starts from the beginning.
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
	const maxSlack = 4 // times what is needed: a load that is gone gives its memory back
	if cap(kept) > maxSlack*len(kept) {
		r.all = slices.Clone(kept)
	}
	r.index()
}

// index makes the hash table for what is there, and for half as much again.
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

// slot returns the slot of the socket, or the free one that it would go to. The kernel numbers sockets one after the other:
// neighbours stay neighbours, as they are looked for together.
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

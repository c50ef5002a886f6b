//go:build linux

package procnetstat

import (
	"math/bits"
	"slices"
)

// flowTable keeps the flows of all sockets (100,000 on a busy host) in the order in which they were first seen. Dumps return
// sockets in about the same order, so the next lookup is usually the entry after the last one found. All others are found by a
// hash table with open addressing, whose slots hold an index into all plus 1; 0 is a free slot.
type flowTable struct {
	all   []flow
	next  int // the index that find tries first
	slots []uint32
}

// find returns the flow, or nil. The pointer is valid until the next add or keep.
func (t *flowTable) find(id uint64) *flow {
	if t.next < len(t.all) && t.all[t.next].id == id {
		t.next++
		return &t.all[t.next-1]
	}
	if len(t.slots) == 0 {
		return nil
	}
	i := *t.slot(id)
	if i == 0 {
		return nil
	}
	t.next = int(i)
	return &t.all[i-1]
}

// add adds a flow that is not in the table, and returns a pointer like find.
func (t *flowTable) add(f flow) *flow {
	t.all = append(t.all, f)
	if 2*len(t.all) > len(t.slots) {
		t.index()
	} else {
		*t.slot(f.id) = uint32(len(t.all))
	}
	return &t.all[len(t.all)-1]
}

// indexOf returns the index of a flow that find or add has just returned. It stays the same until the next keep.
func (t *flowTable) indexOf(f *flow) int {
	if i := t.next - 1; i >= 0 && &t.all[i] == f {
		return i
	}
	return len(t.all) - 1
}

// keep removes the flows that are not wanted, and rewinds to the first one.
func (t *flowTable) keep(wanted func(*flow) bool) {
	t.next = 0
	before := len(t.all)
	kept := t.all[:0]
	for i := range t.all {
		if wanted(&t.all[i]) {
			kept = append(kept, t.all[i])
		}
	}
	t.all = kept
	if len(kept) == before {
		return
	}
	const maxSlack = 4 // capacity per entry: frees memory after a peak
	if cap(kept) > maxSlack*len(kept) {
		t.all = slices.Clone(kept)
	}
	t.index()
}

// index rebuilds the hash table, with room for half as many entries again.
func (t *flowTable) index() {
	const minSlots = 1 << 8
	size := max(minSlots, 1<<bits.Len(uint(3*len(t.all))))
	if size != len(t.slots) {
		t.slots = make([]uint32, size)
	} else {
		clear(t.slots)
	}
	for i := range t.all {
		*t.slot(t.all[i].id) = uint32(i + 1)
	}
}

// slot returns the slot of the flow, or the free slot for it. The kernel assigns cookies and inodes in sequence: the hash keeps
// blocks of neighbours together, as they are looked up together.
func (t *flowTable) slot(id uint64) *uint32 {
	const block = 16
	const spread = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	mask := uint64(len(t.slots) - 1)
	i := (id/block*spread)>>bits.LeadingZeros64(mask)&^(block-1) | id%block
	for ; ; i++ {
		if s := &t.slots[i&mask]; *s == 0 || t.all[*s-1].id == id {
			return s
		}
	}
}

package netstat

import "math/bits"

// ownerTable says which processes hold a socket. It is filled anew for every scan, in the room that it already has.
//
// It is a hash table with open addressing, as a scan of a busy host fills in and looks up a hundred thousand sockets: with a map
// of Go's that would be a fifth of the time of the whole scan. A slot is small, as most of the time goes by waiting for the
// memory that holds it.
type ownerTable struct {
	slots []slot // a power of two; at most half of them are in use
	inUse int

	processes []*Process // those of this scan, and first nobody; slots and further have indices into it
	further   []holder   // the first is nobody

	fetched uint32 // keeps fetch from being left out
}

// slot is a socket, and its only holder; or, where that is negative, the last of its holders in ownerTable.further.
type slot struct {
	inode  uint32 // 0: the slot is free
	holder int32
}

// holder is one of the holders of a socket that has several. They are a ring: next of the last is the first.
type holder struct{ process, next int32 }

const leastSlots = 1 << 8

// at returns the slot of the inode, or the free one that it would go to.
func (t *ownerTable) at(inode uint32) *slot {
	mask := uint32(len(t.slots) - 1)
	for i := t.home(inode); ; i++ {
		if s := &t.slots[i&mask]; s.inode == inode || s.inode == 0 {
			return s
		}
	}
}

// home is where the search for an inode starts.
//
// The kernel numbers sockets one after the other, and hands out the numbers in blocks: neighbours stay neighbours, while
// blocks are spread, so that no two long runs come to lie over each other.
func (t *ownerTable) home(inode uint32) uint32 {
	const block = 8
	const spread = 0x9e3779b1 // 2^32 divided by the golden ratio
	return (inode/block*spread)>>bits.LeadingZeros32(uint32(len(t.slots)-1))&^(block-1) | inode%block
}

// fetch has the processor fetch the memory of a slot that is looked up soon. It does many at a time, while a lookup would wait
// for each.
func (t *ownerTable) fetch(inode uint32) {
	if t.inUse > 0 {
		t.fetched += t.slots[t.home(inode)].inode
	}
}

func (t *ownerTable) clear() {
	if t.slots == nil {
		t.slots = make([]slot, leastSlots)
	}
	const roomy = 16 // times what is needed: a load that is gone gives its memory back
	if len(t.slots) > leastSlots && t.inUse < len(t.slots)/roomy {
		t.slots = make([]slot, len(t.slots)/2)
	} else {
		clear(t.slots)
	}
	clear(t.processes) // or the processes that have gone would be kept
	t.inUse, t.processes, t.further = 0, append(t.processes[:0], nil), append(t.further[:0], holder{})
}

func (t *ownerTable) grow() {
	old := t.slots
	t.slots = make([]slot, 2*len(old))
	for _, s := range old {
		if s.inode != 0 {
			*t.at(s.inode) = s
		}
	}
}

// add records that the process holds the sockets. Of their numbers 32 bits count: the kernel makes no others (get_next_ino,
// fs/inode.c), and sock_diag has room for no others.
func (t *ownerTable) add(p *Process, inodes []uint64) {
	process := int32(len(t.processes))
	t.processes = append(t.processes, p)
	for _, inode := range inodes {
		key := uint32(inode)
		if key == 0 {
			continue
		}
		if 2*t.inUse >= len(t.slots) {
			t.grow()
		}
		s := t.at(key)
		if s.inode == 0 {
			*s = slot{key, process}
			t.inUse++
			continue
		}
		t.addHolder(s, process)
	}
}

// addHolder adds one more holder to those of a socket, unless it is one already: by a duplicate of a descriptor, dup(2), or
// because one of its threads has descriptors of its own. Its pid is mostly the highest so far.
func (t *ownerTable) addHolder(s *slot, process int32) {
	if s.holder >= 0 {
		if t.processes[s.holder].PID == t.processes[process].PID {
			return
		}
		only := int32(len(t.further))
		t.further = append(t.further, holder{s.holder, only})
		s.holder = -only
	}
	pid := func(i int32) int { return t.processes[t.further[i].process].PID }
	added, last := t.processes[process].PID, -s.holder
	before := last
	if added <= pid(last) {
		for next := t.further[before].next; pid(next) < added; next = t.further[before].next {
			before = next
		}
		if pid(t.further[before].next) == added {
			return
		}
	}
	t.further = append(t.further, holder{process, t.further[before].next})
	t.further[before].next = int32(len(t.further) - 1)
	if added > pid(last) {
		s.holder = -t.further[before].next
	}
}

// find returns the slot of the socket, or nil.
func (t *ownerTable) find(inode uint64) *slot {
	key := uint32(inode)
	if key == 0 || t.inUse == 0 {
		return nil
	}
	if s := t.at(key); s.inode != 0 {
		return s
	}
	return nil
}

func (t *ownerTable) appendOwners(owners []*Process, inode uint64) []*Process {
	s := t.find(inode)
	switch {
	case s == nil:
		return owners
	case s.holder >= 0:
		return append(owners, t.processes[s.holder])
	}
	last := -s.holder
	for i := t.further[last].next; i != last; i = t.further[i].next {
		owners = append(owners, t.processes[t.further[i].process])
	}
	return append(owners, t.processes[t.further[last].process])
}

// first returns the process with the lowest pid of those that hold the socket, or nil.
func (t *ownerTable) first(inode uint64) *Process {
	s := t.find(inode)
	switch {
	case s == nil:
		return nil
	case s.holder >= 0:
		return t.processes[s.holder]
	default:
		return t.processes[t.further[t.further[-s.holder].next].process]
	}
}

package netstat

import "math/bits"

// ownerTable maps a socket to the processes that hold it. Every lookup of owners refills it and reuses its memory.
//
// It is a hash table with open addressing: with 100,000 sockets a Go map would take a fifth of the time of a scan. Slots are
// small because cache misses dominate the cost.
type ownerTable struct {
	slots []slot // a power of two; at most half of them are in use
	inUse int

	processes []*Process // indexed by slots and holders; element 0 is unused
	holders   []holder   // of sockets with several holders; element 0 is unused

	prefetched uint32 // keeps the compiler from removing the load in prefetch
}

// slot is a socket and its only holder, or, if holder is negative, the last of its holders: -holder is an index into
// ownerTable.holders.
type slot struct {
	inode  uint32 // 0: the slot is free
	holder int32
}

// holder is one of several holders of a socket. They form a ring in the order of pids: next of the last is the first.
type holder struct{ process, next int32 }

const minSlots = 1 << 8

// at returns the slot of the inode, or the free slot to put it into.
func (t *ownerTable) at(inode uint32) *slot {
	mask := uint32(len(t.slots) - 1)
	for i := t.home(inode); ; i++ {
		if s := &t.slots[i&mask]; s.inode == inode || s.inode == 0 {
			return s
		}
	}
}

// home returns the index at which the search for an inode starts.
//
// The kernel assigns inode numbers in blocks per CPU (get_next_ino, fs/inode.c). The hash keeps neighbours together and spreads
// the blocks, which avoids overlapping long runs.
func (t *ownerTable) home(inode uint32) uint32 {
	const block = 8
	const spread = 0x9e3779b1 // 2^32 divided by the golden ratio
	return (inode/block*spread)>>bits.LeadingZeros32(uint32(len(t.slots)-1))&^(block-1) | inode%block
}

// prefetch loads the memory of a slot that is looked up soon. Loads run in parallel, while each lookup would wait for its own.
func (t *ownerTable) prefetch(inode uint32) {
	if t.inUse > 0 {
		t.prefetched += t.slots[t.home(inode)].inode
	}
}

func (t *ownerTable) clear() {
	if t.slots == nil {
		t.slots = make([]slot, minSlots)
	}
	const roomy = 16 // times the slots in use: shrink after a peak
	if len(t.slots) > minSlots && t.inUse < len(t.slots)/roomy {
		t.slots = make([]slot, len(t.slots)/2)
	} else {
		clear(t.slots)
	}
	clear(t.processes) // releases ended processes
	t.inUse, t.processes, t.holders = 0, append(t.processes[:0], nil), append(t.holders[:0], holder{})
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

// add records that the process holds the sockets. Only 32 bits of an inode are significant: get_next_ino (fs/inode.c) returns an
// unsigned int, and idiag_inode is a __u32.
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

// addHolder adds a holder to a socket unless it is already one, through a duplicated descriptor (dup(2)) or through a thread
// with a descriptor table of its own. Usually its pid is the highest so far.
func (t *ownerTable) addHolder(s *slot, process int32) {
	if s.holder >= 0 {
		if t.processes[s.holder].PID == t.processes[process].PID {
			return
		}
		only := int32(len(t.holders))
		t.holders = append(t.holders, holder{s.holder, only})
		s.holder = -only
	}
	pid := func(i int32) int { return t.processes[t.holders[i].process].PID }
	added, last := t.processes[process].PID, -s.holder
	before := last
	if added <= pid(last) {
		for next := t.holders[before].next; pid(next) < added; next = t.holders[before].next {
			before = next
		}
		if pid(t.holders[before].next) == added {
			return
		}
	}
	t.holders = append(t.holders, holder{process, t.holders[before].next})
	t.holders[before].next = int32(len(t.holders) - 1)
	if added > pid(last) {
		s.holder = -t.holders[before].next
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
	for i := t.holders[last].next; i != last; i = t.holders[i].next {
		owners = append(owners, t.processes[t.holders[i].process])
	}
	return append(owners, t.processes[t.holders[last].process])
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
		return t.processes[t.holders[t.holders[-s.holder].next].process]
	}
}

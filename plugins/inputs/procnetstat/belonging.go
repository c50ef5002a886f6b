//go:build linux

package procnetstat

import "slices"

// belonging is what a connection belongs to. Connections share it.
type belonging struct {
	owners   []*owner     // the processes that held it last
	listener *listener    // that accepted it; nil: outgoing
	cgroup   *cgroupEntry // nil: not known
	inUse    bool         // see belongings.keep
}

// belongings keeps the belongings of the flows, each of which has an index: the event of a destroyed socket and a TIME_WAIT entry
// have no owners. Index 0 is the belonging of an outgoing connection of which nothing is known.
type belongings struct {
	all     []belonging
	free    []uint32 // indexes
	indexes map[belongingKey]uint32
}

// belongingKey identifies a belonging.
type belongingKey struct {
	first    *owner
	owners   int
	listener *listener
	cgroup   *cgroupEntry
}

func newBelongings() belongings {
	return belongings{all: make([]belonging, 1), indexes: map[belongingKey]uint32{}}
}

// get returns the belonging with the index. The pointer is valid until the next call of indexOf.
func (b *belongings) get(index uint32) *belonging { return &b.all[index] }

// is reports whether the belonging has this content.
func (b *belonging) is(owners []*owner, l *listener, cgroup *cgroupEntry) bool {
	return b.listener == l && b.cgroup == cgroup && slices.Equal(b.owners, owners)
}

// indexOf returns the index of the belonging with this content. It is fast if that is last.
func (b *belongings) indexOf(last uint32, owners []*owner, l *listener, cgroup *cgroupEntry) uint32 {
	if b.all[last].is(owners, l, cgroup) {
		return last
	}
	key := belongingKey{owners: len(owners), listener: l, cgroup: cgroup}
	if key == (belongingKey{}) {
		return 0
	}
	if len(owners) > 0 {
		key.first = owners[0]
		if i := key.first.belonging; int(i) < len(b.all) && b.all[i].is(owners, l, cgroup) {
			return i
		}
	}
	index, known := b.indexes[key]
	for known && !b.all[index].is(owners, l, cgroup) {
		key.owners += 1 << 16 // try the next key: another set with the same number of processes
		index, known = b.indexes[key]
	}
	if !known {
		index = b.add(belonging{slices.Clone(owners), l, cgroup, false})
		b.indexes[key] = index
	}
	if key.first != nil {
		key.first.belonging = index
	}
	return index
}

func (b *belongings) add(new belonging) uint32 {
	if n := len(b.free); n > 0 {
		index := b.free[n-1]
		b.free = b.free[:n-1]
		b.all[index] = new
		return index
	}
	b.all = append(b.all, new)
	return uint32(len(b.all) - 1)
}

// beginSweep, keep and endSweep remove all belongings but those that keep was called for.
func (b *belongings) beginSweep() {
	for i := range b.all {
		b.all[i].inUse = false
	}
}

func (b *belongings) keep(index uint32) { b.all[index].inUse = true }

func (b *belongings) endSweep() {
	removed := false
	for i := 1; i < len(b.all); i++ {
		if of := &b.all[i]; !of.inUse && (of.owners != nil || of.listener != nil || of.cgroup != nil) {
			*of = belonging{}
			b.free = append(b.free, uint32(i))
			removed = true
		}
	}
	if !removed {
		return
	}
	// A key that led to a removed one may have had others after it.
	clear(b.indexes)
	for i := 1; i < len(b.all); i++ {
		b.indexAgain(uint32(i))
	}
}

func (b *belongings) indexAgain(index uint32) {
	of := &b.all[index]
	key := belongingKey{owners: len(of.owners), listener: of.listener, cgroup: of.cgroup}
	if key == (belongingKey{}) {
		return // free
	}
	if len(of.owners) > 0 {
		key.first = of.owners[0]
	}
	for {
		if _, taken := b.indexes[key]; !taken {
			b.indexes[key] = index
			return
		}
		key.owners += 1 << 16
	}
}

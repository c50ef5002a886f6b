//go:build linux

package procnetstat

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

// flowTable keeps the flows of all sockets (100,000 on a busy host) in the order in which they were first seen. Dumps return
// sockets in about the same order, so the next lookup is usually the entry after the last one found. All others are found by a
// hash table with open addressing, whose slots hold an index into all plus 1; 0 is a free slot.
type flowTable struct {
	all       []flow
	next      int // the index that find tries first
	slots     []uint32
	hasStalls bool
	stalls    []kernelStalls // of the flows in all when they were last seen, if hasStalls
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
	if t.hasStalls {
		t.stalls = append(t.stalls, kernelStalls{})
	}
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
	kept, keptStalls := t.all[:0], t.stalls[:0]
	for i := range t.all {
		if !wanted(&t.all[i]) {
			continue
		}
		kept = append(kept, t.all[i])
		if t.hasStalls {
			keptStalls = append(keptStalls, t.stalls[i])
		}
	}
	t.all, t.stalls = kept, keptStalls
	if len(kept) == before {
		return
	}
	const maxSlack = 4 // capacity per entry: frees memory after a peak
	if cap(kept) > maxSlack*len(kept) {
		t.all, t.stalls = slices.Clone(kept), slices.Clone(keptStalls)
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

// belonging is what a connection belongs to. Connections share it.
type belonging struct {
	owners   []*owner     // the processes that held it last
	listener *listener    // that accepted it; nil: outgoing
	cgroup   *cgroupEntry // nil: not known
	inUse    bool         // see belongings.keep

	representative     *owner // see pass.representativeOfLast
	representativePass uint64 // for which it was chosen
}

// belongings keeps the belongings of the flows, each of which has an index: the event of a destroyed socket and a TIME_WAIT entry
// have no owners. Index 0 is the belonging of an outgoing connection of which nothing is known.
type belongings struct {
	all     []belonging
	free    []uint32 // indexes
	indexes map[belongingKey]uint32
	seed    maphash.Seed
	numbers []byte // a buffer of key
}

// belongingKey is the key of a belonging. Others can have the same: see next.
type belongingKey struct {
	owners   uint64 // a hash
	listener *listener
	cgroup   *cgroupEntry
}

func newBelongings() belongings {
	return belongings{all: make([]belonging, 1), indexes: map[belongingKey]uint32{}, seed: maphash.MakeSeed()}
}

func (b *belongings) key(owners []*owner, l *listener, cgroup *cgroupEntry) belongingKey {
	key := belongingKey{listener: l, cgroup: cgroup}
	switch len(owners) {
	case 0:
	case 1:
		key.owners = owners[0].number
	default:
		b.numbers = b.numbers[:0]
		for _, w := range owners {
			b.numbers = binary.LittleEndian.AppendUint64(b.numbers, w.number)
		}
		key.owners = maphash.Bytes(b.seed, b.numbers) | 1<<63
	}
	return key
}

// next returns the key to try if the belonging with this one has other content.
func (k belongingKey) next() belongingKey {
	k.owners++
	return k
}

// get returns the belonging with the index. The pointer is valid until the next call of indexOf.
func (b *belongings) get(index uint32) *belonging { return &b.all[index] }

// is reports whether the belonging has this content.
func (b *belonging) is(owners []*owner, l *listener, cgroup *cgroupEntry) bool {
	return b.listener == l && b.cgroup == cgroup && slices.Equal(b.owners, owners)
}

// isFree reports whether it stands for none. Only index 0 has no content otherwise.
func (b *belonging) isFree() bool { return b.owners == nil && b.listener == nil && b.cgroup == nil }

// indexOf returns the index of the belonging with this content. It is fast if that is last.
func (b *belongings) indexOf(last uint32, owners []*owner, l *listener, cgroup *cgroupEntry) uint32 {
	if b.all[last].is(owners, l, cgroup) {
		return last
	}
	if len(owners) > 0 {
		if i := owners[0].belonging; int(i) < len(b.all) && b.all[i].is(owners, l, cgroup) {
			return i
		}
	}
	key := b.key(owners, l, cgroup)
	if key == (belongingKey{}) {
		return 0
	}
	index, known := b.indexes[key]
	for known && !b.all[index].is(owners, l, cgroup) {
		key = key.next()
		index, known = b.indexes[key]
	}
	if !known {
		index = b.add(belonging{owners: slices.Clone(owners), listener: l, cgroup: cgroup})
		b.indexes[key] = index
	}
	if len(owners) > 0 {
		owners[0].belonging = index
	}
	return index
}

func (b *belongings) add(added belonging) uint32 {
	if n := len(b.free); n > 0 {
		index := b.free[n-1]
		b.free = b.free[:n-1]
		b.all[index] = added
		return index
	}
	b.all = append(b.all, added)
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
		if of := &b.all[i]; !of.inUse && !of.isFree() {
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
	if of.isFree() {
		return
	}
	for key := b.key(of.owners, of.listener, of.cgroup); ; key = key.next() {
		if _, taken := b.indexes[key]; !taken {
			b.indexes[key] = index
			return
		}
	}
}

// localPorts counts the local ports that outgoing connections hold, by local address and remote endpoint: connect(2) takes one that
// no other connection between the two has. Each pair has an index; 0 is none.
type localPorts struct {
	all     []localPortsUse
	free    []uint32 // indexes
	indexes map[localPortsKey]uint32
}

type localPortsKey struct {
	namespace     uint64 // Namespace.ID
	local, remote netip.Addr
	remotePort    uint16
}

type localPortsUse struct {
	key     localPortsKey
	count   int64 // of flows
	missing int64 // of them the last pass did not see
}

func newLocalPorts() localPorts {
	return localPorts{all: make([]localPortsUse, 1), indexes: map[localPortsKey]uint32{}}
}

// add counts a connection of the namespace. It returns the index of its pair.
func (p *localPorts) add(namespace uint64, s *netstat.Socket) uint32 {
	key := localPortsKey{namespace, s.Local.Addr().Unmap(), s.Remote.Addr().Unmap(), s.Remote.Port()}
	index, known := p.indexes[key]
	if !known {
		if n := len(p.free); n > 0 {
			index, p.free = p.free[n-1], p.free[:n-1]
		} else {
			index, p.all = uint32(len(p.all)), append(p.all, localPortsUse{})
		}
		p.indexes[key], p.all[index] = index, localPortsUse{key: key}
	}
	p.all[index].count++
	return index
}

// remove removes a connection.
func (p *localPorts) remove(index uint32) {
	if index == 0 {
		return
	}
	use := &p.all[index]
	if use.count--; use.count == 0 {
		delete(p.indexes, use.key)
		*use = localPortsUse{}
		p.free = append(p.free, index)
	}
}

// shrink frees memory after a peak, and gives the flows the new indexes.
func (p *localPorts) shrink(all []flow) {
	const minFree, maxSlack = 1 << 10, 4 // entries; entries per one in use
	if len(p.free) < minFree || maxSlack*(len(p.all)-len(p.free)) > len(p.all) {
		return
	}
	before := p.all
	*p = newLocalPorts()
	moved := make([]uint32, len(before))
	for i, use := range before {
		if use.count > 0 {
			moved[i] = uint32(len(p.all))
			p.indexes[use.key] = moved[i]
			p.all = append(p.all, use)
		}
	}
	for i := range all {
		all[i].ports = moved[all[i].ports]
	}
}

// most returns the number of ports that the fullest pair of each namespace holds, by Namespace.ID.
func (p *localPorts) most() map[uint64]int64 {
	most := map[uint64]int64{}
	for i := range p.all {
		use := &p.all[i]
		if n := use.count - use.missing; n > most[use.key.namespace] {
			most[use.key.namespace] = n
		}
		use.missing = 0
	}
	return most
}

//go:build amd64 || arm64

package netstat

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
)

// bpfConnects has the kernel call a BPF program when a connection begins, in any network namespace. See
// internal/bpf/connects.c.
type bpfConnects struct {
	objects struct { // without the variables, as for bpfOwners
		bpf.ConnectsPrograms
		bpf.ConnectsMaps
	}
	link   link.Link
	memory [][]byte // the maps
	begun  begunConnects
}

var _ connectRecorder = (*bpfConnects)(nil)

// newConnects loads the program, which sees connections from then on. An error that is errors.ErrUnsupported says that it cannot
// work here, or not for this user.
func newConnects(root string) (connectRecorder, error) {
	if err := inInitialPIDNamespace(root); err != nil {
		return nil, err
	}
	c := &bpfConnects{}
	if err := c.open(); err != nil {
		c.close()
		return nil, bpfError("recording who connects", "5.12", err)
	}
	return c, nil
}

func (c *bpfConnects) open() error {
	err := bpf.LoadConnectsObjects(&c.objects, nil)
	if err != nil {
		return err
	}
	if c.begun.records, err = mapArray[connectSlot](c, c.objects.Records); err != nil {
		return err
	}
	if c.begun.buckets, err = mapArray[connectBucket](c, c.objects.Buckets); err != nil {
		return err
	}
	c.link, err = link.AttachTracing(link.TracingOptions{Program: c.objects.Connects, AttachType: ebpf.AttachTraceRawTp})
	return err
}

// mapArray maps a BPF array into memory.
func mapArray[T any](c *bpfConnects, m *ebpf.Map) ([]T, error) {
	size := int(m.MaxEntries()) * int(m.ValueSize())
	memory, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	c.memory = append(c.memory, memory)
	return unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), m.MaxEntries()), nil
}

func (c *bpfConnects) close() {
	if c.link != nil {
		_ = c.link.Close()
	}
	for _, memory := range c.memory {
		_ = unix.Munmap(memory)
	}
	_ = c.objects.ConnectsPrograms.Close()
	_ = c.objects.ConnectsMaps.Close()
}

func (c *bpfConnects) look(cookie uint64) (connectRecord, bool) { return c.begun.look(cookie) }

// begunConnects are the last connections, in memory that the BPF program writes to at any time: see internal/bpf/connects.c.
type begunConnects struct {
	records []connectSlot   // that of the connection with the number n is records[n % len(records)]
	buckets []connectBucket // the numbers, by cookie
}

// connectSlot is struct record of internal/bpf/connects.c: version, cookie, and the words of struct connect.
type connectSlot struct {
	version, cookie uint64
	words           [connectLen / 8]uint64
}

// connectBucket is struct bucket of internal/bpf/connects.c: in each entry the lower half of the cookie, and that of the number.
type connectBucket [8]uint64

func (c *begunConnects) look(cookie uint64) (connectRecord, bool) {
	if cookie == 0 { // which an entry that is not in use has, and a record
		return connectRecord{}, false
	}
	bucket := &c.buckets[bucketOf(cookie, len(c.buckets))]
	for i := range bucket {
		entry := atomic.LoadUint64(&bucket[i])
		if entry>>32 != cookie&(1<<32-1) {
			continue
		}
		if record, ok := c.records[uint32(entry)%uint32(len(c.records))].read(cookie); ok {
			return record, true
		}
	}
	return connectRecord{}, false
}

// bucketOf returns where the entry of a cookie is, of a power of two of buckets.
func bucketOf(cookie uint64, buckets int) uint64 {
	const block = 12                  // bits: the kernel gives out cookies in blocks
	const spread = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	return (cookie>>block*spread>>(bits.LeadingZeros64(uint64(buckets))+1) + cookie) & uint64(buckets-1)
}

// read returns the record, if it is of the socket with the cookie.
//
// Each word is loaded atomically: the operations of sync/atomic have one order, also on processors that change that of others.
// Plain loads could come after the last look at the version.
func (s *connectSlot) read(cookie uint64) (connectRecord, bool) {
	var b [connectLen]byte
	isOf := false
	isWhole := s.unchanged(func() {
		isOf = atomic.LoadUint64(&s.cookie) == cookie
		for i := range s.words {
			binary.NativeEndian.PutUint64(b[8*i:], atomic.LoadUint64(&s.words[i]))
		}
	})
	if !isOf || !isWhole {
		return connectRecord{}, false
	}
	return decodeConnect(&b), true
}

// unchanged calls read, and tells whether nothing was written meanwhile: a version is odd while the BPF program writes, and does
// not come back. The cookie would not do for it: a socket that connects again has the same.
func (s *connectSlot) unchanged(read func()) bool {
	before := atomic.LoadUint64(&s.version)
	if before%2 != 0 {
		return false
	}
	read()
	return atomic.LoadUint64(&s.version) == before
}

// connectLen is the size of struct connect of internal/bpf/connects.c:
//
//	0 cgroup_id, 8 start_boottime, 16 tgid, 20 euid, 24 comm[16], 40 port, 42 pad[3]
const connectLen = 48

func decodeConnect(b *[connectLen]byte) (r connectRecord) {
	r.cgroupID = binary.NativeEndian.Uint64(b[0:])
	r.startBootTime = binary.NativeEndian.Uint64(b[8:])
	r.pid = binary.NativeEndian.Uint32(b[16:])
	r.uid = binary.NativeEndian.Uint32(b[20:])
	copy(r.comm[:], b[24:])
	r.port = binary.NativeEndian.Uint16(b[40:])
	return r
}

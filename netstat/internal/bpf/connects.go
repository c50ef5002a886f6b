//go:build amd64 || arm64

package bpf

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// connectIndex looks up connections in the maps of connects.c, while the BPF program writes to them.
type connectIndex struct {
	records []connectsRecord // that of the connection with the number n is records[n % len(records)]
	buckets []connectsBucket // the numbers, by cookie
}

func (c *connectIndex) lookup(cookie uint64) (Connect, bool) {
	if cookie == 0 { // the cookie of unused entries and records
		return Connect{}, false
	}
	bucket := &c.buckets[bucketOf(cookie, len(c.buckets))].Entries
	for i := range bucket {
		entry := atomic.LoadUint64(&bucket[i])
		if entry>>32 != cookie&(1<<32-1) {
			continue
		}
		if connect, ok := c.records[uint32(entry)%uint32(len(c.records))].read(cookie); ok {
			connect.Number = uint32(entry)
			return connect, true
		}
	}
	return Connect{}, false
}

// bucketOf returns the index of the bucket of a cookie; the number of buckets is a power of two. See enter in connects.c.
func bucketOf(cookie uint64, buckets int) uint64 {
	const block = 12                  // bits: each CPU allocates cookies in blocks
	const spread = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	return (cookie>>block*spread>>(bits.LeadingZeros64(uint64(buckets))+1) + cookie) & uint64(buckets-1)
}

// connectWords are the words of struct connect.
type connectWords [unsafe.Sizeof(connectsConnect{}) / 8]uint64

var _ [0]struct{} = [unsafe.Sizeof(connectsConnect{}) % 8]struct{}{} // the size is a multiple of 8

func (c *connectsConnect) words() *connectWords { return (*connectWords)(unsafe.Pointer(c)) }

// read returns the attempt in the record if it belongs to the socket with the cookie. It waits while the program writes that it is
// established.
//
// Each word is loaded atomically: operations of sync/atomic are sequentially consistent. A processor could reorder plain loads
// after the second load of the version.
func (r *connectsRecord) read(cookie uint64) (Connect, bool) {
	const tries = 10_000 // a record stays odd if the program was interrupted for as long as all records take
	var c connectsConnect
	for range tries {
		isOf := atomic.LoadUint64(&r.Cookie) == cookie
		isWhole := isOf && r.unchanged(func() {
			isOf = atomic.LoadUint64(&r.Cookie) == cookie
			from, to := r.Connect.words(), c.words()
			for i := range from {
				to[i] = atomic.LoadUint64(&from[i])
			}
		})
		switch {
		case !isOf:
			return Connect{}, false
		case isWhole:
			return c.decode(), true
		}
	}
	return Connect{}, false
}

func (c *connectsConnect) decode() Connect {
	connect := c.By.decode()
	connect.Port = c.Port
	const established = 255
	if c.State == established {
		connect.ConnectTime, connect.SynRetrans = c.Us, uint32(c.SynRetrans)
	}
	return connect
}

func (i *connectsInitiator) decode() Connect {
	return Connect{
		CgroupID: i.CgroupId, Initiator: Process{StartBootTime: i.StartBoottime, PID: i.Tgid, UID: i.Euid, Comm: i.Comm},
	}
}

// unchanged calls read and reports whether the record did not change meanwhile. The version is odd during a write and never
// repeats. The cookie cannot replace it: it stays the same when a socket connects again.
func (r *connectsRecord) unchanged(read func()) bool {
	before := atomic.LoadUint64(&r.Version)
	if before%2 != 0 {
		return false
	}
	read()
	return atomic.LoadUint64(&r.Version) == before
}

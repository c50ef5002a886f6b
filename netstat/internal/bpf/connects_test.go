//go:build amd64 || arm64

package bpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// connectWriter writes records in the same order as connects.c.
type connectWriter struct {
	to      connectIndex
	started uint64
}

func newConnectWriter() *connectWriter {
	return &connectWriter{to: connectIndex{make([]connectsRecord, 1<<16), make([]connectsBucket, 1<<15)}}
}

func (w *connectWriter) start(cookie, word uint64) {
	w.started++
	w.to.records[w.started%uint64(len(w.to.records))].write(cookie, word)
	w.enter(cookie, uint32(w.started))
}

func (r *connectsRecord) write(cookie, word uint64) {
	atomic.AddUint64(&r.Version, 1)
	atomic.StoreUint64(&r.Cookie, cookie)
	words := r.Connect.words()
	for i := range words {
		atomic.StoreUint64(&words[i], word)
	}
	atomic.AddUint64(&r.Version, 1)
}

func (w *connectWriter) enter(cookie uint64, number uint32) {
	bucket := &w.to.buckets[bucketOf(cookie, len(w.to.buckets))].Entries
	oldest, age := 0, uint32(0)
	for i, entry := range bucket {
		its := number - uint32(entry)
		if uint32(entry>>32) == uint32(cookie) {
			its = 1<<32 - 1
		}
		if its >= age {
			oldest, age = i, its
		}
	}
	atomic.StoreUint64(&bucket[oldest], cookie<<32|uint64(number))
}

func TestConnectIndex(t *testing.T) {
	w := newConnectWriter()
	const big = 5<<32 | 7
	found := func(cookie uint64) uint64 {
		connect, ok := w.to.lookup(cookie)
		require.Equal(t, ok, connect != Connect{}, "nothing, or a record")
		return connect.CgroupID
	}
	for _, cookie := range []uint64{0, 1, 7, 1 << 32, big} {
		require.Zero(t, found(cookie), "cookie %d, before any connection", cookie)
	}
	for i, cookie := range []uint64{1, 7, big, 1<<64 - 1, 7} {
		w.start(cookie, uint64(100+i))
	}
	require.Equal(t, []uint64{100, 104, 102, 103}, []uint64{found(1), found(7), found(big), found(1<<64 - 1)})
	for _, cookie := range []uint64{0, 2, 5<<32 | 1, 1 << 32, 1<<32 - 1} {
		require.Zero(t, found(cookie), "cookie %d", cookie)
	}
	w.to.records[1].write(8, 200) // its bucket entry is not written yet
	require.Zero(t, found(1), "the record belongs to another socket")
	require.Equal(t, uint64(104), found(7))
}

func TestConnectDecode(t *testing.T) {
	var c connectsConnect
	b := (*[48]byte)(unsafe.Pointer(&c)) // struct connect of connects.c
	for i := range b {
		b[i] = byte(i + 1)
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	want := Connect{
		CgroupID: binary.NativeEndian.Uint64(b[0:]),
		Initiator: Process{
			StartBootTime: binary.NativeEndian.Uint64(b[8:]), PID: u32(16), UID: u32(20), Comm: [16]byte(b[24:40]),
		},
		Port: binary.NativeEndian.Uint16(b[44:]),
	}
	require.Equal(t, want, c.decode(), "not established: the time is that when it began")
	b[46] = 255
	want.Attempt = Attempt{ConnectTime: u32(40), SynRetrans: uint32(b[47])}
	require.Equal(t, want, c.decode())
}

// A record that changes while it is read is not returned, even if the change is by the same socket.
func TestConnectsRecordChanges(t *testing.T) {
	const cookie = 7
	var r connectsRecord
	r.write(cookie, 1)
	require.True(t, r.unchanged(func() {}))
	require.False(t, r.unchanged(func() { r.write(cookie, 2) }), "a complete write")
	require.False(t, r.unchanged(func() { r.Version++ }), "a started write")

	called := false
	require.False(t, r.unchanged(func() { called = true }), "a write in progress")
	require.False(t, called)
	_, ok := r.read(cookie)
	require.False(t, ok, "a write in progress")
	r.Version++
	connect, ok := r.read(cookie)
	require.True(t, ok)
	require.Equal(t, uint64(2), connect.CgroupID)
	_, ok = r.read(cookie + 1)
	require.False(t, ok, "another socket")
}

// A reader gets complete records while records of two sockets are written.
func TestConnectsRecordIsWhole(t *testing.T) {
	const cookie = 7
	var r connectsRecord
	var end atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for word := uint64(0); !end.Load(); word++ {
			r.write(cookie, word)
			if word%16 == 0 {
				r.write(cookie+1, ^uint64(0))
			}
		}
	}()
	defer func() { end.Store(true); <-done }()
	whole, missed := 0, 0
	for limit := time.Now().Add(time.Minute); whole < 100_000 || missed < 10_000; {
		connect, ok := r.read(cookie)
		if !ok {
			missed++
			require.True(t, time.Now().Before(limit), "%d whole, %d missed", whole, missed)
			continue
		}
		whole++
		if connect.CgroupID == ^uint64(0) || connect.Initiator.StartBootTime != connect.CgroupID ||
			connect.Initiator.PID != uint32(connect.CgroupID) {
			require.Fail(t, "a mixed record", "%+v", connect)
		}
	}
}

// cookieGenerator generates cookies like the kernel: each CPU takes a block of 4096 (gen_cookie_next, include/linux/cookie.h).
type cookieGenerator struct {
	taken uint64
	last  []uint64 // of each CPU
}

func (g *cookieGenerator) next(cpu int) uint64 {
	const block = 4096 // COOKIE_LOCAL_BATCH
	if g.last[cpu]%block == 0 {
		g.last[cpu] = g.taken
		g.taken += block
	}
	g.last[cpu]++
	return g.last[cpu]
}

// The most recent connections are found on hosts of any size, however unevenly the CPUs are used and however many sockets do not
// connect.
func TestConnectIndexOfManyCPUs(t *testing.T) {
	const last = 1 << 15
	random := rand.New(rand.NewPCG(1, 2))
	even := func(cpus int) int { return random.IntN(cpus) }
	few := func(cpus int) int { // one CPU in 16 does most
		if random.IntN(20) > 0 {
			return random.IntN(max(1, cpus/16))
		}
		return random.IntN(cpus)
	}
	for _, cpus := range []int{1, 2, 64, 128, 1024} {
		for name, busy := range map[string]func(int) int{"evenly": even, "few": few} {
			for _, oneIn := range []int{1, 7} {
				t.Run(fmt.Sprintf("%d CPUs, %s, one socket in %d", cpus, name, oneIn), func(t *testing.T) {
					w, generator := newConnectWriter(), cookieGenerator{last: make([]uint64, cpus)}
					var cookies []uint64
					for len(cookies) < 10*last {
						cookie := generator.next(busy(cpus))
						if random.IntN(oneIn) == 0 {
							w.start(cookie, cookie)
							cookies = append(cookies, cookie)
						}
					}
					lost := 0
					for i, cookie := range cookies[len(cookies)-2*last:] {
						connect, ok := w.to.lookup(cookie)
						switch {
						case ok && connect.CgroupID != cookie:
							require.Fail(t, "record of another socket", "cookie %d: %+v", cookie, connect)
						case ok:
							continue
						case i >= last:
							require.Fail(t, "a recent connection is lost", "cookie %d, of %d", cookie, last)
						}
						lost++
					}
					require.Less(t, lost, last/100, "older connections")
					t.Logf("%[2]d of %[1]d older connections are lost", last, lost)
				})
			}
		}
	}
}

//go:build amd64 || arm64

package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestEndDecode(t *testing.T) {
	var e connectsEnd
	b := (*[128]byte)(unsafe.Pointer(&e)) // struct end of connects.c
	for i := range b {
		b[i] = byte(i + 1)
	}
	u16 := func(at int) uint16 { return binary.NativeEndian.Uint16(b[at:]) }
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	const family, state, noPort = 108, 118, 119
	want := End{
		Connect: Connect{
			CgroupID: binary.NativeEndian.Uint64(b[8:]),
			Initiator: Process{
				StartBootTime: binary.NativeEndian.Uint64(b[16:]), PID: u32(24), UID: u32(28), Comm: [16]byte(b[32:48]),
			},
			Port:    u16(112),
			Attempt: Attempt{Number: u32(80), ConnectTime: u32(92), SynRetrans: u32(96)},
		},
		Cookie: binary.NativeEndian.Uint64(b[:]),
		NetNS:  uint64(u32(84)), Device: u32(88),
		Error: u16(114), SoftError: u16(116),
	}
	decoded := func() (end End) {
		e.decode(&end)
		return end
	}
	want.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[48:])), u16(110))
	want.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[64:])), u16(112))
	require.Equal(t, want, decoded())
	binary.NativeEndian.PutUint16(b[family:], 10) // AF_INET6
	want.Local = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[48:])), u16(110))
	want.Remote = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[64:])), u16(112))
	require.Equal(t, want, decoded())

	want.Failed, want.SegsOut, want.SegsIn, want.NoPort = true, u32(100), u32(104), true
	for _, failed := range []uint8{2, 3} { // SYN_SENT, SYN_RECV
		b[state] = failed
		require.Equal(t, want, decoded())
	}
	b[noPort], want.NoPort = 0, false
	require.Equal(t, want, decoded())
}

// ringWriter writes records in the same way as the kernel (__bpf_ringbuf_reserve and bpf_ringbuf_commit, kernel/bpf/ringbuf.c).
type ringWriter struct {
	ring               endRing
	size               uint64
	consumed, produced uint64
}

func newRingWriter(size int) *ringWriter {
	w := &ringWriter{size: uint64(size)}
	w.ring = endRing{consumer: &w.consumed, producer: &w.produced, data: make([]byte, 2*size)}
	return w
}

// reserve reserves a record of so many bytes; false if there is no room.
func (w *ringWriter) reserve(length int) (at uint64, ok bool) {
	next := w.produced + (uint64(length)+ringHeader+7)&^7
	if next-atomic.LoadUint64(&w.consumed) > w.size-1 {
		return 0, false
	}
	at = w.produced
	w.put(at, uint32(length)|ringBusy)
	atomic.StoreUint64(&w.produced, next)
	return at, true
}

// put writes the header, in both mappings.
func (w *ringWriter) put(at uint64, length uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&w.ring.data[at%w.size])), length)
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&w.ring.data[at%w.size+w.size])), length)
}

// submit writes the record; discard drops it.
func (w *ringWriter) submit(at uint64, e connectsEnd) {
	b := (*[unsafe.Sizeof(e)]byte)(unsafe.Pointer(&e))
	for i, value := range b {
		at := (at + ringHeader + uint64(i)) % w.size
		w.ring.data[at], w.ring.data[at+w.size] = value, value
	}
	w.put(at, uint32(unsafe.Sizeof(e)))
}

func (w *ringWriter) discard(at uint64, length int) { w.put(at, uint32(length)|ringDiscarded) }

// All ends come in their order, wherever the ring begins anew, but not the discarded records.
func TestEndRing(t *testing.T) {
	const size = 4096
	random := rand.New(rand.NewPCG(1, 2))
	w := newRingWriter(size)
	written, read := uint64(0), uint64(0)
	for range 2000 {
		for range random.IntN(40) {
			if random.IntN(5) == 0 {
				length := random.IntN(200)
				if at, ok := w.reserve(length); ok {
					w.discard(at, length)
				}
				continue
			}
			at, ok := w.reserve(int(unsafe.Sizeof(connectsEnd{})))
			if !ok {
				break
			}
			written++
			w.submit(at, connectsEnd{Cookie: written})
		}
		w.ring.drain(func(e *End) {
			read++
			require.Equal(t, read, e.Cookie)
		})
		require.Equal(t, written, read)
		require.Equal(t, w.produced, w.consumed)
	}
	require.Greater(t, written, uint64(10_000))
}

// A record that is reserved but not written yet is waited for: those after it must not be lost or read before it.
func TestEndRingWaitsForWriter(t *testing.T) {
	w := newRingWriter(4096)
	length := int(unsafe.Sizeof(connectsEnd{}))
	first, _ := w.reserve(length)
	second, _ := w.reserve(length)
	w.submit(second, connectsEnd{Cookie: 2})
	var cookies []uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.ring.drain(func(e *End) { cookies = append(cookies, e.Cookie) })
	}()
	select {
	case <-done:
		t.Fatal("the first record was not waited for")
	default:
	}
	w.submit(first, connectsEnd{Cookie: 1})
	<-done
	require.Equal(t, []uint64{1, 2}, cookies)
}

func TestEndRingDoesNotAllocate(t *testing.T) {
	w := newRingWriter(4096)
	f := func(*End) {}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		at, ok := w.reserve(int(unsafe.Sizeof(connectsEnd{})))
		if !ok {
			t.Fatal("no room")
		}
		w.submit(at, connectsEnd{Cookie: 1})
		w.ring.drain(f)
	}))
}

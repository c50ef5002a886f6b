//go:build amd64 || arm64

package bpf

import (
	"net/netip"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// endRing reads the ring buffer of connects.c (kernel/bpf/ringbuf.c). One program at a time reads it.
//
// The kernel maps the data twice in succession, so that no record is split. A record has a header of two 32-bit words, the first of
// which is its length and two flags, and begins at a multiple of 8 bytes.
type endRing struct {
	consumer *uint64 // positions: bytes since the beginning
	producer *uint64
	data     []byte
	end      End // a buffer of drain
}

const (
	ringHeader    = 8       // BPF_RINGBUF_HDR_SZ
	ringBusy      = 1 << 31 // BPF_RINGBUF_BUSY_BIT: it is not written yet
	ringDiscarded = 1 << 30 // BPF_RINGBUF_DISCARD_BIT
)

// drain calls f with the ends in the ring.
func (r *endRing) drain(f func(*End)) {
	size := uint64(len(r.data) / 2)
	written := atomic.LoadUint64(r.producer) // later ones come with the next call: the kernel could write as fast as f reads
	for at := atomic.LoadUint64(r.consumer); at < written; {
		header := (*uint32)(unsafe.Pointer(&r.data[at%size]))
		length := atomic.LoadUint32(header)
		if length&ringBusy != 0 { // a program on another CPU is about to write it, and does not sleep
			runtime.Gosched()
			continue
		}
		if length&ringDiscarded == 0 {
			(*connectsEnd)(unsafe.Pointer(&r.data[at%size+ringHeader])).decode(&r.end)
			f(&r.end)
		}
		at += (uint64(length&^ringDiscarded) + ringHeader + 7) &^ 7
		atomic.StoreUint64(r.consumer, at)
	}
}

func (e *connectsEnd) decode(to *End) {
	const synSent, synRecv = 2, 3 // include/net/tcp_states.h
	*to = End{
		Connect: e.By.decode(), Cookie: e.Cookie, NetNS: uint64(e.Netns), Device: e.Device,
		Local: e.addrPort(&e.Local, e.LocalPort), Remote: e.addrPort(&e.Remote, e.RemotePort),
		Error: e.Error, SoftError: e.SoftError, Failed: e.State == synSent || e.State == synRecv,
	}
	to.Attempt, to.Port = Attempt{e.Number, e.ConnectUs, e.SynRetrans}, e.RemotePort
	if to.Failed {
		to.SegsOut, to.SegsIn, to.NoPort = e.SegsOut, e.SegsIn, e.NoPort != 0
	}
}

// addrPort returns an address of the socket.
func (e *connectsEnd) addrPort(words *[4]uint32, port uint16) netip.AddrPort {
	const inet6 = 10 // AF_INET6
	b := (*[16]byte)(unsafe.Pointer(words))
	if e.Family == inet6 {
		return netip.AddrPortFrom(netip.AddrFrom16(*b), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), port)
}

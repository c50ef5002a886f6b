//go:build amd64 || arm64

package netstat

import (
	"encoding/binary"
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
	objects bpf.ConnectsObjects
	link    link.Link
	slots   []byte // the map, in memory
}

var _ connectRecorder = (*bpfConnects)(nil)

// newConnects loads the program, which sees connections from then on. An error that is errors.ErrUnsupported says that it cannot
// work here, or not for this user.
func newConnects(root string) (connectRecorder, error) {
	const doing, linux = "recording who connects", "5.12"
	if err := inInitialPIDNamespace(root); err != nil {
		return nil, err
	}
	c := &bpfConnects{}
	if err := bpf.LoadConnectsObjects(&c.objects, nil); err != nil {
		return nil, bpfError(doing, linux, err)
	}
	size := int(c.objects.Begun.MaxEntries()) * slotLen
	var err error
	if c.slots, err = unix.Mmap(c.objects.Begun.FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		_ = c.objects.Close()
		return nil, bpfError(doing, linux, err)
	}
	c.link, err = link.AttachTracing(link.TracingOptions{Program: c.objects.Connects, AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		_ = unix.Munmap(c.slots)
		_ = c.objects.Close()
		return nil, bpfError(doing, linux, err)
	}
	return c, nil
}

func (c *bpfConnects) close() {
	_ = c.link.Close()
	_ = unix.Munmap(c.slots)
	_ = c.objects.Close()
}

func (c *bpfConnects) look(cookie uint64) (connectRecord, bool) {
	if cookie == 0 {
		return connectRecord{}, false
	}
	slot := c.slots[cookie%uint64(len(c.slots)/slotLen)*slotLen:][:slotLen]
	kept := (*uint64)(unsafe.Pointer(&slot[0]))
	if atomic.LoadUint64(kept) != cookie {
		return connectRecord{}, false
	}
	record := decodeConnect((*[connectLen]byte)(slot[8:]))
	return record, atomic.LoadUint64(kept) == cookie // or it was replaced meanwhile
}

// slotLen is the size of struct slot of internal/bpf/connects.c: a cookie, and struct connect.
const slotLen = 8 + connectLen

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

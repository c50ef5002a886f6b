//go:build amd64 || arm64

package bpf

import (
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Connects records the attempts to connect by TCP in all network namespaces: see connects.c. Lookup is safe for concurrent use, and
// Drain one call at a time.
type Connects struct {
	objects struct { // without the variables, as for Owners
		connectsPrograms
		connectsMaps
	}
	links    []link.Link
	memory   [][]byte // the maps
	index    connectIndex
	ring     endRing
	lostEnds *uint64  // for which the ring had no room
	wakeUp   *os.File // the ring, for Wait
}

// OpenConnects loads the program, which records connections from then on: those in the network namespace with the inode number netNS,
// or, if that is 0, in all. procRoot must belong to the initial PID namespace, whose pids the program records.
func OpenConnects(procRoot string, netNS uint64) (*Connects, error) {
	if err := requireInitialPIDNamespace(procRoot); err != nil {
		return nil, err
	}
	c := &Connects{}
	if err := c.open(netNS); err != nil {
		c.Close()
		return nil, missing("recording connection initiators", "5.12", err)
	}
	return c, nil
}

func (c *Connects) open(netNS uint64) error {
	spec, err := loadConnects()
	if err != nil {
		return err
	}
	if err := spec.Variables[connectsVarOnlyNetns].Set(uint32(netNS)); err != nil {
		return err
	}
	if err := spec.LoadAndAssign(&c.objects, nil); err != nil {
		return err
	}
	if c.index.records, err = mapArray[connectsRecord](c, c.objects.Records); err != nil {
		return err
	}
	if c.index.buckets, err = mapArray[connectsBucket](c, c.objects.Buckets); err != nil {
		return err
	}
	if err := c.openRing(); err != nil {
		return err
	}
	for _, program := range []*ebpf.Program{c.objects.Changes, c.objects.Begins} { // no attempt begins before its end is seen
		attached, err := link.AttachTracing(link.TracingOptions{Program: program, AttachType: ebpf.AttachTraceRawTp})
		if err != nil {
			return err
		}
		c.links = append(c.links, attached)
	}
	return nil
}

// mapArray maps a BPF array into memory. T is the Go type of its values.
func mapArray[T any](c *Connects, m *ebpf.Map) ([]T, error) {
	size := int(m.MaxEntries()) * int(m.ValueSize())
	memory, err := c.mmap(m, 0, size, unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), m.MaxEntries()), nil
}

func (c *Connects) mmap(m *ebpf.Map, offset, size, protection int) ([]byte, error) {
	memory, err := unix.Mmap(m.FD(), int64(offset), size, protection, unix.MAP_SHARED)
	if err == nil {
		c.memory = append(c.memory, memory)
	}
	return memory, err
}

// openRing maps the ring buffer: a page with the position of the reader, and one with that of the kernel before the data.
func (c *Connects) openRing() error {
	lost, err := mapArray[uint64](c, c.objects.Lost)
	if err != nil {
		return err
	}
	page, size := os.Getpagesize(), int(c.objects.Ends.MaxEntries())
	read, err := c.mmap(c.objects.Ends, 0, page, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	written, err := c.mmap(c.objects.Ends, page, page+2*size, unix.PROT_READ)
	if err != nil {
		return err
	}
	c.lostEnds = &lost[0]
	c.ring = endRing{
		consumer: (*uint64)(unsafe.Pointer(&read[0])), producer: (*uint64)(unsafe.Pointer(&written[0])), data: written[page:],
	}
	fd, err := unix.FcntlInt(uintptr(c.objects.Ends.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // required by the runtime poller
		_ = unix.Close(fd)
		return err
	}
	c.wakeUp = os.NewFile(uintptr(fd), "BPF ring buffer")
	return nil
}

// Drain calls f with the ends since the last call, in their order.
func (c *Connects) Drain(f func(*End)) { c.ring.drain(f) }

// Lost returns the number of ends so far for which there was no room.
func (c *Connects) Lost() uint64 { return atomic.LoadUint64(c.lostEnds) }

// Wait waits until the room for ends is a quarter full, and then calls drain, which calls Drain; again and again until Close.
func (c *Connects) Wait(drain func()) {
	ring, err := c.wakeUp.SyscallConn()
	if err != nil {
		return
	}
	_ = ring.Read(func(uintptr) bool {
		drain()
		return false
	})
}

// Lookup returns the last attempt of the socket with the cookie; false if it is unknown.
func (c *Connects) Lookup(cookie uint64) (Connect, bool) { return c.index.lookup(cookie) }

// Close unloads the program. It must not be called during or before a Lookup or Drain.
func (c *Connects) Close() {
	if c.wakeUp != nil {
		_ = c.wakeUp.Close()
	}
	for _, attached := range c.links {
		_ = attached.Close()
	}
	for _, memory := range c.memory {
		_ = unix.Munmap(memory)
	}
	_ = c.objects.connectsPrograms.Close()
	_ = c.objects.connectsMaps.Close()
}

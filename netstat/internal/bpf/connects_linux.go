//go:build amd64 || arm64

package bpf

import (
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Connects records the initiators of TCP connections in all network namespaces: see connects.c. Lookup is safe for concurrent
// use.
type Connects struct {
	objects struct { // without the variables, as for Owners
		connectsPrograms
		connectsMaps
	}
	link   link.Link
	memory [][]byte // the maps
	index  connectIndex
}

// OpenConnects loads the program, which records connections from then on. procRoot must belong to the initial PID namespace,
// whose pids the program records.
func OpenConnects(procRoot string) (*Connects, error) {
	if err := requireInitialPIDNamespace(procRoot); err != nil {
		return nil, err
	}
	c := &Connects{}
	if err := c.open(); err != nil {
		c.Close()
		return nil, missing("recording connection initiators", "5.12", err)
	}
	return c, nil
}

func (c *Connects) open() error {
	err := loadConnectsObjects(&c.objects, nil)
	if err != nil {
		return err
	}
	if c.index.records, err = mapArray[connectsRecord](c, c.objects.Records); err != nil {
		return err
	}
	if c.index.buckets, err = mapArray[connectsBucket](c, c.objects.Buckets); err != nil {
		return err
	}
	c.link, err = link.AttachTracing(link.TracingOptions{Program: c.objects.Connects, AttachType: ebpf.AttachTraceRawTp})
	return err
}

// mapArray maps a BPF array into memory. T is the Go type of its values.
func mapArray[T any](c *Connects, m *ebpf.Map) ([]T, error) {
	size := int(m.MaxEntries()) * int(m.ValueSize())
	memory, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	c.memory = append(c.memory, memory)
	return unsafe.Slice((*T)(unsafe.Pointer(&memory[0])), m.MaxEntries()), nil
}

// Lookup returns the initiator of the connection with the cookie; false if it is unknown.
func (c *Connects) Lookup(cookie uint64) (Connect, bool) { return c.index.lookup(cookie) }

// Close unloads the program. It must not be called during or before a Lookup.
func (c *Connects) Close() {
	if c.link != nil {
		_ = c.link.Close()
	}
	for _, memory := range c.memory {
		_ = unix.Munmap(memory)
	}
	_ = c.objects.connectsPrograms.Close()
	_ = c.objects.connectsMaps.Close()
}

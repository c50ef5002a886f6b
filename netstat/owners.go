package netstat

import (
	"fmt"
	"strings"
)

// OwnerMethod is a way to find the processes behind the sockets.
type OwnerMethod uint8

// The ways to find the processes behind the sockets.
const (
	OwnersAuto   OwnerMethod = iota // the best way that works
	OwnersProcfs                    // reading the links in /proc/<pid>/fd
	OwnersNone                      // not at all
)

var ownerMethodNames = [...]string{OwnersAuto: "auto", OwnersProcfs: "procfs", OwnersNone: "none"}

// String returns the method's name, and OwnerMethod(n) for a number that is no method.
func (m OwnerMethod) String() string { return enumName("OwnerMethod", int(m), ownerMethodNames[:]) }

// ParseOwnerMethod returns the method with the name.
func ParseOwnerMethod(name string) (OwnerMethod, error) {
	i, err := parseEnum(name, ownerMethodNames[:])
	return OwnerMethod(i), err
}

// ownerFinder finds the processes behind the sockets of the host, in all network namespaces at once.
type ownerFinder interface {
	// refresh fills the table, which is empty.
	refresh(*ownerTable) (ownerStats, error)
	close()
}

// ownerStats tells how a refresh went.
type ownerStats struct {
	processes int // that hold a socket
	denied    int // processes whose descriptors may not be read
}

// ownerTable says which processes hold a socket. It is filled anew for every scan, in the room that it already has.
type ownerTable struct {
	chains map[uint64]chain // by inode
	links  []link
}

// chain is the list of a socket's holders in ownerTable.links, in the order in which they were found.
type chain struct{ head, tail int32 }

type link struct {
	process *Process
	next    int32 // index of the next holder's link; 0: this is the last, as links[0] is nobody's
}

func (t *ownerTable) clear() {
	if t.chains == nil {
		t.chains = make(map[uint64]chain)
	}
	clear(t.chains)
	clear(t.links)
	t.links = append(t.links[:0], link{})
}

// add records that the process holds the sockets. It is called once for every process.
func (t *ownerTable) add(p *Process, inodes []uint64) {
	for _, inode := range inodes {
		c, held := t.chains[inode]
		if held && t.links[c.tail].process == p {
			continue // a duplicate of a descriptor: dup(2)
		}
		last := int32(len(t.links))
		t.links = append(t.links, link{process: p})
		if held {
			t.links[c.tail].next = last
			c.tail = last
		} else {
			c = chain{head: last, tail: last}
		}
		t.chains[inode] = c
	}
}

func (t *ownerTable) appendOwners(owners []*Process, inode uint64) []*Process {
	if inode == 0 {
		return owners
	}
	for i := t.chains[inode].head; i != 0; i = t.links[i].next {
		owners = append(owners, t.links[i].process)
	}
	return owners
}

// first returns the process that was found first to hold the socket, or nil.
func (t *ownerTable) first(inode uint64) *Process {
	if inode == 0 {
		return nil
	}
	c, held := t.chains[inode]
	if !held {
		return nil
	}
	return t.links[c.head].process
}

// noOwners is the way to find no processes.
type noOwners struct{}

var _ ownerFinder = noOwners{}

func (noOwners) refresh(*ownerTable) (ownerStats, error) { return ownerStats{}, nil }
func (noOwners) close()                                  {}

// enumName returns the name of value i of the type.
func enumName(typeName string, i int, names []string) string {
	if i >= len(names) {
		return fmt.Sprintf("%s(%d)", typeName, i)
	}
	return names[i]
}

// parseEnum returns the index of the name in names.
func parseEnum(name string, names []string) (int, error) {
	for i, n := range names {
		if n == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q is not one of %s", name, strings.Join(names, ", "))
}

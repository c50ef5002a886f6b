package netstat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat/internal/netns"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// trackedNamespace is what a scanner knows of a network namespace and holds open in it.
type trackedNamespace struct {
	Namespace            // what is known now
	handedOut *Namespace // what was known when it was handed out last; nil: never

	netlinkSockets
	taken takenClosed // from closed, and not handed out yet
	held  *os.File    // keeps the namespace, and so its inode numbers, from scan to scan; nil: diag does

	found   uint64 // the scan that found it last; 0: it is forgotten
	tried   uint64 // the scan that tried to enter it last
	entry   entryState
	refused error  // why entry is entryRefused
	visible string // the ns/net of a process, found since the last try, that lets it be seen when others do not; empty: none
	unowned int    // late sockets of which no owner was found: see lateSockets
}

// entryState says how it went to enter a namespace.
type entryState uint8

const (
	entryUntried  entryState = iota
	entryDone                // a thread was in it, and opened the netlink sockets that were wanted
	entryRefused             // netlink was wanted, and is not permitted: tried again with the other fallbacks
	entryFailed              // tried again in the next scan
	entryUnneeded            // netlink is not wanted, and its tables are read through a process
)

// netlinkSockets are those that are open in a namespace.
type netlinkSockets struct {
	diag          diagConn   // nil: its tables are read from procfs
	closed        closedConn // nil: not subscribed to closed sockets; events can be taken from it after its end
	refusedClosed error      // why it is not subscribed
}

// discard closes the sockets, and drops the events that were not taken.
func (s *netlinkSockets) discard() {
	if s.diag != nil {
		_ = s.diag.Close()
		s.diag = nil
	}
	if s.closed != nil {
		discardClosed(s.closed)
	}
}

func (n *trackedNamespace) close() {
	n.leave()
	if n.closed != nil {
		n.closed.close()
	}
}

// leave closes everything but the subscription to closed sockets.
func (n *trackedNamespace) leave() {
	if n.diag != nil {
		_ = n.diag.Close()
		n.diag = nil
	}
	n.release()
}

// hold keeps a file of the namespace open if nothing else keeps the namespace: the kernel could give its inode numbers to another
// one before the next scan, which would be taken for it.
func (n *trackedNamespace) hold() {
	if n.Self || n.diag != nil || n.held != nil || n.entry == entryFailed {
		return
	}
	held, err := n.openTable("net/dev")
	if err == nil {
		n.held = held
	}
}

func (n *trackedNamespace) release() {
	if n.held != nil {
		_ = n.held.Close()
		n.held = nil
	}
}

func (n *trackedNamespace) setProcess(pid int) {
	n.PID, n.procDir = pid, filepath.Join(n.root, strconv.Itoa(pid))
}

// file is the one through which a thread may be able to enter the namespace.
func (n *trackedNamespace) file() string {
	switch {
	case n.visible != "":
		return n.visible
	case n.path != "" || n.procDir == "":
		return n.path
	default:
		return n.fileOf(n.PID)
	}
}

func (n *trackedNamespace) fileOf(pid int) string {
	return filepath.Join(n.root, strconv.Itoa(pid), "ns", "net")
}

// hasPath tells whether the namespace still has its name.
func (n *trackedNamespace) hasPath() bool {
	if n.path == "" {
		return false
	}
	inode, err := netns.MountedAt(n.path)
	return err == nil && inode == n.Inode
}

// errNoNetlink says why the namespace cannot be read by netlink.
func (n *trackedNamespace) errNoNetlink() error {
	if n.refused == nil {
		return errors.New("cannot enter the network namespace")
	}
	return fmt.Errorf("requires CAP_SYS_ADMIN, and CAP_SYS_PTRACE for a namespace without a name: %w", n.refused)
}

// adopt takes over what was found out about the same namespace under its name.
func (n *trackedNamespace) adopt(named *trackedNamespace) {
	n.Inode, n.Name, n.path = named.Inode, named.Name, named.path
	n.entry, n.tried, n.refused = named.entry, named.tried, named.refused
	named.release()
	if n.diag != nil || named.diag == nil {
		named.discard()
		return
	}
	n.take(named.netlinkSockets)
}

// take takes over netlink sockets that were opened in the namespace, in place of those that it has.
func (n *trackedNamespace) take(opened netlinkSockets) {
	if n.diag != nil {
		_ = n.diag.Close()
	}
	n.diag = opened.diag
	if n.closed == nil {
		n.closed, n.refusedClosed = opened.closed, opened.refusedClosed
	} else if opened.closed != nil { // the first one has events that are still to be handed out
		discardClosed(opened.closed)
	}
	n.release()
}

// namespaces are the network namespaces that a scanner reads. In each scan find finds those that there are, by stat(2) alone, and
// forgets those that have ended; then enterFound enters those that are new. In this order the new ones get the descriptors of
// those that have ended.
type namespaces struct {
	root      string // the proc file system
	wanted    []string
	self      *trackedNamespace
	known     []*trackedNamespace
	ended     []*trackedNamespace          // that are forgotten, but for their closed sockets: the kernel can still report some
	byInode   map[uint64]*trackedNamespace // those that are known, and self
	byTable   map[uint64]*trackedNamespace
	lastID    uint64
	scan      uint64
	dir       procfs.Dir
	pids      []int
	withDiag  bool                      // they are to be read by netlink
	noDiag    [len(transportNames)]bool // transports for which sock_diag was refused
	openDiag  func() (diagConn, error)
	subscribe func(room int) (closedConn, error) // nil: closed sockets are not wanted
	room      int                                // of each subscription, see closedRoom
	fallbacks *fallbacks

	requireDiag bool // source "netlink" is required: no fallback to /proc

	processesUnknown, namesUnknown bool // this scan could not list all of them
}

// newNamespace returns a namespace that is to be found.
func (all *namespaces) newNamespace() *trackedNamespace {
	all.lastID++
	return &trackedNamespace{Namespace: Namespace{ID: all.lastID, root: all.root}}
}

// sourceOf returns where the sockets of the transport are to be read from in the namespace.
func (all *namespaces) sourceOf(n *trackedNamespace, transport Transport) Source {
	if n.diag == nil || all.noDiag[transport] {
		return SourceProcfs
	}
	return SourceNetlink
}

// handOut returns the namespace as it is now: the same pointer as the last time if nothing has changed.
func (all *namespaces) handOut(n *trackedNamespace) *Namespace {
	for transport := range n.sources {
		n.sources[transport] = all.sourceOf(n, Transport(transport))
	}
	n.closedEvents = n.closed != nil
	if n.handedOut == nil || *n.handedOut != n.Namespace {
		now := n.Namespace
		n.handedOut = &now
	}
	return n.handedOut
}

// static tells whether nothing but the reader's own is wanted.
func (all *namespaces) static() bool { return slices.Equal(all.wanted, []string{NamespaceSelf}) }

// index has the namespace found by what identifies it.
func (all *namespaces) index(n *trackedNamespace) {
	if n.Inode != 0 {
		all.byInode[n.Inode] = n
	}
	if n.table != 0 {
		all.byTable[n.table] = n
	}
}

// forget forgets a namespace that has ended.
func (all *namespaces) forget(n *trackedNamespace) {
	all.known = slices.DeleteFunc(all.known, func(known *trackedNamespace) bool { return known == n })
	n.found = 0
	if n == all.self {
		return // it is still known when it is met again
	}
	if all.byInode[n.Inode] == n { // or the number is another one's by now
		delete(all.byInode, n.Inode)
	}
	if all.byTable[n.table] == n {
		delete(all.byTable, n.table)
	}
	all.handOut(n) // its closed sockets come with what was known of it
	n.leave()
	if n.closed != nil {
		all.ended = append(all.ended, n)
	}
}

func (all *namespaces) close() {
	for _, n := range slices.Concat(all.known, all.ended) {
		n.close()
	}
	if all.self != nil {
		all.self.close()
	}
	all.dir.Close()
}

package netstat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/procnetstat/procnetstat/netstat/internal/netns"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// trackedNamespace is the state of a network namespace that a scanner keeps from scan to scan.
type trackedNamespace struct {
	Namespace            // current state
	handedOut *Namespace // the copy that callers got last; nil: none

	netlinkSockets
	taken takenClosed // from closed, not yielded yet
	held  *os.File    // keeps the namespace and its inode numbers alive between scans; nil: diag does

	found   uint64 // the last scan that found it; 0: forgotten
	tried   uint64 // the last scan that tried to enter it
	entry   entryState
	refused error  // why entry is entryRefused
	visible string // a readable ns/net, found since the last try when no other process had one; empty: none
	unowned int    // late sockets without an owner in the last lookup: see lateSockets

	limitsRead time.Time // when the limits were read; zero: never
}

// entryState is the result of entering a namespace.
type entryState uint8

const (
	entryUntried  entryState = iota
	entryDone                // the netlink sockets are open
	entryRefused             // netlink is not permitted; see fallbackEnter for the retry
	entryFailed              // retried by the next scan
	entryUnneeded            // not entered: the tables are read through a process
)

// netlinkSockets are the sockets that are open in a namespace.
type netlinkSockets struct {
	diag          diagConn   // nil: the tables are read from procfs
	closed        closedConn // nil: not subscribed; events can be taken after it was closed
	refusedClosed error      // why closed is nil, if the subscription failed
}

// discard closes the sockets and drops pending events.
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

// hold keeps a file of the namespace open unless a netlink socket keeps the namespace alive. Otherwise the kernel could reuse its
// inode numbers before the next scan, and another namespace would be taken for it.
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

// file returns the file through which to enter the namespace.
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

// hasPath reports whether the namespace is still mounted at its name.
func (n *trackedNamespace) hasPath() bool {
	if n.path == "" {
		return false
	}
	inode, err := netns.MountedAt(n.path)
	return err == nil && inode == n.Inode
}

// errNoNetlink returns why netlink is unavailable in the namespace.
func (n *trackedNamespace) errNoNetlink() error {
	if n.refused == nil {
		return errors.New("cannot enter the network namespace")
	}
	return fmt.Errorf("entering requires CAP_SYS_ADMIN, and CAP_SYS_PTRACE for a namespace without a name: %w", n.refused)
}

// adopt merges named, which turned out to be the same namespace, into n.
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

// take replaces the netlink sockets by newly opened ones. An existing subscription stays.
func (n *trackedNamespace) take(opened netlinkSockets) {
	if n.diag != nil {
		_ = n.diag.Close()
	}
	n.diag = opened.diag
	if n.closed == nil {
		n.closed, n.refusedClosed = opened.closed, opened.refusedClosed
	} else if opened.closed != nil { // the existing one has pending events
		discardClosed(opened.closed)
	}
	n.release()
}

// namespaces are the network namespaces that a scanner reads. In each scan, find lists the current ones with stat(2) and closes
// those that have ended; then enterFound enters the new ones, which can so reuse the freed descriptors.
type namespaces struct {
	root      string // the proc file system
	wanted    []string
	self      *trackedNamespace
	known     []*trackedNamespace
	ended     []*trackedNamespace          // forgotten, but still subscribed: the kernel can still report closed sockets
	byInode   map[uint64]*trackedNamespace // known and self
	byTable   map[uint64]*trackedNamespace
	lastID    uint64
	scan      uint64
	dir       procfs.Dir
	pids      []int
	withDiag  bool                      // read with netlink
	noDiag    [len(transportNames)]bool // transports for which sock_diag is unavailable
	openDiag  func() (diagConn, error)
	subscribe func(room int) (closedConn, error) // nil: no closed sockets
	room      int                                // receive buffer of each subscription in bytes, see closedRoom
	fallbacks *fallbacks

	requireDiag bool // source "netlink" is required: no fallback to /proc
	withLimits  bool // read the limits

	processesUnknown, namesUnknown bool // this scan could not list them completely
}

// newNamespace returns a namespace with a new ID, which see adds to known.
func (all *namespaces) newNamespace() *trackedNamespace {
	all.lastID++
	n := &trackedNamespace{Namespace: Namespace{ID: all.lastID, root: all.root}}
	n.devices = &devices{sockets: &n.netlinkSockets}
	return n
}

// sourceOf returns the source for a transport in the namespace.
func (all *namespaces) sourceOf(n *trackedNamespace, transport Transport) Source {
	if n.diag == nil || all.noDiag[transport] {
		return SourceProcfs
	}
	return SourceNetlink
}

// handOut returns a copy of the current state for callers: the same pointer as before if nothing changed.
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

// static reports whether only the reader's own namespace is configured.
func (all *namespaces) static() bool { return slices.Equal(all.wanted, []string{NamespaceSelf}) }

// index adds the namespace to byInode and byTable.
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
		return // it stays in the indexes
	}
	if all.byInode[n.Inode] == n { // otherwise another namespace has the number by now
		delete(all.byInode, n.Inode)
	}
	if all.byTable[n.table] == n {
		delete(all.byTable, n.table)
	}
	all.handOut(n) // the final state, for its closed sockets
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

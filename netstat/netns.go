package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The network namespaces that [ScannerConfig].Namespaces names, beside names and pids.
const (
	NamespaceSelf = "self" // the reader's own
	NamespaceHost = "host" // that of process 1 of the proc file system
	NamespaceAll  = "all"  // every one that has a process or a name
)

// Namespace is a network namespace that a [Scanner] reads: see network_namespaces(7). It is the same Namespace in every scan
// for as long as the namespace is found.
type Namespace struct {
	// Self says that it is the reader's own.
	Self bool
	// Inode is the number that identifies it, as that of /proc/<pid>/ns/net; 0 if the reader may not see it.
	Inode uint64
	// Name is the name that it has in /run/netns, see ip-netns(8); empty if it has none.
	Name string
	// PID is a process in it; 0 if none is known.
	PID int
	// Source is where its sockets come from; SourceNetlink also where some tables come from procfs.
	Source Source

	root    string // the proc file system
	procDir string // the directory of process PID; empty: none
	path    string // the file in /run/netns; empty: none
	diag    diagConn
	closed  closedConn  // nil: nothing is heard of sockets that are destroyed; it can be taken from after its end
	taken   takenClosed // from closed, and not handed out yet
	table   uint64      // the inode of net/dev, which is the same for all processes in it
	held    *os.File    // keeps it, and so its numbers, from scan to scan; nil: diag does

	found    uint64 // the scan that found it last; 0: it is forgotten
	tried    uint64 // the scan that tried to enter it last; 0: none has
	newEntry string // an ns/net file found since the last attempt to enter it; empty: none
	failed   bool   // it could not be entered, but perhaps another time
	refused  error  // why it may not be read by netlink
	unowned  int    // late sockets of which no owner was found: see lateSockets
	entered  bool   // it can be entered

	refusedClosed error // why nothing is heard of sockets that are destroyed
}

// String names it: the name, else the process, else the number.
func (n *Namespace) String() string {
	switch {
	case n.Self:
		return NamespaceSelf
	case n.Name != "":
		return n.Name
	case n.PID != 0:
		return "of process " + strconv.Itoa(n.PID)
	default:
		return strconv.FormatUint(n.Inode, 10)
	}
}

// ReadSockstat is [ReadSockstat] for the namespace. An error that satisfies errors.Is(err, fs.ErrNotExist) says that no
// process is in it any more.
func (n *Namespace) ReadSockstat() (Sockstat, error) {
	if n.procDir != "" {
		s, err := ReadSockstat(n.procDir)
		if n.hasProcess() {
			return s, err
		}
	} else {
		var s Sockstat
		err := n.inside(func() (err error) {
			s, err = ReadSockstat(threadDir)
			return err
		})
		if !errors.Is(err, errNamespaceGone) {
			return s, err
		}
	}
	return Sockstat{}, fmt.Errorf("the socket counts of network namespace %s: no process is in it: %w", n, fs.ErrNotExist)
}

// hasProcess tells whether the tables in procDir are its own: the process may have ended, or gone to another namespace, or its
// number is another process's. It is asked after they were opened.
func (n *Namespace) hasProcess() bool { return n.Self || netTable(n.procDir) == n.table }

// inside calls f on a thread in the namespace. errNamespaceGone says that none can enter it.
func (n *Namespace) inside(f func() error) error {
	entered := false
	_, err := inNamespace(n.path, n.Inode, func() error {
		entered = true
		return f()
	})
	if !entered && isAbsent(err) {
		return errNamespaceGone
	}
	return err
}

// threadDir is the directory of the calling thread in this process's proc file system.
const threadDir = "/proc/thread-self"

// Cgroup returns the path of the cgroup that process PID is in, as [Process.Cgroup] does; empty if no process is known.
func (n *Namespace) Cgroup() string {
	if n.PID == 0 {
		return ""
	}
	return (&Process{PID: n.PID, root: n.root}).Cgroup()
}

// ParseNamespace checks an element of [ScannerConfig].Namespaces.
func ParseNamespace(text string) error {
	if text == "" || text == "." || text == ".." || strings.ContainsAny(text, "/\x00") {
		return fmt.Errorf("%q is not one of self, host, all, a name in /run/netns, a pid", text)
	}
	return nil
}

func (n *Namespace) close() {
	n.leave()
	if n.closed != nil {
		n.closed.close()
	}
}

// discard closes the namespace, and drops the events that nobody has taken.
func (n *Namespace) discard() {
	n.leave()
	if n.closed != nil {
		discardClosed(n.closed)
	}
}

// leave gives back all but what it is heard by of closed sockets.
func (n *Namespace) leave() {
	if n.diag != nil {
		_ = n.diag.Close()
		n.diag = nil
	}
	n.letGo()
}

func (n *Namespace) letGo() {
	if n.held != nil {
		_ = n.held.Close()
		n.held = nil
	}
}

// errNamespaceGone says that nothing is left through which a namespace can be read.
var errNamespaceGone = errors.New("the network namespace is gone")

func (n *Namespace) setProcess(pid int) {
	n.PID, n.procDir = pid, filepath.Join(n.root, strconv.Itoa(pid))
}

// file is what a thread may be able to enter the namespace by.
func (n *Namespace) file() string {
	switch {
	case n.newEntry != "":
		return n.newEntry
	case n.path != "" || n.procDir == "":
		return n.path
	default:
		return n.fileOf(n.PID)
	}
}

func (n *Namespace) fileOf(pid int) string {
	return filepath.Join(n.root, strconv.Itoa(pid), "ns", "net")
}

// errNoNetlink says why the namespace cannot be read by netlink.
func (n *Namespace) errNoNetlink() error {
	if n.refused == nil {
		return errors.New("the network namespace could not be entered")
	}
	return fmt.Errorf("it takes CAP_SYS_ADMIN, and CAP_SYS_PTRACE for a namespace without a name: %w", n.refused)
}

// hasPath tells whether the namespace still has its name.
func (n *Namespace) hasPath() bool {
	if n.path == "" {
		return false
	}
	inode, err := namespaceFile(n.path)
	return err == nil && inode == n.Inode
}

// adopt takes over what was found out about the same namespace under its name.
func (n *Namespace) adopt(named *Namespace) {
	n.Inode, n.Name, n.path = named.Inode, named.Name, named.path
	n.entered, n.tried, n.failed, n.refused = named.entered, named.tried, named.failed, named.refused
	if n.diag != nil || named.diag == nil {
		named.discard()
		return
	}
	n.take(named)
}

// take takes over the netlink sockets that were opened in the namespace, in place of those that it has.
func (n *Namespace) take(opened *Namespace) {
	if n.diag != nil {
		_ = n.diag.Close()
	}
	n.diag, n.Source = opened.diag, SourceNetlink
	if n.closed == nil {
		n.closed, n.refusedClosed = opened.closed, opened.refusedClosed
	} else if opened.closed != nil { // the first one has events that are still to be handed out
		discardClosed(opened.closed)
	}
	n.letGo()
}

// errMoved says that a process is in another namespace than it was.
var errMoved = fmt.Errorf("another network namespace than it was: %w", fs.ErrNotExist)

// hold keeps a file of the namespace open if nothing else keeps the namespace: its numbers could be given to another one until
// the next scan, which would be taken for it.
func (n *Namespace) hold() {
	if n.Self || n.diag != nil || n.held != nil || n.failed {
		return
	}
	held, err := n.openTable("net/dev")
	if err == nil {
		n.held = held
	}
}

func (n *Namespace) openTable(table string) (*os.File, error) {
	if n.procDir == "" {
		return n.openTableInside(table)
	}
	file, err := os.Open(filepath.Join(n.procDir, table))
	if n.hasProcess() {
		return file, err
	}
	_ = file.Close()
	return nil, errNamespaceGone
}

func (n *Namespace) openTableInside(table string) (file *os.File, err error) {
	err = n.inside(func() (err error) {
		file, err = os.Open(filepath.Join(threadDir, table))
		return err
	})
	return file, err
}

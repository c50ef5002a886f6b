package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/procnetstat/procnetstat/netstat/internal/netns"
)

// The network namespaces that [ScannerConfig].Namespaces names, beside names and pids.
const (
	NamespaceSelf = "self" // the reader's own
	NamespaceHost = "host" // that of process 1 of the proc file system
	NamespaceAll  = "all"  // every one that has a process or a name
)

// Namespace is a network namespace that a [Scanner] reads: see network_namespaces(7). It does not change after the Scanner has
// handed it out: when the namespace gets another name, for example, the Scanner makes a new one with the same ID. Within a scan
// all sockets of a namespace have the same pointer.
type Namespace struct {
	// ID identifies the namespace to its Scanner. It is the same in every scan for as long as the namespace is found, and no other
	// namespace gets it later.
	ID uint64
	// Self says that it is the reader's own.
	Self bool
	// Inode is the inode number of its file /proc/<pid>/ns/net; 0 if the reader may not see it.
	Inode uint64
	// Name is the name that it has in /run/netns, see ip-netns(8); empty if it has none.
	Name string
	// PID is a process in it; 0 if none is known.
	PID int

	root    string // the proc file system
	procDir string // the directory of process PID; empty: none
	path    string // the file in /run/netns; empty: none
	table   uint64 // see netns.TableOf

	sources      [len(transportNames)]Source
	closedEvents bool
}

// String returns "self", else the name, else the process, else the inode number.
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

// SourceOf returns where the sockets of the transport come from: SourceNetlink or SourceProcfs. After a scan the values of
// [Scanner.Namespaces] tell where it has read them from. The value of a [Socket] is made before the namespace is read, and does
// not know of what the kernel refuses in that scan.
func (n *Namespace) SourceOf(transport Transport) Source { return n.sources[transport] }

// ClosedEvents tells whether the kernel reports the TCP sockets that it destroys in the namespace: see "Closed sockets" in the
// package's documentation.
func (n *Namespace) ClosedEvents() bool { return n.closedEvents }

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
			s, err = ReadSockstat(netns.ThreadDir)
			return err
		})
		if !errors.Is(err, errNamespaceGone) {
			return s, err
		}
	}
	return Sockstat{}, fmt.Errorf("the socket counts of network namespace %s: no process is in it: %w", n, fs.ErrNotExist)
}

// Cgroup returns the path of the cgroup that process PID is in, as [Process.Cgroup] does; empty if no process is known.
func (n *Namespace) Cgroup() string {
	if n.PID == 0 {
		return ""
	}
	return (&Process{PID: n.PID, root: n.root}).Cgroup()
}

// CheckNamespace returns an error if the text can be no element of [ScannerConfig].Namespaces.
func CheckNamespace(text string) error {
	if text == "" || text == "." || text == ".." || strings.ContainsAny(text, "/\x00") {
		return fmt.Errorf("%q is not one of self, host, all, a name in /run/netns, a pid", text)
	}
	return nil
}

// errNamespaceGone says that nothing is left through which a namespace can be read.
var errNamespaceGone = errors.New("the network namespace is gone")

// openTable opens a table of the namespace: through its process, or on a thread that enters it.
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
		file, err = os.Open(filepath.Join(netns.ThreadDir, table))
		return err
	})
	return file, err
}

// hasProcess tells whether the tables in procDir are those of the namespace: the process may have ended, or entered another
// namespace, or another process may have its pid. It is called after a table was opened.
func (n *Namespace) hasProcess() bool { return n.Self || netns.TableOf(n.procDir) == n.table }

// inside calls f on a thread in the namespace. errNamespaceGone says that no thread can enter it.
func (n *Namespace) inside(f func() error) error {
	entered := false
	_, err := netns.Enter(n.path, n.Inode, func() error {
		entered = true
		return f()
	})
	if !entered && isAbsent(err) {
		return errNamespaceGone
	}
	return err
}

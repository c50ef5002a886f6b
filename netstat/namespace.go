package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/procnetstat/procnetstat/netstat/internal/netns"
)

// Special elements of [ScannerConfig].Namespaces. Others are names in /run/netns and pids.
const (
	NamespaceSelf = "self" // the reader's own
	NamespaceHost = "host" // that of process 1 in the proc file system
	NamespaceAll  = "all"  // all that have a process or a name in /run/netns
)

// Namespace is a network namespace that a [Scanner] reads: see network_namespaces(7). It is immutable: if a property such as the
// name changes, the Scanner returns a new Namespace with the same ID. Within a scan all sockets of a namespace share one pointer.
type Namespace struct {
	// ID identifies the namespace within its Scanner. It stays the same while scans find the namespace, and is never reused.
	ID uint64
	// Self is true for the reader's own namespace.
	Self bool
	// Inode is the inode number of /proc/<pid>/ns/net; 0 if the reader cannot read it.
	Inode uint64
	// Name is its name in /run/netns, see ip-netns(8); empty if it has none.
	Name string
	// PID is a process in the namespace; 0 if none is known.
	PID int

	root    string // the proc file system
	procDir string // the directory of process PID; empty: none
	path    string // the file in /run/netns; empty: none
	table   uint64 // see netns.TableOf
	devices *devices
	limits  Limits

	sources      [len(transportNames)]Source
	closedEvents bool
}

// String returns the first that applies: "self", the name, "of process <pid>", the inode number.
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

// SourceOf returns the source of a transport's sockets: SourceNetlink or SourceProcfs. On values from [Scanner.Namespaces] it
// is the source that the last scan used. On the Namespace of a [Socket] it is the planned source, which the scan replaces if
// sock_diag turns out to be unavailable.
func (n *Namespace) SourceOf(transport Transport) Source { return n.sources[transport] }

// ClosedEvents reports whether the kernel reports the TCP sockets that it destroys in the namespace: see "Closed sockets" in the
// package documentation.
func (n *Namespace) ClosedEvents() bool { return n.closedEvents }

// InterfaceName returns the name of the network device with the index that [Socket].Interface is; empty if it is unknown, and
// without netlink. Each scan looks up the names anew. A device that has gone keeps its name while every scan asks for it: sockets
// remain bound to it. InterfaceName must not be called during a scan in another goroutine.
func (n *Namespace) InterfaceName(index uint32) string {
	if n.devices == nil || index == 0 {
		return ""
	}
	return n.devices.find(index).name
}

// ReadSockstat is [ReadSockstat] for the namespace. The error is [fs.ErrNotExist] if the namespace has no process any more.
func (n *Namespace) ReadSockstat() (Sockstat, error) {
	return readInside(n, "socket counts", ReadSockstat)
}

// ReadCounters is [ReadCounters] for the namespace. The error is [fs.ErrNotExist] if the namespace has no process any more.
func (n *Namespace) ReadCounters() (Counters, error) {
	return readInside(n, "counters of protocols", ReadCounters)
}

// readInside calls read with the directory of a process in the namespace, or on a thread that enters the namespace.
func readInside[T any](n *Namespace, what string, read func(procRoot string) (T, error)) (counts T, err error) {
	if n.procDir != "" {
		counts, err = read(n.procDir)
		if n.hasProcess() {
			return counts, err
		}
	} else {
		err = n.inside(func() (err error) {
			counts, err = read(netns.ThreadDir)
			return err
		})
		if !errors.Is(err, errNamespaceGone) {
			return counts, err
		}
	}
	return *new(T), fmt.Errorf("the %s of network namespace %s: no process is in it: %w", what, n, fs.ErrNotExist)
}

// Limits returns the limits of the namespace, which are read at most once a minute: see [ScannerConfig].Limits. Those of another
// namespace than the reader's own require that the reader may enter it, for which it needs CAP_SYS_ADMIN.
func (n *Namespace) Limits() Limits { return n.limits }

// Cgroup returns the path of the cgroup of process PID, as [Process.Cgroup] does; empty if PID is 0.
func (n *Namespace) Cgroup() string {
	if n.PID == 0 {
		return ""
	}
	return (&Process{PID: n.PID, root: n.root}).Cgroup()
}

// CheckNamespace returns an error if the text is not a valid element of [ScannerConfig].Namespaces. It does not check whether the
// namespace exists.
func CheckNamespace(text string) error {
	if text == "" || text == "." || text == ".." || strings.ContainsAny(text, "/\x00") {
		return fmt.Errorf("%q is not one of self, host, all, a name in /run/netns, a pid", text)
	}
	return nil
}

// errNamespaceGone is the error of a namespace that has no process and no name left to read it through.
var errNamespaceGone = errors.New("the network namespace is gone")

// openTable opens a table of the namespace through its process, or on a thread that enters the namespace.
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

// hasProcess reports whether procDir still belongs to the namespace. The process can have ended, entered another namespace, or
// its pid can have been reused. Call it after opening a table.
func (n *Namespace) hasProcess() bool { return n.Self || netns.TableOf(n.procDir) == n.table }

// inside calls f on a thread in the namespace. The error is errNamespaceGone if the namespace cannot be entered.
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

// devices names the network devices of a namespace. A scan looks up those that it needs, each once: devices are renamed, and their
// indexes reused.
type devices struct {
	sockets *netlinkSockets // of the namespace
	byIndex map[uint32]*device
	scan    uint64
	buf     []byte
}

type device struct {
	name  string     // empty: unknown
	zone  netip.Addr // has the zone: package unique frees a zone that no address has, and allocates it again
	asked uint64     // the last scan that looked it up
}

// nextScan starts a scan, and forgets the devices that the last one did not need.
func (d *devices) nextScan() {
	if d == nil {
		return
	}
	for index, known := range d.byIndex {
		if known.asked != d.scan {
			delete(d.byIndex, index)
		}
	}
	d.scan++
}

// find returns the device with the index. If the device has gone or the namespace has ended, it has its last known name: sockets
// remain bound to it.
func (d *devices) find(index uint32) *device {
	known := d.byIndex[index]
	if known != nil && known.asked == d.scan {
		return known
	}
	if known == nil {
		known = &device{zone: netip.IPv6LinkLocalAllNodes().WithZone(strconv.FormatUint(uint64(index), 10))}
		if d.byIndex == nil {
			d.byIndex = map[uint32]*device{}
		}
		d.byIndex[index] = known
	}
	known.asked = d.scan
	if d.sockets.diag == nil {
		return known
	}
	name, err := d.sockets.diag.AppendDeviceName(d.buf[:0], index)
	d.buf = name[:0]
	if err == nil && len(name) > 0 && known.name != string(name) {
		known.name = string(name)
		known.zone = known.zone.WithZone(known.name)
	}
	return known
}

// addZones adds the zone to the link-local addresses of a socket: the name of its device, or the index if the name is unknown.
func (d *devices) addZones(s *Socket) {
	if s.Interface != 0 && s.Family == FamilyIPv6 && d != nil {
		d.addZonesTo(s)
	}
}

func (d *devices) addZonesTo(s *Socket) {
	s.Local, s.Remote = d.withZone(s.Local, s.Interface), d.withZone(s.Remote, s.Interface)
}

func (d *devices) withZone(a netip.AddrPort, index uint32) netip.AddrPort {
	addr := a.Addr()
	if addr.Is4In6() || !addr.IsLinkLocalUnicast() {
		return a
	}
	return netip.AddrPortFrom(addr.WithZone(d.find(index).zone.Zone()), a.Port())
}

package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// namespaces finds the network namespaces that are to be read, and keeps them from scan to scan. A scan first finds those that there
// are, by stat(2) alone, and lets go of those that have ended; then it enters those that are new. So descriptors that have run out
// come back.
type namespaces struct {
	root      string // the proc file system
	wanted    []string
	self      *Namespace
	known     []*Namespace
	ended     []*Namespace          // that are forgotten, but for their closed sockets: the kernel can still tell of them
	byInode   map[uint64]*Namespace // those that are known, and self
	byTable   map[uint64]*Namespace
	scan      uint64
	dir       procfs.Dir
	pids      []int
	withDiag  bool // they are to be read by netlink
	openDiag  func() (diagConn, error)
	subscribe func(room int) (closedConn, error) // nil: closed sockets are not wanted
	room      int                                // of each subscription, see closedRoom
	fallbacks *fallbacks

	requireDiag bool // source "netlink" is required: no fallback to /proc

	processesUnknown, namesUnknown bool // this scan could not list all of them
}

// static tells whether nothing but the reader's own is wanted.
func (all *namespaces) static() bool { return slices.Equal(all.wanted, []string{NamespaceSelf}) }

// identifySelf finds out what the reader's own is known by. Where the proc file system is that of others, who do not see this
// process, that is in this process's own.
func (all *namespaces) identifySelf() {
	of := "thread-self"
	if all.self.Source == SourceProcfs {
		of = "self" // whose tables are read
	}
	for _, root := range []string{all.root, "/proc"} {
		dir := filepath.Join(root, of)
		if !procfs.IsMounted(all.root) || all.self.Inode != 0 {
			break
		}
		all.self.Inode, all.self.table, all.self.procDir = netNSOf(dir), netTable(dir), root
	}
	all.index(all.self)
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

// find finds the namespaces that there are now, and forgets those that have ended. What is not there or may not be read is reported
// once; an error is a host that has run out of something.
func (all *namespaces) find() error {
	if all.static() {
		return nil
	}
	for _, n := range all.ended {
		n.close() // before one that is found again is subscribed to anew, or its sockets would be told of twice
	}
	all.scan++
	all.processesUnknown, all.namesUnknown = false, false
	var failed errorSummary
	for _, wanted := range all.wanted {
		if err := all.findWanted(wanted); isAbsent(err) {
			all.fallbacks.say("namespace "+wanted, fmt.Errorf("network namespace %q is not read: %w", wanted, err))
		} else if err != nil {
			failed.add(fmt.Errorf("network namespace %q: %w", wanted, err))
		}
	}
	if err := all.labelNames(); err != nil {
		failed.add(err)
	}
	if all.forgetEnded() && all.namesUnknown && slices.Contains(all.wanted, NamespaceAll) {
		_ = all.addNames() // there may be a descriptor for it now; what is wrong has been reported
	}
	return failed.err()
}

// forgetEnded forgets the namespaces that were not found, and tells whether there are any.
func (all *namespaces) forgetEnded() (ended bool) {
	for _, n := range slices.Clone(all.known) {
		switch {
		case n.found == all.scan:
		case all.processesUnknown, all.namesUnknown && n.hasPath():
			n.found = all.scan
		default:
			all.forget(n)
			ended = true
		}
	}
	return ended
}

// findWanted finds what an element of ScannerConfig.Namespaces stands for.
func (all *namespaces) findWanted(wanted string) error {
	switch pid, err := strconv.ParseUint(wanted, 10, 31); {
	case wanted == NamespaceSelf:
		all.see(all.self)
		return nil
	case wanted == NamespaceHost:
		return all.addWantedProcess(1)
	case wanted == NamespaceAll:
		return all.addAll()
	case err == nil:
		return all.addWantedProcess(int(pid))
	default:
		return all.addName(wanted)
	}
}

func (all *namespaces) addWantedProcess(pid int) error {
	err := all.addProcess(pid)
	if vanished(err) {
		return fmt.Errorf("there is no process %d: %w", pid, err)
	}
	return err
}

// see marks a namespace as found in this scan. What may have changed since the one before is looked for anew.
func (all *namespaces) see(n *Namespace) {
	if n.found == all.scan {
		return
	}
	if n.found == 0 {
		all.known = append(all.known, n)
	}
	n.found, n.Name, n.path = all.scan, "", ""
	if n != all.self {
		n.PID, n.procDir = 0, ""
	}
	all.index(n)
}

// index has the namespace found by what identifies it.
func (all *namespaces) index(n *Namespace) {
	if n.Inode != 0 {
		all.byInode[n.Inode] = n
	}
	if n.table != 0 {
		all.byTable[n.table] = n
	}
}

// forget forgets a namespace that has ended.
func (all *namespaces) forget(n *Namespace) {
	all.known = slices.DeleteFunc(all.known, func(known *Namespace) bool { return known == n })
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
	n.leave()
	if n.closed != nil {
		all.ended = append(all.ended, n)
	}
}

// addProcess adds the namespace of a process. The first process that is found stands for it.
func (all *namespaces) addProcess(pid int) error {
	if err := all.dir.Open(all.root); err != nil {
		all.processesUnknown = true
		return err
	}
	n, inode, err := all.ofProcess(pid)
	if err != nil {
		all.processesUnknown = all.processesUnknown || !isAbsent(err)
		return err
	}
	isSeen := n.Inode == 0 && inode != 0 // for the first time: the processes before do not let it be seen
	n.Inode = max(n.Inode, inode)
	all.see(n)
	if n.procDir == "" {
		n.setProcess(pid)
	}
	if isSeen {
		n.newEntry = n.fileOf(pid)
	}
	return nil
}

// ofProcess returns the namespace of a process, which is new if it was not known, and its number. A process whose ns/net may
// not be read tells the namespace by its tables: their directory belongs to the namespace, not to the process.
func (all *namespaces) ofProcess(pid int) (n *Namespace, inode uint64, err error) {
	inode, err = all.dir.Inode(pid, "ns/net")
	if errors.Is(err, fs.ErrPermission) {
		inode = 0
	} else if err != nil {
		return nil, 0, err
	}
	if n := all.byInode[inode]; inode != 0 && n != nil && n.table != 0 {
		return n, inode, nil
	}
	table, err := all.dir.Inode(pid, "net/dev")
	if errors.Is(err, fs.ErrPermission) { // the proc file system is mounted with hidepid
		return nil, 0, fmt.Errorf("looking into process %d takes CAP_SYS_PTRACE: %w", pid, err)
	}
	if err != nil {
		return nil, 0, err
	}
	if inode != 0 {
		again, err := all.dir.Inode(pid, "ns/net")
		if err != nil {
			return nil, 0, fs.ErrNotExist // one that has just ended is refused too
		}
		if again != inode { // it has just gone to another one
			return all.ofProcess(pid)
		}
		n = all.byInode[inode]
	}
	if known := all.byTable[table]; n == nil && known != nil && (inode == 0 || known.Inode == 0) {
		n = known // else another one had the table, which has ended
	}
	if n == nil {
		n = &Namespace{root: all.root}
	}
	n.table = table
	return n, inode, nil
}

// addAll adds those of all processes, and those that have a name.
func (all *namespaces) addAll() error {
	all.see(all.self)
	var failed errorSummary
	for _, err := range []error{all.addProcesses(), all.addNames()} {
		if err != nil {
			failed.add(err)
		}
	}
	return failed.err()
}

func (all *namespaces) addProcesses() error {
	err := all.dir.Open(all.root)
	if err == nil {
		all.pids, err = all.dir.AppendPIDs(all.pids[:0])
	}
	if err != nil {
		all.processesUnknown = true
		return err
	}
	var failed errorSummary
	for _, pid := range all.pids {
		failed.addUnlessAbsent(all.addProcess(pid), all.sayDenied)
	}
	return failed.err()
}

func (all *namespaces) addNames() error {
	names, err := all.names()
	all.namesUnknown = err != nil && !isAbsent(err)
	var failed errorSummary
	failed.addUnlessAbsent(err, all.sayDenied)
	for _, name := range names {
		failed.addUnlessAbsent(all.addName(name), all.sayDenied)
	}
	return failed.err()
}

func (all *namespaces) sayDenied(err error) {
	if errors.Is(err, fs.ErrPermission) {
		all.fallbacks.say("all namespaces", fmt.Errorf("some network namespaces are not read, or not known by their names: %w", err))
	}
}

// addName adds the namespace that has a name.
func (all *namespaces) addName(name string) error {
	path := filepath.Join(all.namesDir(), name)
	inode, err := namespaceFile(path)
	if err != nil {
		return err
	}
	n := all.byInode[inode]
	if n == nil {
		n = &Namespace{Inode: inode, root: all.root}
	}
	all.see(n)
	if n.Name == "" {
		n.Name = name
	}
	n.path = path
	return nil
}

// labelNames gives those that were found by other means the names that they have.
func (all *namespaces) labelNames() error {
	if slices.Contains(all.wanted, NamespaceAll) || len(all.known) == 0 {
		return nil
	}
	names, err := all.names()
	all.namesUnknown = err != nil && !isAbsent(err)
	for _, name := range names {
		path := filepath.Join(all.namesDir(), name)
		inode, err := namespaceFile(path)
		if n := all.byInode[inode]; err == nil && n != nil && n.Name == "" && n.found == all.scan {
			n.Name = name
			n.path = path
		}
	}
	if isAbsent(err) {
		return nil
	}
	return err
}

// findProcessIn finds a process through which the namespace can be read.
func (all *namespaces) findProcessIn(n *Namespace) bool {
	n.PID, n.procDir = 0, ""
	if all.dir.Open(all.root) != nil {
		return false
	}
	var err error
	if all.pids, err = all.dir.AppendPIDs(all.pids[:0]); err != nil {
		return false
	}
	for _, pid := range all.pids {
		if found, _, err := all.ofProcess(pid); err == nil && found == n {
			n.setProcess(pid)
			return true
		}
	}
	return false
}

// names returns the names in /run/netns, in their order.
func (all *namespaces) names() ([]string, error) {
	entries, err := os.ReadDir(all.namesDir())
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

// namesDir is where ip-netns(8) keeps the names: of a proc file system that is not this one's, in the root of its process 1.
func (all *namespaces) namesDir() string {
	const dir = "/run/netns"
	if filepath.Clean(all.root) == "/proc" {
		return dir
	}
	return filepath.Join(all.root, "1", "root", dir)
}

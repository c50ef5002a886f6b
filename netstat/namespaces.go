package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// namespaces finds the network namespaces that are to be read, and keeps them from scan to scan.
type namespaces struct {
	root     string // the proc file system
	wanted   []string
	self     *Namespace
	known    []*Namespace
	ended    []*Namespace          // that are forgotten, but for their closed sockets: the kernel can still tell of them
	byInode  map[uint64]*Namespace // those that are known, and self
	byTable  map[uint64]*Namespace
	scan     uint64
	dir      procDir
	pids     []int
	withDiag bool // they are to be read by netlink
	coming   func([]byte)
	hear     func() (closedConn, error) // nil: closed sockets are not wanted
	warn     func(what string, err error)
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
		if !isProcfs(all.root) || all.self.Inode != 0 {
			break
		}
		all.self.Inode, all.self.table, all.self.procDir = netNSOf(dir), netTable(dir), root
	}
	all.index(all.self)
}

// source is where sockets come from: netlink, if those of any namespace do.
func (all *namespaces) source() Source {
	isDiag := func(n *Namespace) bool { return n.Source == SourceNetlink }
	if len(all.known) > 0 && !slices.ContainsFunc(all.known, isDiag) {
		return SourceProcfs
	}
	return all.self.Source
}

func (all *namespaces) close() {
	for _, n := range slices.Concat(all.known, all.ended) {
		n.close()
	}
	all.self.close()
	all.dir.close()
}

// refresh looks for the namespaces that there are now, and forgets those that have ended. What cannot be found is said once;
// an error is a host that has run out of something: then nothing is forgotten, as not all was looked for.
func (all *namespaces) refresh() error {
	if all.static() {
		return nil
	}
	for _, n := range all.ended {
		n.close() // before one that is found again is heard of anew, or it would be twice
	}
	all.scan++
	var failed firstError
	for _, wanted := range all.wanted {
		if err := all.find(wanted); isAbsent(err) {
			all.warn("namespace "+wanted, fmt.Errorf("network namespace %q is not read: %w", wanted, err))
		} else if err != nil {
			failed.add(fmt.Errorf("network namespace %q: %w", wanted, err))
		}
	}
	if err := all.labelNames(); err != nil {
		failed.add(err)
	}
	for _, n := range slices.Clone(all.known) {
		switch {
		case n.found != all.scan:
			if failed.err == nil {
				all.forget(n)
			}
			continue
		case n.failed && n.tried != all.scan:
			if err := all.enter(n, n.file()); err != nil && !vanished(err) {
				failed.add(fmt.Errorf("network namespace %s: %w", n, err))
			}
		}
		n.hold()
		if n.refused != nil {
			all.warn("netlink in namespaces", fmt.Errorf("reading other network namespaces from procfs, which tells less and "+
				"costs more: netlink there takes CAP_SYS_ADMIN, and CAP_SYS_PTRACE for one that has no name: "+
				"network namespace %s: %w", n, n.refused))
		}
	}
	return failed.get()
}

// find adds what an element of ScannerConfig.Namespaces stands for.
func (all *namespaces) find(wanted string) error {
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

// isAbsent tells whether an error says that something is not there or may not be read, rather than that the host has run out
// of something.
func isAbsent(err error) bool { return vanished(err) || errors.Is(err, fs.ErrPermission) }

// firstError is an error that stands for all that come after it: they mostly say the same.
type firstError struct {
	err  error
	more int
}

func (f *firstError) add(err error) {
	if f.err != nil {
		f.more++
		return
	}
	f.err = err
}

func (f *firstError) get() error {
	if f.more == 0 {
		return f.err
	}
	return fmt.Errorf("%w (and %d more)", f.err, f.more)
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
	delete(all.byInode, n.Inode)
	delete(all.byTable, n.table)
	n.leave()
	if n.closed != nil {
		all.ended = append(all.ended, n)
	}
}

// addProcess adds the namespace of a process. The first process that is found stands for it.
func (all *namespaces) addProcess(pid int) error {
	if err := all.dir.open(all.root); err != nil {
		return err
	}
	n, inode, err := all.ofProcess(pid)
	if err != nil {
		return err
	}
	isNew := n.found == 0 && n != all.self
	isSeen := n.Inode == 0 && inode != 0 // for the first time: the processes before do not let it be seen
	n.Inode = max(n.Inode, inode)
	if isNew || isSeen {
		before := *n
		n.setProcess(pid)
		if err = all.enter(n, n.file()); isNew && vanished(err) {
			return err
		}
		n.PID, n.procDir = before.PID, before.procDir
		all.index(n)
	}
	all.see(n)
	if n.procDir == "" {
		n.setProcess(pid)
	}
	return err
}

// ofProcess returns the namespace of a process, which is new if it was not known, and its number. A process whose ns/net may
// not be read tells the namespace by its tables: their directory belongs to the namespace, not to the process.
func (all *namespaces) ofProcess(pid int) (n *Namespace, inode uint64, err error) {
	inode, err = all.dir.inode(pid, "ns/net")
	if errors.Is(err, fs.ErrPermission) {
		inode = 0
	} else if err != nil {
		return nil, 0, err
	}
	if n := all.byInode[inode]; inode != 0 && n != nil && n.table != 0 {
		return n, inode, nil
	}
	table, err := all.dir.inode(pid, "net/dev")
	if errors.Is(err, fs.ErrPermission) { // the proc file system is mounted with hidepid
		return nil, 0, fmt.Errorf("looking into process %d takes CAP_SYS_PTRACE: %w", pid, err)
	}
	if err != nil {
		return nil, 0, err
	}
	if inode != 0 {
		again, err := all.dir.inode(pid, "ns/net")
		if err != nil {
			return nil, 0, fs.ErrNotExist // one that has just ended is refused too
		}
		if again != inode { // it has just gone to another one
			return all.ofProcess(pid)
		}
		n = all.byInode[inode]
	}
	if n == nil {
		n = all.byTable[table]
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
	if err := all.dir.open(all.root); err != nil {
		return err
	}
	var err error
	if all.pids, err = all.dir.appendPIDs(all.pids[:0]); err != nil {
		return err
	}
	var failed firstError
	var denied error
	sort := func(err error) {
		switch {
		case err == nil, vanished(err):
		case !errors.Is(err, fs.ErrPermission):
			failed.add(err)
		case denied == nil:
			denied = err
		}
	}
	for _, pid := range all.pids {
		sort(all.addProcess(pid))
	}
	names, err := all.names()
	sort(err)
	for _, name := range names {
		sort(all.addName(name))
	}
	if denied != nil {
		all.warn("all namespaces", fmt.Errorf("some network namespaces are not read, or not known by their names: %w", denied))
	}
	return failed.get()
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
		n = &Namespace{Inode: inode, Name: name, root: all.root}
		if err = all.enter(n, path); vanished(err) {
			return err
		}
		if known := all.byTable[n.table]; n.table != 0 && known != nil {
			known.adopt(n)
			n = known
			all.index(n)
		}
	}
	all.see(n)
	if n.Name == "" {
		n.Name = name
	}
	n.path = path
	if n == all.self || n.procDir != "" || n.diag != nil {
		return err
	}
	// It takes entering it, or a process.
	if !n.entered && n.tried != all.scan {
		err = all.enter(n, path)
	}
	if err == nil && !n.entered && !all.findProcessIn(n) {
		all.forget(n)
		return fmt.Errorf("%s: entering it takes CAP_SYS_ADMIN, and finding a process in it CAP_SYS_PTRACE: %w",
			path, fs.ErrPermission)
	}
	return err
}

// labelNames gives those that were found by other means the names that they have.
func (all *namespaces) labelNames() error {
	if slices.Contains(all.wanted, NamespaceAll) || len(all.known) == 0 {
		return nil
	}
	names, err := all.names()
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
	if all.dir.open(all.root) != nil {
		return false
	}
	var err error
	if all.pids, err = all.dir.appendPIDs(all.pids[:0]); err != nil {
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

// enter has a thread enter the namespace by the file, and open netlink sockets there if that is what it is to be read by.
// Where that is not permitted, the tables in the proc file system are read.
func (all *namespaces) enter(n *Namespace, file string) error {
	n.Source, n.failed, n.refused, n.tried = SourceProcfs, false, nil, all.scan
	if !all.withDiag && n.procDir != "" {
		return nil // there is no use for it
	}
	var opened Namespace
	table, err := inNamespace(file, n.Inode, func() error { return all.openSockets(&opened) })
	if err == nil && n.table != 0 && n.table != table {
		err = fmt.Errorf("%s: %w", file, errMoved)
	}
	if err != nil {
		opened.close()
	}
	switch {
	case err == nil:
		n.table, n.entered = table, true
		if opened.diag != nil {
			n.diag, n.closed, n.refusedClosed, n.Source = opened.diag, opened.closed, opened.refusedClosed, SourceNetlink
			n.letGo()
		}
		return nil
	case n.procDir != "" && !n.hasProcess(): // which is refused too
		n.failed = true
		return errMoved
	case errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported):
		if all.withDiag {
			n.refused = err
		}
		return nil
	default:
		n.failed = true
		return err
	}
}

// openSockets opens the netlink sockets of a namespace on a thread in it. The kernel is to tell of closed sockets before the first of
// them is read.
func (all *namespaces) openSockets(n *Namespace) (err error) {
	if all.withDiag {
		n.diag, err = openDiagSocket(all.coming)
	}
	if err != nil || n.diag == nil || all.hear == nil {
		return err
	}
	closed, err := all.hear()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		n.refusedClosed = err
		return nil
	case err != nil:
		return err
	}
	n.closed = closed
	return nil
}

// openTable opens a table of a namespace. If the process through which it is read has gone, there may be another one.
func (all *namespaces) openTable(n *Namespace, table string) (*os.File, error) {
	file, err := n.openTable(table)
	if errors.Is(err, errNamespaceGone) && n.procDir != "" && (all.findProcessIn(n) || n.path != "") {
		return n.openTable(table)
	}
	return file, err
}

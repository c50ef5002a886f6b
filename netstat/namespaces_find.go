package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat/internal/netns"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// identifySelf determines the inode numbers of the reader's own namespace. If all.root belongs to a PID namespace that does not
// contain this process, they come from /proc.
func (all *namespaces) identifySelf() {
	of := "thread-self"
	if all.self.diag == nil {
		of = "self" // procfs shows the tables of the main thread
	}
	for _, root := range []string{all.root, "/proc"} {
		dir := filepath.Join(root, of)
		if !procfs.IsMounted(all.root) || all.self.Inode != 0 {
			break
		}
		all.self.Inode, all.self.table, all.self.procDir = netns.Of(dir), netns.TableOf(dir), root
	}
	all.index(all.self)
}

// find finds the current namespaces and forgets those that have ended. It warns once of a namespace that is absent or cannot be
// read. It fails only if a resource is exhausted.
func (all *namespaces) find() error {
	if all.static() {
		return nil
	}
	for _, n := range all.ended {
		n.close() // before a namespace that reappears is subscribed again: two subscriptions would report its sockets twice
	}
	all.scan++
	all.processesUnknown, all.namesUnknown = false, false
	var failed errorSummary
	for _, wanted := range all.wanted {
		if err := all.findWanted(wanted); isAbsent(err) {
			all.fallbacks.warnOnce("namespace "+wanted, fmt.Errorf("cannot read network namespace %q: %w", wanted, err))
		} else if err != nil {
			failed.add(fmt.Errorf("network namespace %q: %w", wanted, err))
		}
	}
	if err := all.labelNames(); err != nil {
		failed.add(err)
	}
	if all.forgetEnded() && all.namesUnknown && slices.Contains(all.wanted, NamespaceAll) {
		_ = all.addNames() // a descriptor may be free now; the error was reported above
	}
	return failed.err()
}

// forgetEnded forgets the namespaces that this scan did not find, and reports whether there were any.
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

// findWanted finds the namespaces of one element of ScannerConfig.Namespaces.
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

// see marks a namespace as found in this scan. Its name and process are cleared, to be found again.
func (all *namespaces) see(n *trackedNamespace) {
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

// addProcess adds the namespace of a process. The first process found represents the namespace.
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
	isSeen := n.Inode == 0 && inode != 0 // the ns/net of earlier processes was not readable
	n.Inode = max(n.Inode, inode)
	all.see(n)
	if n.procDir == "" {
		n.setProcess(pid)
	}
	if isSeen {
		n.visible = n.fileOf(pid)
	}
	return nil
}

// ofProcess returns the namespace of a process, a new one if it is unknown, and its inode. If ns/net is not readable the
// namespace is identified by its tables: the inodes below net belong to the namespace, not to the process.
func (all *namespaces) ofProcess(pid int) (n *trackedNamespace, inode uint64, err error) {
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
		return nil, 0, fmt.Errorf("reading process %d requires CAP_SYS_PTRACE: %w", pid, err)
	}
	if err != nil {
		return nil, 0, err
	}
	if inode != 0 {
		again, err := all.dir.Inode(pid, "ns/net")
		if err != nil {
			return nil, 0, fs.ErrNotExist // also on EACCES, which the kernel returns for a process that has just ended
		}
		if again != inode { // the process has entered another namespace meanwhile
			return all.ofProcess(pid)
		}
		n = all.byInode[inode]
	}
	if known := all.byTable[table]; n == nil && known != nil && (inode == 0 || known.Inode == 0) {
		n = known // otherwise the table's inode belonged to a namespace that has ended
	}
	if n == nil {
		n = all.newNamespace()
	}
	n.table = table
	return n, inode, nil
}

// addAll adds the namespaces of all processes and all named ones.
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
		failed.addUnlessAbsent(all.addProcess(pid), all.warnDenied)
	}
	return failed.err()
}

func (all *namespaces) addNames() error {
	names, err := netns.Names(netns.Dir(all.root))
	all.namesUnknown = err != nil && !isAbsent(err)
	var failed errorSummary
	failed.addUnlessAbsent(err, all.warnDenied)
	for _, name := range names {
		failed.addUnlessAbsent(all.addName(name), all.warnDenied)
	}
	return failed.err()
}

func (all *namespaces) warnDenied(err error) {
	if errors.Is(err, fs.ErrPermission) {
		all.fallbacks.warnOnce("all namespaces", fmt.Errorf("cannot read or name some network namespaces: %w", err))
	}
}

// addName adds the namespace with the name.
func (all *namespaces) addName(name string) error {
	path := filepath.Join(netns.Dir(all.root), name)
	inode, err := netns.MountedAt(path)
	if err != nil {
		return err
	}
	n := all.byInode[inode]
	if n == nil {
		n = all.newNamespace()
		n.Inode = inode
	}
	all.see(n)
	if n.Name == "" {
		n.Name = name
	}
	n.path = path
	return nil
}

// labelNames sets the names of namespaces that were found by other means.
func (all *namespaces) labelNames() error {
	if slices.Contains(all.wanted, NamespaceAll) || len(all.known) == 0 {
		return nil
	}
	names, err := netns.Names(netns.Dir(all.root))
	all.namesUnknown = err != nil && !isAbsent(err)
	for _, name := range names {
		path := filepath.Join(netns.Dir(all.root), name)
		inode, err := netns.MountedAt(path)
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

// findProcessIn finds a process in the namespace, to read its tables through.
func (all *namespaces) findProcessIn(n *trackedNamespace) bool {
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

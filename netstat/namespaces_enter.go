package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/procnetstat/procnetstat/netstat/internal/netns"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// enterFound enters the namespaces that find has found and that are not open yet.
func (all *namespaces) enterFound() error {
	if all.static() {
		return nil
	}
	var toEnter []*trackedNamespace
	for _, n := range all.known {
		if all.shouldEnter(n) {
			toEnter = append(toEnter, n)
		}
	}
	all.shareRoom(len(toEnter))
	var failed errorSummary
	for _, n := range toEnter {
		switch err := all.enterNew(n); {
		case err == nil:
		case !isAbsent(err):
			failed.add(fmt.Errorf("network namespace %s: %w", n, err))
		case all.requireDiag:
			failed.add(fmt.Errorf("network namespace %s: %w", n, requiredError("source", SourceNetlink.String(), err)))
		case slices.Contains(all.wanted, NamespaceAll):
			all.warnDenied(err)
		default:
			all.fallbacks.warnOnce("namespace "+n.Name, fmt.Errorf("cannot read network namespace %q: %w", n.Name, err))
		}
	}
	all.shareRoom(0)
	all.reportRefused()
	return failed.err()
}

// limitsInterval is how often the limits of a namespace are read: they change rarely, and the thread must enter the namespace.
const limitsInterval = time.Minute

// refreshLimits reads the limits of new namespaces, and those of others where that is due. A scan refreshes a part of many namespaces:
// entering one takes a millisecond.
func (all *namespaces) refreshLimits() {
	if !all.withLimits {
		return
	}
	now := all.fallbacks.now()
	const minRefreshed, parts = 16, 6
	refresh := max(minRefreshed, len(all.known)/parts+1)
	for _, n := range all.known {
		isNew := n.limitsRead.IsZero()
		if !isNew {
			if now.Sub(n.limitsRead) < limitsInterval || refresh == 0 {
				continue
			}
			refresh--
		}
		all.readLimits(n, now)
	}
}

// readLimits reads the limits of a namespace. They are unknown where the namespace must not be entered. If the namespace could not
// be found or a resource is exhausted, they stay as they are, and the next scan tries again.
func (all *namespaces) readLimits(n *trackedNamespace, now time.Time) {
	var limits Limits
	read := func() (err error) {
		limits, err = ReadLimits(all.root)
		return err
	}
	isLive, err := procfs.IsMounted(all.root), error(nil)
	switch {
	case n != all.self && isLive:
		var table uint64
		if table, err = netns.Enter(n.file(), n.Inode, read); err == nil && n.table != 0 && n.table != table {
			err = netns.ErrMoved
		}
	case n != all.self: // a copy has the limits of one namespace
	case !isLive, n.Inode == 0, n.Inode == netns.Of(netns.ThreadDir): // else this thread is in another namespace
		err = read()
	}
	isRefused := errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported)
	switch {
	case isRefused && n.procDir != "" && !n.hasProcess(), vanished(err): // the kernel also returns EACCES for a process that has ended
		return
	case err == nil, isRefused:
	default:
		all.fallbacks.warnOnce("limits", fmt.Errorf("network namespace %s: %w", n, err))
		if isExhausted(err) {
			return
		}
	}
	n.limitsRead = now
	if !n.limits.equal(limits) {
		n.limits = limits
	}
}

// reportRefused warns of namespaces without netlink or without closed sockets, schedules retries, and holds open the namespaces
// that have no netlink socket.
func (all *namespaces) reportRefused() {
	var entering, closed bool
	for _, n := range all.known {
		n.hold()
		entering, closed = entering || n.entry == entryRefused, closed || n.refusedClosed != nil
		if n.entry == entryRefused && n.tried == all.scan {
			all.fallbacks.scheduleRetry(fallbackEnter, n.refused)
			if !all.requireDiag && n.diag == nil {
				all.fallbacks.warnOnce(fallbackEnter, fmt.Errorf("cannot open netlink in network namespace %s (%w); falling back to /proc, "+
					"which gives fewer fields and costs more", n, n.errNoNetlink()))
			}
		}
		if n.refusedClosed != nil && n.tried == all.scan {
			all.fallbacks.markUnavailable(fallbackClosed, fmt.Errorf("closed TCP sockets unavailable: network namespace %s: %w",
				n, n.refusedClosed))
		}
	}
	if !entering && all.fallbacks.retryDue(fallbackEnter) {
		all.fallbacks.markAvailable(fallbackEnter)
	}
	if !closed && all.fallbacks.retryDue(fallbackClosed) && all.self.closed != nil {
		all.fallbacks.markAvailable(fallbackClosed)
	}
}

// shouldEnter reports whether this scan enters the namespace.
func (all *namespaces) shouldEnter(n *trackedNamespace) bool {
	switch {
	case n == all.self:
		return false
	case n.visible != "", n.refusedClosed != nil && all.fallbacks.retryDue(fallbackClosed):
		return true
	}
	isOnlyWay := n.procDir == "" && n.diag == nil
	switch n.entry {
	case entryUntried, entryFailed:
		return true
	case entryRefused:
		return isOnlyWay || all.fallbacks.retryDue(fallbackEnter)
	case entryUnneeded:
		return isOnlyWay
	default:
		return false
	}
}

// enterNew enters a namespace through its name or process, which can have disappeared since it was found. An error that is
// fs.ErrPermission means that the namespace cannot be read at all.
func (all *namespaces) enterNew(n *trackedNamespace) error {
	isNew := n.entry == entryUntried
	err := all.enter(n, n.file())
	if vanished(err) && isNew {
		if !all.findProcessIn(n) {
			all.forget(n)
			return nil
		}
		err = all.enter(n, n.file())
	}
	if vanished(err) {
		if n.diag == nil && n.held == nil { // nothing held it open: another namespace can have its inode numbers by now
			all.forget(n)
		}
		return nil // the next scan finds it again or forgets it
	}
	if named := n; err == nil && n.table != 0 {
		if known := all.byTable[n.table]; known != nil && known != n { // known by its table from a process, but not by its inode
			known.adopt(named)
			all.known = slices.DeleteFunc(all.known, func(other *trackedNamespace) bool { return other == named })
			n = known
		}
		all.index(n)
	}
	if err == nil && n.entry != entryDone && n.procDir == "" && n.diag == nil && !all.findProcessIn(n) {
		all.forget(n)
		return fmt.Errorf("%s: entering requires CAP_SYS_ADMIN, finding a process in it CAP_SYS_PTRACE: %w",
			n.path, fs.ErrPermission)
	}
	return err
}

// shareRoom divides closedRoom among the existing subscriptions and the ones that are about to open.
func (all *namespaces) shareRoom(opening int) {
	var subscriptions []closedConn
	if all.self.closed != nil { // it stays subscribed while it is not among known
		subscriptions = append(subscriptions, all.self.closed)
	}
	for _, n := range slices.Concat(all.known, all.ended) {
		if n.closed != nil && n != all.self {
			subscriptions = append(subscriptions, n.closed)
		}
	}
	room := closedRoom / max(len(subscriptions)+opening, 1)
	if room == all.room {
		return
	}
	all.room = room
	for _, closed := range subscriptions {
		closed.setRoom(room)
	}
}

// enter enters the namespace through the file on a thread of its own, and opens the netlink sockets there. If that is not
// permitted, the namespace is read from the proc file system.
func (all *namespaces) enter(n *trackedNamespace, file string) error {
	n.tried, n.visible, n.refused = all.scan, "", nil
	if !all.withDiag && n.procDir != "" {
		n.entry = entryUnneeded
		return nil
	}
	var opened netlinkSockets
	table, err := netns.Enter(file, n.Inode, func() (err error) {
		opened, err = all.openSockets()
		return err
	})
	if err == nil && n.table != 0 && n.table != table {
		err = fmt.Errorf("%s: %w", file, netns.ErrMoved)
	}
	if err != nil {
		opened.discard()
	}
	switch {
	case err == nil:
		n.table, n.entry = table, entryDone
		if opened.diag != nil {
			n.take(opened)
		}
		return nil
	case n.procDir != "" && !n.hasProcess(): // the kernel also returns EACCES for a process that has ended
		n.entry = entryFailed
		return netns.ErrMoved
	case errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported):
		n.entry = entryUnneeded
		if all.withDiag {
			n.entry, n.refused = entryRefused, err
		}
		return nil
	default:
		n.entry = entryFailed
		return err
	}
}

// openSockets opens the netlink sockets in the network namespace of the calling thread. The subscription to closed sockets starts
// before the first read.
func (all *namespaces) openSockets() (opened netlinkSockets, err error) {
	if !all.withDiag {
		return opened, nil
	}
	if opened.diag, err = all.openDiag(); err != nil || all.subscribe == nil {
		return opened, err
	}
	opened.closed, err = all.subscribe(all.room)
	if errors.Is(err, errors.ErrUnsupported) {
		opened.refusedClosed, err = err, nil
	}
	return opened, err
}

// openTable opens a table of a namespace. If the process through which it was read has ended, it tries another process or the
// name.
func (all *namespaces) openTable(n *trackedNamespace, table string) (*os.File, error) {
	file, err := n.openTable(table)
	if errors.Is(err, errNamespaceGone) && n.procDir != "" && (all.findProcessIn(n) || n.path != "") {
		return n.openTable(table)
	}
	return file, err
}

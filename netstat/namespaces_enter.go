package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/procnetstat/procnetstat/netstat/internal/netns"
)

// enterFound enters the namespaces that were found and are not open yet.
func (all *namespaces) enterFound() error {
	if all.static() {
		return nil
	}
	var toEnter []*trackedNamespace
	for _, n := range all.known {
		if all.isToEnter(n) {
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
			all.sayDenied(err)
		default:
			all.fallbacks.say("namespace "+n.Name, fmt.Errorf("cannot read network namespace %q: %w", n.Name, err))
		}
	}
	all.shareRoom(0)
	all.noteRefused()
	return failed.err()
}

// noteRefused reports what was refused in the namespaces, and holds open those that have no netlink socket.
func (all *namespaces) noteRefused() {
	var entering, closed bool
	for _, n := range all.known {
		n.hold()
		entering, closed = entering || n.entry == entryRefused, closed || n.refusedClosed != nil
		if n.entry == entryRefused && n.tried == all.scan {
			all.fallbacks.schedule(fallbackEntering, n.refused)
			if !all.requireDiag && n.diag == nil {
				all.fallbacks.say(fallbackEntering, fmt.Errorf("cannot open netlink in network namespace %s (%w); falling back to /proc, "+
					"which gives fewer fields and costs more", n, n.errNoNetlink()))
			}
		}
		if n.refusedClosed != nil && n.tried == all.scan {
			all.fallbacks.refuse(fallbackClosed, fmt.Errorf("closed TCP sockets unavailable: network namespace %s: %w", n, n.refusedClosed))
		}
	}
	if !entering && all.fallbacks.isDue(fallbackEntering) {
		all.fallbacks.restore(fallbackEntering)
	}
	if !closed && all.fallbacks.isDue(fallbackClosed) && all.self.closed != nil {
		all.fallbacks.restore(fallbackClosed)
	}
}

// isToEnter tells whether the namespace is to be entered in this scan.
func (all *namespaces) isToEnter(n *trackedNamespace) bool {
	switch {
	case n == all.self:
		return false
	case n.visible != "", n.refusedClosed != nil && all.fallbacks.isDue(fallbackClosed):
		return true
	}
	isOnlyWay := n.procDir == "" && n.diag == nil
	switch n.entry {
	case entryUntried, entryFailed:
		return true
	case entryRefused:
		return isOnlyWay || all.fallbacks.isDue(fallbackEntering)
	case entryUnneeded:
		return isOnlyWay
	default:
		return false
	}
}

// enterNew enters a namespace by what it was found by. What was found may have gone since. An error that is fs.ErrPermission says
// that the namespace cannot be read at all.
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
		if n.diag == nil && n.held == nil { // nothing has kept its numbers, which may be another one's
			all.forget(n)
		}
		return nil // the next scan finds out what has become of it
	}
	if named := n; err == nil && n.table != 0 {
		if known := all.byTable[n.table]; known != nil && known != n { // it was known by its processes, but not by its number
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

// shareRoom has the subscriptions share closedRoom, with so many that are to come.
func (all *namespaces) shareRoom(toCome int) {
	var subscriptions []closedConn
	if all.self.closed != nil { // also while the reader's own namespace is not read
		subscriptions = append(subscriptions, all.self.closed)
	}
	for _, n := range slices.Concat(all.known, all.ended) {
		if n.closed != nil && n != all.self {
			subscriptions = append(subscriptions, n.closed)
		}
	}
	room := closedRoom / max(len(subscriptions)+toCome, 1)
	if room == all.room {
		return
	}
	all.room = room
	for _, closed := range subscriptions {
		closed.setRoom(room)
	}
}

// enter has a thread enter the namespace by the file, and open netlink sockets there if that is what it is to be read by.
// Where that is not permitted, the tables in the proc file system are read.
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
	case n.procDir != "" && !n.hasProcess(): // the kernel refuses a process that has ended too
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

// openSockets opens the netlink sockets of the namespace that the thread is in. It subscribes to closed sockets before the first
// socket of the namespace is read.
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

// openTable opens a table of a namespace. If the process through which it is read has gone, there may be another one.
func (all *namespaces) openTable(n *trackedNamespace, table string) (*os.File, error) {
	file, err := n.openTable(table)
	if errors.Is(err, errNamespaceGone) && n.procDir != "" && (all.findProcessIn(n) || n.path != "") {
		return n.openTable(table)
	}
	return file, err
}

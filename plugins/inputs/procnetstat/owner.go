//go:build linux

package procnetstat

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/influxdata/telegraf"
	"github.com/moby/sys/user"

	"github.com/procnetstat/procnetstat/netstat"
)

// The names in the option process_tags.
const (
	tagProcessName = "process_name"
	tagUser        = "user"
	tagPID         = "pid"
	tagExe         = "exe"
	tagCmdline     = "cmdline"
)

var allProcessTags = []string{
	tagProcessName, tagUser, tagPID, tagExe, tagCmdline, tagSystemdUnit, tagContainerID, tagPodUID, tagCgroup,
}

// owner is a process that sockets are attributed to, with its cached tags and filter results.
type owner struct {
	process      *netstat.Process
	number       uint64 // unique
	fullName     string // see netstat.Process.FullName
	name         string // fullName as tag value
	nameWanted   bool   // the name passes the filters
	filteredUser string // the user that wanted is for; empty: not filtered yet
	wanted       bool   // name and user pass the filters
	lastPass     uint64 // the last pass that saw it
	belonging    uint32 // the index of the belonging of one of its connections

	ownerInScope
}

// ownerInScope caches results about an owner in a scope.
type ownerInScope struct {
	scope       *scope
	series      *series // in procnetstat_process; nil: no socket yet
	isHolding   bool    // series counts the process
	cgroup      *cgroupEntry
	cgroupKnown bool
	accepting   *listener  // whose accepted connection it holds: the last one
	remote      cachedPeer // in procnetstat_remote
	client      cachedPeer // in procnetstat_client
}

// owners keeps the owners from pass to pass.
type owners struct {
	byProcess map[*netstat.Process]*owner
	previous  *owner // cache: most sockets have the same owner as the previous socket
	pass      uint64
	created   uint64 // number of owners so far
	scope     *scope // the current one
	userNames *userNames
	filter    ownerFilter
	cgroups   *cgroups
}

func newOwners(filter ownerFilter, users *userNames, cgroups *cgroups) *owners {
	return &owners{
		byProcess: map[*netstat.Process]*owner{}, userNames: users, filter: filter, cgroups: cgroups,
	}
}

// begin starts a pass and removes the processes that had no sockets in the previous one.
func (all *owners) begin() {
	for process, o := range all.byProcess {
		if o.lastPass != all.pass {
			delete(all.byProcess, process)
		}
	}
	all.pass++
	all.previous = nil
}

func (all *owners) of(process *netstat.Process) *owner {
	if all.previous != nil && all.previous.process == process && all.previous.scope == all.scope {
		return all.previous
	}
	o := all.byProcess[process]
	if o == nil {
		all.created++
		o = &owner{process: process, number: all.created}
		all.byProcess[process] = o
	}
	all.update(o)
	all.previous = o
	return o
}

// use returns the owner of an earlier pass for use in this one.
func (all *owners) use(w *owner) *owner {
	if w.lastPass != all.pass {
		if current := all.byProcess[w.process]; current != nil {
			w = current
		} else {
			all.byProcess[w.process] = w
		}
	}
	all.update(w)
	return w
}

// update prepares an owner for the current pass and scope.
func (all *owners) update(o *owner) {
	if o.lastPass != all.pass {
		o.lastPass = all.pass
		all.updateName(o)
		all.applyFilter(o)
	}
	if o.scope != all.scope {
		o.ownerInScope = ownerInScope{scope: all.scope}
	}
}

// updateName sets the name as tag value. The name of a process that has just called execve(2) can still be cut.
func (all *owners) updateName(o *owner) {
	name := o.process.FullName()
	if o.name != "" && name == o.fullName {
		return
	}
	o.fullName, o.name = name, tagValue(name)
	o.nameWanted = all.filter.wantsName(o.name)
	o.filteredUser, o.wanted = "", false
}

// applyFilter updates o.wanted. It runs in every pass, as the process can change its user.
func (all *owners) applyFilter(o *owner) {
	if !o.nameWanted || all.filter.users == nil {
		o.wanted = o.nameWanted
		return
	}
	if name := all.userOf(o.process); name != o.filteredUser {
		o.filteredUser, o.wanted = name, all.filter.wantsUser(name)
	}
}

// tagValues returns the values of the tags in names, which are from allProcessTags.
func (all *owners) tagValues(o *owner, names []string) []string {
	values := make([]string, len(names))
	for i, name := range names {
		switch name {
		case tagProcessName:
			values[i] = o.name
		case tagUser:
			values[i] = all.userOf(o.process)
		case tagPID:
			values[i] = strconv.Itoa(o.process.PID)
		case tagExe:
			values[i] = tagValue(o.process.Exe())
		case tagCmdline:
			values[i] = tagValue(strings.Join(o.process.Cmdline(), " "))
		case tagSystemdUnit, tagContainerID, tagPodUID, tagCgroup:
			values[i] = all.cgroups.ofProcess(o.process).tag(name)
		}
	}
	return values
}

// userOf returns the name of the user that the process runs as, or the user ID if it has no name.
func (all *owners) userOf(process *netstat.Process) string {
	uid, known := process.UID()
	if !known {
		return unknown // the process has exited since its descriptors were read, or is hidden
	}
	return all.userNames.of(uid)
}

// ownerGroup are owners that have the same name and user: usually one series.
type ownerGroup struct {
	name      string
	uid       uint32
	uidKnown  bool
	processes int
	accepting bool // one of them has held a connection that its listener accepted
	first     *owner
}

// representative returns the owner that a socket counts for that none of the owners holds now: of the group that is known to hold
// accepted connections, else of the one with the most processes, the process with the lowest pid. It is nil if there are no
// owners.
func (p *pass) representative(owners []*owner, isAccepting func(*owner) bool) *owner {
	switch len(owners) {
	case 0:
		return nil
	case 1:
		return owners[0]
	}
	p.groups = p.groups[:0]
	for _, w := range owners {
		uid, known := w.process.UID()
		i := slices.IndexFunc(p.groups, func(g ownerGroup) bool { return g.name == w.name && g.uid == uid && g.uidKnown == known })
		if i < 0 {
			i = len(p.groups)
			p.groups = append(p.groups, ownerGroup{name: w.name, uid: uid, uidKnown: known, first: w})
		}
		g := &p.groups[i]
		g.processes++
		g.accepting = g.accepting || isAccepting != nil && isAccepting(w)
		if w.process.PID < g.first.process.PID {
			g.first = w
		}
	}
	best := &p.groups[0]
	for i := range p.groups {
		if g := &p.groups[i]; g.isBetterThan(best) {
			best = g
		}
	}
	return best.first
}

func (g *ownerGroup) isBetterThan(other *ownerGroup) bool {
	switch {
	case g.accepting != other.accepting:
		return g.accepting
	case g.processes != other.processes:
		return g.processes > other.processes
	default:
		return g.first.process.PID < other.first.process.PID
	}
}

// representativeOf returns the owner that the sockets of the listener count for that nobody holds; nil if nobody is known to hold
// the listener. It is the same for all sockets of a pass, so it does not depend on their order.
func (p *pass) representativeOf(l *listener) *owner {
	if pass := p.listeners.pass; l.representativePass != pass {
		isAccepting := func(w *owner) bool { since := l.accepting[w]; return since != 0 && (!l.acceptingKnown || since < pass) }
		l.representative, l.representativePass = p.representative(l.holders, isAccepting), pass
	}
	return l.representative
}

// representativeOfLast returns the owner that the connections count for that several owners held last.
func (p *pass) representativeOfLast(last *belonging) *owner {
	if last.representativePass != p.listeners.pass {
		last.representative, last.representativePass = p.representative(last.owners, nil), p.listeners.pass
	}
	return last.representative
}

// isAmbiguous reports whether the representative of the listener depends on sockets that this pass has not seen yet: several
// groups of processes hold it, and no earlier pass has seen which of them accepts connections.
func (p *pass) isAmbiguous(l *listener) bool {
	switch pass := p.listeners.pass; {
	case l.acceptingKnown, len(l.holders) < 2, l.representativePass == pass:
		return false
	case l.ambiguousPass == pass:
		return true
	}
	first := l.holders[0]
	uid, known := first.process.UID()
	differs := slices.ContainsFunc(l.holders[1:], func(w *owner) bool {
		id, isKnown := w.process.UID()
		return w.name != first.name || id != uid || isKnown != known
	})
	if differs {
		l.ambiguousPass = p.listeners.pass
	}
	return differs
}

// observeHolders records which holders of the listener hold connections that it accepted, and since which pass.
func (l *listener) observeHolders(holders []*owner, pass uint64) {
	if len(l.holders) < 2 {
		return // no choice
	}
	for _, w := range holders {
		if w.accepting == l {
			continue
		}
		w.accepting = l
		if l.accepting[w] != 0 || !slices.Contains(l.holders, w) {
			continue
		}
		if l.accepting == nil {
			l.accepting = map[*owner]uint64{}
		}
		l.accepting[w] = pass
	}
}

// userNames caches the names of users by user ID.
type userNames struct {
	byID     map[uint32]string
	passwd   string // the passwd file to read; empty: use the lookup of this host (NSS)
	log      telegraf.Logger
	warnOnce sync.Once
}

// newUserNames reads the names from passwd in the directory HOST_ETC, if set: inside a container, HOST_PROC shows processes of
// the host, whose users are not those of the container.
func newUserNames(log telegraf.Logger) *userNames {
	names := &userNames{byID: map[uint32]string{}, log: log}
	if etc := os.Getenv("HOST_ETC"); etc != "" {
		names.passwd = filepath.Join(etc, "passwd")
	}
	return names
}

// of returns the name of a user as a tag value, or the user ID if it has no name.
func (n *userNames) of(uid uint32) string {
	if name, known := n.byID[uid]; known {
		return name
	}
	number := strconv.FormatUint(uint64(uid), 10)
	name, err := n.lookUp(uid)
	if err != nil { // not cached: a later lookup can succeed
		n.warnOnce.Do(func() { n.log.Warnf("Cannot look up user names; reporting user IDs instead: %v", err) })
		return number
	}
	if len(n.byID) == maxUsers {
		clear(n.byID)
	}
	n.byID[uid] = tagValue(cmp.Or(name, number))
	return n.byID[uid]
}

// maxUsers bounds the cached names: root of a container can switch to 65,536 users.
const maxUsers = 4096

// lookUp returns an empty string for a user without a name, and an error only if reading fails.
func (n *userNames) lookUp(uid uint32) (string, error) {
	if n.passwd == "" {
		u, err := osuser.LookupId(strconv.FormatUint(uint64(uid), 10))
		if noUser := osuser.UnknownUserIdError(0); errors.As(err, &noUser) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		return u.Username, nil
	}
	found, err := user.ParsePasswdFileFilter(n.passwd, func(u user.User) bool {
		isUser := u.Name != "" && !strings.ContainsAny(u.Name[:1], "+-#") // see nsswitch.conf(5)
		return isUser && u.Uid == int(uid)
	})
	if err != nil {
		return "", fmt.Errorf("HOST_ETC: %w", err)
	}
	if len(found) == 0 {
		return "", nil
	}
	return found[0].Name, nil
}

//go:build linux

package procnetstat

import (
	"strconv"
	"strings"

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

// owner is a process that sockets count for, and what was found out about it.
type owner struct {
	process      *netstat.Process
	name         string // as a tag value
	nameWanted   bool   // the filters let its name through
	filteredUser string // that they were asked with; empty: they have not been
	wanted       bool   // they let it through
	lastPass     uint64 // the last one that it was seen in

	ownerInScope
}

// ofScope is what a pass found out about an owner in one scope.
type ownerInScope struct {
	series         *series // in procnetstat_process; nil: it has had no socket yet
	cgroup         *cgroupEntry
	cgroupKnown    bool
	remoteKey      remoteKey      // the peer of its last connection that went out
	remoteSeries   *series        // in procnetstat_remote, of that; nil: none yet
	attributionKey attributionKey // of its last socket
	attribution    uint32         // the index of that
}

// owners keeps what was found out about the processes from pass to pass.
type owners struct {
	byProcess map[*netstat.Process]*owner
	last      *owner // most sockets have the owner of the socket before
	pass      uint64
	userNames *userNames
	filter    ownerFilter
	cgroups   *cgroups
}

func newOwners(filter ownerFilter, users *userNames, cgroups *cgroups) *owners {
	return &owners{
		byProcess: map[*netstat.Process]*owner{}, userNames: users, filter: filter, cgroups: cgroups,
	}
}

// begin opens a pass, and forgets the processes that had no sockets in the last one.
func (all *owners) begin() {
	for process, o := range all.byProcess {
		if o.lastPass != all.pass {
			delete(all.byProcess, process)
		}
	}
	all.pass++
	all.last = nil
}

// enter begins a scope.
func (all *owners) enter() {
	for _, o := range all.byProcess {
		o.ownerInScope = ownerInScope{}
	}
}

func (all *owners) of(process *netstat.Process) *owner {
	if all.last != nil && all.last.process == process {
		return all.last
	}
	o := all.byProcess[process]
	if o == nil {
		o = &owner{process: process, name: tagValue(process.Name)}
		o.nameWanted = all.filter.wantsName(o.name)
		all.byProcess[process] = o
	}
	if o.lastPass != all.pass {
		all.applyFilter(o)
	}
	o.lastPass = all.pass
	all.last = o
	return o
}

// judge decides whether the filters let the process through, in each pass, as it can become another user's.
func (all *owners) applyFilter(o *owner) {
	if !o.nameWanted || all.filter.users == nil {
		o.wanted = o.nameWanted
		return
	}
	if user := all.userOf(o.process); user != o.filteredUser {
		o.filteredUser, o.wanted = user, all.filter.wantsUser(user)
	}
}

// tagValues returns the values of the tags, which are names in allProcessTags.
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

// userOf returns the name of the user that the process runs as, or the number of one that has no name.
func (all *owners) userOf(process *netstat.Process) string {
	uid, known := process.UID()
	if !known {
		return "unknown" // it has ended since its descriptors were read, or is hidden
	}
	return all.userNames.of(uid)
}

//go:build linux

package procnetstat

import (
	"os/user"
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
	process *netstat.Process
	name    string  // as a tag value
	wanted  bool    // the filters let it through
	pass    uint64  // the last one that it was seen in
	series  *series // in procnetstat_process
	counted bool    // in this pass, as one of the processes of series
}

// owners keeps what was found out about the processes from pass to pass.
type owners struct {
	known  map[*netstat.Process]*owner
	last   *owner // most sockets have the owner of the socket before
	pass   uint64
	users  map[uint32]string
	filter ownerFilter
	groups *cgroups
}

func newOwners(filter ownerFilter, groups *cgroups) *owners {
	return &owners{
		known: map[*netstat.Process]*owner{}, users: map[uint32]string{}, filter: filter, groups: groups,
	}
}

// begin opens a pass, and forgets the processes that had no sockets in the last one.
func (os *owners) begin() {
	for process, o := range os.known {
		if o.pass != os.pass {
			delete(os.known, process)
		}
		o.counted = false
	}
	os.pass++
	os.last = nil
}

func (os *owners) of(process *netstat.Process) *owner {
	if os.last != nil && os.last.process == process {
		return os.last
	}
	o := os.known[process]
	if o == nil {
		o = &owner{process: process, name: tagValue(process.Name)}
		o.wanted = os.filter.wants(o.name, func() string { return os.userOf(process) })
		os.known[process] = o
	}
	o.pass = os.pass
	os.last = o
	return o
}

// tagValues returns the values of the tags, which are names in allProcessTags.
func (os *owners) tagValues(o *owner, names []string) []string {
	values := make([]string, len(names))
	for i, name := range names {
		switch name {
		case tagProcessName:
			values[i] = o.name
		case tagUser:
			values[i] = os.userOf(o.process)
		case tagPID:
			values[i] = strconv.Itoa(o.process.PID)
		case tagExe:
			values[i] = tagValue(o.process.Exe())
		case tagCmdline:
			values[i] = tagValue(strings.Join(o.process.Cmdline(), " "))
		case tagSystemdUnit, tagContainerID, tagPodUID, tagCgroup:
			values[i] = os.groups.ofProcess(o.process).tag(name)
		}
	}
	return values
}

// userOf returns the name of the user that the process runs as, or the number of one that has no name.
func (os *owners) userOf(process *netstat.Process) string {
	uid, known := process.UID()
	if !known {
		return "unknown" // it has ended since its descriptors were read
	}
	name, known := os.users[uid]
	if !known {
		name = strconv.FormatUint(uint64(uid), 10)
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
		name = tagValue(name)
		os.users[uid] = name
	}
	return name
}

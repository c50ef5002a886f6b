//go:build linux

package procnetstat

import (
	"maps"
	"slices"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat"
	"github.com/procnetstat/procnetstat/netstat/cgroup"
)

// tagNetNS is the tag that tells network namespaces apart, where several are read.
const tagNetNS = "netns"

// scope is a network namespace in one pass.
type scope struct {
	namespace    *netstat.Namespace
	tag          string        // its value of the tag netns
	read         protocolSet   // the protocols of which all sockets could be read
	tcpFields    netstat.Field // what is known of every TCP connection
	closedEvents bool          // the kernel tells of the connections that it destroys there
	sources      sources       // that its tables were read from, when the pass ends

	name        string // what the namespace was called when the tag was chosen
	tagIsNumber bool   // the tag is its number, for want of a name
}

// scopes are the network namespaces of one pass, in the order in which they are read.
type scopes struct {
	protocols protocolSet // that are to be read
	all       []*scope
	previous  map[uint64]*scope // those of the pass before, by Namespace.ID
}

func (s *scopes) begin() {
	s.previous = map[uint64]*scope{}
	for _, sc := range s.all {
		s.previous[sc.namespace.ID] = sc
	}
	s.all = s.all[:0]
}

// of returns the scope of the namespace.
func (s *scopes) get(namespace *netstat.Namespace) *scope {
	for i := len(s.all) - 1; i >= 0; i-- { // mostly the last
		if s.all[i].namespace.ID == namespace.ID {
			return s.all[i]
		}
	}
	found := &scope{namespace: namespace, read: maps.Clone(s.protocols), tcpFields: ^netstat.Field(0), name: namespace.Name}
	found.tag, found.tagIsNumber = s.chooseTag(namespace)
	s.all = append(s.all, found)
	return found
}

// end ends the scan: it adds the namespaces without sockets, and takes all namespaces as they are now.
func (s *scopes) end(namespaces []*netstat.Namespace) {
	for _, namespace := range namespaces {
		s.get(namespace).namespace = namespace
	}
}

// tagOf returns what the namespace is called: the name in /run/netns, else the container that its first process is in, else
// its number; the number as well if another namespace of this pass is called the same. It stays what it was in the pass
// before, unless the name has changed, or there is one now.
func (s *scopes) chooseTag(namespace *netstat.Namespace) (tag string, isNumber bool) {
	taken := func(tag string) bool {
		return slices.ContainsFunc(s.all, func(other *scope) bool { return other.tag == tag })
	}
	number := netNSNumber(namespace)
	previous, known := s.previous[namespace.ID]
	if known && previous.name == namespace.Name {
		tag = previous.tag
	}
	if tag == "" || previous.tagIsNumber {
		name := netNSName(namespace)
		isNumber = name == ""
		if !isNumber {
			tag = name
		} else if tag == "" {
			tag = number
		}
	}
	if taken(tag) {
		tag = number
	}
	for n := 2; taken(tag); n++ { // that of a process that has ended since it gave a namespace its tag
		tag = number + "-" + strconv.Itoa(n)
	}
	return tag, isNumber
}

// nameOfNetNS returns an empty string if the namespace has no name.
func netNSName(namespace *netstat.Namespace) string {
	switch {
	case namespace.Self:
		return netstat.NamespaceSelf
	case namespace.Name != "":
		return tagValue(namespace.Name)
	}
	if id := cgroup.WorkloadOf(namespace.Cgroup()).ContainerID; id != "" {
		return tagValue(id)
	}
	return ""
}

func netNSNumber(namespace *netstat.Namespace) string {
	if namespace.Inode == 0 { // it may not be seen
		return "pid:" + strconv.Itoa(namespace.PID)
	}
	return strconv.FormatUint(namespace.Inode, 10)
}

// anyHeard tells whether closed connections are heard of anywhere.
func (s *scopes) anyClosedEvents() bool {
	return slices.ContainsFunc(s.all, func(sc *scope) bool { return sc.closedEvents })
}

// whole returns what holds for all of them.
func (s *scopes) common() scope {
	common := scope{read: maps.Clone(s.protocols), tcpFields: ^netstat.Field(0), closedEvents: true}
	for _, sc := range s.all {
		maps.DeleteFunc(common.read, func(transport netstat.Transport, _ bool) bool { return !sc.read[transport] })
		common.tcpFields &= sc.tcpFields
		common.closedEvents = common.closedEvents && sc.closedEvents
	}
	return common
}

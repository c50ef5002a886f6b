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
	namespace *netstat.Namespace
	tag       string        // its value of the tag netns
	read      protocolSet   // the protocols of which all sockets could be read
	gives     netstat.Field // what is known of every TCP connection
	heard     bool          // the kernel tells of the connections that it destroys there
	sources   sources       // that its tables were read from, when the pass ends

	name     string // what the namespace was called when the tag was chosen
	numbered bool   // the tag is its number, for want of a name
}

// scopes are the network namespaces of one pass, in the order in which they are read.
type scopes struct {
	protocols protocolSet // that are to be read
	all       []*scope
	before    map[uint64]*scope // those of the pass before, by Namespace.ID
}

func (s *scopes) begin() {
	s.before = map[uint64]*scope{}
	for _, of := range s.all {
		s.before[of.namespace.ID] = of
	}
	s.all = s.all[:0]
}

// of returns the scope of the namespace.
func (s *scopes) of(namespace *netstat.Namespace) *scope {
	for i := len(s.all) - 1; i >= 0; i-- { // mostly the last
		if s.all[i].namespace.ID == namespace.ID {
			return s.all[i]
		}
	}
	found := &scope{namespace: namespace, read: maps.Clone(s.protocols), gives: ^netstat.Field(0), name: namespace.Name}
	found.tag, found.numbered = s.tagOf(namespace)
	s.all = append(s.all, found)
	return found
}

// end ends the scan: it adds the namespaces without sockets, and takes all namespaces as they are now.
func (s *scopes) end(namespaces []*netstat.Namespace) {
	for _, namespace := range namespaces {
		s.of(namespace).namespace = namespace
	}
}

// tagOf returns what the namespace is called: the name in /run/netns, else the container that its first process is in, else
// its number; the number as well if another namespace of this pass is called the same. It stays what it was in the pass
// before, unless the name has changed, or there is one now.
func (s *scopes) tagOf(namespace *netstat.Namespace) (tag string, numbered bool) {
	taken := func(tag string) bool {
		return slices.ContainsFunc(s.all, func(other *scope) bool { return other.tag == tag })
	}
	number := numberOfNetNS(namespace)
	before, known := s.before[namespace.ID]
	if known && before.name == namespace.Name {
		tag = before.tag
	}
	if tag == "" || before.numbered {
		name := nameOfNetNS(namespace)
		numbered = name == ""
		if !numbered {
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
	return tag, numbered
}

// nameOfNetNS returns an empty string if the namespace has no name.
func nameOfNetNS(namespace *netstat.Namespace) string {
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

func numberOfNetNS(namespace *netstat.Namespace) string {
	if namespace.Inode == 0 { // it may not be seen
		return "pid:" + strconv.Itoa(namespace.PID)
	}
	return strconv.FormatUint(namespace.Inode, 10)
}

// anyHeard tells whether closed connections are heard of anywhere.
func (s *scopes) anyHeard() bool {
	return slices.ContainsFunc(s.all, func(of *scope) bool { return of.heard })
}

// whole returns what holds for all of them.
func (s *scopes) whole() scope {
	whole := scope{read: maps.Clone(s.protocols), gives: ^netstat.Field(0), heard: true}
	for _, of := range s.all {
		maps.DeleteFunc(whole.read, func(transport netstat.Transport, _ bool) bool { return !of.read[transport] })
		whole.gives &= of.gives
		whole.heard = whole.heard && of.heard
	}
	return whole
}

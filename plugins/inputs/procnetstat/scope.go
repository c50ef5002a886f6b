//go:build linux

package procnetstat

import (
	"maps"
	"slices"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat"
	"github.com/procnetstat/procnetstat/netstat/cgroup"
)

// tagNetNS is the tag of the network namespace, emitted if several are read.
const tagNetNS = "netns"

// scope is a network namespace in one pass.
type scope struct {
	namespace    *netstat.Namespace
	tag          string        // the value of the tag netns
	read         protocolSet   // protocols whose sockets were all read
	tcpFields    netstat.Field // the fields that every TCP connection has
	closedEvents bool          // the kernel reports the connections that it destroys there
	connects     bool          // attempts to connect are recorded there
	sources      sources       // of its tables; set at the end of the pass
	// localPortsUsed is the most local ports that outgoing connections from an address to an endpoint hold; set at the end of the
	// pass. Negative: not known.
	localPortsUsed int64

	name        string // of the namespace when the tag was chosen
	tagIsNumber bool   // the tag is the namespace number, as it had no name
}

// scopes are the network namespaces of one pass, in the order in which they are read.
type scopes struct {
	protocols protocolSet // the configured ones
	all       []*scope
	previous  map[uint64]*scope // those of the previous pass, by Namespace.ID
}

func (s *scopes) begin() {
	s.previous = map[uint64]*scope{}
	for _, sc := range s.all {
		s.previous[sc.namespace.ID] = sc
	}
	s.all = s.all[:0]
}

// get returns the scope of the namespace, and adds it if it is new in this pass.
func (s *scopes) get(namespace *netstat.Namespace) *scope {
	for i := len(s.all) - 1; i >= 0; i-- { // usually the last
		if s.all[i].namespace.ID == namespace.ID {
			return s.all[i]
		}
	}
	sc := &scope{namespace: namespace, read: maps.Clone(s.protocols), tcpFields: ^netstat.Field(0), name: namespace.Name}
	sc.tag, sc.tagIsNumber = s.chooseTag(namespace)
	s.all = append(s.all, sc)
	return sc
}

// end ends a pass: it adds the namespaces without sockets, and updates all namespaces to their state after the scan.
func (s *scopes) end(namespaces []*netstat.Namespace) {
	for _, namespace := range namespaces {
		s.get(namespace).namespace = namespace
	}
}

// chooseTag returns the tag of the namespace: its name in /run/netns, else the ID of the container of its first process, else its
// number. If another namespace of this pass has the same tag, it is the number too. It keeps the tag of the previous pass unless
// the name has changed or is new.
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
	if taken(tag) { // maybe by a namespace that has ended: then the next pass gives it the name
		tag, isNumber = number, true
	}
	for n := 2; taken(tag); n++ { // taken by the PID of a process that has exited since
		tag = number + "-" + strconv.Itoa(n)
	}
	return tag, isNumber
}

// netNSName returns an empty string if the namespace has no name.
func netNSName(namespace *netstat.Namespace) string {
	switch {
	case namespace.Self:
		return netstat.NamespaceSelf
	case namespace.Name == netstat.NamespaceSelf:
		return escapeFirst(namespace.Name)
	case namespace.Name != "":
		return tagValue(namespace.Name)
	}
	switch id := cgroup.WorkloadOf(namespace.Cgroup()).ContainerID; id {
	case "":
		return ""
	case netstat.NamespaceSelf:
		return escapeFirst(id)
	default:
		return tagValue(id)
	}
}

// device returns the name of a network device of the namespace, or its index if that is unknown; empty for 0.
func (sc *scope) device(index uint32) string {
	if index == 0 {
		return ""
	}
	if name := sc.namespace.InterfaceName(index); name != "" {
		return tagValue(name)
	}
	return strconv.FormatUint(uint64(index), 10)
}

func netNSNumber(namespace *netstat.Namespace) string {
	if namespace.Inode == 0 { // no permission to read it
		return "pid:" + strconv.Itoa(namespace.PID)
	}
	return strconv.FormatUint(namespace.Inode, 10)
}

// anyClosedEvents reports whether the kernel reports closed connections in any of them.
func (s *scopes) anyClosedEvents() bool {
	return slices.ContainsFunc(s.all, func(sc *scope) bool { return sc.closedEvents })
}

// areFromNetlink reports whether all tables of the transport came from netlink.
func (s *scopes) areFromNetlink(transport netstat.Transport) bool {
	return !slices.ContainsFunc(s.all, func(sc *scope) bool { return sc.sources[transport] != netstat.SourceNetlink })
}

// common returns what all scopes have in common.
func (s *scopes) common() scope {
	common := scope{read: maps.Clone(s.protocols), tcpFields: ^netstat.Field(0), closedEvents: true, connects: true}
	for _, sc := range s.all {
		maps.DeleteFunc(common.read, func(transport netstat.Transport, _ bool) bool { return !sc.read[transport] })
		common.tcpFields &= sc.tcpFields
		common.closedEvents = common.closedEvents && sc.closedEvents
		common.connects = common.connects && sc.connects
	}
	return common
}

//go:build linux

package procnetstat

import (
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

var remoteSchema = measurementSchema{
	name: "procnetstat_remote", option: measureRemote, about: "Outgoing connections by remote endpoint",
	protocols: []netstat.Transport{netstat.TransportTCP, netstat.TransportUDP, netstat.TransportUDPLite},
	tags: []tag{
		{"protocol", "`tcp`, `udp` or `udplite`"},
		{"remote_address", "Address, or a network if `remote_prefix_v4` or `remote_prefix_v6` is less than all bits"},
		{"remote_port", "Port"},
		processNameTag,
		{
			tagRemoteProcessName, "Process that listens at the remote end, if that is in a network namespace that is read: this host over " +
				"loopback or its own address, and with `namespaces = [\"all\"]` its containers; not of networks, not through NAT. Whoever may " +
				"create a network namespace can give it any address: with \"all\" the name is no proof",
		},
	},
	without: withoutListening,
}

// remoteMeasurement is procnetstat_remote: outgoing connections by process and remote endpoint.
type remoteMeasurement struct {
	peers
	// processAt returns the name of the process that listens at the remote end, or an empty string.
	processAt func(namespace uint64, transport netstat.Transport, remote netip.AddrPort) string
}

// tagRemoteProcessName is the tag of the process at the other end.
const tagRemoteProcessName = "remote_process_name"

func newRemoteMeasurement(
	withOwners bool, prefixV4, prefixV6 int, processAt func(uint64, netstat.Transport, netip.AddrPort) string, options seriesOptions,
) *remoteMeasurement {
	tagNames := []string{"protocol", "remote_address", "remote_port"}
	peers := newPeers(&remoteSchema, tagNames, withOwners, prefixV4, prefixV6, options)
	// The series that count sockets do not have this tag.
	peers.series.tagNames = append(peers.series.tagNames, tagRemoteProcessName)
	return &remoteMeasurement{peers, processAt}
}

func (m *remoteMeasurement) observe(o *observation) {
	if isOutgoing(o) {
		m.count(o, o.Remote.Port(), func(w *owner) *cachedPeer { return &w.remote })
	}
}

// isOutgoing reports whether the socket is an outgoing connection: TCP with a peer that no listener accepted, or connected UDP.
func isOutgoing(o *observation) bool {
	if o.Transport == netstat.TransportTCP {
		return o.listener == nil && o.HasPeer()
	}
	return remoteSchema.covers(o.Transport) && o.State == netstat.TCPEstablished && o.HasPeer()
}

func (m *remoteMeasurement) emit(out emission) {
	for _, s := range m.series.byKey {
		if s.isActive() {
			m.moveToSuccessor(s)
		}
	}
	m.peers.emit(out)
}

// moveToSuccessor moves what the pass has counted to the series with the name of the process at the other end. While no process is
// known to listen there, it is the last one that did.
func (m *remoteMeasurement) moveToSuccessor(s *series) {
	if !s.peer.IsValid() {
		return
	}
	if name := m.processAt(s.scope.namespace.ID, s.transport, s.peer); name != "" {
		s.successor = m.series.getByKey(s.key + separator + name) // the value of the last tag
	}
	if s.successor == nil || s.successor.isRemoved {
		return
	}
	s.successor.scope = s.scope
	s.successor.merge(s)
	s.reset()
}

// localAddrs knows in which network namespaces an address is local: those in which an established connection has it. A wildcard
// listener does not show at which addresses it listens, and any process can bind a socket to any address (IP_FREEBIND, ip(7)).
type localAddrs struct {
	namespaces map[netip.Addr][]uint64 // Namespace.ID
	inUse      map[uint64]int          // number of addresses by namespace
	last       localAddr               // cache: most sockets have the same address as the socket before
}

type localAddr struct {
	addr      netip.Addr
	namespace uint64
}

// Bounds of the addresses of a namespace, and of all.
const (
	maxLocalAddrs    = 1 << 10
	maxAllLocalAddrs = 1 << 16
)

// add adds the local address of a connection.
func (a *localAddrs) add(s *netstat.Socket) {
	this := localAddr{s.Local.Addr(), s.Namespace.ID}
	if this == a.last || s.State != netstat.TCPEstablished {
		return
	}
	a.last = this
	addr := this.addr.Unmap()
	in := a.namespaces[addr]
	if addr.IsLoopback() || addr.Zone() != "" || slices.Contains(in, this.namespace) || a.inUse[this.namespace] == maxLocalAddrs {
		return
	}
	if a.namespaces == nil {
		a.namespaces, a.inUse = map[netip.Addr][]uint64{}, map[uint64]int{}
	}
	a.namespaces[addr] = append(in, this.namespace)
	a.inUse[this.namespace]++
}

// finish ends a pass: it forgets the addresses of namespaces that are gone. If there are too many, it forgets all: they are learned
// again from new connections.
func (a *localAddrs) finish(all *scopes) {
	a.last = localAddr{}
	exists := make(map[uint64]bool, len(all.all))
	for _, sc := range all.all {
		exists[sc.namespace.ID] = true
	}
	anyGone, sum := false, 0
	for namespace, n := range a.inUse {
		sum += n
		if !exists[namespace] {
			anyGone = true
			delete(a.inUse, namespace)
		}
	}
	if sum > maxAllLocalAddrs {
		a.namespaces, a.inUse = nil, nil
		return
	}
	if !anyGone {
		return
	}
	for addr, in := range a.namespaces {
		if rest := slices.DeleteFunc(in, func(id uint64) bool { return !exists[id] }); len(rest) == 0 {
			delete(a.namespaces, addr)
		} else {
			a.namespaces[addr] = rest
		}
	}
}

// processAt returns the name of the process that listens at the remote end of a connection from a namespace. An address of that
// namespace is its own. Otherwise the name is empty if no namespace that this pass has read has the listener, or if several have.
func (p *pass) processAt(from uint64, transport netstat.Transport, remote netip.AddrPort) string {
	in := p.localAddrs.namespaces[remote.Addr()]
	if remote.Addr().IsLoopback() || slices.Contains(in, from) {
		in = []uint64{from}
	}
	var found *listener
	for _, namespace := range in {
		l := p.listeners.listeningAt(portKey{namespace, transport, remote.Port()}, remote.Addr())
		if l != nil && found != nil {
			return ""
		}
		if l != nil {
			found = l
		}
	}
	if found == nil {
		return ""
	}
	w := p.representativeOf(found)
	if w == nil {
		return ""
	}
	return w.name
}

// listeningAt returns the listener of this pass that accepts connections to the address, or nil.
func (t *listeners) listeningAt(at portKey, addr netip.Addr) *listener {
	use := t.ports[at]
	if use == nil {
		return nil
	}
	addrs := [...]netip.Addr{addr, netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	if addr.Is6() {
		addrs[1] = addrs[2]
	}
	for _, addr := range addrs {
		for _, device := range use.devices {
			if l := t.byEndpoint[endpoint{at.namespace, at.transport, device, addr, at.port}]; l != nil && l.listens(t.pass) {
				return l
			}
		}
	}
	return nil
}

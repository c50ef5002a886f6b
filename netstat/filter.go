package netstat

import (
	"net/netip"
	"slices"
)

// PortRange is the ports from First to Last.
type PortRange struct{ First, Last uint16 }

// FilterConfig says which sockets a [Filter] wants: those that meet every condition. An empty list is no condition. What is
// said of the remote end does not apply to sockets without a peer.
type FilterConfig struct {
	LocalPorts, NotLocalPorts   []PortRange
	RemotePorts, NotRemotePorts []PortRange
	// Remote and NotRemote are networks; an IPv4-mapped address is in those of IPv4.
	Remote, NotRemote []netip.Prefix
	// NotLoopback wants no socket with a loopback address at either end.
	NotLoopback bool
}

// Filter chooses sockets by their addresses. For TCP connections the kernel can do that: see ScannerConfig.Connections.
type Filter struct {
	config        FilterConfig
	local, remote *portSet
}

// NewFilter returns a filter.
func NewFilter(config FilterConfig) *Filter {
	return &Filter{
		config: config,
		local:  newPortSet(config.LocalPorts, config.NotLocalPorts),
		remote: newPortSet(config.RemotePorts, config.NotRemotePorts),
	}
}

// IsEmpty tells whether the filter wants every socket.
func (f *Filter) IsEmpty() bool {
	c := &f.config
	return f.local == nil && f.remote == nil && len(c.Remote)+len(c.NotRemote) == 0 && !c.NotLoopback
}

// Wants tells whether the socket meets the conditions. Unix sockets, which have no addresses, do.
func (f *Filter) Wants(s *Socket) bool {
	if !s.Local.IsValid() {
		return true
	}
	local, remote := s.Local.Addr().Unmap(), s.Remote.Addr().Unmap()
	if f.config.NotLoopback && (local.IsLoopback() || remote.IsLoopback()) {
		return false
	}
	if !f.local.has(s.Local.Port()) {
		return false
	}
	return !s.HasPeer() || f.remote.has(s.Remote.Port()) && f.wantsPeer(remote)
}

func (f *Filter) wantsPeer(peer netip.Addr) bool {
	in := func(networks []netip.Prefix) bool {
		return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(peer) })
	}
	return (len(f.config.Remote) == 0 || in(f.config.Remote)) && !in(f.config.NotRemote)
}

// HasPeer tells whether the socket is one end of a connection: it is not for listening, unconnected and unix sockets.
func (s *Socket) HasPeer() bool {
	return s.Remote.IsValid() && (s.Remote.Port() != 0 || !s.Remote.Addr().IsUnspecified())
}

// portSet has a bit for each port; nil has all ports.
type portSet [1 << 16 / 64]uint64

// newPortSet returns the ports of include, all if it is empty, without those of exclude.
func newPortSet(include, exclude []PortRange) *portSet {
	if len(include)+len(exclude) == 0 {
		return nil
	}
	if len(include) == 0 {
		include = []PortRange{{0, 1<<16 - 1}}
	}
	set := &portSet{}
	for _, r := range include {
		for port := uint32(r.First); port <= uint32(r.Last); port++ {
			set[port/64] |= 1 << (port % 64)
		}
	}
	for _, r := range exclude {
		for port := uint32(r.First); port <= uint32(r.Last); port++ {
			set[port/64] &^= 1 << (port % 64)
		}
	}
	return set
}

func (set *portSet) has(port uint16) bool { return set == nil || set[port/64]&(1<<(port%64)) != 0 }

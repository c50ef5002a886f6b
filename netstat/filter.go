package netstat

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
)

// PortRange is the ports from First to Last.
type PortRange struct{ First, Last uint16 }

// FilterConfig says which sockets a [Filter] wants: those that meet every condition. An empty list is no condition. What is
// said of the remote end does not apply to sockets without a peer.
type FilterConfig struct {
	// No range may end before it begins.
	LocalPorts, ExcludeLocalPorts   []PortRange
	RemotePorts, ExcludeRemotePorts []PortRange
	// Remote and ExcludeRemote are networks of IPv4 or IPv6. An IPv4-mapped address is in those of IPv4 only, so no network may be
	// given as IPv4-mapped. The zone of an address does not count.
	Remote, ExcludeRemote []netip.Prefix
	// ExcludeLoopback wants no socket with a loopback address at either end.
	ExcludeLoopback bool
}

// Filter chooses sockets by their addresses. For TCP connections the kernel can do that: see ScannerConfig.Connections. A nil
// filter wants every socket.
type Filter struct {
	config        FilterConfig
	local, remote *portSet
}

// NewFilter returns a filter. Its error names the range of ports or the network that is not valid.
func NewFilter(config FilterConfig) (*Filter, error) {
	c := FilterConfig{ExcludeLoopback: config.ExcludeLoopback}
	for _, list := range []struct {
		name  string
		given []PortRange
		own   *[]PortRange
	}{
		{"LocalPorts", config.LocalPorts, &c.LocalPorts},
		{"ExcludeLocalPorts", config.ExcludeLocalPorts, &c.ExcludeLocalPorts},
		{"RemotePorts", config.RemotePorts, &c.RemotePorts},
		{"ExcludeRemotePorts", config.ExcludeRemotePorts, &c.ExcludeRemotePorts},
	} {
		for i, r := range list.given {
			if r.First > r.Last {
				return nil, fmt.Errorf("filter: %s[%d]: port range %d-%d ends before it begins", list.name, i, r.First, r.Last)
			}
		}
		*list.own = slices.Clone(list.given)
	}
	for _, list := range []struct {
		name  string
		given []netip.Prefix
		own   *[]netip.Prefix
	}{
		{"Remote", config.Remote, &c.Remote},
		{"ExcludeRemote", config.ExcludeRemote, &c.ExcludeRemote},
	} {
		for i, network := range list.given {
			if err := checkNetwork(network); err != nil {
				return nil, fmt.Errorf("filter: %s[%d]: %w", list.name, i, err)
			}
		}
		*list.own = slices.Clone(list.given)
	}
	return &Filter{
		config: c,
		local:  newPortSet(c.LocalPorts, c.ExcludeLocalPorts),
		remote: newPortSet(c.RemotePorts, c.ExcludeRemotePorts),
	}, nil
}

// checkNetwork refuses what the kernel refuses, and what no address can be in.
func checkNetwork(network netip.Prefix) error {
	const want = `want a network like "10.0.0.0/8" or "2001:db8::/32"`
	switch {
	case network == netip.Prefix{}:
		return fmt.Errorf("the zero netip.Prefix is not a network; %s", want)
	case !network.IsValid(): // made by netip.PrefixFrom, which keeps the address alone
		return fmt.Errorf("network %s has an invalid length; %s", network.Addr(), want)
	case network.Addr().Is4In6():
		return fmt.Errorf("the network %s is IPv4-mapped; %s", network, want)
	}
	return nil
}

// IsEmpty tells whether the filter wants every socket.
func (f *Filter) IsEmpty() bool {
	if f == nil {
		return true
	}
	c := &f.config
	return f.local == nil && f.remote == nil && len(c.Remote)+len(c.ExcludeRemote) == 0 && !c.ExcludeLoopback
}

// Match tells whether the socket meets the conditions. Unix sockets, which have no addresses, do.
func (f *Filter) Match(s *Socket) bool {
	if f == nil || !s.Local.IsValid() {
		return true
	}
	local, remote := s.Local.Addr().Unmap(), s.Remote.Addr().Unmap()
	if f.config.ExcludeLoopback && (local.IsLoopback() || remote.IsLoopback()) {
		return false
	}
	if !f.local.has(s.Local.Port()) {
		return false
	}
	return !s.HasPeer() || f.remote.has(s.Remote.Port()) && f.wantsPeer(remote.WithZone("")) // no network contains a zone
}

var loopbackNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// bytecode returns the filter for the kernel: nil if it has no conditions, and if it is longer than the kernel takes.
func (f *Filter) bytecode() []byte {
	if f.IsEmpty() {
		return nil
	}
	ports := func(ranges []PortRange) (ports []sockdiag.PortRange) {
		for _, r := range ranges {
			ports = append(ports, sockdiag.PortRange(r))
		}
		return ports
	}
	c := &f.config
	conditions := sockdiag.Conditions{
		LocalPorts: ports(c.LocalPorts), ExcludeLocalPorts: ports(c.ExcludeLocalPorts),
		RemotePorts: ports(c.RemotePorts), ExcludeRemotePorts: ports(c.ExcludeRemotePorts),
		Remote: c.Remote, ExcludeRemote: c.ExcludeRemote,
	}
	if c.ExcludeLoopback {
		conditions.ExcludeRemote = slices.Concat(c.ExcludeRemote, loopbackNetworks)
		conditions.ExcludeLocal = loopbackNetworks
	}
	return conditions.Bytecode()
}

func (f *Filter) wantsPeer(peer netip.Addr) bool {
	in := func(networks []netip.Prefix) bool {
		return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(peer) })
	}
	return (len(f.config.Remote) == 0 || in(f.config.Remote)) && !in(f.config.ExcludeRemote)
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

package netstat

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
)

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// FilterConfig lists the conditions of a [Filter]. A socket matches if it meets all of them. An empty list is no condition. The
// conditions on the remote end do not apply to sockets without a peer.
type FilterConfig struct {
	// A range whose Last is less than its First is an error.
	LocalPorts, ExcludeLocalPorts   []PortRange
	RemotePorts, ExcludeRemotePorts []PortRange
	// Remote and ExcludeRemote are IPv4 or IPv6 networks. IPv4-mapped addresses (RFC 4291, section 2.5.5.2) match IPv4 networks
	// only; an IPv4-mapped network is an error. Zones are ignored.
	Remote, ExcludeRemote []netip.Prefix
	// ExcludeLoopback excludes sockets with a loopback address at either end.
	ExcludeLoopback bool
}

// Filter selects sockets by their addresses and ports. The kernel can run it for TCP connections: see
// [ScannerConfig].TCPFilter. A nil Filter matches every socket. A Filter is safe for concurrent use.
type Filter struct {
	config        FilterConfig
	local, remote *portSet
}

// NewFilter returns a filter with a copy of the configuration. The error names the first invalid port range or network.
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

// checkNetwork returns an error for networks that the kernel rejects or that contain no address.
func checkNetwork(network netip.Prefix) error {
	const want = `want a network like "10.0.0.0/8" or "2001:db8::/32"`
	switch {
	case network == netip.Prefix{}:
		return fmt.Errorf("the zero netip.Prefix is not a network; %s", want)
	case !network.IsValid(): // netip.PrefixFrom returns this for an invalid length
		return fmt.Errorf("network %s has an invalid length; %s", network.Addr(), want)
	case network.Addr().Is4In6():
		return fmt.Errorf("the network %s is IPv4-mapped; %s", network, want)
	}
	return nil
}

// IsEmpty reports whether the filter has no conditions.
func (f *Filter) IsEmpty() bool {
	if f == nil {
		return true
	}
	c := &f.config
	return f.local == nil && f.remote == nil && len(c.Remote)+len(c.ExcludeRemote) == 0 && !c.ExcludeLoopback
}

// Match reports whether the socket meets the conditions. Sockets without addresses (unix) always match.
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

// bytecode returns the filter for the kernel; nil if it has no conditions or exceeds the kernel's limit.
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

// HasPeer reports whether the socket has a remote address. It is false for listening, unconnected and unix sockets.
func (s *Socket) HasPeer() bool {
	return s.Remote.IsValid() && (s.Remote.Port() != 0 || !s.Remote.Addr().IsUnspecified())
}

// portSet is a bit set of ports; nil is the set of all ports.
type portSet [1 << 16 / 64]uint64

// newPortSet returns the ports of include (all if it is empty) without those of exclude.
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

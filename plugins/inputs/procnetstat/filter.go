//go:build linux

package procnetstat

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/influxdata/telegraf/filter"

	"github.com/procnetstat/procnetstat/netstat"
)

// filters exclude sockets from all measurements but that of the host.
type filters struct {
	owner  ownerFilter
	socket socketFilter
}

// ownerFilter matches the processes that hold a socket.
type ownerFilter struct {
	active            bool
	names, users      filter.Filter // nil: all
	wantsUnattributed bool
}

// newFilters compiles the options; the error names the invalid one.
func (p *ProcNetStat) newFilters() (filters, error) {
	var (
		f   filters
		err error
	)
	for _, list := range []struct {
		option           string
		include, exclude []string
		filter           *filter.Filter
	}{
		{"process", p.ProcessInclude, p.ProcessExclude, &f.owner.names},
		{"user", p.UserInclude, p.UserExclude, &f.owner.users},
		{"cgroup", p.CgroupInclude, p.CgroupExclude, &f.socket.cgroups},
	} {
		if len(list.include)+len(list.exclude) == 0 {
			continue
		}
		if *list.filter, err = filter.NewIncludeExcludeFilter(list.include, list.exclude); err != nil {
			return filters{}, cmp.Or(checkGlobs(list.option+"_include", list.include), checkGlobs(list.option+"_exclude", list.exclude),
				fmt.Errorf("%s_include, %s_exclude: %w", list.option, list.option, err))
		}
	}
	f.owner.active = f.owner.names != nil || f.owner.users != nil
	f.owner.wantsUnattributed = f.owner.wantsName(unattributed) && f.owner.wantsUser(unattributed)

	addresses := netstat.FilterConfig{ExcludeLoopback: p.ExcludeLoopback}
	for _, list := range []struct {
		option string
		given  []ports
		ranges *[]netstat.PortRange
	}{
		{"local_ports_include", p.LocalPortsInclude, &addresses.LocalPorts},
		{"local_ports_exclude", p.LocalPortsExclude, &addresses.ExcludeLocalPorts},
		{"remote_ports_include", p.RemotePortsInclude, &addresses.RemotePorts},
		{"remote_ports_exclude", p.RemotePortsExclude, &addresses.ExcludeRemotePorts},
	} {
		if *list.ranges, err = parsePorts(list.option, list.given); err != nil {
			return filters{}, err
		}
	}
	if addresses.Remote, err = parsePrefixes("remote_cidrs_include", p.RemoteCIDRsInclude); err != nil {
		return filters{}, err
	}
	if addresses.ExcludeRemote, err = parsePrefixes("remote_cidrs_exclude", p.RemoteCIDRsExclude); err != nil {
		return filters{}, err
	}
	if f.socket.addresses, err = netstat.NewFilter(addresses); err != nil {
		return filters{}, err
	}
	return f, nil
}

// checkGlobs returns an error that names the first invalid glob of an option.
func checkGlobs(option string, globs []string) error {
	for _, glob := range globs {
		// Beside "*", because filter.Compile takes a glob without wildcards for a plain text if it is alone.
		if _, err := filter.Compile([]string{glob, "*"}); err != nil {
			return fmt.Errorf(`%s: %q is not a glob of *, ?, [abc] and [!a-z], where a backslash escapes (%w)`, option, glob, err)
		}
	}
	return nil
}

func (f *ownerFilter) wantsName(name string) bool { return f.names == nil || f.names.Match(name) }

func (f *ownerFilter) wantsUser(user string) bool { return f.users == nil || f.users.Match(user) }

// socketFilter matches the addresses and the cgroup of a socket.
type socketFilter struct {
	addresses *netstat.Filter
	cgroups   filter.Filter // nil: all
}

func (f *socketFilter) wants(o *observation) bool {
	return f.addresses.Match(o.Socket) && (f.cgroups == nil || f.cgroups.Match(o.cgroup.pathOrUnattributed()))
}

// parsePorts parses a list of ports and ranges of ports, like "8000-8100".
func parsePorts(option string, given []ports) ([]netstat.PortRange, error) {
	var ranges []netstat.PortRange
	for _, text := range given {
		from, to, isRange := strings.Cut(string(text), "-")
		if !isRange {
			to = from
		}
		first, errFirst := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
		last, errLast := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
		if errFirst != nil || errLast != nil || first > last {
			return nil, fmt.Errorf(`%s: %q is not a port from 0 to 65535 or a range like "8000-8100"`, option, text)
		}
		ranges = append(ranges, netstat.PortRange{First: uint16(first), Last: uint16(last)})
	}
	return ranges, nil
}

// parsePrefixes parses a list of networks and single addresses.
func parsePrefixes(option string, texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
			addr = addr.Unmap()
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || prefix.Addr().Is4In6() {
			return nil, fmt.Errorf(`%s: %q is not an address or a network like "10.0.0.0/8" or "2001:db8::/32"`, option, text)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

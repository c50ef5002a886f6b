//go:build linux

package procnetstat

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// hostMeasurement is procnetstat: the sockets of the host. Its fields are those of Telegraf's inputs.netstat and more.
type hostMeasurement struct {
	byFamily bool
	netNS    bool // with the tag netns
	totals   map[string]*hostTotals
	current  *hostTotals
}

// hostTotals are the sockets in a network namespace.
type hostTotals struct {
	families [netstat.FamilyUnix + 1]series // the first is of all families
	seen     time.Time                      // when they were emitted last
}

const allFamilies = netstat.Family(0)

func newHostMeasurement(byFamily, netNS bool) *hostMeasurement {
	return &hostMeasurement{byFamily: byFamily, netNS: netNS, totals: map[string]*hostTotals{}}
}

func (m *hostMeasurement) enter(in *scope) {
	m.current = m.totals[in.tag]
	if m.current == nil {
		m.current = &hostTotals{}
		m.totals[in.tag] = m.current
		for family := range m.current.families {
			tags := map[string]string{}
			if m.byFamily {
				tags["family"] = netstat.Family(family).String()
			}
			if m.netNS {
				tags[tagNetNS] = in.tag
			}
			m.current.families[family].tags = tags
		}
	}
	for family := range m.current.families {
		m.current.families[family].scope = in
	}
}

func (m *hostMeasurement) observe(o *observation) {
	family := allFamilies
	if m.byFamily {
		family = o.Family
	}
	m.current.families[family].count(o)
}

// emit emits every namespace that was read, also one without sockets.
func (m *hostMeasurement) emit(to emission) {
	for _, in := range to.scopes.all {
		m.enter(in)
		m.current.seen = to.now
		m.current.emit(to.in(in), m.byFamily, in.namespace)
	}
	m.forget(to.now)
}

// maxIdleHosts bounds the network namespaces that are remembered although they were not read: any user can make a thousand a minute.
const maxIdleHosts = 1000

// forget forgets namespaces that were not read in this gather: after an hour, and those that were read longest ago if they are many.
func (m *hostMeasurement) forget(now time.Time) {
	var idle []string
	for tag, totals := range m.totals {
		switch {
		case now.Sub(totals.seen) > counterMemory:
			delete(m.totals, tag)
		case totals.seen.Before(now):
			idle = append(idle, tag)
		}
	}
	if len(idle) <= maxIdleHosts {
		return
	}
	slices.SortFunc(idle, func(a, b string) int { return cmp.Or(m.totals[a].seen.Compare(m.totals[b].seen), cmp.Compare(a, b)) })
	for _, tag := range idle[:len(idle)-maxIdleHosts] {
		delete(m.totals, tag)
	}
}

func (h *hostTotals) emit(to emission, byFamily bool, namespace *netstat.Namespace) {
	if !byFamily {
		fields, err := sockstat(namespace)
		if err != nil {
			to.acc.AddError(err)
		}
		h.emitFamily(to, allFamilies, to.read, fields)
		return
	}
	ip, unix := protocolSet{}, protocolSet{}
	for transport := range to.read {
		if transport == netstat.TransportUnix {
			unix[transport] = true
		} else {
			ip[transport] = true
		}
	}
	h.emitFamily(to, netstat.FamilyIPv4, ip, map[string]any{})
	h.emitFamily(to, netstat.FamilyIPv6, ip, map[string]any{})
	h.emitFamily(to, netstat.FamilyUnix, unix, map[string]any{})
}

func (h *hostTotals) emitFamily(to emission, family netstat.Family, read protocolSet, gauges map[string]any) {
	s := &h.families[family]
	s.total.add(&s.stats.did)
	if read[netstat.TransportTCP] {
		gauges["tcp_none"] = s.stats.states[netstat.TCPUnknown]
	}
	to.read = read
	to.group("procnetstat", s, gauges, map[string]any{})
	s.reset()
}

// sockstat returns the fields of procnetstat that the kernel counts by itself.
func sockstat(namespace *netstat.Namespace) (map[string]any, error) {
	s, err := namespace.ReadSockstat()
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the fields are absent
	}
	fields := map[string]any{}
	for name, value := range map[string]*uint64{
		"sockets_used":  s.SocketsUsed,
		"tcp_orphan":    s.TCPOrphan,
		"tcp_alloc":     s.TCPAlloc,
		"tcp_mem_bytes": s.TCPMemBytes,
		"udp_mem_bytes": s.UDPMemBytes,
	} {
		if value != nil {
			fields[name] = int64(*value)
		}
	}
	return fields, err
}

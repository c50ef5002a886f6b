//go:build linux

package procnetstat

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

var hostSchema = measurementSchema{
	name: "procnetstat", option: measureHost, about: "All sockets of the host, or of each network namespace",
	tags: []tag{{"family", "`ipv4`, `ipv6` (dual-stack sockets included) or `unix`; only with `family_tag`"}},
	fields: []field{
		{name: "tcp_none", unit: unitSockets, about: "TCP sockets in a state without a field of its own"},
		hostField("sockets_used", unitSockets, "", "Sockets of all kinds"),
		hostField("tcp_orphan", unitSockets, "", "TCP sockets that no process holds; of all network namespaces"),
		hostField("tcp_alloc", unitSockets, "", "TCP sockets with memory, bound or not; of all network namespaces"),
		hostField("tcp_mem_bytes", unitBytes, "", "Memory of TCP buffers; of all network namespaces"),
		hostField("udp_mem_bytes", unitBytes, "", "Memory of UDP buffers; of all network namespaces"),
		hostField("local_ports_used", unitPorts, "a measurement of processes, listeners, cgroups, peers or connections",
			"Most local ports that connections from one local address to one remote endpoint hold, in any state; compare with local_ports"),
	},
}

func hostField(name, unit, needs, about string) field {
	return field{name: name, unit: unit, needs: strings.TrimPrefix(needs+", no `family_tag`", ", "), about: about}
}

// hostMeasurement is procnetstat: the sockets of the host, with the fields of Telegraf's inputs.netstat and more.
type hostMeasurement struct {
	byFamily bool
	netNS    bool // with the tag netns
	fields   []groupField
	totals   map[string]*hostTotals
	current  *hostTotals
}

// hostTotals are the totals of a network namespace.
type hostTotals struct {
	families    [netstat.FamilyUnix + 1]series // index 0: all families
	lastEmitted time.Time
}

const allFamilies = netstat.Family(0)

func newHostMeasurement(byFamily bool, options seriesOptions) *hostMeasurement {
	return &hostMeasurement{
		byFamily: byFamily, netNS: options.netNS, fields: hostSchema.groupFields(options.details), totals: map[string]*hostTotals{},
	}
}

func (m *hostMeasurement) enter(sc *scope) {
	m.current = m.totals[sc.tag]
	if m.current == nil {
		m.current = &hostTotals{}
		m.totals[sc.tag] = m.current
		for family := range m.current.families {
			tags := map[string]string{}
			if m.byFamily {
				tags["family"] = netstat.Family(family).String()
			}
			if m.netNS {
				tags[tagNetNS] = sc.tag
			}
			m.current.families[family].tags = tags
		}
	}
	for family := range m.current.families {
		m.current.families[family].scope = sc
	}
}

func (m *hostMeasurement) observe(o *observation) {
	family := allFamilies
	if m.byFamily {
		family = o.Family
	}
	m.current.families[family].count(o)
}

// emit emits every namespace that was read, even one without sockets.
func (m *hostMeasurement) emit(out emission) {
	for _, sc := range out.scopes.all {
		m.enter(sc)
		m.current.lastEmitted = out.now
		fields := map[string]any{}
		if !m.byFamily {
			var err error
			if fields, err = sockstatFields(sc.namespace); err != nil {
				out.acc.AddError(err)
			}
			if sc.localPortsUsed >= 0 && sc.read[netstat.TransportTCP] {
				fields["local_ports_used"] = sc.localPortsUsed
			}
		}
		m.emitTotals(out.forScope(sc), m.current, fields)
	}
	for _, totals := range m.totals { // namespaces that ended after their first gather
		if totals.lastEmitted.Before(out.now) && totals.isPending() {
			totals.lastEmitted = out.now
			m.emitTotals(out.forScope(totals.families[allFamilies].scope), totals, map[string]any{})
		}
	}
	m.forget(out.now)
}

// maxIdleNetNS bounds the network namespaces that are remembered without being read: any user can create 1,000 a minute.
const maxIdleNetNS = 1000

// forget removes namespaces that were not read in this gather: after counterMemory, and beyond maxIdleNetNS those that were read
// longest ago.
func (m *hostMeasurement) forget(now time.Time) {
	var idle []string
	for tag, totals := range m.totals {
		switch {
		case now.Sub(totals.lastEmitted) > counterMemory:
			delete(m.totals, tag)
		case totals.lastEmitted.Before(now):
			idle = append(idle, tag)
		}
	}
	if len(idle) <= maxIdleNetNS {
		return
	}
	slices.SortFunc(idle, func(a, b string) int {
		return cmp.Or(m.totals[a].lastEmitted.Compare(m.totals[b].lastEmitted), cmp.Compare(a, b))
	})
	for _, tag := range idle[:len(idle)-maxIdleNetNS] {
		delete(m.totals, tag)
	}
}

// isPending reports whether the totals must be emitted, even if the namespace has ended.
func (h *hostTotals) isPending() bool {
	for i := range h.families {
		if h.families[i].isPending() {
			return true
		}
	}
	return false
}

// emitTotals emits the totals of a namespace. fields are those of no family.
func (m *hostMeasurement) emitTotals(out emission, h *hostTotals, fields map[string]any) {
	if !m.byFamily {
		m.emitFamily(out, &h.families[allFamilies], out.read, fields)
		return
	}
	ip, unix := protocolSet{}, protocolSet{}
	for transport := range out.read {
		if transport == netstat.TransportUnix {
			unix[transport] = true
		} else {
			ip[transport] = true
		}
	}
	m.emitFamily(out, &h.families[netstat.FamilyIPv4], ip, map[string]any{})
	m.emitFamily(out, &h.families[netstat.FamilyIPv6], ip, map[string]any{})
	m.emitFamily(out, &h.families[netstat.FamilyUnix], unix, map[string]any{})
}

func (m *hostMeasurement) emitFamily(out emission, s *series, read protocolSet, gauges map[string]any) {
	s.grow(&s.stats.delta)
	if read[netstat.TransportTCP] {
		gauges["tcp_none"] = s.stats.states[netstat.TCPUnknown]
	}
	out.read = read
	out.group(hostSchema.name, m.fields, s, gauges, map[string]any{})
	s.reset()
}

// sockstatFields returns the fields of procnetstat from /proc/net/sockstat and sockstat6.
func sockstatFields(namespace *netstat.Namespace) (map[string]any, error) {
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

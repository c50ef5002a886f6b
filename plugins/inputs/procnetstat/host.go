//go:build linux

package procnetstat

import (
	"cmp"
	"errors"
	"io/fs"
	"math"
	"slices"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

var hostSchema = measurementSchema{
	name: "procnetstat", option: measureHost, about: "All sockets of the host, or of each network namespace",
	tags: []tag{{"family", "`ipv4`, `ipv6` (dual-stack sockets included) or `unix`; only with `family_tag`"}},
	fields: append([]field{
		{name: "tcp_none", unit: unitSockets, about: "TCP sockets in a state without a field of its own"},
		hostField("sockets_used", unitSockets, "", "Sockets of all kinds"),
		hostField("tcp_orphan", unitSockets, "", "TCP sockets that no process holds; of all network namespaces"),
		hostField("tcp_alloc", unitSockets, "", "TCP sockets with memory, bound or not; of all network namespaces"),
		hostField("tcp_mem_bytes", unitBytes, "", "Memory of TCP buffers; of all network namespaces"),
		hostField("udp_mem_bytes", unitBytes, "", "Memory of UDP buffers; of all network namespaces"),
		hostField("local_ports_used", unitPorts, "owners, or another measurement than host and gather",
			"Most local ports that connections from one local address to one remote endpoint hold, in any state; compare with local_ports"),
		hostField("tcp_orphan_limit", unitSockets, needsFirstNetNS, "Limit of tcp_orphan: net.ipv4.tcp_max_orphans"),
		hostField("tcp_mem_limit_bytes", unitBytes, needsFirstNetNS, "Limit of tcp_mem_bytes: net.ipv4.tcp_mem"),
		hostField("tcp_time_wait_limit", unitSockets, needsEntering, "Limit of tcp_time_wait: net.ipv4.tcp_max_tw_buckets"),
		hostField("local_ports", unitPorts, needsEntering, "Ports that the kernel chooses from for a connection: those of "+
			"net.ipv4.ip_local_port_range that net.ipv4.ip_local_reserved_ports does not reserve"),
	}, counterFields()...),
}

// What the limits need. They are not of all namespaces: see netstat.Limits.
const (
	needsFirstNetNS = "a network namespace that is the host's first one"
	needsEntering   = "CAP_SYS_ADMIN for other network namespaces"
)

// hostCounter is a field that the kernel counts in each network namespace, as the sum of counters.
type hostCounter struct {
	field
	of func(*netstat.Counters) []*uint64
}

// hostCounters are at most maxHostCounters.
var hostCounters = []hostCounter{
	newHostCounter("tcp_listen_overflows", unitConnections, "Refused by a full accept queue",
		func(c *netstat.Counters) []*uint64 { return []*uint64{c.TCPListenOverflows} }),
	newHostCounter("tcp_listen_drops", unitConnections, "Dropped by a listening socket for any reason, a full accept queue included",
		func(c *netstat.Counters) []*uint64 { return []*uint64{c.TCPListenDrops} }),
	newHostCounter("tcp_attempt_fails", unitConnections, "Ended before they were established",
		func(c *netstat.Counters) []*uint64 { return []*uint64{c.TCPAttemptFails} }),
	newHostCounter("tcp_estab_resets", unitConnections, "Ended by a reset, of either side, when they were established",
		func(c *netstat.Counters) []*uint64 { return []*uint64{c.TCPEstabResets} }),
	newHostCounter("tcp_out_rsts", unitSegments, "Sent with RST",
		func(c *netstat.Counters) []*uint64 { return []*uint64{c.TCPOutRsts} }),
	newHostCounter("udp_no_ports", unitDatagrams, "Received for a port without a socket",
		func(c *netstat.Counters) []*uint64 { return []*uint64{c.UDPNoPorts, c.UDP6NoPorts} }),
	newHostCounter("udp_rcvbuf_errors", unitDatagrams, "Dropped as the receive buffer of a socket was full",
		func(c *netstat.Counters) []*uint64 { return []*uint64{c.UDPRcvbufErrors, c.UDP6RcvbufErrors} }),
	newHostCounter("udp_sndbuf_errors", unitDatagrams, "Not sent for lack of buffer memory",
		func(c *netstat.Counters) []*uint64 { return []*uint64{c.UDPSndbufErrors, c.UDP6SndbufErrors} }),
}

func newHostCounter(name, unit, about string, of func(*netstat.Counters) []*uint64) hostCounter {
	f := hostField(name, unit, "", about+"; the kernel's count for the network namespace")
	f.isCounter = true
	return hostCounter{f, of}
}

func counterFields() (fields []field) {
	for _, counter := range hostCounters {
		fields = append(fields, counter.field)
	}
	return fields
}

const (
	maxHostCounters = 8
	maxSummands     = 2 // IPv4 and IPv6
)

// hostCounts are increases of the hostCounters.
type hostCounts [maxHostCounters]int64

// hostBaseline has what the kernel had counted in a network namespace at the previous gather.
type hostBaseline struct {
	counted  [maxHostCounters][maxSummands]*uint64 // nil: not known
	inode    uint64                                // of the namespace; 0: not known
	isMissed bool                                  // some gather has not read it; another namespace can have its inode number now
}

var zero uint64

// newHostBaseline returns the baseline of a namespace in its first gather. A namespace that is new itself has counted from 0.
func newHostBaseline(isNew bool) *hostBaseline {
	b := &hostBaseline{}
	if isNew {
		b.reset()
	}
	return b
}

func (b *hostBaseline) reset() {
	for i := range b.counted {
		b.counted[i] = [maxSummands]*uint64{&zero, &zero}
	}
}

// exceeds reports whether the namespace had counted more than the counters.
func (b *hostBaseline) exceeds(read *netstat.Counters) bool {
	for i := range hostCounters {
		for j, now := range hostCounters[i].of(read) {
			if before := b.counted[i][j]; now != nil && before != nil && *now < *before {
				return true
			}
		}
	}
	return false
}

// advance returns the increase since the previous gather, and which counters the kernel has.
func (b *hostBaseline) advance(counters *netstat.Counters) (delta hostCounts, present [maxHostCounters]bool) {
	if b.isMissed && b.exceeds(counters) {
		b.reset()
	}
	b.isMissed = false
	for i := range hostCounters {
		for j, now := range hostCounters[i].of(counters) {
			if now == nil || *now > math.MaxInt64 {
				continue
			}
			present[i] = true
			if before := b.counted[i][j]; before != nil && *now > *before {
				delta[i] += min(int64(*now-*before), math.MaxInt64-delta[i])
			}
			b.counted[i][j] = now
		}
	}
	return delta, present
}

func hostField(name, unit, needs, about string) field {
	return field{name: name, unit: unit, needs: needs, about: about + "; not with `family_tag`"}
}

// hostMeasurement is procnetstat: the sockets of the host, with the fields of Telegraf's inputs.netstat and more.
type hostMeasurement struct {
	byFamily bool
	netNS    bool // with the tag netns
	countNew bool // count what a namespace that appears after the first gather did before
	isOld    bool // there was a gather
	fields   []groupField
	totals   map[string]*hostTotals
	current  *hostTotals

	baselines map[uint64]*hostBaseline // of the namespaces of the previous gather, by Namespace.ID
	missed    map[uint64]*hostBaseline // of others, by inode number: a scan can miss a namespace, which then has another ID
}

// hostTotals are the totals of a network namespace.
type hostTotals struct {
	families    [netstat.FamilyUnix + 1]series // index 0: all families
	lastEmitted time.Time

	kernel counters[hostCounts]
	counts [maxHostCounters]bool // the counters that the kernel had in the last gather
}

const allFamilies = netstat.Family(0)

func newHostMeasurement(byFamily, countNew bool, options seriesOptions) *hostMeasurement {
	return &hostMeasurement{
		byFamily: byFamily, netNS: options.netNS, countNew: countNew, fields: hostSchema.groupFields(options.details),
		totals: map[string]*hostTotals{},
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
	previous := m.baselines
	m.baselines = make(map[uint64]*hostBaseline, len(out.scopes.all))
	for _, sc := range out.scopes.all {
		m.enter(sc)
		m.current.lastEmitted = out.now
		fields := map[string]any{}
		if !m.byFamily {
			var err error
			if fields, err = sockstatFields(sc.namespace); err != nil {
				out.acc.AddError(err)
			}
			addLimits(fields, sc.namespace.Limits())
			baseline := m.baselineOf(sc.namespace, previous)
			m.baselines[sc.namespace.ID] = baseline
			if err := m.current.readKernel(sc.namespace, baseline); err != nil {
				out.acc.AddError(err)
			}
			if sc.localPortsUsed >= 0 && sc.read[netstat.TransportTCP] {
				fields["local_ports_used"] = sc.localPortsUsed
			}
		}
		m.emitTotals(out.forScope(sc), m.current, fields)
	}
	for _, totals := range m.totals { // namespaces that ended after their first gather
		if totals.lastEmitted.Before(out.now) && totals.owes() {
			totals.lastEmitted = out.now
			m.emitTotals(out.forScope(totals.families[allFamilies].scope), totals, map[string]any{})
		}
	}
	m.keepMissed(previous)
	m.forget(out.now)
	m.isOld = true
}

// baselineOf returns the baseline of a namespace, which it takes out of previous and missed.
func (m *hostMeasurement) baselineOf(namespace *netstat.Namespace, previous map[uint64]*hostBaseline) *hostBaseline {
	baseline := previous[namespace.ID]
	if baseline == nil {
		baseline = m.missed[namespace.Inode]
	}
	if baseline == nil {
		baseline = newHostBaseline(m.countNew && m.isOld)
	}
	delete(previous, namespace.ID)
	delete(m.missed, namespace.Inode)
	baseline.inode = namespace.Inode
	return baseline
}

// keepMissed keeps the baselines of namespaces that this gather has not read. Their number is bounded.
func (m *hostMeasurement) keepMissed(unread map[uint64]*hostBaseline) {
	if len(m.missed) > maxIdleNetNS || m.missed == nil {
		m.missed = map[uint64]*hostBaseline{}
	}
	for _, baseline := range unread {
		if baseline.isMissed = true; baseline.inode != 0 {
			m.missed[baseline.inode] = baseline
		}
	}
}

// readKernel adds what the kernel has counted since the previous gather.
func (h *hostTotals) readKernel(namespace *netstat.Namespace, baseline *hostBaseline) error {
	read, err := namespace.ReadCounters()
	if errors.Is(err, fs.ErrNotExist) && read == (netstat.Counters{}) {
		return nil // the namespace has ended: what is pending must be emitted all the same
	}
	err = withoutMissing(err)
	delta, present := baseline.advance(&read)
	h.kernel.grow(delta)
	h.counts = present
	return err
}

// counterFields returns the counters of the kernel.
func (h *hostTotals) counterFields() map[string]any {
	h.kernel.owes = false
	fields := map[string]any{}
	for i := range hostCounters {
		if h.counts[i] {
			fields[hostCounters[i].name] = h.kernel.emit(i)
		}
	}
	return fields
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

// owes reports whether the totals must be emitted, even if the namespace has ended.
func (h *hostTotals) owes() bool {
	for i := range h.families {
		if h.families[i].owesCounters() {
			return true
		}
	}
	return h.kernel.owes
}

// emitTotals emits the totals of a namespace. fields are the gauges of no family.
func (m *hostMeasurement) emitTotals(out emission, h *hostTotals, fields map[string]any) {
	if !m.byFamily {
		m.emitFamily(out, &h.families[allFamilies], out.read, fields, h.counterFields())
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
	m.emitFamily(out, &h.families[netstat.FamilyIPv4], ip, map[string]any{}, map[string]any{})
	m.emitFamily(out, &h.families[netstat.FamilyIPv6], ip, map[string]any{}, map[string]any{})
	m.emitFamily(out, &h.families[netstat.FamilyUnix], unix, map[string]any{}, map[string]any{})
}

func (m *hostMeasurement) emitFamily(out emission, s *series, read protocolSet, gauges, counters map[string]any) {
	s.growCounters()
	if read[netstat.TransportTCP] {
		gauges["tcp_none"] = s.stats.states[netstat.TCPUnknown]
	}
	out.read = read
	out.group(hostSchema.name, m.fields, s, gauges, counters)
	s.reset()
}

// sockstatFields returns the fields of procnetstat from /proc/net/sockstat and sockstat6.
func sockstatFields(namespace *netstat.Namespace) (map[string]any, error) {
	s, err := namespace.ReadSockstat()
	err = withoutMissing(err)
	fields := map[string]any{}
	addKnown(fields, map[string]*uint64{
		"sockets_used": s.SocketsUsed, "tcp_orphan": s.TCPOrphan, "tcp_alloc": s.TCPAlloc,
		"tcp_mem_bytes": s.TCPMemBytes, "udp_mem_bytes": s.UDPMemBytes,
	})
	return fields, err
}

// addLimits adds the limits that are known.
func addLimits(fields map[string]any, l netstat.Limits) {
	addKnown(fields, map[string]*uint64{
		"tcp_orphan_limit": l.TCPOrphans, "tcp_mem_limit_bytes": l.TCPMemBytes,
		"tcp_time_wait_limit": l.TCPTimeWait, "local_ports": l.LocalPorts,
	})
}

// addKnown adds the values but those that are nil, or too large for a field: a copy of a proc file system can have any number.
func addKnown(fields map[string]any, values map[string]*uint64) {
	for name, value := range values {
		if value != nil && *value <= math.MaxInt64 {
			fields[name] = int64(*value)
		}
	}
}

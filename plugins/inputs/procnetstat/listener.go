//go:build linux

package procnetstat

import (
	"slices"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat"
)

var listenerSchema = measurementSchema{
	name: "procnetstat_listener", option: measureListener, about: "Listeners and the connections that they accepted",
	protocols: []netstat.Transport{netstat.TransportTCP, netstat.TransportUDP, netstat.TransportUnix},
	tags: []tag{
		{"protocol", "`tcp`; `udp`: bound sockets without a peer, a series for each port; `unix`: listening sockets, if `protocols` has `unix`"},
		{"local_address", "Address; of a unix socket its path"},
		{"local_port", "Port; not of unix sockets"},
		{"interface", "Network device that the listening socket is bound to, if any"},
		processNameTag,
	},
	without: withoutOutgoing,
	fields: []field{
		{name: "accept_queue", unit: unitConnections, needs: "netlink, for unix sockets", about: "Connections that wait to be accepted"},
		{name: "accept_queue_limit", unit: unitConnections, needs: needsNetlink, about: "The backlog"},
		{
			name: "accept_queue_used_percent", unit: "percent", needs: needsNetlink,
			about: "accept_queue of the fullest listening socket in percent of its limit. The kernel queues one connection more than " +
				"the limit: a full queue with a backlog of 5 shows 120",
		},
		{
			name: "drops", unit: unitConnections, isCounter: true, needs: needsNetlink + ", TCP",
			about: "Dropped connection attempts, mostly because the accept queue was full",
		},
	},
}

// listenerMeasurement is procnetstat_listener: listeners by protocol, address, port and process. Connections count for the
// processes that hold them; queues and drops for those that hold the listening socket.
type listenerMeasurement struct {
	withOwners bool
	series     *seriesSet
}

// acceptQueue sums the accept queues of a group of listening sockets, in connections.
type acceptQueue struct {
	waiting, limit int64
	usedPercent    int64 // of the fullest
	has            netstat.Field
}

func (a *acceptQueue) add(s *netstat.Socket) {
	a.waiting += int64(s.AcceptQueue)
	a.limit += int64(s.AcceptQueueLimit)
	// A queue without a limit (listen(fd, 0)) holds one connection.
	a.usedPercent = max(a.usedPercent, 100*int64(s.AcceptQueue)/max(int64(s.AcceptQueueLimit), 1))
	a.has |= s.Having(netstat.FieldAcceptQueue | netstat.FieldAcceptQueueLimit | netstat.FieldDrops)
}

func (a *acceptQueue) merge(o *acceptQueue) {
	a.waiting += o.waiting
	a.limit += o.limit
	a.usedPercent = max(a.usedPercent, o.usedPercent)
	a.has |= o.has
}

// gauges adds the gauges of the queues to fields. A series without a listening socket has none.
func (a *acceptQueue) gauges(fields map[string]any) {
	if a.has&netstat.FieldAcceptQueue != 0 {
		fields["accept_queue"] = a.waiting
	}
	if a.has&netstat.FieldAcceptQueueLimit != 0 { // not in procfs
		fields["accept_queue_limit"] = a.limit
		fields["accept_queue_used_percent"] = a.usedPercent
	}
}

// listenerTagNames are the tags but for the process name.
var listenerTagNames = []string{"protocol", "local_address", "local_port", "interface"}

func newListenerMeasurement(withOwners bool, options seriesOptions) *listenerMeasurement {
	tagNames, others := slices.Clone(listenerTagNames), []string{other, other, other, ""}
	if withOwners {
		tagNames, others = append(tagNames, tagProcessName), append(others, other)
	}
	return &listenerMeasurement{
		withOwners: withOwners,
		series:     newSeriesSet(&listenerSchema, tagNames, others, options),
	}
}

func (m *listenerMeasurement) enter(sc *scope) { m.series.scope = sc }

func (m *listenerMeasurement) observe(o *observation) {
	switch {
	case o.Transport == netstat.TransportUnix:
		if o.State != netstat.TCPListen {
			return
		}
	case o.listener == nil:
		return
	}
	isListening := o.State == netstat.TCPListen
	add := func(s *series) {
		s.count(o)
		if isListening && s.acceptCounted != o.number {
			s.acceptCounted = o.number
			s.accept.add(o.Socket)
		}
	}
	if !m.withOwners || len(o.owners) == 0 {
		add(m.seriesOf(o, nil))
		return
	}
	for _, w := range o.owners {
		add(m.seriesOf(o, w))
	}
}

// listenerSeries caches the series of a listener.
type listenerSeries struct {
	netNS  string // the tag
	device string // the name
	all    []*series
	names  []string // process names, of all
}

// seriesOf returns the series of the listener for a process; nil: none is known.
func (m *listenerMeasurement) seriesOf(o *observation, w *owner) *series {
	name := ""
	switch {
	case !m.withOwners:
	case w == nil:
		name = unattributed
	default:
		name = w.name
	}
	if o.Transport == netstat.TransportUnix {
		return m.series.get(m.values(netstat.TransportUnix.String(), tagValue(o.Path), "", "", name))
	}
	l := o.listener
	cache := &l.series
	netNS, device := m.series.scope.tag, m.series.scope.device(l.device)
	if cache.netNS != netNS || cache.device != device { // the device can be renamed
		*cache = listenerSeries{netNS: netNS, device: device}
	}
	for i, s := range cache.all {
		if cache.names[i] == name && !s.isRemoved {
			s.scope = m.series.scope
			return s
		}
	}
	s := m.series.get(m.values(l.transport.String(), addressValue(l.addr), strconv.Itoa(int(l.port)), device, name))
	const maxCached = 64 // processes with names of their own, one a connection, must not fill the memory
	if len(cache.all) == maxCached {
		*cache = listenerSeries{netNS: netNS, device: device}
	}
	cache.all, cache.names = append(cache.all, s), append(cache.names, name)
	return s
}

// values returns the tag values of a series.
func (m *listenerMeasurement) values(protocol, address, port, device, name string) []string {
	values := []string{protocol, address, port, device}
	if m.withOwners {
		values = append(values, name)
	}
	return values
}

func (m *listenerMeasurement) emit(out emission) {
	m.series.emit(out.now, func(s *series) {
		e := out.forScope(s.scope)
		e.read = e.read.onlyProtocol(s.tags["protocol"])
		if len(e.read) == 0 {
			return
		}
		gauges, counters := map[string]any{}, map[string]any{}
		s.accept.gauges(gauges)
		s.hadDrops = s.hadDrops || s.accept.has&netstat.FieldDrops != 0 || s == m.series.other && out.scopes.areFromNetlink(netstat.TransportTCP)
		if s.hadDrops { // not in procfs
			counters["drops"] = s.emit(countListenDrops)
		}
		m.series.group(e, s, gauges, counters)
	})
}

func (m *listenerMeasurement) folded() int { return m.series.folded }

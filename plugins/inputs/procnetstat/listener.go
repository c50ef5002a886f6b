//go:build linux

package procnetstat

import (
	"slices"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat"
)

// listenerMeasurement is procnetstat_listener: the listening TCP sockets by address, port and process, and their incoming
// connections.
type listenerMeasurement struct {
	withOwners bool
	series     *seriesSet
}

// acceptQueue sums the accept queues of a group of listening sockets, in connections.
type acceptQueue struct {
	waiting, limit     int64
	hasLimit, hasDrops bool // procfs has neither
}

func (a *acceptQueue) add(s *netstat.Socket) {
	a.waiting += int64(s.AcceptQueue)
	a.limit += int64(s.AcceptQueueLimit)
	a.hasLimit = a.hasLimit || s.Has(netstat.FieldAcceptQueueLimit)
	a.hasDrops = a.hasDrops || s.Has(netstat.FieldDrops)
}

func (a *acceptQueue) merge(o *acceptQueue) {
	a.waiting += o.waiting
	a.limit += o.limit
	a.hasLimit = a.hasLimit || o.hasLimit
	a.hasDrops = a.hasDrops || o.hasDrops
}

// listenerProtocols are the protocols that have listeners; the fields of others would always be zero.
var listenerProtocols = protocolSet{netstat.TransportTCP: true}

func newListenerMeasurement(withOwners bool, options seriesOptions) *listenerMeasurement {
	tagNames := []string{"protocol", "local_address", "local_port"}
	others := []string{netstat.TransportTCP.String(), other, other}
	if withOwners {
		tagNames, others = append(tagNames, tagProcessName), append(others, other)
	}
	return &listenerMeasurement{
		withOwners: withOwners,
		series:     newSeriesSet("procnetstat_listener", tagNames, others, options),
	}
}

func (m *listenerMeasurement) enter(sc *scope) { m.series.scope = sc }

func (m *listenerMeasurement) observe(o *observation) {
	if o.listener == nil {
		return
	}
	if o.State == netstat.TCPListen {
		for _, s := range m.seriesOf(o.listener, o.owners) {
			s.count(o)
			s.accept.add(o.Socket)
		}
		return
	}
	if l := o.listener; l.ended && l.series == nil {
		wanted := slices.DeleteFunc(slices.Clone(l.owners), func(w *owner) bool { return !w.wanted })
		for _, s := range m.seriesOf(l, wanted) {
			s.accept.hasLimit, s.accept.hasDrops = true, true
		}
	}
	for _, s := range o.listener.series {
		s.count(o)
	}
}

// seriesOf returns the series that a listening socket is counted in: one for each distinct name of its owners.
func (m *listenerMeasurement) seriesOf(l *listener, owners []*owner) []*series {
	endpoint := []string{netstat.TransportTCP.String(), l.addr.String(), strconv.Itoa(int(l.port))}
	var all []*series
	add := func(values []string) {
		if s := m.series.get(values); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	switch {
	case !m.withOwners:
		add(endpoint)
	case len(owners) == 0:
		add(append(endpoint, unattributed))
	default:
		for _, w := range owners {
			add(append(slices.Clip(endpoint), w.name))
		}
	}
	for _, s := range all {
		if !slices.Contains(l.series, s) {
			l.series = append(l.series, s)
		}
	}
	return all
}

func (m *listenerMeasurement) emit(out emission) {
	m.series.emit(out.now, func(s *series) {
		e := out.forScope(s.scope)
		if !e.read[netstat.TransportTCP] {
			return
		}
		gauges, counters := map[string]any{"accept_queue": s.accept.waiting}, map[string]any{}
		if s.accept.hasLimit {
			gauges["accept_queue_limit"] = s.accept.limit
		}
		if s.accept.hasDrops {
			counters["drops"] = s.total.listenDrops
		}
		e.read = listenerProtocols
		e.group(m.series.measurement, s, gauges, counters)
	})
}

func (m *listenerMeasurement) folded() int { return m.series.folded }

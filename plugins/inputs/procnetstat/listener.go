//go:build linux

package procnetstat

import (
	"slices"
	"strconv"
	"time"

	"github.com/procnetstat/procnetstat/netstat"
)

// listenerMeasurement is procnetstat_listener: the listening TCP sockets by address, port and process, and the
// connections that came in through them.
type listenerMeasurement struct {
	withOwners bool
	series     *seriesSet
	byListener map[*listener][]*series
	drops      dropCounter
}

// acceptQueue is what is known of the accept queues of a group of listening sockets, in connections.
type acceptQueue struct {
	waiting, limit     int64
	dropped            int64 // in this pass
	drops              int64 // since the plugin started
	hasLimit, hasDrops bool  // procfs gives neither
}

func (a *acceptQueue) add(s *netstat.Socket, dropped int64) {
	a.waiting += int64(s.AcceptQueue)
	a.limit += int64(s.AcceptQueueLimit)
	a.dropped += dropped
	a.hasLimit = a.hasLimit || s.Has(netstat.FieldAcceptQueueLimit)
	a.hasDrops = a.hasDrops || s.Has(netstat.FieldDrops)
}

func (a *acceptQueue) merge(o *acceptQueue) {
	a.waiting += o.waiting
	a.limit += o.limit
	a.dropped += o.dropped
	a.hasLimit = a.hasLimit || o.hasLimit
	a.hasDrops = a.hasDrops || o.hasDrops
}

// listenerProtocols are those that have listeners: the fields of others would always be zero.
var listenerProtocols = protocolSet{netstat.TransportTCP: true}

func newListenerMeasurement(withOwners bool, limit seriesLimit) *listenerMeasurement {
	tagNames := []string{"protocol", "local_address", "local_port"}
	others := []string{netstat.TransportTCP.String(), other, other}
	if withOwners {
		tagNames, others = append(tagNames, tagProcessName), append(others, other)
	}
	return &listenerMeasurement{
		withOwners: withOwners,
		series:     newSeriesSet("procnetstat_listener", tagNames, others, limit),
		byListener: map[*listener][]*series{},
	}
}

func (m *listenerMeasurement) observe(o *observation) {
	if o.listener == nil {
		return
	}
	if o.State != netstat.TCPListen {
		for _, s := range m.byListener[o.listener] {
			s.stats.add(o.Socket)
		}
		return
	}
	dropped := m.drops.since(o.Socket)
	for _, s := range m.seriesOf(o) {
		s.stats.add(o.Socket)
		s.accept.add(o.Socket, dropped)
	}
}

// seriesOf returns the series that the listening socket counts in: one for each name of its owners.
func (m *listenerMeasurement) seriesOf(o *observation) []*series {
	l := o.listener
	endpoint := []string{o.Transport.String(), l.addr.String(), strconv.Itoa(int(l.port))}
	var all []*series
	add := func(values []string) {
		if s := m.series.get(values); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	switch {
	case !m.withOwners:
		add(endpoint)
	case len(o.owners) == 0:
		add(append(endpoint, unattributed))
	default:
		for _, owner := range o.owners {
			add(append(slices.Clip(endpoint), tagValue(owner.Name)))
		}
	}
	for _, s := range all {
		if !slices.Contains(m.byListener[l], s) {
			m.byListener[l] = append(m.byListener[l], s)
		}
	}
	return all
}

func (m *listenerMeasurement) emit(to emission) {
	m.series.emit(to.now, func(s *series) {
		if !to.read[netstat.TransportTCP] {
			return
		}
		fields := map[string]any{"accept_queue": s.accept.waiting}
		if s.accept.hasLimit {
			fields["accept_queue_limit"] = s.accept.limit
		}
		s.stats.fields(listenerProtocols, fields)
		to.gauges(m.series.measurement, fields, s.tags)
		s.accept.drops += s.accept.dropped
		if s.accept.hasDrops {
			to.counters(m.series.measurement, map[string]any{"drops": s.accept.drops}, s.tags)
		}
	})
	m.drops.end(to.now)
	clear(m.byListener)
}

func (m *listenerMeasurement) folded() int { return m.series.folded }

// dropCounter makes increments of the numbers that the kernel keeps for each socket since it was made.
type dropCounter struct {
	started bool
	pass    []uint64 // cookies seen
	known   map[uint64]lastDrops
}

type lastDrops struct {
	drops uint32
	seen  time.Time
}

// since returns how many packets the socket has dropped since the pass before: all, if it was made since; none, if this
// is the first pass, as what was before the plugin started is not its to count.
func (c *dropCounter) since(s *netstat.Socket) int64 {
	if !s.Has(netstat.FieldDrops | netstat.FieldCookie) {
		return 0
	}
	last, known := c.known[s.Cookie]
	c.pass = append(c.pass, s.Cookie)
	if c.known == nil {
		c.known = map[uint64]lastDrops{}
	}
	c.known[s.Cookie] = lastDrops{drops: s.Drops}
	if !known && !c.started {
		return 0
	}
	return int64(s.Drops - last.drops) // the kernel's number wraps at 2^32, and so does the difference
}

// end ends a pass. Sockets that are gone are remembered for a while, since a pass that failed in part has not seen all.
func (c *dropCounter) end(now time.Time) {
	c.started = true
	for _, cookie := range c.pass {
		last := c.known[cookie]
		last.seen = now
		c.known[cookie] = last
	}
	c.pass = c.pass[:0]
	for cookie, last := range c.known {
		if now.Sub(last.seen) > counterMemory {
			delete(c.known, cookie)
		}
	}
}

//go:build linux

package procnetstat

import (
	"net/netip"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat"
)

// remoteMeasurement is procnetstat_remote: the connections that went out, by process and remote endpoint.
type remoteMeasurement struct {
	withOwners         bool
	prefixV4, prefixV6 int
	series             *seriesSet
	found              map[remote]*series // of this pass, so that no tag value is made for a socket
}

type remote struct {
	transport   netstat.Transport
	network     netip.Prefix
	port        uint16
	processName string
}

func newRemoteMeasurement(withOwners bool, prefixV4, prefixV6 int, limit seriesLimit) *remoteMeasurement {
	tagNames := []string{"protocol", "remote_address", "remote_port"}
	if withOwners {
		tagNames = append(tagNames, tagProcessName)
	}
	return &remoteMeasurement{
		withOwners: withOwners, prefixV4: prefixV4, prefixV6: prefixV6,
		series: newSeriesSet("procnetstat_remote", tagNames, repeat(other, len(tagNames)), limit),
		found:  map[remote]*series{},
	}
}

func (m *remoteMeasurement) observe(o *observation) {
	if !wentOut(o) {
		return
	}
	r := remote{transport: o.Transport, network: m.network(o.Remote.Addr().Unmap()), port: o.Remote.Port()}
	switch {
	case !m.withOwners:
		m.seriesOf(r).count(o)
	case len(o.owners) == 0:
		r.processName = unattributed
		m.seriesOf(r).count(o)
	default:
		for _, w := range o.owners {
			r.processName = w.name
			m.seriesOf(r).count(o)
		}
	}
}

// wentOut tells whether the socket is one end of an outgoing connection: TCP to a peer from a port that nobody listens at,
// or connected UDP.
func wentOut(o *observation) bool {
	if o.Transport == netstat.TransportTCP {
		return o.listener == nil && o.HasPeer()
	}
	return hasPeers(o.Transport) && o.State == netstat.TCPEstablished && o.HasPeer()
}

// network returns the network that stands for the peer: of the peer alone, if all bits of its address are told apart.
func (m *remoteMeasurement) network(peer netip.Addr) netip.Prefix {
	bits := m.prefixV6
	if peer.Is4() {
		bits = m.prefixV4
	}
	return netip.PrefixFrom(peer, bits).Masked()
}

func (m *remoteMeasurement) seriesOf(r remote) *series {
	s := m.found[r]
	if s == nil {
		values := []string{r.transport.String(), showNetwork(r.network), strconv.Itoa(int(r.port))}
		if m.withOwners {
			values = append(values, r.processName)
		}
		s = m.series.get(values)
		m.found[r] = s
	}
	return s
}

func showNetwork(network netip.Prefix) string {
	if network.IsSingleIP() {
		return network.Addr().String()
	}
	return network.String()
}

func (m *remoteMeasurement) emit(to emission) {
	m.series.emit(to.now, func(s *series) {
		of := to
		of.read = protocolSet{}
		for transport := range to.read { // those of other protocols would always be zero
			if name := s.tags["protocol"]; name == transport.String() || name == other && hasPeers(transport) {
				of.read[transport] = true
			}
		}
		if len(of.read) > 0 {
			of.group(m.series.measurement, s, map[string]any{}, map[string]any{})
		}
	})
	clear(m.found)
}

// hasPeers tells whether the measurement is about the transport.
func hasPeers(transport netstat.Transport) bool {
	return transport == netstat.TransportTCP || transport == netstat.TransportUDP || transport == netstat.TransportUDPLite
}

func (m *remoteMeasurement) folded() int { return m.series.folded }

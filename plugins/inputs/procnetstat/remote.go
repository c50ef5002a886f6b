//go:build linux

package procnetstat

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat"
)

// remoteMeasurement is procnetstat_remote: outgoing connections by process and remote endpoint.
type remoteMeasurement struct {
	withOwners         bool
	prefixV4, prefixV6 int
	series             *seriesSet
	byKey              map[remoteKey]*series // of this scope: avoids building tag values for every socket
}

// remoteKey is a remote endpoint and the owner of a connection to it. It has no padding and only fields that compare as memory,
// so that the map hashes it in one piece.
type remoteKey struct {
	network         [2]uint64 // the address, masked to the prefix length
	owner           *owner    // nil: none
	transport, port uint16
	is4             uint32
}

func newRemoteMeasurement(withOwners bool, prefixV4, prefixV6 int, options seriesOptions) *remoteMeasurement {
	tagNames := []string{"protocol", "remote_address", "remote_port"}
	if withOwners {
		tagNames = append(tagNames, tagProcessName)
	}
	return &remoteMeasurement{
		withOwners: withOwners, prefixV4: prefixV4, prefixV6: prefixV6,
		series: newSeriesSet("procnetstat_remote", tagNames, repeatTagValue(other, len(tagNames)), options),
		byKey:  map[remoteKey]*series{},
	}
}

func (m *remoteMeasurement) enter(sc *scope) {
	m.series.scope = sc
	clear(m.byKey)
}

func (m *remoteMeasurement) observe(o *observation) {
	if !isOutgoing(o) {
		return
	}
	key := m.keyOf(o)
	if !m.withOwners || len(o.owners) == 0 {
		m.seriesOf(key, o).count(o)
		return
	}
	for _, key.owner = range o.owners {
		w := key.owner
		if w.remoteSeries == nil || w.remoteKey != key {
			w.remoteKey, w.remoteSeries = key, m.seriesOf(key, o)
		}
		w.remoteSeries.count(o)
	}
}

func (m *remoteMeasurement) keyOf(o *observation) remoteKey {
	peer := o.Remote.Addr()
	b := peer.As16()
	key := remoteKey{
		network:   [2]uint64{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])},
		transport: uint16(o.Transport), port: o.Remote.Port(),
	}
	bits := m.prefixV6
	if peer.Is4() || peer.Is4In6() {
		bits, key.is4 = 96+m.prefixV4, 1
	}
	key.network[0] &= ^uint64(0) << max(64-bits, 0)
	key.network[1] &= ^uint64(0) << min(128-bits, 64)
	return key
}

// isOutgoing reports whether the socket is an outgoing connection: TCP with a peer and without a listener on its local port, or
// connected UDP.
func isOutgoing(o *observation) bool {
	if o.Transport == netstat.TransportTCP {
		return o.listener == nil && o.HasPeer()
	}
	return isRemoteTransport(o.Transport) && o.State == netstat.TCPEstablished && o.HasPeer()
}

// network returns the network of the peer in the configured prefix length.
func (m *remoteMeasurement) network(peer netip.Addr) netip.Prefix {
	bits := m.prefixV6
	if peer.Is4() {
		bits = m.prefixV4
	}
	return netip.PrefixFrom(peer, bits).Masked()
}

func (m *remoteMeasurement) seriesOf(key remoteKey, o *observation) *series {
	s := m.byKey[key]
	if s == nil {
		network := m.network(o.Remote.Addr().Unmap())
		values := []string{o.Transport.String(), formatNetwork(network), strconv.Itoa(int(o.Remote.Port()))}
		switch {
		case !m.withOwners:
		case key.owner == nil:
			values = append(values, unattributed)
		default:
			values = append(values, key.owner.name)
		}
		s = m.series.get(values)
		m.byKey[key] = s
	}
	return s
}

func formatNetwork(network netip.Prefix) string {
	if network.IsSingleIP() {
		return network.Addr().String()
	}
	return network.String()
}

func (m *remoteMeasurement) emit(out emission) {
	m.series.emit(out.now, func(s *series) {
		e := out.forScope(s.scope)
		read := e.read
		e.read = protocolSet{}
		for transport := range read { // the fields of other protocols would always be zero
			if name := s.tags["protocol"]; name == transport.String() || name == other && isRemoteTransport(transport) {
				e.read[transport] = true
			}
		}
		if len(e.read) > 0 {
			e.group(m.series.measurement, s, map[string]any{}, map[string]any{})
		}
	})
}

// isRemoteTransport reports whether the measurement covers the transport.
func isRemoteTransport(transport netstat.Transport) bool {
	return transport == netstat.TransportTCP || transport == netstat.TransportUDP || transport == netstat.TransportUDPLite
}

func (m *remoteMeasurement) folded() int { return m.series.folded }

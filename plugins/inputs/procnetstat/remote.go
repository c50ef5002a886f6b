//go:build linux

package procnetstat

import (
	"net/netip"

	"github.com/procnetstat/procnetstat/netstat"
)

// remoteMeasurement is procnetstat_remote: outgoing connections by process and remote endpoint.
type remoteMeasurement struct {
	peers
	// processAt returns the name of the process that listens at the remote end, or an empty string.
	processAt func(namespace uint64, transport netstat.Transport, remote netip.AddrPort) string
}

// tagRemoteProcessName is the tag of the process at the other end.
const tagRemoteProcessName = "remote_process_name"

func newRemoteMeasurement(
	withOwners bool, prefixV4, prefixV6 int, processAt func(uint64, netstat.Transport, netip.AddrPort) string, options seriesOptions,
) *remoteMeasurement {
	tagNames := []string{"protocol", "remote_address", "remote_port"}
	return &remoteMeasurement{newPeers("procnetstat_remote", tagNames, withOwners, prefixV4, prefixV6, options), processAt}
}

func (m *remoteMeasurement) observe(o *observation) {
	if isOutgoing(o) {
		m.count(o, o.Remote.Port(), func(w *owner) *cachedPeer { return &w.remote })
	}
}

// isOutgoing reports whether the socket is an outgoing connection: TCP with a peer that no listener accepted, or connected UDP.
func isOutgoing(o *observation) bool {
	if o.Transport == netstat.TransportTCP {
		return o.listener == nil && o.HasPeer()
	}
	return isRemoteTransport(o.Transport) && o.State == netstat.TCPEstablished && o.HasPeer()
}

// isRemoteTransport reports whether the measurement covers the transport.
func isRemoteTransport(transport netstat.Transport) bool {
	return transport == netstat.TransportTCP || transport == netstat.TransportUDP || transport == netstat.TransportUDPLite
}

func (m *remoteMeasurement) emit(out emission) {
	for _, s := range m.series.byKey {
		if s.isActive() {
			m.setRemoteProcess(s)
		}
	}
	m.peers.emit(out, isRemoteTransport)
}

// setRemoteProcess sets the tag of the process at the other end. A series keeps it while no process is known to listen there. With
// another one it is another series, with counters of its own.
func (m *remoteMeasurement) setRemoteProcess(s *series) {
	if !s.peer.IsValid() {
		return
	}
	name := m.processAt(s.scope.namespace.ID, s.transport, s.peer)
	if name == "" || name == s.remoteProcess {
		return
	}
	s.remoteProcess, s.total = name, traffic{}
	m.series.tags(s)[tagRemoteProcessName] = name
}

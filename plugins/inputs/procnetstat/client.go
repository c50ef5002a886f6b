//go:build linux

package procnetstat

import "github.com/procnetstat/procnetstat/netstat"

// clientMeasurement is procnetstat_client: incoming connections by listening port, process and network of the client.
type clientMeasurement struct{ peers }

func newClientMeasurement(withOwners bool, prefixV4, prefixV6 int, options seriesOptions) *clientMeasurement {
	tagNames := []string{"protocol", "client_address", "local_port"}
	return &clientMeasurement{newPeers("procnetstat_client", tagNames, withOwners, prefixV4, prefixV6, options, "tcp_listen", "tcp_syn_sent")}
}

func (m *clientMeasurement) observe(o *observation) {
	if o.listener != nil && isConnection(o.Socket) {
		m.count(o, o.listener.port, func(w *owner) *cachedPeer { return &w.client })
	}
}

func (m *clientMeasurement) emit(out emission) {
	m.peers.emit(out, func(transport netstat.Transport) bool { return transport == netstat.TransportTCP })
}

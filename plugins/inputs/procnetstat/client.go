//go:build linux

package procnetstat

import (
	"slices"

	"github.com/procnetstat/procnetstat/netstat"
)

var clientSchema = measurementSchema{
	name: "procnetstat_client", option: measureClient, about: "Incoming connections by client",
	protocols: []netstat.Transport{netstat.TransportTCP},
	tags: []tag{
		{"protocol", "`tcp`"},
		{"client_address", "Network of `client_prefix_v4` or `client_prefix_v6` bits"},
		{"local_port", "Port of the listener"},
		processNameTag,
	},
	without: slices.Concat(withoutListening, withoutOutgoing),
}

// clientMeasurement is procnetstat_client: incoming connections by listening port, process and network of the client.
type clientMeasurement struct{ peers }

func newClientMeasurement(withOwners bool, prefixV4, prefixV6 int, options seriesOptions) *clientMeasurement {
	tagNames := []string{"protocol", "client_address", "local_port"}
	return &clientMeasurement{newPeers(&clientSchema, tagNames, withOwners, prefixV4, prefixV6, options)}
}

func (m *clientMeasurement) observe(o *observation) {
	if o.listener != nil && isConnection(o.Socket) {
		m.count(o, o.listener.port, func(w *owner) *cachedPeer { return &w.client })
	}
}

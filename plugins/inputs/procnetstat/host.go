//go:build linux

package procnetstat

import (
	"github.com/procnetstat/procnetstat/netstat"
)

// hostMeasurement is procnetstat: the sockets of the host. Its fields are those of Telegraf's inputs.netstat and more.
type hostMeasurement struct {
	byFamily bool
	stats    [netstat.FamilyUnix + 1]stats
}

func (m *hostMeasurement) observe(o *observation) { m.stats[o.Family].add(o.Socket) }

func (m *hostMeasurement) emit(to emission) {
	if m.byFamily {
		m.emitFamilies(to)
	} else {
		var all stats
		for family := range m.stats {
			all.merge(&m.stats[family])
		}
		emitHost(to, &all, to.read, nil)
	}
	m.stats = [len(m.stats)]stats{}
}

// emitFamilies emits a series for each family that is read, with the fields of the protocols that it has.
func (m *hostMeasurement) emitFamilies(to emission) {
	ip, unix := protocolSet{}, protocolSet{}
	for transport := range to.read {
		if transport == netstat.TransportUnix {
			unix[transport] = true
		} else {
			ip[transport] = true
		}
	}
	for family, read := range map[netstat.Family]protocolSet{
		netstat.FamilyIPv4: ip, netstat.FamilyIPv6: ip, netstat.FamilyUnix: unix,
	} {
		emitHost(to, &m.stats[family], read, map[string]string{"family": family.String()})
	}
}

func emitHost(to emission, st *stats, read protocolSet, tags map[string]string) {
	fields := map[string]any{}
	st.fields(read, fields)
	if read[netstat.TransportTCP] {
		fields["tcp_none"] = st.states[netstat.TCPUnknown]
	}
	to.gauges("procnetstat", fields, tags)
}

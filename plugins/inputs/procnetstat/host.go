//go:build linux

package procnetstat

import (
	"github.com/procnetstat/procnetstat/netstat"
)

// hostMeasurement is procnetstat: the sockets of the host. Its fields are those of Telegraf's inputs.netstat and more.
type hostMeasurement struct {
	byFamily bool
	families [netstat.FamilyUnix + 1]series // the first is of all families
	sockstat func() (map[string]any, error)
}

const allFamilies = netstat.Family(0)

func newHostMeasurement(byFamily bool, sockstat func() (map[string]any, error)) *hostMeasurement {
	m := &hostMeasurement{byFamily: byFamily, sockstat: sockstat}
	for family := netstat.FamilyIPv4; byFamily && family <= netstat.FamilyUnix; family++ {
		m.families[family].tags = map[string]string{"family": family.String()}
	}
	return m
}

func (m *hostMeasurement) observe(o *observation) {
	family := allFamilies
	if m.byFamily {
		family = o.Family
	}
	m.families[family].count(o)
}

func (m *hostMeasurement) emit(to emission) {
	if !m.byFamily {
		fields, err := m.sockstat()
		if err != nil {
			to.acc.AddError(err)
		}
		m.emitFamily(to, allFamilies, to.read, fields)
		return
	}
	ip, unix := protocolSet{}, protocolSet{}
	for transport := range to.read {
		if transport == netstat.TransportUnix {
			unix[transport] = true
		} else {
			ip[transport] = true
		}
	}
	m.emitFamily(to, netstat.FamilyIPv4, ip, map[string]any{})
	m.emitFamily(to, netstat.FamilyIPv6, ip, map[string]any{})
	m.emitFamily(to, netstat.FamilyUnix, unix, map[string]any{})
}

func (m *hostMeasurement) emitFamily(to emission, family netstat.Family, read protocolSet, gauges map[string]any) {
	s := &m.families[family]
	s.total.add(&s.stats.did)
	if read[netstat.TransportTCP] {
		gauges["tcp_none"] = s.stats.states[netstat.TCPUnknown]
	}
	to.read = read
	to.group("procnetstat", s, gauges, map[string]any{})
	s.reset()
}

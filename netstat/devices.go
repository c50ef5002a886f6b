package netstat

import (
	"net/netip"
	"strconv"
)

// devices names the network devices of a namespace. A scan looks up those that it needs, each once: devices are renamed, and their
// indexes reused.
type devices struct {
	sockets *netlinkSockets // of the namespace
	byIndex map[uint32]*device
	scan    uint64
	buf     []byte
}

type device struct {
	name  string     // empty: unknown
	zone  netip.Addr // has the zone: package unique frees a zone that no address has, and allocates it again
	asked uint64     // the last scan that looked it up
}

// nextScan starts a scan, and forgets the devices that the last one did not need.
func (d *devices) nextScan() {
	if d == nil {
		return
	}
	for index, known := range d.byIndex {
		if known.asked != d.scan {
			delete(d.byIndex, index)
		}
	}
	d.scan++
}

// find returns the device with the index. If the device has gone or the namespace has ended, it has its last known name: sockets
// remain bound to it.
func (d *devices) find(index uint32) *device {
	known := d.byIndex[index]
	if known != nil && known.asked == d.scan {
		return known
	}
	if known == nil {
		known = &device{zone: netip.IPv6LinkLocalAllNodes().WithZone(strconv.FormatUint(uint64(index), 10))}
		if d.byIndex == nil {
			d.byIndex = map[uint32]*device{}
		}
		d.byIndex[index] = known
	}
	known.asked = d.scan
	if d.sockets.diag == nil {
		return known
	}
	name, err := d.sockets.diag.AppendDeviceName(d.buf[:0], index)
	d.buf = name[:0]
	if err == nil && len(name) > 0 && known.name != string(name) {
		known.name = string(name)
		known.zone = known.zone.WithZone(known.name)
	}
	return known
}

// addZones adds the zone to the link-local addresses of a socket: the name of its device, or the index if the name is unknown.
func (d *devices) addZones(s *Socket) {
	if s.Interface == 0 || s.Family != FamilyIPv6 || d == nil {
		return
	}
	s.Local, s.Remote = d.withZone(s.Local, s.Interface), d.withZone(s.Remote, s.Interface)
}

func (d *devices) withZone(a netip.AddrPort, index uint32) netip.AddrPort {
	addr := a.Addr()
	if addr.Is4In6() || !addr.IsLinkLocalUnicast() {
		return a
	}
	return netip.AddrPortFrom(addr.WithZone(d.find(index).zone.Zone()), a.Port())
}

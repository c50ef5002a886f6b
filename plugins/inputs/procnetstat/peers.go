//go:build linux

package procnetstat

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// peers are the series of a measurement by peer, port and process.
type peers struct {
	withOwners         bool
	prefixV4, prefixV6 int
	series             *seriesSet
	byKey              map[peerKey]*series // of this scope: avoids building tag values for every socket
}

// peerKey identifies a series within a scope. It has no padding and only fields that compare as memory, so that the map hashes it
// in one piece.
type peerKey struct {
	network   [2]uint64 // the address of the peer, masked to the prefix length
	owner     *owner    // nil: none
	transport uint8
	is4       uint8
	port      uint16
	device    uint32 // the zone of a link-local address
}

// cachedPeer is the last series of an owner.
type cachedPeer struct {
	key    peerKey
	series *series // nil: none yet
}

func newPeers(m *measurementSchema, tagNames []string, withOwners bool, prefixV4, prefixV6 int, options seriesOptions) peers {
	if withOwners {
		tagNames = append(tagNames, tagProcessName)
	}
	return peers{
		withOwners: withOwners, prefixV4: prefixV4, prefixV6: prefixV6,
		series: newSeriesSet(m, tagNames, repeatTagValue(other, len(tagNames)), options),
		byKey:  map[peerKey]*series{},
	}
}

func (p *peers) enter(sc *scope) {
	p.series.scope = sc
	clear(p.byKey)
}

// count counts the socket in the series of its peer and the port, for each of its owners. cached is the cache in an owner.
func (p *peers) count(o *observation, port uint16, cached func(*owner) *cachedPeer) {
	key := p.keyOf(o, port)
	if !p.withOwners || len(o.owners) == 0 {
		p.seriesOf(key, o).count(o)
		return
	}
	for _, key.owner = range o.owners {
		c := cached(key.owner)
		if c.series == nil || c.key != key {
			c.key, c.series = key, p.seriesOf(key, o)
		}
		c.series.count(o)
	}
}

func (p *peers) keyOf(o *observation, port uint16) peerKey {
	peer := o.Remote.Addr()
	b := peer.As16()
	key := peerKey{
		network:   [2]uint64{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])},
		transport: uint8(o.Transport), port: port,
	}
	bits := p.prefixV6
	switch {
	case peer.Is4() || peer.Is4In6():
		bits, key.is4 = 96+p.prefixV4, 1
	case p.isWhole(peer) && peer.Zone() != "":
		key.device = o.Interface
	}
	key.network[0] &= ^uint64(0) << max(64-bits, 0)
	key.network[1] &= ^uint64(0) << min(128-bits, 64)
	return key
}

// network returns the value of the tag for the address of the peer: itself with its zone, or its network in the configured prefix
// length.
func (p *peers) network(peer netip.Addr) string {
	if p.isWhole(peer) {
		return addressValue(peer)
	}
	bits := p.prefixV6
	if peer.Is4() {
		bits = p.prefixV4
	}
	return netip.PrefixFrom(peer.WithZone(""), bits).Masked().String()
}

// isWhole reports whether series are by the whole address.
func (p *peers) isWhole(peer netip.Addr) bool {
	if peer.Is4() {
		return p.prefixV4 == 32
	}
	return p.prefixV6 == 128
}

// addressValue returns the tag value of an address. A zone is the name of a device, which can contain any byte but a slash and white
// space (dev_valid_name, net/core/dev.c).
func addressValue(addr netip.Addr) string {
	if addr.Zone() == "" {
		return addr.String()
	}
	return tagValue(addr.String())
}

func (p *peers) seriesOf(key peerKey, o *observation) *series {
	s := p.byKey[key]
	if s == nil {
		peer := o.Remote.Addr().Unmap()
		values := []string{o.Transport.String(), p.network(peer), strconv.Itoa(int(key.port))}
		switch {
		case !p.withOwners:
		case key.owner == nil:
			values = append(values, unattributed)
		default:
			values = append(values, key.owner.name)
		}
		s = p.series.get(values)
		if s.transport = o.Transport; p.isWhole(peer) {
			s.peer = netip.AddrPortFrom(peer, key.port)
		}
		p.byKey[key] = s
	}
	return s
}

func (p *peers) emit(out emission) {
	p.series.emit(out.now, func(s *series) {
		e := out.forScope(s.scope)
		e.read = e.read.onlyProtocol(s.tags["protocol"])
		if len(e.read) > 0 {
			p.series.group(e, s, map[string]any{}, map[string]any{})
		}
	})
}

func (p *peers) folded() int { return p.series.folded }

package procfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// InetRow is a row of a table of IP sockets in /proc/net: tcp, udp, udplite, raw, icmp, tcp6, udp6, udplite6, raw6, icmp6.
//
// TCP's rows are written by tcp4_seq_show (net/ipv4/tcp_ipv4.c) and tcp6_seq_show (net/ipv6/tcp_ipv6.c), those of the others by
// udp4_format_sock (net/ipv4/udp.c), raw_sock_seq_show (net/ipv4/raw.c), ping_v4_format_sock (net/ipv4/ping.c) and
// __ip6_dgram_sock_seq_show (net/ipv6/datagram.c):
//
//	sl: local:port remote:port st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ref pointer drops
//
// TCP has other columns in place of drops. Linux prints uid by %u since 3.5 and drops since 5.2, and by %d before.
type InetRow struct {
	Local, Remote netip.AddrPort // of the same family
	State         uint8          // TCP_* of include/net/tcp_states.h, for all protocols
	TxQueue       uint32         // bytes
	RxQueue       uint32         // bytes; for a listening TCP socket the length of the accept queue
	UID           uint32
	Inode         uint64
	Drops         uint32 // packets
	HasDrops      bool   // false before Linux 2.6.27, and after Parse
}

const (
	inetInode = 9
	inetDrops = 12
)

// Parse decodes a row without its drops, which TCP does not have. order is the byte order of the host that wrote the row. After
// an error r is invalid.
func (r *InetRow) Parse(row []byte, order binary.ByteOrder) error {
	var columns [inetInode + 1][]byte
	r.Drops, r.HasDrops = 0, false
	return r.parse(row, columns[:SplitFields(row, columns[:])], order)
}

// ParseWithDrops is Parse for a row of a protocol other than TCP.
func (r *InetRow) ParseWithDrops(row []byte, order binary.ByteOrder) (err error) {
	var columns [inetDrops + 1][]byte
	n := SplitFields(row, columns[:])
	r.Drops, r.HasDrops = 0, false
	if err := r.parse(row, columns[:n], order); err != nil || n <= inetDrops {
		return err
	}
	if r.Drops, err = parseInt32(columns[inetDrops]); err != nil {
		return fmt.Errorf("drops %.100q: %w", columns[inetDrops], err)
	}
	r.HasDrops = true
	return nil
}

func (r *InetRow) parse(row []byte, columns [][]byte, order binary.ByteOrder) (err error) {
	if len(columns) <= inetInode {
		return fmt.Errorf("row %.100q has %d columns, at least %d expected", row, len(columns), inetInode+1)
	}
	if r.Local, err = parseAddrPort(columns[1], order); err != nil {
		return fmt.Errorf("local address %.100q: %w", columns[1], err)
	}
	if r.Remote, err = parseAddrPort(columns[2], order); err != nil {
		return fmt.Errorf("remote address %.100q: %w", columns[2], err)
	}
	if r.Local.Addr().Is4() != r.Remote.Addr().Is4() {
		return fmt.Errorf("addresses %.100q and %.100q are of two families", columns[1], columns[2])
	}
	state, err := parseHex(columns[3], 8)
	if err != nil {
		return fmt.Errorf("state %.100q: %w", columns[3], err)
	}
	tx, rx, ok := bytes.Cut(columns[4], colon)
	if !ok {
		return fmt.Errorf("queues %.100q: no colon", columns[4])
	}
	txQueue, err := parseHex(tx, 32)
	if err != nil {
		return fmt.Errorf("tx_queue %.100q: %w", tx, err)
	}
	rxQueue, err := parseHex(rx, 32)
	if err != nil {
		return fmt.Errorf("rx_queue %.100q: %w", rx, err)
	}
	r.State, r.TxQueue, r.RxQueue = uint8(state), uint32(txQueue), uint32(rxQueue)
	if r.UID, err = parseInt32(columns[7]); err != nil {
		return fmt.Errorf("uid %.100q: %w", columns[7], err)
	}
	if r.Inode, err = ParseDecimal(columns[inetInode], 64); err != nil {
		return fmt.Errorf("inode %.100q: %w", columns[inetInode], err)
	}
	return nil
}

// parseAddrPort decodes an address of /proc/net: one 32-bit word for IPv4, four for IPv6, each in hexadecimal of the
// host's byte order though its bytes are in network order, then the port, a plain hexadecimal number.
func parseAddrPort(text []byte, order binary.ByteOrder) (netip.AddrPort, error) {
	const word = 8 // digits
	i := bytes.IndexByte(text, ':')
	if i != word && i != 4*word {
		return netip.AddrPort{}, fmt.Errorf("not %d or %d hexadecimal digits, a colon and a port", word, 4*word)
	}
	var b [16]byte
	for at := 0; at < i; at += word {
		v, err := parseHex(text[at:at+word], 32)
		if err != nil {
			return netip.AddrPort{}, err
		}
		// A call through the interface order would move b to the heap.
		if order == binary.BigEndian {
			binary.BigEndian.PutUint32(b[at/2:], uint32(v))
		} else {
			binary.LittleEndian.PutUint32(b[at/2:], uint32(v))
		}
	}
	port, err := parseHex(text[i+1:], 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr := netip.AddrFrom16(b)
	if i == word {
		addr = netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

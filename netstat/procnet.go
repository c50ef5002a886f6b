package netstat

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// rowReader reads the tables in /proc/net: a header, then a row a line.
type rowReader struct {
	buf *bufio.Reader
}

// maxRow bounds a line; the longest that the kernel writes is a unix socket's with a name of 108 bytes.
const maxRow = 64 << 10

// errRowTooLong is a line that no kernel writes.
var errRowTooLong = fmt.Errorf("longer than %d bytes", maxRow)

// each calls row with every line of r but the header, and its number in the file, until row returns false. The bytes are
// valid until row returns. A line that is too long is given as the error of its row.
func (rr *rowReader) each(r io.Reader, row func(line int, text []byte, err error) bool) error {
	if rr.buf == nil {
		rr.buf = bufio.NewReaderSize(nil, maxRow)
	}
	rr.buf.Reset(r)
	defer rr.buf.Reset(nil)
	for line := 1; ; line++ {
		text, err := rr.buf.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = rr.buf.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		last := err != nil
		switch {
		case tooLong:
			if line > 1 && !row(line, nil, errRowTooLong) {
				return nil
			}
		case len(text) == 0 && line == 1:
			return errNoContent
		case len(bytes.TrimSpace(text)) > 0 && line > 1:
			if !row(line, bytes.TrimSuffix(text, newline), nil) {
				return nil
			}
		}
		if last {
			return nil
		}
	}
}

var (
	newline      = []byte("\n")
	errNoContent = errors.New("file has no content")
)

// hostOrder is the byte order in which /proc/net writes the words of an address: binary.LittleEndian or binary.BigEndian.
var hostOrder = func() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}()

// parseInetRow decodes a row of the tables of IP sockets in /proc/net. TCP's rows are written by tcp4_seq_show
// (net/ipv4/tcp_ipv4.c) and tcp6_seq_show, those of the others by udp4_format_sock (net/ipv4/udp.c), raw_sock_seq_show,
// ping_v4_format_sock and __ip6_dgram_sock_seq_show (net/ipv6/datagram.c):
//
//	sl: local:port remote:port st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ref pointer drops
//
// Linux prints uid by %u since 3.5 and drops since 5.2, and by %d before.
//
// On an error s is not to be used.
func parseInetRow(row []byte, transport Transport, order binary.ByteOrder, s *Socket) error {
	const inode, drops = 9, 12
	var columns [drops + 1][]byte
	n := splitFields(row, columns[:])
	if n <= inode {
		return fmt.Errorf("row %.100q has %d columns, at least %d expected", row, n, inode+1)
	}
	local, err := parseAddrPort(columns[1], order)
	if err != nil {
		return fmt.Errorf("local address %.100q: %w", columns[1], err)
	}
	remote, err := parseAddrPort(columns[2], order)
	if err != nil {
		return fmt.Errorf("remote address %.100q: %w", columns[2], err)
	}
	if local.Addr().Is4() != remote.Addr().Is4() {
		return fmt.Errorf("addresses %.100q and %.100q are of two families", columns[1], columns[2])
	}
	family := FamilyIPv6
	if local.Addr().Is4() {
		family = FamilyIPv4
	}
	s.reset(transport, family)
	s.Local, s.Remote = local, remote

	state, err := parseHex(columns[3], 8)
	if err != nil {
		return fmt.Errorf("state %.100q: %w", columns[3], err)
	}
	s.State = TCPState(state)

	tx, rx, ok := bytes.Cut(columns[4], colon)
	if !ok {
		return fmt.Errorf("queues %.100q: no colon", columns[4])
	}
	sendQueue, err := parseHex(tx, 32)
	if err != nil {
		return fmt.Errorf("tx_queue %.100q: %w", tx, err)
	}
	recvQueue, err := parseHex(rx, 32)
	if err != nil {
		return fmt.Errorf("rx_queue %.100q: %w", rx, err)
	}
	s.setQueues(uint32(recvQueue), uint32(sendQueue))

	if s.UID, err = parseInt32(columns[7]); err != nil {
		return fmt.Errorf("uid %.100q: %w", columns[7], err)
	}
	if s.Inode, err = parseDecimal(columns[inode], 64); err != nil {
		return fmt.Errorf("inode %.100q: %w", columns[inode], err)
	}
	if transport == TransportTCP || n <= drops {
		return nil
	}
	if s.Drops, err = parseInt32(columns[drops]); err != nil {
		return fmt.Errorf("drops %.100q: %w", columns[drops], err)
	}
	s.fields |= FieldDrops
	return nil
}

// setQueues takes the two numbers that the kernel gives for every socket. Those of a listening TCP socket count
// connections: the first those that wait to be accepted; the second is given by sock_diag only (tcp_diag_get_info).
func (s *Socket) setQueues(recv, send uint32) {
	if s.Transport == TransportTCP && s.State == TCPListen {
		s.AcceptQueue = recv
		s.fields |= FieldAcceptQueue
		return
	}
	s.RecvQueue, s.SendQueue = recv, send
}

// errNotUnixRow tells of a line that does not begin as a row does: the rest of a name with a newline in it.
var errNotUnixRow = errors.New("not the beginning of a row")

// parseUnixRow decodes a row of /proc/net/unix, written by unix_seq_show (net/unix/af_unix.c):
//
//	Num RefCount Protocol Flags Type St Inode Path
//
// St is a socket state of include/uapi/linux/net.h: SS_CONNECTED and SS_CONNECTING stand for TCP_ESTABLISHED.
func parseUnixRow(row []byte, s *Socket) error {
	const inode = 6
	var columns [inode + 1][]byte
	n := splitFields(row, columns[:])
	if !beginsUnixRow(columns[:n]) {
		return errNotUnixRow
	}
	if n <= inode {
		return fmt.Errorf("row %.100q has %d columns, at least %d expected", row, n, inode+1)
	}
	flags, err := parseHex(columns[3], 32)
	if err != nil {
		return fmt.Errorf("flags %.100q: %w", columns[3], err)
	}
	socketState, err := parseHex(columns[5], 8)
	if err != nil {
		return fmt.Errorf("state %.100q: %w", columns[5], err)
	}
	s.reset(TransportUnix, FamilyUnix)
	const acceptsConnections = 1 << 16 // __SO_ACCEPTCON
	const connecting, connected = 2, 3 // SS_CONNECTING, SS_CONNECTED
	switch {
	case flags&acceptsConnections != 0:
		s.State = TCPListen
	case socketState == connecting || socketState == connected:
		s.State = TCPEstablished
	default:
		s.State = TCPClose
	}
	if s.Inode, err = parseDecimal(columns[inode], 64); err != nil {
		return fmt.Errorf("inode %.100q: %w", columns[inode], err)
	}
	return nil
}

// beginsUnixRow tells whether a line begins as a row does, with the pointer that is Num and a colon. For a pointer the kernel can
// write a word as well (%pK, lib/vsprintf.c), after which only RefCount makes a line a row.
func beginsUnixRow(columns [][]byte) bool {
	if len(columns) == 0 {
		return false
	}
	num, ok := bytes.CutSuffix(columns[0], colon)
	if !ok {
		return false
	}
	switch string(num) {
	case "(____ptrval____)", "(ptrval)", // no random numbers yet to hash pointers with; 64 and 32 bits
		"(null)":
		if len(columns) == 1 {
			return false
		}
		num = columns[1]
	}
	_, err := parseHex(num, 64)
	return err == nil
}

// parseUnixPath returns what follows the inode and a blank in a row of /proc/net/unix.
func parseUnixPath(row []byte) string {
	const inode = 6
	for range inode + 1 {
		row = bytes.TrimLeft(row, " ")
		end := bytes.IndexByte(row, ' ')
		if end < 0 {
			return ""
		}
		row = row[end:]
	}
	return string(row[1:])
}

var colon = []byte(":")

// splitFields fills fields with the columns of row, and returns how many there were: no more than there is room for.
func splitFields(row []byte, fields [][]byte) int {
	n, i := 0, 0
	for n < len(fields) {
		for i < len(row) && row[i] == ' ' {
			i++
		}
		start := i
		for i < len(row) && row[i] != ' ' {
			i++
		}
		if start == i {
			break
		}
		fields[n] = row[start:i]
		n++
	}
	return n
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
		// A call of order's method would put b on the heap.
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

var (
	errNoNumber = errors.New("not a number")
	errRange    = errors.New("out of range")
)

// parseHex is strconv.ParseUint(text, 16, bits) without the string.
func parseHex(text []byte, bits uint) (uint64, error) {
	if len(text) == 0 {
		return 0, errNoNumber
	}
	var v uint64
	for _, c := range text {
		var digit byte
		switch {
		case c >= '0' && c <= '9':
			digit = c - '0'
		case c >= 'A' && c <= 'F':
			digit = c - 'A' + 10
		case c >= 'a' && c <= 'f':
			digit = c - 'a' + 10
		default:
			return 0, errNoNumber
		}
		if v>>(bits-4) != 0 {
			return 0, errRange
		}
		v = v<<4 | uint64(digit)
	}
	return v, nil
}

// parseDecimal is strconv.ParseUint(text, 10, bits) without the string.
func parseDecimal(text []byte, bits uint) (uint64, error) {
	if len(text) == 0 {
		return 0, errNoNumber
	}
	highest := ^uint64(0) >> (64 - bits)
	var v uint64
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, errNoNumber
		}
		digit := uint64(c - '0')
		if v > (highest-digit)/10 {
			return 0, errRange
		}
		v = v*10 + digit
	}
	return v, nil
}

// parseInt32 is parseDecimal for a number of 32 bits that the kernel writes by %u or %d: it is negative from 2^31 on by %d.
func parseInt32(text []byte) (uint32, error) {
	magnitude, isNegative := bytes.CutPrefix(text, minus)
	if !isNegative {
		v, err := parseDecimal(text, 32)
		return uint32(v), err
	}
	v, err := parseDecimal(magnitude, 32)
	if err == nil && (v == 0 || v > 1<<31) {
		err = errRange
	}
	if err != nil {
		return 0, err
	}
	return -uint32(v), nil
}

var minus = []byte("-")

package netstat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestParseInetRow(t *testing.T) {
	const zero6 = "00000000000000000000000000000000"
	for name, test := range map[string]struct {
		transport Transport
		order     binary.ByteOrder
		row       string
		want      Socket
	}{
		"TCP, little-endian": {
			TransportTCP, binary.LittleEndian,
			"   2: 0A0200C0:0050 076433C6:C350 01 00000050:00000100 00:00000000 00000000    33        0 20021 2 000000002eecd1b5 20 4 30 10 -1   ",
			Socket{
				Family: FamilyIPv4, State: TCPEstablished, UID: 33, Inode: 20021, SendQueue: 80, RecvQueue: 256,
				Local: netip.MustParseAddrPort("192.0.2.10:80"), Remote: netip.MustParseAddrPort("198.51.100.7:50000"),
			},
		},
		// Such a host prints the words of an address as they stand in the packet. Ports and queues are plain numbers.
		"TCP, big-endian": {
			TransportTCP, binary.BigEndian,
			"   2: C000020A:0050 C6336407:C350 01 00000050:00000100 00:00000000 00000000    33        0 20021 2 000000002eecd1b5 20 4 30 10 -1   ",
			Socket{
				Family: FamilyIPv4, State: TCPEstablished, UID: 33, Inode: 20021, SendQueue: 80, RecvQueue: 256,
				Local: netip.MustParseAddrPort("192.0.2.10:80"), Remote: netip.MustParseAddrPort("198.51.100.7:50000"),
			},
		},
		"TCP6, little-endian": {
			TransportTCP, binary.LittleEndian,
			"   0: 00000000000000000000000001000000:0016 B80D0120020001000400030006000500:0000 06 00000000:00000000 03:0000176C 00000000     0        0 0 3 000000002e98f452",
			Socket{
				Family: FamilyIPv6, State: TCPTimeWait,
				Local: netip.MustParseAddrPort("[::1]:22"), Remote: netip.MustParseAddrPort("[2001:db8:1:2:3:4:5:6]:0"),
			},
		},
		"TCP6, big-endian": {
			TransportTCP, binary.BigEndian,
			"   0: 00000000000000000000000000000001:0016 20010DB8000100020003000400050006:0000 06 00000000:00000000 03:0000176C 00000000     0        0 0 3 000000002e98f452",
			Socket{
				Family: FamilyIPv6, State: TCPTimeWait,
				Local: netip.MustParseAddrPort("[::1]:22"), Remote: netip.MustParseAddrPort("[2001:db8:1:2:3:4:5:6]:0"),
			},
		},
		"IPv4-mapped, little-endian": {
			TransportTCP, binary.LittleEndian,
			"   4: 0000000000000000FFFF00000A0200C0:20FB 0000000000000000FFFF0000076433C6:C355 01 00000000:00000000 00:00000000 00000000  1000        0 20034 2 0000000000000001 20 0 0 10 -1",
			Socket{
				Family: FamilyIPv6, State: TCPEstablished, UID: 1000, Inode: 20034,
				Local: netip.MustParseAddrPort("[::ffff:192.0.2.10]:8443"), Remote: netip.MustParseAddrPort("[::ffff:198.51.100.7]:50005"),
			},
		},
		"IPv4-mapped, big-endian": {
			TransportTCP, binary.BigEndian,
			"   4: 00000000000000000000FFFFC000020A:20FB 00000000000000000000FFFFC6336407:C355 01 00000000:00000000 00:00000000 00000000  1000        0 20034 2 0000000000000001 20 0 0 10 -1",
			Socket{
				Family: FamilyIPv6, State: TCPEstablished, UID: 1000, Inode: 20034,
				Local: netip.MustParseAddrPort("[::ffff:192.0.2.10]:8443"), Remote: netip.MustParseAddrPort("[::ffff:198.51.100.7]:50005"),
			},
		},
		"listening": {
			TransportTCP, binary.LittleEndian,
			"   1: 00000000:0050 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 20020 2 00000000efe1b6ae 100 0 0 10 0   ",
			Socket{
				Family: FamilyIPv4, State: TCPListen, Inode: 20020, AcceptQueue: 3, fields: FieldAcceptQueue,
				Local: netip.MustParseAddrPort("0.0.0.0:80"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			},
		},
		"SYN_RECV": {
			TransportTCP, binary.LittleEndian,
			"   4: 0A0200C0:0050 096433C6:C352 03 00000000:00000000 01:0000005F 00000000    33        0 0 0 0000000023eaa233     ",
			Socket{
				Family: FamilyIPv4, State: TCPSynRecv, UID: 33,
				Local: netip.MustParseAddrPort("192.0.2.10:80"), Remote: netip.MustParseAddrPort("198.51.100.9:50002"),
			},
		},
		"wide numbers": {
			TransportTCP, binary.LittleEndian,
			"100000: FFFFFFFF:FFFF FFFFFFFF:FFFF 08 FFFFFFFF:FFFFFFFF 00:00000000 00000000 4294967295        0 18446744073709551615 2 000000008e217884 20 4 30 10 -1",
			Socket{
				Family: FamilyIPv4, State: TCPCloseWait, UID: 1<<32 - 1, Inode: 1<<64 - 1, SendQueue: 1<<32 - 1, RecvQueue: 1<<32 - 1,
				Local: netip.MustParseAddrPort("255.255.255.255:65535"), Remote: netip.MustParseAddrPort("255.255.255.255:65535"),
			},
		},
		"UDP": {
			TransportUDP, binary.LittleEndian,
			"  420: 00000000:0044 00000000:0000 07 00000000:00000340 00:00000000 00000000     0        0 20040 2 000000007b8a7cdd 7         ",
			Socket{
				Family: FamilyIPv4, State: TCPClose, Inode: 20040, RecvQueue: 0x340, Drops: 7, fields: FieldDrops,
				Local: netip.MustParseAddrPort("0.0.0.0:68"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			},
		},
		"UDP, drops at the limit": {
			TransportUDP, binary.LittleEndian,
			"    1: " + zero6 + ":0035 " + zero6 + ":0000 07 00000000:00000000 00:00000000 00000000     0        0 20060 2 00000000cfa545f8 4294967295",
			Socket{
				Family: FamilyIPv6, State: TCPClose, Inode: 20060, Drops: 1<<32 - 1, fields: FieldDrops,
				Local: netip.MustParseAddrPort("[::]:53"), Remote: netip.MustParseAddrPort("[::]:0"),
			},
		},
		"UDP, no drops": {
			TransportUDP, binary.LittleEndian,
			"    1: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 20060",
			Socket{
				Family: FamilyIPv4, State: TCPClose, Inode: 20060,
				Local: netip.MustParseAddrPort("0.0.0.0:68"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			},
		},
		"raw, state LISTEN": {
			TransportRaw, binary.LittleEndian,
			"    1: 00000000:0001 00000000:0000 0A 00000001:00000002 00:00000000 00000000     0        0 20064 2 00000000cfa545f8 0",
			Socket{
				Family: FamilyIPv4, State: TCPListen, Inode: 20064, SendQueue: 1, RecvQueue: 2, fields: FieldDrops,
				Local: netip.MustParseAddrPort("0.0.0.0:1"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			test.want.Transport = test.transport
			// Nothing of the socket before is left over.
			got := Socket{State: 99, UID: 99, Inode: 99, RecvQueue: 99, SendQueue: 99, AcceptQueue: 99, Drops: 99, fields: FieldTCPInfo}
			require.NoError(t, parseInetRow([]byte(test.row), test.transport, test.order, &got))
			require.Equal(t, test.want, got)
		})
	}
}

// The forms in which kernels since 2.6.27 write, or wrote, what is read of a row.
func TestParseInetRowForms(t *testing.T) {
	const (
		any4 = "00000000:0202 00000000:0000"
		any6 = "00000000000000000000000000000000:0202 00000000000000000000000000000000:0000"
	)
	for name, test := range map[string]struct {
		transport Transport
		row       string
		uid       uint32
		inode     uint64
		drops     int64 // -1: not known
	}{
		"udp4, %d drops":              {TransportUDP, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -1294967296", 0, 11111, 3000000000},
		"udp4, %d drops, the least":   {TransportUDP, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2147483648", 0, 11111, 1 << 31},
		"udp4, %d drops, the most":    {TransportUDP, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -1", 0, 11111, 1<<32 - 1},
		"udp6, %d drops":              {TransportUDP, "  512: " + any6 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"udplite, %d drops":           {TransportUDPLite, "    2: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"raw4, %d drops":              {TransportRaw, "   1: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"raw6, %d drops":              {TransportRaw, "   58: " + any6 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"icmp, %d drops":              {TransportICMP, "    5: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"udp4, padded by seq_pad":     {TransportUDP, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -3         ", 0, 11111, 1<<32 - 3},
		"udp4, %d uid of nobody":      {TransportUDP, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000    -2        0 11111 2 ffff88003aa3b400 0", 1<<32 - 2, 11111, 0},
		"tcp4, %d uid of nobody":      {TransportTCP, "   2: " + any4 + " 01 00000000:00000000 00:00000000 00000000    -2        0 11111 2 ffff88003aa3b400 20 4 30 10 -1", 1<<32 - 2, 11111, -1},
		"udp4 of Linux 2.6.26":        {TransportUDP, " 512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400", 0, 11111, -1},
		"pointer of 32 bits":          {TransportUDP, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 c1bc91a5 5", 0, 11111, 5},
		"pointer not hashed yet":      {TransportUDP, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 (____ptrval____) 5", 0, 11111, 5},
		"the same of 32 bits":         {TransportUDP, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 (ptrval) 5", 0, 11111, 5},
		"no pointer":                  {TransportUDP, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2           (null) 5", 0, 11111, 5},
		"tcp4 in TIME_WAIT":           {TransportTCP, "   2: " + any4 + " 06 00000000:00000000 03:000016FE 00000000     0        0 0 3 ffff88003aa3b400", 0, 0, -1},
		"tcp4 in SYN_RECV, padded":    {TransportTCP, "   2: " + any4 + " 03 00000000:00000000 01:0000005F 00000000    -2        0 0 0 (____ptrval____)                                  ", 1<<32 - 2, 0, -1},
		"tcp6":                        {TransportTCP, "   2: " + any6 + " 01 00000000:00000000 00:00000000 00000000     0        0 11111 1 (____ptrval____) 20 4 0 10 -1", 0, 11111, -1},
		"a timer that is overdue":     {TransportTCP, "   2: " + any4 + " 01 00000000:00000000 01:FFFFFFFFFFFFFFFE 00000003     0        0 11111 2 ffff88003aa3b400 20 4 30 10 -1", 0, 11111, -1},
		"sl wider than its column":    {TransportTCP, "123456: " + any4 + " 01 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 20 4 30 10 -1", 0, 11111, -1},
		"rx_queue that went negative": {TransportUDP, "  512: " + any4 + " 07 00000000:FFFFFD00 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 5", 0, 11111, 5},
	} {
		t.Run(name, func(t *testing.T) {
			var s Socket
			require.NoError(t, parseInetRow([]byte(test.row), test.transport, binary.LittleEndian, &s))
			require.Equal(t, test.uid, s.UID)
			require.Equal(t, test.inode, s.Inode)
			require.Equal(t, uint16(0x202), s.Local.Port())
			require.Equal(t, test.drops >= 0, s.Has(FieldDrops))
			require.Equal(t, uint32(max(test.drops, 0)), s.Drops)
		})
	}
}

func TestParseInt32(t *testing.T) {
	for _, test := range []struct {
		text string
		want uint32
		err  error
	}{
		{"0", 0, nil},
		{"4294967295", 1<<32 - 1, nil},
		{"-1", 1<<32 - 1, nil},
		{"-1294967296", 3000000000, nil},
		{"-2147483648", 1 << 31, nil},
		{"-2147483649", 0, errRange},
		{"-4294967295", 0, errRange},
		{"4294967296", 0, errRange},
		{"-0", 0, errRange},
		{"-", 0, errNoNumber},
		{"--1", 0, errNoNumber},
		{"+1", 0, errNoNumber},
		{"-0x1", 0, errNoNumber},
		{"", 0, errNoNumber},
	} {
		got, err := parseInt32([]byte(test.text))
		require.ErrorIs(t, err, test.err, "%q", test.text)
		require.Equal(t, test.want, got, "%q", test.text)
	}
}

func TestParseUnixRow(t *testing.T) {
	for name, test := range map[string]struct {
		row  string
		want Socket
	}{
		"listening":     {"000000001bc91a57: 00000002 00000000 00010000 0001 01 30001 /run/systemd/private", Socket{State: TCPListen, Inode: 30001}},
		"connected":     {"000000009f529a8e: 00000003 00000000 00000000 0001 03 30002 /run/systemd/private", Socket{State: TCPEstablished, Inode: 30002}},
		"connecting":    {"0000000063145fd1: 00000003 00000000 00000000 0001 02     0 @abstract@name", Socket{State: TCPEstablished}},
		"unconnected":   {"00000000707ea86c: 00000002 00000000 00000000 0002 01 30004 /run/a name with blanks", Socket{State: TCPClose, Inode: 30004}},
		"no name":       {"000000000ccf3f95: 00000003 00000000 00000000 0001 01 30003", Socket{State: TCPClose, Inode: 30003}},
		"32-bit host":   {"c1bc91a5: 00000002 00000000 00000000 0001 01 30001", Socket{State: TCPClose, Inode: 30001}},
		"biggest inode": {"000000000ccf3f95: 00000003 00000000 00000000 0001 01 18446744073709551615", Socket{State: TCPClose, Inode: 1<<64 - 1}},

		"pointer not hashed yet": {"(____ptrval____): 00000002 00000000 00010000 0001 01 12386 /run/systemd/journal/stdout", Socket{State: TCPListen, Inode: 12386}},
		"the same of 32 bits":    {"(ptrval): 00000003 00000000 00000000 0001 03 62985", Socket{State: TCPEstablished, Inode: 62985}},
		"no pointer":             {"          (null): 00000002 00000000 00010000 0001 01 15013 /run/dbus/system_bus_socket", Socket{State: TCPListen, Inode: 15013}},
		"no pointer of 32 bits":  {"  (null): 00000002 00000000 00000000 0002 01     0", Socket{State: TCPClose}},
		"kptr_restrict":          {"0000000000000000: 0000000B 00000000 00000000 0002 03  3238 /run/systemd/journal/socket", Socket{State: TCPEstablished, Inode: 3238}},
	} {
		t.Run(name, func(t *testing.T) {
			test.want.Transport, test.want.Family = TransportUnix, FamilyUnix
			got := Socket{UID: 99, Drops: 99, Local: netip.MustParseAddrPort("0.0.0.0:1"), fields: FieldDrops}
			require.NoError(t, parseUnixRow([]byte(test.row), &got))
			require.Equal(t, test.want, got)
		})
	}
}

func TestParseUnixRowErrors(t *testing.T) {
	for name, test := range map[string]struct{ row, want string }{
		"rest of a name":                   {"second line: of a name", errNotUnixRow.Error()},
		"empty":                            {"", errNotUnixRow.Error()},
		"only a colon":                     {":", errNotUnixRow.Error()},
		"NULs":                             {"\x00\x00", errNotUnixRow.Error()},
		"rest that begins with no pointer": {"(null): of a name", errNotUnixRow.Error()},
		"no pointer and nothing else":      {"(null):", errNotUnixRow.Error()},
		"no colon":                         {"(null) 00000002 00000000 00010000 0001 01 15013", errNotUnixRow.Error()},
		"another word":                     {"(efault): 00000002 00000000 00010000 0001 01 15013", errNotUnixRow.Error()},
		"cut after a word":                 {"(____ptrval____): 0000", `row "(____ptrval____): 0000" has 2 columns, at least 7 expected`},
		"cut":                              {"000000001bc91a57: 00000002", `row "000000001bc91a57: 00000002" has 2 columns, at least 7 expected`},
		"wide flags":                       {"1: 2 0 100000000 0001 01 30001", `flags "100000000": out of range`},
		"wide state":                       {"1: 2 0 00000000 0001 100 30001", `state "100": out of range`},
		"negative inode":                   {"1: 2 0 00000000 0001 01 -1", `inode "-1": not a number`},
		"wide inode":                       {"1: 2 0 00000000 0001 01 18446744073709551616", `inode "18446744073709551616": out of range`},
	} {
		t.Run(name, func(t *testing.T) {
			require.EqualError(t, parseUnixRow([]byte(test.row), &Socket{}), test.want)
		})
	}
}

// Whatever is written for the pointer, the name follows the inode.
func TestParseUnixPathForms(t *testing.T) {
	for _, num := range []string{"000000001bc91a57", "c1bc91a5", "(____ptrval____)", "(ptrval)", "          (null)", "  (null)"} {
		row := num + ": 00000002 00000000 00010000 0001 01 12386"
		require.Equal(t, "/run/a name (null): b", parseUnixPath([]byte(row+" /run/a name (null): b")), "%q", row)
		require.Empty(t, parseUnixPath([]byte(row)), "%q", row)
	}
}

func TestParseNumbers(t *testing.T) {
	for _, test := range []struct {
		text string
		bits uint
		want uint64
		err  error
	}{
		{"0", 8, 0, nil},
		{"fF", 8, 0xff, nil},
		{"00000000000000000000ff", 8, 0xff, nil},
		{"100", 8, 0, errRange},
		{"FFFFFFFFFFFFFFFF", 64, 1<<64 - 1, nil},
		{"10000000000000000", 64, 0, errRange},
		{"", 8, 0, errNoNumber},
		{"0x1", 8, 0, errNoNumber},
		{"+1", 8, 0, errNoNumber},
		{"1_0", 8, 0, errNoNumber},
		{"1G", 64, 0, errNoNumber},
	} {
		got, err := parseHex([]byte(test.text), test.bits)
		require.ErrorIs(t, err, test.err, "hexadecimal %q, %d bits", test.text, test.bits)
		require.Equal(t, test.want, got, "hexadecimal %q, %d bits", test.text, test.bits)
	}
	for _, test := range []struct {
		text string
		bits uint
		want uint64
		err  error
	}{
		{"0", 32, 0, nil},
		{"0004294967295", 32, 1<<32 - 1, nil},
		{"4294967296", 32, 0, errRange},
		{"2147483647", 31, 1<<31 - 1, nil},
		{"2147483648", 31, 0, errRange},
		{"18446744073709551615", 64, 1<<64 - 1, nil},
		{"18446744073709551616", 64, 0, errRange},
		{"99999999999999999999", 64, 0, errRange},
		{"", 32, 0, errNoNumber},
		{"-1", 32, 0, errNoNumber},
		{"+1", 32, 0, errNoNumber},
		{" 1", 32, 0, errNoNumber},
		{"a", 32, 0, errNoNumber},
	} {
		got, err := parseDecimal([]byte(test.text), test.bits)
		require.ErrorIs(t, err, test.err, "decimal %q, %d bits", test.text, test.bits)
		require.Equal(t, test.want, got, "decimal %q, %d bits", test.text, test.bits)
	}
}

// numberedRow is what a rowReader hands out.
type numberedRow struct {
	line int
	text string
	err  error
}

func readRows(rr *rowReader, r io.Reader) (rows []numberedRow, err error) {
	err = rr.each(r, func(line int, text []byte, err error) bool {
		rows = append(rows, numberedRow{line, string(text), err})
		return true
	})
	return rows, err
}

func TestRowReader(t *testing.T) {
	long, longest := strings.Repeat("x", maxRow), strings.Repeat("x", maxRow-1)
	for name, test := range map[string]struct {
		content string
		want    []numberedRow
		err     error
	}{
		"empty":                   {"", nil, errNoContent},
		"header":                  {"header\n", nil, nil},
		"header without newline":  {"header", nil, nil},
		"empty header":            {"\na\n", []numberedRow{{2, "a", nil}}, nil},
		"rows":                    {"header\n a \nb\n", []numberedRow{{2, " a ", nil}, {3, "b", nil}}, nil},
		"no newline at the end":   {"header\na\nb", []numberedRow{{2, "a", nil}, {3, "b", nil}}, nil},
		"empty rows":              {"header\n\na\n  \t\n\nb\n\n", []numberedRow{{3, "a", nil}, {6, "b", nil}}, nil},
		"longest row":             {"header\n" + longest + "\nb\n", []numberedRow{{2, longest, nil}, {3, "b", nil}}, nil},
		"row too long":            {"header\n" + long + "\nb\n", []numberedRow{{2, "", errRowTooLong}, {3, "b", nil}}, nil},
		"several buffers":         {"header\n" + long + long + long + "y\nb\n", []numberedRow{{2, "", errRowTooLong}, {3, "b", nil}}, nil},
		"too long at the end":     {"header\na\n" + long + "y", []numberedRow{{2, "a", nil}, {3, "", errRowTooLong}}, nil},
		"header too long":         {long + "\na\n", []numberedRow{{2, "a", nil}}, nil},
		"carriage return and NUL": {"header\na\r\n\x00\n", []numberedRow{{2, "a\r", nil}, {3, "\x00", nil}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var rr rowReader
			for range 2 { // it can be used again
				for _, r := range []io.Reader{strings.NewReader(test.content), iotest.OneByteReader(strings.NewReader(test.content))} {
					rows, err := readRows(&rr, r)
					require.ErrorIs(t, err, test.err)
					require.Equal(t, test.want, rows)
				}
			}
		})
	}
}

func TestRowReaderStops(t *testing.T) {
	for _, last := range []string{"b", strings.Repeat("x", maxRow)} {
		var lines []int
		err := new(rowReader).each(strings.NewReader("header\na\n"+last+"\nc\n"), func(line int, _ []byte, _ error) bool {
			lines = append(lines, line)
			return line < 3
		})
		require.NoError(t, err)
		require.Equal(t, []int{2, 3}, lines)
	}
}

func TestRowReaderError(t *testing.T) {
	broken := errors.New("broken")
	var rr rowReader
	rows, err := readRows(&rr, io.MultiReader(strings.NewReader("header\na\nb"), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	require.Equal(t, []numberedRow{{2, "a", nil}}, rows, "a row that was not read to its end")
}

func TestRowsDoNotAllocate(t *testing.T) {
	row := []byte("   2: 0A0200C0:0050 076433C6:C350 01 00000050:00000100 00:00000000 00000000    33        0 20021 2 0000000000000001 20 4 30 10 -1\n")
	table := append([]byte("header\n"), bytes.Repeat(row, 100)...)
	var (
		rr     rowReader
		s      Socket
		reader = bytes.NewReader(table)
	)
	parse := func(_ int, text []byte, err error) bool {
		return err == nil && parseInetRow(text, TransportTCP, binary.LittleEndian, &s) == nil
	}
	allocs := testing.AllocsPerRun(10, func() {
		reader.Reset(table)
		if err := rr.each(reader, parse); err != nil {
			t.Fatal(err)
		}
	})
	require.Zero(t, allocs)
}

// formatInetRow is the inverse of parseInetRow, written with the standard library.
func formatInetRow(s *Socket, order binary.ByteOrder) string {
	recv := s.RecvQueue
	if s.Has(FieldAcceptQueue) {
		recv = s.AcceptQueue
	}
	drops := "100"
	if s.Has(FieldDrops) {
		drops = strconv.FormatUint(uint64(s.Drops), 10)
	}
	return fmt.Sprintf("0: %s %s %02X %08X:%08X 00:00000000 00000000 %d 0 %d 2 0 %s",
		formatAddrPort(s.Local, order), formatAddrPort(s.Remote, order), int(s.State), s.SendQueue, recv, s.UID, s.Inode, drops)
}

func formatAddrPort(a netip.AddrPort, order binary.ByteOrder) string {
	var text strings.Builder
	for word := a.Addr().AsSlice(); len(word) > 0; word = word[4:] {
		fmt.Fprintf(&text, "%08X", order.Uint32(word))
	}
	fmt.Fprintf(&text, ":%04X", a.Port())
	return text.String()
}

func FuzzParseInetRow(f *testing.F) {
	f.Fuzz(func(t *testing.T, row []byte, isTCP, isBigEndian bool) {
		transport, order := TransportUDP, binary.ByteOrder(binary.LittleEndian)
		if isTCP {
			transport = TransportTCP
		}
		if isBigEndian {
			order = binary.BigEndian
		}
		var s Socket
		if parseInetRow(row, transport, order, &s) != nil {
			return
		}
		if transport == TransportTCP && s.State == TCPListen {
			require.Zero(t, s.SendQueue)
		}
		again := Socket{UID: 99, Drops: 99, AcceptQueue: 99}
		formatted := formatInetRow(&s, order)
		require.NoError(t, parseInetRow([]byte(formatted), transport, order, &again))
		again.fields &^= FieldDrops &^ s.fields // the row may have had no drops
		again.Drops *= uint32(s.fields & FieldDrops / FieldDrops)
		require.Equal(t, s, again, "row %q, formatted as %q", row, formatted)

		var c Connection
		if err := c.parse(row, map[uint32]string{}); err == nil {
			require.Equal(t, s.Inode, c.Inode)
			require.Equal(t, uint64(s.UID), mustParse(t, c.UserID))
			require.Equal(t, s.Local.Addr().BitLen()/8, len(c.IP))
			require.True(t, c.Port == int(s.Local.Port()) && c.RemotePort == int(s.Remote.Port()))
		}
	})
}

func mustParse(t *testing.T, number string) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(number, 10, 64)
	require.NoError(t, err)
	return v
}

func FuzzParseUnixRow(f *testing.F) {
	f.Fuzz(func(t *testing.T, row []byte) {
		var s Socket
		if parseUnixRow(row, &s) != nil {
			return
		}
		require.Equal(t, Socket{Transport: TransportUnix, Family: FamilyUnix, State: s.State, Inode: s.Inode}, s)
		flags, state := 0, 1
		switch s.State {
		case TCPListen:
			flags = 1 << 16
		case TCPEstablished:
			state = 3
		default:
			require.Equal(t, TCPClose, s.State)
		}
		var again Socket
		require.NoError(t, parseUnixRow(fmt.Appendf(nil, "0: 2 0 %08X 0001 %02X %5d", flags, state, s.Inode), &again))
		require.Equal(t, s, again)
	})
}

// FuzzRowReader compares with the plainest way to read lines.
func FuzzRowReader(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte, repeat uint16) {
		// Long lines are out of a fuzzer's reach.
		if at := bytes.IndexByte(content, '*'); at >= 0 {
			content = bytes.Join([][]byte{content[:at], bytes.Repeat([]byte("long "), int(repeat)), content[at:]}, nil)
		}
		var want []numberedRow
		lines := bytes.SplitAfter(content, []byte("\n"))
		for i, line := range lines {
			text := bytes.TrimSuffix(line, []byte("\n"))
			switch {
			case i == 0:
			case len(text) == maxRow && len(line) == maxRow:
				return // whether the end of the file is seen depends on the reader
			case len(line) > maxRow:
				want = append(want, numberedRow{i + 1, "", errRowTooLong})
			case len(bytes.TrimSpace(text)) > 0:
				want = append(want, numberedRow{i + 1, string(text), nil})
			}
		}
		for _, r := range []io.Reader{bytes.NewReader(content), iotest.HalfReader(bytes.NewReader(content)), iotest.DataErrReader(bytes.NewReader(content))} {
			rows, err := readRows(&rowReader{}, r)
			if len(content) == 0 {
				require.ErrorIs(t, err, errNoContent)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, want, rows)
		}
	})
}

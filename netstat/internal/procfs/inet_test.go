package procfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func parseInetRow(r *InetRow, row string, isTCP bool, order binary.ByteOrder) error {
	if isTCP {
		return r.Parse([]byte(row), order)
	}
	return r.ParseWithDrops([]byte(row), order)
}

func TestParseInetRow(t *testing.T) {
	const zero6 = "00000000000000000000000000000000"
	for name, test := range map[string]struct {
		isTCP bool
		order binary.ByteOrder
		row   string
		want  InetRow
	}{
		"TCP, little-endian": {
			true, binary.LittleEndian,
			"   2: 0A0200C0:0050 076433C6:C350 01 00000050:00000100 00:00000000 00000000    33        0 20021 2 000000002eecd1b5 20 4 30 10 -1   ",
			InetRow{
				State: 1, UID: 33, Inode: 20021, TxQueue: 80, RxQueue: 256,
				Local: netip.MustParseAddrPort("192.0.2.10:80"), Remote: netip.MustParseAddrPort("198.51.100.7:50000"),
			},
		},
		// A big-endian host prints the words of an address in network byte order. Ports and queues are plain numbers.
		"TCP, big-endian": {
			true, binary.BigEndian,
			"   2: C000020A:0050 C6336407:C350 01 00000050:00000100 00:00000000 00000000    33        0 20021 2 000000002eecd1b5 20 4 30 10 -1   ",
			InetRow{
				State: 1, UID: 33, Inode: 20021, TxQueue: 80, RxQueue: 256,
				Local: netip.MustParseAddrPort("192.0.2.10:80"), Remote: netip.MustParseAddrPort("198.51.100.7:50000"),
			},
		},
		"TCP6, little-endian": {
			true, binary.LittleEndian,
			"   0: 00000000000000000000000001000000:0016 B80D0120020001000400030006000500:0000 06 00000000:00000000 03:0000176C 00000000     0        0 0 3 000000002e98f452",
			InetRow{
				State: 6,
				Local: netip.MustParseAddrPort("[::1]:22"), Remote: netip.MustParseAddrPort("[2001:db8:1:2:3:4:5:6]:0"),
			},
		},
		"TCP6, big-endian": {
			true, binary.BigEndian,
			"   0: 00000000000000000000000000000001:0016 20010DB8000100020003000400050006:0000 06 00000000:00000000 03:0000176C 00000000     0        0 0 3 000000002e98f452",
			InetRow{
				State: 6,
				Local: netip.MustParseAddrPort("[::1]:22"), Remote: netip.MustParseAddrPort("[2001:db8:1:2:3:4:5:6]:0"),
			},
		},
		"IPv4-mapped, little-endian": {
			true, binary.LittleEndian,
			"   4: 0000000000000000FFFF00000A0200C0:20FB 0000000000000000FFFF0000076433C6:C355 01 00000000:00000000 00:00000000 00000000  1000        0 20034 2 0000000000000001 20 0 0 10 -1",
			InetRow{
				State: 1, UID: 1000, Inode: 20034,
				Local: netip.MustParseAddrPort("[::ffff:192.0.2.10]:8443"), Remote: netip.MustParseAddrPort("[::ffff:198.51.100.7]:50005"),
			},
		},
		"IPv4-mapped, big-endian": {
			true, binary.BigEndian,
			"   4: 00000000000000000000FFFFC000020A:20FB 00000000000000000000FFFFC6336407:C355 01 00000000:00000000 00:00000000 00000000  1000        0 20034 2 0000000000000001 20 0 0 10 -1",
			InetRow{
				State: 1, UID: 1000, Inode: 20034,
				Local: netip.MustParseAddrPort("[::ffff:192.0.2.10]:8443"), Remote: netip.MustParseAddrPort("[::ffff:198.51.100.7]:50005"),
			},
		},
		"listening": {
			true, binary.LittleEndian,
			"   1: 00000000:0050 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 20020 2 00000000efe1b6ae 100 0 0 10 0   ",
			InetRow{
				State: 10, Inode: 20020, RxQueue: 3,
				Local: netip.MustParseAddrPort("0.0.0.0:80"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			},
		},
		"SYN_RECV": {
			true, binary.LittleEndian,
			"   4: 0A0200C0:0050 096433C6:C352 03 00000000:00000000 01:0000005F 00000000    33        0 0 0 0000000023eaa233     ",
			InetRow{
				State: 3, UID: 33,
				Local: netip.MustParseAddrPort("192.0.2.10:80"), Remote: netip.MustParseAddrPort("198.51.100.9:50002"),
			},
		},
		"wide numbers": {
			true, binary.LittleEndian,
			"100000: FFFFFFFF:FFFF FFFFFFFF:FFFF 08 FFFFFFFF:FFFFFFFF 00:00000000 00000000 4294967295        0 18446744073709551615 2 000000008e217884 20 4 30 10 -1",
			InetRow{
				State: 8, UID: 1<<32 - 1, Inode: 1<<64 - 1, TxQueue: 1<<32 - 1, RxQueue: 1<<32 - 1,
				Local: netip.MustParseAddrPort("255.255.255.255:65535"), Remote: netip.MustParseAddrPort("255.255.255.255:65535"),
			},
		},
		"UDP": {
			false, binary.LittleEndian,
			"  420: 00000000:0044 00000000:0000 07 00000000:00000340 00:00000000 00000000     0        0 20040 2 000000007b8a7cdd 7         ",
			InetRow{
				State: 7, Inode: 20040, RxQueue: 0x340, Drops: 7, HasDrops: true,
				Local: netip.MustParseAddrPort("0.0.0.0:68"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			},
		},
		"UDP, drops at the limit": {
			false, binary.LittleEndian,
			"    1: " + zero6 + ":0035 " + zero6 + ":0000 07 00000000:00000000 00:00000000 00000000     0        0 20060 2 00000000cfa545f8 4294967295",
			InetRow{
				State: 7, Inode: 20060, Drops: 1<<32 - 1, HasDrops: true,
				Local: netip.MustParseAddrPort("[::]:53"), Remote: netip.MustParseAddrPort("[::]:0"),
			},
		},
		"UDP, no drops": {
			false, binary.LittleEndian,
			"    1: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 20060",
			InetRow{
				State: 7, Inode: 20060,
				Local: netip.MustParseAddrPort("0.0.0.0:68"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			},
		},
		"raw, state LISTEN": {
			false, binary.LittleEndian,
			"    1: 00000000:0001 00000000:0000 0A 00000001:00000002 00:00000000 00000000     0        0 20064 2 00000000cfa545f8 0",
			InetRow{
				State: 10, Inode: 20064, TxQueue: 1, RxQueue: 2, HasDrops: true,
				Local: netip.MustParseAddrPort("0.0.0.0:1"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := InetRow{State: 99, UID: 99, Inode: 99, RxQueue: 99, TxQueue: 99, Drops: 99, HasDrops: true} // nothing of it remains
			require.NoError(t, parseInetRow(&got, test.row, test.isTCP, test.order))
			require.Equal(t, test.want, got)
		})
	}
}

// The formats of rows that kernels since 2.6.27 write.
func TestParseInetRowForms(t *testing.T) {
	const (
		any4 = "00000000:0202 00000000:0000"
		any6 = "00000000000000000000000000000000:0202 00000000000000000000000000000000:0000"
	)
	for name, test := range map[string]struct {
		isTCP bool
		row   string
		uid   uint32
		inode uint64
		drops int64 // -1: absent
	}{
		"udp4, %d drops":              {false, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -1294967296", 0, 11111, 3000000000},
		"udp4, %d drops, the least":   {false, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2147483648", 0, 11111, 1 << 31},
		"udp4, %d drops, the most":    {false, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -1", 0, 11111, 1<<32 - 1},
		"udp6, %d drops":              {false, "  512: " + any6 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"udplite, %d drops":           {false, "    2: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"raw4, %d drops":              {false, "   1: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"raw6, %d drops":              {false, "   58: " + any6 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"icmp, %d drops":              {false, "    5: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -2", 0, 11111, 1<<32 - 2},
		"udp4, padded by seq_pad":     {false, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 -3         ", 0, 11111, 1<<32 - 3},
		"udp4, %d uid of nobody":      {false, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000    -2        0 11111 2 ffff88003aa3b400 0", 1<<32 - 2, 11111, 0},
		"tcp4, %d uid of nobody":      {true, "   2: " + any4 + " 01 00000000:00000000 00:00000000 00000000    -2        0 11111 2 ffff88003aa3b400 20 4 30 10 -1", 1<<32 - 2, 11111, -1},
		"udp4 of Linux 2.6.26":        {false, " 512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400", 0, 11111, -1},
		"pointer of 32 bits":          {false, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 c1bc91a5 5", 0, 11111, 5},
		"pointer not hashed yet":      {false, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 (____ptrval____) 5", 0, 11111, 5},
		"the same of 32 bits":         {false, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2 (ptrval) 5", 0, 11111, 5},
		"no pointer":                  {false, "  512: " + any4 + " 07 00000000:00000000 00:00000000 00000000     0        0 11111 2           (null) 5", 0, 11111, 5},
		"tcp4 in TIME_WAIT":           {true, "   2: " + any4 + " 06 00000000:00000000 03:000016FE 00000000     0        0 0 3 ffff88003aa3b400", 0, 0, -1},
		"tcp4 in SYN_RECV, padded":    {true, "   2: " + any4 + " 03 00000000:00000000 01:0000005F 00000000    -2        0 0 0 (____ptrval____)                                  ", 1<<32 - 2, 0, -1},
		"tcp6":                        {true, "   2: " + any6 + " 01 00000000:00000000 00:00000000 00000000     0        0 11111 1 (____ptrval____) 20 4 0 10 -1", 0, 11111, -1},
		"a timer that is overdue":     {true, "   2: " + any4 + " 01 00000000:00000000 01:FFFFFFFFFFFFFFFE 00000003     0        0 11111 2 ffff88003aa3b400 20 4 30 10 -1", 0, 11111, -1},
		"sl wider than its column":    {true, "123456: " + any4 + " 01 00000000:00000000 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 20 4 30 10 -1", 0, 11111, -1},
		"rx_queue that went negative": {false, "  512: " + any4 + " 07 00000000:FFFFFD00 00:00000000 00000000     0        0 11111 2 ffff88003aa3b400 5", 0, 11111, 5},
	} {
		t.Run(name, func(t *testing.T) {
			var r InetRow
			require.NoError(t, parseInetRow(&r, test.row, test.isTCP, binary.LittleEndian))
			require.Equal(t, test.uid, r.UID)
			require.Equal(t, test.inode, r.Inode)
			require.Equal(t, uint16(0x202), r.Local.Port())
			require.Equal(t, test.drops >= 0, r.HasDrops)
			require.Equal(t, uint32(max(test.drops, 0)), r.Drops)
		})
	}
}

func TestRowsDoNotAllocate(t *testing.T) {
	row := []byte("   2: 0A0200C0:0050 076433C6:C350 01 00000050:00000100 00:00000000 00000000    33        0 20021 2 0000000000000001 20 4 30 10 -1\n")
	table := append([]byte("header\n"), bytes.Repeat(row, 100)...)
	var (
		rr     RowReader
		r      InetRow
		reader = bytes.NewReader(table)
	)
	parse := func(_ int, text []byte, err error) bool {
		return err == nil && r.Parse(text, binary.LittleEndian) == nil && r.ParseWithDrops(text, binary.BigEndian) == nil
	}
	allocs := testing.AllocsPerRun(10, func() {
		reader.Reset(table)
		if err := rr.Each(reader, parse); err != nil || r.Inode != 20021 {
			t.Fatal(err)
		}
		r.Inode = 0
	})
	require.Zero(t, allocs)
}

// formatInetRow is the inverse of InetRow.ParseWithDrops.
func formatInetRow(r *InetRow, order binary.ByteOrder) string {
	row := fmt.Sprintf("0: %s %s %02X %08X:%08X 00:00000000 00000000 %d 0 %d 2 0",
		formatAddrPort(r.Local, order), formatAddrPort(r.Remote, order), r.State, r.TxQueue, r.RxQueue, r.UID, r.Inode)
	if r.HasDrops {
		row += fmt.Sprintf(" %d", r.Drops)
	}
	return row
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
		order := binary.ByteOrder(binary.LittleEndian)
		if isBigEndian {
			order = binary.BigEndian
		}
		var r InetRow
		if parseInetRow(&r, string(row), isTCP, order) != nil {
			return
		}
		require.False(t, isTCP && r.HasDrops)
		again := InetRow{UID: 99, Drops: 99}
		formatted := formatInetRow(&r, order)
		require.NoError(t, parseInetRow(&again, formatted, isTCP, order))
		require.Equal(t, r, again, "row %q, formatted as %q", row, formatted)
	})
}

package netstat

import (
	"errors"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

func TestParseRow(t *testing.T) {
	UseLittleEndian(t)
	any4, any6 := netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")
	const zero6 = "00000000000000000000000000000000"
	for name, test := range map[string]struct {
		transport Transport
		row       string
		want      Socket
	}{
		"TCP": {
			TransportTCP, " 2: 0A0200C0:0050 076433C6:C350 01 00000050:00000100 00:00000000 00000000 33 0 20021 2 0000000000000001 20 4 30 10 -1",
			Socket{
				Family: FamilyIPv4, State: TCPEstablished, UID: 33, Inode: 20021, SendQueue: 80, RecvQueue: 256,
				Local: netip.MustParseAddrPort("192.0.2.10:80"), Remote: netip.MustParseAddrPort("198.51.100.7:50000"),
			},
		},
		"TCP, listening": {
			TransportTCP, " 1: 00000000:0000 00000000:0000 0A 00000007:00000003 00:00000000 00000000 0 0 20020 2 0000000000000001 100 0 0 10 0",
			Socket{Family: FamilyIPv4, State: TCPListen, Inode: 20020, AcceptQueue: 3, fields: FieldAcceptQueue, Local: any4, Remote: any4},
		},
		"UDP": {
			TransportUDP, " 1: " + zero6 + ":0000 " + zero6 + ":0000 07 00000001:00000002 00:00000000 00000000 0 0 20060 2 0000000000000001 7",
			Socket{Family: FamilyIPv6, State: TCPClose, Inode: 20060, SendQueue: 1, RecvQueue: 2, Drops: 7, fields: FieldDrops, Local: any6, Remote: any6},
		},
		"UDP without drops": {
			TransportUDP, " 1: 00000000:0000 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 20060",
			Socket{Family: FamilyIPv4, State: TCPClose, Inode: 20060, Local: any4, Remote: any4},
		},
		"raw, state LISTEN": {
			TransportRaw, " 1: 00000000:0000 00000000:0000 0A 00000001:00000002 00:00000000 00000000 0 0 20064 2 0000000000000001 0",
			Socket{Family: FamilyIPv4, State: TCPListen, Inode: 20064, SendQueue: 1, RecvQueue: 2, fields: FieldDrops, Local: any4, Remote: any4},
		},
		"unix, listening":   {TransportUnix, "1: 2 0 00010000 0001 01 30001 /run/a", Socket{Family: FamilyUnix, State: TCPListen, Inode: 30001}},
		"unix, connected":   {TransportUnix, "1: 3 0 00000000 0001 03 30002", Socket{Family: FamilyUnix, State: TCPEstablished, Inode: 30002}},
		"unix, connecting":  {TransportUnix, "1: 3 0 00000000 0001 02     0", Socket{Family: FamilyUnix, State: TCPEstablished}},
		"unix, unconnected": {TransportUnix, "1: 2 0 00000000 0002 01 30004", Socket{Family: FamilyUnix, State: TCPClose, Inode: 30004}},
		"unix, other flags": {TransportUnix, "1: 2 0 00020000 0001 04 30005", Socket{Family: FamilyUnix, State: TCPClose, Inode: 30005}},
	} {
		t.Run(name, func(t *testing.T) {
			test.want.Transport = test.transport
			// Nothing of the previous socket remains.
			got := Socket{
				State: 99, UID: 99, Inode: 99, RecvQueue: 99, SendQueue: 99, AcceptQueue: 99, Drops: 99,
				Local: any4, Path: "/run/b", fields: FieldTCPInfo | FieldDrops,
			}
			require.NoError(t, got.parseRow([]byte(test.row), test.transport))
			require.Equal(t, test.want, got)
		})
	}
	var s Socket
	require.ErrorIs(t, s.parseRow([]byte("rest of a name"), TransportUnix), procfs.ErrNotUnixRow)
	for _, transport := range []Transport{TransportTCP, TransportUDP} {
		require.EqualError(t, s.parseRow([]byte("0: broken"), transport), `row "0: broken" has 2 columns, at least 10 expected`)
	}
}

func TestParseRowDoesNotAllocate(t *testing.T) {
	inet := []byte("   2: 0A0200C0:0050 076433C6:C350 01 00000050:00000100 00:00000000 00000000    33        0 20021 2 0000000000000001 20 4 30 10 -1")
	unix := []byte("000000009f529a8e: 00000003 00000000 00000000 0001 03 30002 /run/systemd/private")
	var s Socket
	require.Zero(t, testing.AllocsPerRun(10, func() {
		if err := errors.Join(s.parseRow(inet, TransportTCP), s.parseRow(inet, TransportUDP), s.parseRow(unix, TransportUnix)); err != nil {
			t.Fatal(err)
		}
	}))
}

// Both APIs return the same values for a row.
func FuzzParseRow(f *testing.F) {
	f.Add([]byte(" 2: 0A0200C0:0050 076433C6:C350 01 00000050:00000100 00:00000000 00000000 33 0 20021 2 0000000000000001 20 4 30 10 -1"), true)
	f.Add([]byte(" 1: 00000000:0000 00000000:0000 0A 00000007:00000003 00:00000000 00000000 0 0 20020 2 0000000000000001 100 0 0 10 0"), true)
	f.Add([]byte(" 1: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000 -2 0 20060 2 0000000000000001 7"), false)
	f.Fuzz(func(t *testing.T, row []byte, isTCP bool) {
		transport := TransportUDP
		if isTCP {
			transport = TransportTCP
		}
		var (
			s Socket
			c Connection
		)
		if s.parseRow(row, transport) != nil || c.parse(row, map[uint32]string{}) != nil {
			return
		}
		if isTCP && s.State == TCPListen {
			require.Zero(t, s.SendQueue)
			s.RecvQueue, s.SendQueue = s.AcceptQueue, uint32(c.TransmitQueue)
		}
		require.Equal(t, []uint64{s.Inode, uint64(s.RecvQueue), uint64(s.SendQueue)}, []uint64{c.Inode, c.ReceiveQueue, c.TransmitQueue})
		require.Equal(t, strconv.FormatUint(uint64(s.UID), 10), c.UserID)
		require.Equal(t, s.State, c.State)
		require.Equal(t, s.Local.Addr().AsSlice(), []byte(c.IP))
		require.Equal(t, s.Remote.Addr().AsSlice(), []byte(c.RemoteIP))
		require.True(t, c.Port == int(s.Local.Port()) && c.RemotePort == int(s.Remote.Port()))
	})
}

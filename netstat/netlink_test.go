package netstat

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

var attribute, u32s, answer = sockdiagtest.Attribute, sockdiagtest.Uint32s, sockdiagtest.Answer

func TestDecodeInetMsg(t *testing.T) {
	memInfo := func(vars int) []byte {
		values := make([]uint32, vars)
		for i := range values {
			values[i] = uint32(100 + i)
		}
		return attribute(sockdiag.InetSKMemInfo, u32s(values...))
	}
	cgroup := attribute(sockdiag.InetCgroupID, binary.NativeEndian.AppendUint64(nil, 1<<40|7))
	tcpInfo := attribute(sockdiag.InetInfo, make([]byte, 248))

	v4 := sockdiagtest.Inet{
		Family: sockdiag.AFInet, State: uint8(TCPEstablished), Local: "192.0.2.1:80", Remote: "198.51.100.7:50000",
		Interface: 3, Cookie: 0xfedcba9876543210, RecvQueue: 1 << 31, SendQueue: 5, UID: 4294967294, Inode: 1<<32 - 1,
	}
	const v4Text = "tcp ipv4 ESTABLISHED 192.0.2.1:80 198.51.100.7:50000 inode=4294967295 uid=4294967294 " +
		"recv=2147483648 send=5"
	const ids = " interface=3 cookie=18364758544493064720"
	with := func(m sockdiagtest.Inet, state TCPState, attributes ...[]byte) sockdiagtest.Inet {
		m.State, m.Attributes = uint8(state), bytes.Join(attributes, nil)
		return m
	}
	mapped := v4
	mapped.Family, mapped.Local, mapped.Remote = sockdiag.AFInet6, "[::ffff:192.0.2.1]:80", "[2001:db8::7]:65535"

	for _, test := range []struct {
		name      string
		transport Transport
		message   sockdiagtest.Inet
		want      string
	}{
		{"ipv4", TransportTCP, v4, v4Text + ids},
		{"ipv6", TransportTCP, mapped, "tcp ipv6 ESTABLISHED [::ffff:192.0.2.1]:80 [2001:db8::7]:65535 " +
			"inode=4294967295 uid=4294967294 recv=2147483648 send=5" + ids},
		{"unknown state", TransportTCP, with(v4, 200), strings.Replace(v4Text, "ESTABLISHED", "TCPState(200)", 1) + ids},
		{"listening", TransportTCP, with(v4, TCPListen, memInfo(9)), "tcp ipv4 LISTEN 192.0.2.1:80 198.51.100.7:50000 " +
			"inode=4294967295 uid=4294967294 recv=0 send=0 accept=2147483648 limit=5 drops=108" + ids},
		{"listening, with tcp_info, which means something else then", TransportTCP, with(v4, TCPListen, tcpInfo),
			"tcp ipv4 LISTEN 192.0.2.1:80 198.51.100.7:50000 inode=4294967295 uid=4294967294 recv=0 send=0 " +
				"accept=2147483648 limit=5" + ids},
		{"a udp socket does not listen", TransportUDP, with(v4, TCPListen, tcpInfo),
			"udp ipv4 LISTEN 192.0.2.1:80 198.51.100.7:50000 inode=4294967295 uid=4294967294 recv=2147483648 send=5" + ids},
		{"meminfo", TransportUDP, with(v4, TCPEstablished, memInfo(9)), strings.Replace(v4Text, "tcp", "udp", 1) + " drops=108" + ids},
		{"longer meminfo", TransportUDP, with(v4, TCPEstablished, memInfo(12)),
			strings.Replace(v4Text, "tcp", "udp", 1) + " drops=108" + ids},
		{"meminfo before Linux 4.7", TransportUDP, with(v4, TCPEstablished, memInfo(8)), strings.Replace(v4Text, "tcp", "udp", 1) + ids},
		{"meminfo of one byte", TransportUDP, with(v4, TCPEstablished, attribute(sockdiag.InetSKMemInfo, []byte{1})),
			strings.Replace(v4Text, "tcp", "udp", 1) + ids},
		{"cgroup", TransportTCP, with(v4, TCPEstablished, cgroup), v4Text + ids + " cgroup=1099511627783"},
		{"cgroup of seven bytes", TransportTCP,
			with(v4, TCPEstablished, attribute(sockdiag.InetCgroupID, make([]byte, 7))), v4Text + ids},
		{"attributes without a value, unknown, nested", TransportTCP, with(v4, TCPEstablished,
			attribute(sockdiag.InetInfo, nil), attribute(9999, []byte{1, 2, 3}), attribute(0x8000|30, memInfo(9)), cgroup),
			v4Text + ids + " cgroup=1099511627783"},
		{"flags in the type of an attribute", TransportTCP,
			with(v4, TCPEstablished, attribute(0xc000|sockdiag.InetCgroupID, binary.NativeEndian.AppendUint64(nil, 7))),
			v4Text + ids + " cgroup=7"},
		{"rest too short for an attribute", TransportTCP, with(v4, TCPEstablished, cgroup, []byte{0, 0, 0}),
			v4Text + ids + " cgroup=1099511627783"},
		{"last attribute without padding", TransportTCP,
			with(v4, TCPEstablished, cgroup, attribute(sockdiag.InetSKMemInfo, []byte{1})[:5]),
			v4Text + ids + " cgroup=1099511627783"},
		{"tcp_info", TransportTCP, with(v4, TCPEstablished, tcpInfo), v4Text + ids +
			" rtt=0 rttvar=0 minrtt=0 cwnd=0 mss=0 retrans=0 acked=0 received=0 segs_out=0 segs_in=0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := Socket{Inode: 1, fields: fieldsAll, TCP: TCPInfo{RTT: 1}, Drops: 1, CgroupID: 1, AcceptQueue: 1, NetNS: 5}
			require.NoError(t, s.decodeInet(test.message.Bytes(), test.transport))
			require.Equal(t, test.want, describe(&s, fieldsAll))
			require.EqualValues(t, 5, s.NetNS, "set by the scan")
			requireAbsentIsZero(t, &s)
		})
	}
}

// requireAbsentIsZero fails the test if a field is set that the socket does not have.
func requireAbsentIsZero(tb testing.TB, s *Socket) {
	tb.Helper()
	for _, part := range []struct {
		field Field
		zero  bool
	}{
		{FieldCookie, s.Cookie == 0},
		{FieldInterface, s.Interface == 0},
		{FieldCgroupID, s.CgroupID == 0},
		{FieldAcceptQueue, s.AcceptQueue == 0},
		{FieldAcceptQueueLimit, s.AcceptQueueLimit == 0},
		{FieldDrops, s.Drops == 0},
		{FieldTCPInfo, s.TCP.RTT|s.TCP.RTTVar|s.TCP.MinRTT|s.TCP.CWnd|s.TCP.SndMSS|s.TCP.RetransSegs == 0},
		{FieldTCPBytes, s.TCP.BytesAcked|s.TCP.BytesReceived == 0},
		{FieldTCPSegs, s.TCP.SegsOut|s.TCP.SegsIn == 0},
		{FieldTCPInfo, s.TCP.LastDataSent|s.TCP.LastDataRecv == 0},
		{FieldTCPLimits, s.TCP.BusyTime|s.TCP.RwndLimited|s.TCP.SndbufLimited == 0 && s.TCP.NotsentBytes == 0},
		{FieldTCPDSACKDups, s.TCP.DSACKDups == 0},
		{FieldTCPRcvOOOPack, s.TCP.RcvOOOPack == 0},
		{FieldTCPTotalRTO, s.TCP.TotalRTO == 0},
	} {
		if !s.Has(part.field) && !part.zero {
			tb.Fatalf("field %#x is absent, and not zero: %+v", part.field, s)
		}
	}
}

func TestDecodeInetMsgErrors(t *testing.T) {
	whole := sockdiagtest.Inet{Family: sockdiag.AFInet, State: uint8(TCPEstablished), Local: "192.0.2.1:80", Remote: "192.0.2.1:80"}
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "inet_diag_msg of 0 bytes: message is cut off"},
		{"one byte short", whole.Bytes()[:71], "inet_diag_msg of 71 bytes: message is cut off"},
		{"unix socket", sockdiagtest.Inet{Family: sockdiag.AFUnix, Local: whole.Local, Remote: whole.Remote}.Bytes(),
			"inet_diag_msg of unknown address family 1"},
		{"attribute length below its header", append(whole.Bytes(), 3, 3, 0, 0), "attributes of inet_diag_msg: message is cut off"},
		{"attribute cut off", append(whole.Bytes(), attribute(sockdiag.InetInfo, make([]byte, 200))[:203]...),
			"attributes of inet_diag_msg: message is cut off"},
		{"second attribute cut off", append(append(whole.Bytes(), attribute(7, nil)...), 8, 8, 2, 0, 0, 0, 0),
			"attributes of inet_diag_msg: message is cut off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := new(Socket).decodeInet(test.b, TransportTCP)
			require.EqualError(t, err, test.want)
		})
	}
}

// struct tcp_info grows with kernel versions: at each length, exactly the fields within it are decoded.
func TestDecodeTCPInfoOfEveryLength(t *testing.T) {
	const longest = 300
	info := make([]byte, longest)
	for i := range info {
		info[i] = byte(i + 1)
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(info[at:]) }
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(info[at:]) }
	for length := range longest + 1 {
		var want TCPInfo
		var fields Field
		if length >= 104 { // Linux 2.6
			fields |= FieldTCPInfo
			want.SndMSS, want.RTT, want.RTTVar, want.CWnd, want.RetransSegs = u32(16), u32(68), u32(72), u32(80), u32(100)
			want.Retransmits, want.Lost = info[2], u32(32)
			want.LastDataSent, want.LastDataRecv = u32(44), u32(52)
		}
		if length >= 136 { // Linux 4.1
			fields |= FieldTCPBytes
			want.BytesAcked, want.BytesReceived = u64(120), u64(128)
		}
		if length >= 144 { // Linux 4.2
			fields |= FieldTCPSegs
			want.SegsOut, want.SegsIn = u32(136), u32(140)
		}
		if length >= 152 { // Linux 4.6
			want.MinRTT = u32(148)
		}
		if length >= 192 { // Linux 4.10
			fields |= FieldTCPLimits
			want.NotsentBytes, want.BusyTime, want.RwndLimited, want.SndbufLimited = u32(144), u64(168), u64(176), u64(184)
		}
		if length >= 208 { // Linux 4.19
			fields |= FieldTCPBytesSent
			want.BytesSent = u64(200)
		}
		if length >= 220 { // Linux 4.19
			fields |= FieldTCPDSACKDups
			want.DSACKDups = u32(216)
		}
		if length >= 228 { // Linux 5.4
			fields |= FieldTCPRcvOOOPack
			want.RcvOOOPack = u32(224)
		}
		if length >= 242 { // Linux 6.7
			fields |= FieldTCPTotalRTO
			want.TotalRTO = binary.NativeEndian.Uint16(info[240:])
		}
		message := sockdiagtest.Inet{
			Family: sockdiag.AFInet, State: uint8(TCPCloseWait), Local: "192.0.2.1:80", Remote: "192.0.2.1:80",
			Attributes: attribute(sockdiag.InetInfo, info[:length]),
		}
		s := Socket{TCP: TCPInfo{
			RTT: 1, BytesAcked: 1, SegsOut: 1, MinRTT: 1, LastDataSent: 1, BusyTime: 1, DSACKDups: 1, RcvOOOPack: 1, TotalRTO: 1,
		}}
		require.NoError(t, s.decodeInet(message.Bytes(), TransportTCP))
		require.Equal(t, want, s.TCP, "%d bytes", length)
		require.Equal(t, fields|FieldCookie|FieldInterface, s.fields, "%d bytes", length)
	}
}

// Before the first sample, tcpi_min_rtt is the highest number.
func TestDecodeTCPInfoWithoutRTT(t *testing.T) {
	info := make([]byte, 248)
	binary.NativeEndian.PutUint32(info[148:], 1<<32-1)
	var i TCPInfo
	require.Equal(t, closedFields&^(FieldInterface|FieldCookie), i.set(info))
	require.Zero(t, i.MinRTT)
}

func TestDecodeUnixMsg(t *testing.T) {
	queues, uid := attribute(sockdiag.UnixRQLen, u32s(3, 768)), attribute(sockdiag.UnixUID, u32s(1000))
	const cookie = " cookie=81985529216486895"
	for _, test := range []struct {
		name    string
		message []byte
		want    string
	}{
		{"no attributes", sockdiagtest.Unix(uint8(TCPClose)), "unix unix CLOSE inode=4711 uid=0 recv=0 send=0" + cookie},
		{"queues and user", sockdiagtest.Unix(uint8(TCPEstablished), queues, uid),
			"unix unix ESTABLISHED inode=4711 uid=1000 recv=3 send=768" + cookie},
		{"listening", sockdiagtest.Unix(uint8(TCPListen), queues, uid),
			"unix unix LISTEN inode=4711 uid=1000 recv=0 send=0 accept=3 limit=768" + cookie},
		{"listening, without queues", sockdiagtest.Unix(uint8(TCPListen), uid),
			"unix unix LISTEN inode=4711 uid=1000 recv=0 send=0" + cookie},
		{"short attributes",
			sockdiagtest.Unix(uint8(TCPEstablished), attribute(sockdiag.UnixRQLen, make([]byte, 7)),
				attribute(sockdiag.UnixUID, make([]byte, 3))),
			"unix unix ESTABLISHED inode=4711 uid=0 recv=0 send=0" + cookie},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := Socket{UID: 7, fields: fieldsAll, NetNS: 5}
			require.NoError(t, s.decodeUnix(test.message, new(pathTable)))
			require.Equal(t, test.want, describe(&s, fieldsAll))
			require.EqualValues(t, 5, s.NetNS)
			require.Equal(t, netip.AddrPort{}, s.Local)
		})
	}
}

func TestDecodeUnixMsgErrors(t *testing.T) {
	inet := sockdiagtest.Unix(uint8(TCPClose))
	inet[0] = sockdiag.AFInet
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "unix_diag_msg of 0 bytes: message is cut off"},
		{"one byte short", sockdiagtest.Unix(uint8(TCPClose))[:15], "unix_diag_msg of 15 bytes: message is cut off"},
		{"other family", inet, "unix_diag_msg of unknown address family 2"},
		{"attribute cut off", sockdiagtest.Unix(uint8(TCPClose), []byte{9, 9, 4, 0}),
			"attributes of unix_diag_msg: message is cut off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.EqualError(t, new(Socket).decodeUnix(test.b, new(pathTable)), test.want)
		})
	}
}

// The captures are what a kernel answered to the dumps of one network namespace, with sockets in every state: for each request
// the messages that it sent, and the sockets in them as describe writes them.
const (
	capturesDir = "internal/sockdiag/testdata" // .bin
	goldenDir   = "testdata/sockdiag"          // .golden
)

// captures are the recorded dumps of one network namespace with sockets in every state.
var captures = map[string]Transport{
	"tcp-listen":    TransportTCP,
	"tcp-connected": TransportTCP,
	"udp4":          TransportUDP,
	"udp6":          TransportUDP,
	"unix":          TransportUnix,
}

// update makes TestCaptures replace the descriptions.
var update = flag.Bool("update-sockdiag", false, "describe the sockets of the captures in "+goldenDir)

// readCapture returns the payload of each socket in a capture, or nothing on a big-endian host.
func readCapture(tb testing.TB, name string) (payloads [][]byte) {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join(capturesDir, name+".bin"))
	require.NoError(tb, err)
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil
	}
	to := sockdiag.Exchange{Sequence: binary.NativeEndian.Uint32(content[8:]), Port: binary.NativeEndian.Uint32(content[12:])}
	done, interrupted, err := sockdiag.EachAnswer(content, to, func(payload []byte) bool {
		payloads = append(payloads, payload)
		return true
	})
	require.NoError(tb, err)
	require.True(tb, done)
	require.False(tb, interrupted)
	return payloads
}

// decode decodes a payload into s.
func decode(s *Socket, payload []byte, transport Transport) error {
	if transport == TransportUnix {
		return s.decodeUnix(payload, new(pathTable))
	}
	return s.decodeInet(payload, transport)
}

func TestCaptures(t *testing.T) {
	for name, transport := range captures {
		t.Run(name, func(t *testing.T) {
			payloads := readCapture(t, name)
			if len(payloads) == 0 {
				t.Skip("netlink messages are in the byte order of the host, and these were recorded on a little-endian one")
			}
			var s Socket
			var text strings.Builder
			for _, payload := range payloads {
				require.NoError(t, decode(&s, payload, transport))
				requireAbsentIsZero(t, &s)
				fmt.Fprintln(&text, describe(&s, fieldsAll))
			}
			file := filepath.Join(goldenDir, name+".golden")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o644))
			}
			golden, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(golden), text.String())
		})
	}
}

// Every message of the captures, cut off at each byte, is decoded or refused.
func TestCapturesCutOff(t *testing.T) {
	for name, transport := range captures {
		t.Run(name, func(t *testing.T) {
			for _, payload := range readCapture(t, name) {
				for end := range payload {
					var s Socket
					if err := decode(&s, payload[:end], transport); err != nil {
						require.ErrorIs(t, err, sockdiag.ErrShort)
						continue
					}
					requireAbsentIsZero(t, &s)
				}
			}
		})
	}
}

// A message is an error, or a socket without values in absent fields.
func FuzzDecodeInetMsg(f *testing.F) {
	for name, transport := range captures {
		if transport == TransportUnix {
			continue
		}
		for _, payload := range readCapture(f, name) {
			f.Add(byte(transport), payload)
		}
	}
	f.Fuzz(func(t *testing.T, transport byte, b []byte) {
		before := bytes.Clone(b)
		s := Socket{NetNS: 5, Inode: 1, fields: fieldsAll, TCP: TCPInfo{RTT: 1, SegsIn: 1, BytesAcked: 1}, Drops: 1}
		err := s.decodeInet(b, Transport(transport))
		require.Equal(t, before, b)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, len(b), 72)
		require.Equal(t, Transport(transport), s.Transport)
		require.EqualValues(t, 5, s.NetNS)
		require.Equal(t, s.Family == FamilyIPv4, s.Local.Addr().Is4() && s.Remote.Addr().Is4())
		require.Equal(t, s.Family == FamilyIPv6, s.Local.Addr().Is6() && s.Remote.Addr().Is6())
		hasQueue := s.Transport == TransportTCP || s.Transport == TransportUnix
		require.Equal(t, hasQueue && s.State == TCPListen, s.Has(FieldAcceptQueue|FieldAcceptQueueLimit))
		if s.Has(FieldAcceptQueue) {
			require.Zero(t, s.RecvQueue|s.SendQueue)
			require.False(t, s.Has(FieldTCPInfo))
		}
		requireAbsentIsZero(t, &s)
	})
}

func FuzzDecodeUnixMsg(f *testing.F) {
	for _, payload := range readCapture(f, "unix") {
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		s := Socket{NetNS: 5, UID: 1, RecvQueue: 1, fields: fieldsAll, Drops: 1}
		err := s.decodeUnix(b, new(pathTable))
		require.Equal(t, before, b)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, len(b), 16)
		if s.State != TCPListen {
			require.Equal(t, FieldCookie, s.fields)
		} else {
			require.Equal(t, FieldCookie, s.fields&^(FieldAcceptQueue|FieldAcceptQueueLimit))
			require.Equal(t, s.Has(FieldAcceptQueue), s.Has(FieldAcceptQueueLimit))
		}
		require.Equal(t, FamilyUnix, s.Family)
		require.EqualValues(t, 5, s.NetNS)
		require.Zero(t, s.Drops)
		if s.State == TCPListen {
			require.Zero(t, s.RecvQueue|s.SendQueue)
		}
	})
}

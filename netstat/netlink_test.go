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
)

// attribute is a struct nlattr with its padding.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

// u32s are numbers of 32 bits, one after the other.
func u32s(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

// answerPort is the port ID of whoever has asked for an answer.
const answerPort = 4711

// answer is a netlink message as the kernel sends it, with its padding.
func answer(kind, flags uint16, sequence uint32, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(nlmsgHeaderLen+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = binary.NativeEndian.AppendUint32(b, answerPort) // nlmsg_pid
	b = append(b, payload...)
	return append(b, make([]byte, align4(len(b))-len(b))...)
}

func TestRequest(t *testing.T) {
	order := binary.NativeEndian
	header := func(b []byte, kind uint16) []byte {
		require.EqualValues(t, len(b), order.Uint32(b[0:]))
		require.Equal(t, kind, order.Uint16(b[4:]))
		require.EqualValues(t, 0x301, order.Uint16(b[6:]), "NLM_F_REQUEST | NLM_F_DUMP")
		require.EqualValues(t, 7, order.Uint32(b[8:]))
		require.EqualValues(t, 0, order.Uint32(b[12:]))
		return b[16:]
	}
	for _, test := range []struct {
		request                      dumpRequest
		family, protocol, extensions byte
	}{
		{dumpRequest{transport: TransportTCP, family: FamilyIPv4, tcpInfo: true}, 2, 6, 1 << 1},
		{dumpRequest{transport: TransportTCP, family: FamilyIPv6, memInfo: true}, 10, 6, 1 << 6},
		{dumpRequest{transport: TransportUDP, family: FamilyIPv4, tcpInfo: true, memInfo: true}, 2, 17, 1<<1 | 1<<6},
		{dumpRequest{transport: TransportUDPLite, family: FamilyIPv6}, 10, 136, 0},
		{dumpRequest{transport: TransportRaw, family: FamilyIPv4}, 2, 255, 0},
	} {
		test.request.states = 0x1234
		b := header(test.request.appendTo(nil, 7), sockDiagByFamily)
		require.Len(t, b, 56, "struct inet_diag_req_v2")
		require.Equal(t, []byte{test.family, test.protocol, test.extensions, 0}, b[:4])
		require.EqualValues(t, 0x1234, order.Uint32(b[4:]))
		require.Equal(t, make([]byte, 48), b[8:])
	}
	b := header(dumpRequest{transport: TransportTCP, states: 0x1234, tcpInfo: true, memInfo: true}.appendTo(nil, 7), 18)
	require.Len(t, b, 60, "struct inet_diag_req")
	require.Equal(t, []byte{0, 0, 0, 1<<1 | 1<<6}, b[:4])
	require.Equal(t, make([]byte, 48), b[4:52])
	require.EqualValues(t, 0x1234, order.Uint32(b[52:]))
	require.EqualValues(t, 0, order.Uint32(b[56:]))
	b = header(dumpRequest{transport: TransportUnix, family: FamilyUnix, states: 0x1234}.appendTo(nil, 7), 20)
	require.Len(t, b, 24, "struct unix_diag_req")
	require.Equal(t, []byte{1, 0, 0, 0}, b[:4])
	require.EqualValues(t, 0x1234, order.Uint32(b[4:]))
	require.EqualValues(t, 0, order.Uint32(b[8:]))
	require.EqualValues(t, 0x50, order.Uint32(b[12:]), "UDIAG_SHOW_RQLEN | UDIAG_SHOW_UID")
	require.Equal(t, make([]byte, 8), b[16:])
}

func TestStateSets(t *testing.T) {
	for state := TCPEstablished; state <= TCPNewSynRecv; state++ {
		require.Equal(t, state == TCPListen, statesListen&(1<<state) != 0, state)
		require.Equal(t, state != TCPListen, statesConnected&(1<<state) != 0, state)
		require.NotZero(t, statesAll&(1<<state), state)
	}
	const boundInactive = 13
	require.Zero(t, statesAll&(1<<boundInactive|1<<TCPUnknown))
}

func TestDecodeInetMsg(t *testing.T) {
	memInfo := func(vars int) []byte {
		values := make([]uint32, vars)
		for i := range values {
			values[i] = uint32(100 + i)
		}
		return attribute(inetDiagSKMemInfo, u32s(values...))
	}
	cgroup := attribute(inetDiagCgroupID, binary.NativeEndian.AppendUint64(nil, 1<<40|7))
	tcpInfo := attribute(inetDiagInfo, make([]byte, 248))

	v4 := inetMessage{
		family: afInet, state: TCPEstablished, local: "192.0.2.1:80", remote: "198.51.100.7:50000",
		device: 3, cookie: 0xfedcba9876543210, recv: 1 << 31, send: 5, uid: 4294967294, inode: 1<<32 - 1,
	}
	const v4Text = "tcp ipv4 ESTABLISHED 192.0.2.1:80 198.51.100.7:50000 inode=4294967295 uid=4294967294 " +
		"recv=2147483648 send=5"
	const ids = " interface=3 cookie=18364758544493064720"
	with := func(m inetMessage, state TCPState, attributes ...[]byte) inetMessage {
		m.state, m.attributes = state, bytes.Join(attributes, nil)
		return m
	}
	mapped := v4
	mapped.family, mapped.local, mapped.remote = afInet6, "[::ffff:192.0.2.1]:80", "[2001:db8::7]:65535"

	for _, test := range []struct {
		name      string
		transport Transport
		message   inetMessage
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
		{"meminfo of one byte", TransportUDP, with(v4, TCPEstablished, attribute(inetDiagSKMemInfo, []byte{1})),
			strings.Replace(v4Text, "tcp", "udp", 1) + ids},
		{"cgroup", TransportTCP, with(v4, TCPEstablished, cgroup), v4Text + ids + " cgroup=1099511627783"},
		{"cgroup of seven bytes", TransportTCP, with(v4, TCPEstablished, attribute(inetDiagCgroupID, make([]byte, 7))), v4Text + ids},
		{"attributes without a value, unknown, nested", TransportTCP, with(v4, TCPEstablished,
			attribute(inetDiagInfo, nil), attribute(9999, []byte{1, 2, 3}), attribute(0x8000|30, memInfo(9)), cgroup),
			v4Text + ids + " cgroup=1099511627783"},
		{"flags in the type of an attribute", TransportTCP,
			with(v4, TCPEstablished, attribute(0xc000|inetDiagCgroupID, binary.NativeEndian.AppendUint64(nil, 7))),
			v4Text + ids + " cgroup=7"},
		{"rest too short for an attribute", TransportTCP, with(v4, TCPEstablished, cgroup, []byte{0, 0, 0}),
			v4Text + ids + " cgroup=1099511627783"},
		{"last attribute without padding", TransportTCP, with(v4, TCPEstablished, cgroup, attribute(inetDiagSKMemInfo, []byte{1})[:5]),
			v4Text + ids + " cgroup=1099511627783"},
		{"tcp_info", TransportTCP, with(v4, TCPEstablished, tcpInfo), v4Text + ids +
			" rtt=0 rttvar=0 minrtt=0 cwnd=0 mss=0 retrans=0 acked=0 received=0 segs_out=0 segs_in=0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := Socket{Inode: 1, fields: fieldsAll, TCP: TCPInfo{RTT: 1}, Drops: 1, CgroupID: 1, AcceptQueue: 1, NetNS: 5}
			require.NoError(t, decodeInetMsg(test.message.bytes(), test.transport, &s))
			require.Equal(t, test.want, describe(&s, fieldsAll))
			require.EqualValues(t, 5, s.NetNS, "belongs to the scan")
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
	} {
		if !s.Has(part.field) && !part.zero {
			tb.Fatalf("field %#x is absent, and not zero: %+v", part.field, s)
		}
	}
}

func TestDecodeInetMsgErrors(t *testing.T) {
	whole := inetMessage{family: afInet, state: TCPEstablished, local: "192.0.2.1:80", remote: "192.0.2.1:80"}
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "inet_diag_msg of 0 bytes: message is cut off"},
		{"one byte short", whole.bytes()[:71], "inet_diag_msg of 71 bytes: message is cut off"},
		{"unix socket", inetMessage{family: afUnix, local: whole.local, remote: whole.remote}.bytes(),
			"inet_diag_msg of unknown address family 1"},
		{"attribute length below its header", append(whole.bytes(), 3, 3, 0, 0), "attributes of inet_diag_msg: message is cut off"},
		{"attribute cut off", append(whole.bytes(), attribute(inetDiagInfo, make([]byte, 200))[:203]...),
			"attributes of inet_diag_msg: message is cut off"},
		{"second attribute cut off", append(append(whole.bytes(), attribute(7, nil)...), 8, 8, 2, 0, 0, 0, 0),
			"attributes of inet_diag_msg: message is cut off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := decodeInetMsg(test.b, TransportTCP, new(Socket))
			require.EqualError(t, err, test.want)
		})
	}
}

// struct tcp_info grows from kernel to kernel: of each length, what lies within is there, and nothing else.
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
		if length >= 208 { // Linux 4.19
			fields |= FieldTCPBytesSent
			want.BytesSent = u64(200)
		}
		message := inetMessage{
			family: afInet, state: TCPCloseWait, local: "192.0.2.1:80", remote: "192.0.2.1:80",
			attributes: attribute(inetDiagInfo, info[:length]),
		}
		s := Socket{TCP: TCPInfo{RTT: 1, BytesAcked: 1, SegsOut: 1, MinRTT: 1}}
		require.NoError(t, decodeInetMsg(message.bytes(), TransportTCP, &s))
		require.Equal(t, want, s.TCP, "%d bytes", length)
		require.Equal(t, fields|FieldCookie|FieldInterface, s.fields, "%d bytes", length)
	}
}

// Before the first sample the kernel's least round-trip time is the highest number there is.
func TestDecodeTCPInfoWithoutRTT(t *testing.T) {
	info := make([]byte, 248)
	binary.NativeEndian.PutUint32(info[148:], 1<<32-1)
	var i TCPInfo
	require.Equal(t, FieldTCPInfo|FieldTCPBytes|FieldTCPSegs|FieldTCPBytesSent, i.decode(info))
	require.Zero(t, i.MinRTT)
}

func unixMessage(state TCPState, attributes ...[]byte) []byte {
	b := []byte{afUnix, 1, byte(state), 0}
	b = append(b, u32s(4711, 0x89abcdef, 0x01234567)...)
	return append(b, bytes.Join(attributes, nil)...)
}

func TestDecodeUnixMsg(t *testing.T) {
	queues, uid := attribute(unixDiagRQLen, u32s(3, 768)), attribute(unixDiagUID, u32s(1000))
	const cookie = " cookie=81985529216486895"
	for _, test := range []struct {
		name    string
		message []byte
		want    string
	}{
		{"no attributes", unixMessage(TCPClose), "unix unix CLOSE inode=4711 uid=0 recv=0 send=0" + cookie},
		{"queues and user", unixMessage(TCPEstablished, queues, uid), "unix unix ESTABLISHED inode=4711 uid=1000 recv=3 send=768" + cookie},
		{"listening", unixMessage(TCPListen, queues, uid), "unix unix LISTEN inode=4711 uid=1000 recv=0 send=0" + cookie},
		{"short attributes", unixMessage(TCPEstablished, attribute(unixDiagRQLen, make([]byte, 7)), attribute(unixDiagUID, make([]byte, 3))),
			"unix unix ESTABLISHED inode=4711 uid=0 recv=0 send=0" + cookie},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := Socket{UID: 7, fields: fieldsAll, NetNS: 5}
			require.NoError(t, decodeUnixMsg(test.message, &s))
			require.Equal(t, test.want, describe(&s, fieldsAll))
			require.EqualValues(t, 5, s.NetNS)
			require.Equal(t, netip.AddrPort{}, s.Local)
		})
	}
}

func TestDecodeUnixMsgErrors(t *testing.T) {
	inet := unixMessage(TCPClose)
	inet[0] = afInet
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "unix_diag_msg of 0 bytes: message is cut off"},
		{"one byte short", unixMessage(TCPClose)[:15], "unix_diag_msg of 15 bytes: message is cut off"},
		{"other family", inet, "unix_diag_msg of unknown address family 2"},
		{"attribute cut off", unixMessage(TCPClose, []byte{9, 9, 4, 0}), "attributes of unix_diag_msg: message is cut off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.EqualError(t, decodeUnixMsg(test.b, new(Socket)), test.want)
		})
	}
}

func TestEachAnswer(t *testing.T) {
	const ours, foreign = 7, 6
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	socket := func(text string) []byte { return answer(sockDiagByFamily, 0x2, ours, []byte(text)) }
	end := answer(nlmsgDone, 0x2, ours, u32s(0))
	for _, test := range []struct {
		name        string
		b           []byte
		want        []string
		done        bool
		interrupted bool
	}{
		{name: "nothing"},
		{name: "sockets", b: join(socket("one"), socket("two!")), want: []string{"one", "two!"}},
		{name: "the end", b: join(socket("one"), end), want: []string{"one"}, done: true},
		{name: "an end without a number", b: answer(nlmsgDone, 0, ours, nil), done: true},
		{name: "an acknowledgement", b: answer(nlmsgError, 0, ours, u32s(0, 0, 0, 0, 0)), done: true},
		{name: "nothing after the end", b: join(end, socket("one")), done: true},
		{name: "answers to earlier requests", want: []string{"one"}, b: join(
			answer(sockDiagByFamily, nlmFlagDumpIntr, foreign, []byte("old")),
			answer(nlmsgError, 0, foreign, u32s(1<<32-1)),
			answer(nlmsgDone, 0, foreign, u32s(0)),
			socket("one"))},
		{name: "other messages", b: join(answer(1, 0, ours, nil), answer(4, 0, ours, nil), socket("one")), want: []string{"one"}},
		{name: "interrupted at a socket", b: join(answer(sockDiagByFamily, 0x2|nlmFlagDumpIntr, ours, []byte("one")), socket("two")),
			want: []string{"one", "two"}, interrupted: true},
		{name: "interrupted at the end", b: join(socket("one"), answer(nlmsgDone, nlmFlagDumpIntr, ours, u32s(0))),
			want: []string{"one"}, done: true, interrupted: true},
		{name: "last message without padding", b: socket("one")[:nlmsgHeaderLen+3], want: []string{"one"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			done, interrupted, err := eachAnswer(test.b, exchange{answerPort, ours}, func(payload []byte) bool {
				got = append(got, string(payload))
				return true
			})
			require.NoError(t, err)
			require.Equal(t, test.want, got)
			require.Equal(t, test.done, done)
			require.Equal(t, test.interrupted, interrupted)
		})
	}
}

func TestEachAnswerErrors(t *testing.T) {
	const ours = 7
	socket := answer(sockDiagByFamily, 0x2|nlmFlagDumpIntr, ours, []byte("one!"))
	tooLong := bytes.Clone(socket)
	binary.NativeEndian.PutUint32(tooLong, 1<<32-1)
	tooShort := bytes.Clone(socket)
	binary.NativeEndian.PutUint32(tooShort, nlmsgHeaderLen-1)
	for _, test := range []struct {
		name string
		b    []byte
		done bool
	}{
		{"header cut off", socket[:nlmsgHeaderLen-1], false},
		{"payload cut off", socket[:len(socket)-1], false},
		{"length out of range", tooLong, false},
		{"length below the header", tooShort, false},
		{"error without a number", answer(nlmsgError, 0, ours, []byte{1, 2, 3}), true},
		{"error without any payload", answer(nlmsgError, 0, ours, nil), true},
		{"end with half a number", answer(nlmsgDone, 0, ours, []byte{1}), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen := 0
			done, interrupted, err := eachAnswer(append(bytes.Clone(socket), test.b...), exchange{answerPort, ours}, func([]byte) bool {
				seen++
				return true
			})
			require.ErrorIs(t, err, errShortMessage)
			require.Equal(t, test.done, done)
			require.True(t, interrupted, "what was seen before the error counts")
			require.Equal(t, 1, seen)
		})
	}
	t.Run("stopped", func(t *testing.T) {
		done, _, err := eachAnswer(append(bytes.Clone(socket), socket...), exchange{answerPort, ours}, func([]byte) bool { return false })
		require.Equal(t, errStopped, err)
		require.False(t, done)
	})
}

// capturesDir has what a kernel answered to the dumps of one network namespace, with sockets in every state: for each
// request the messages that it sent (.bin), and the sockets in them as describe writes them (.golden).
const capturesDir = "testdata/sockdiag"

// update is the flag by which TestRecordCaptures replaces the captures.
var update = flag.Bool("update-sockdiag", false, "record the answers of this kernel in "+capturesDir)

// captures are the requests of which the answers are recorded, by file name.
var captures = map[string]dumpRequest{
	"tcp-listen":    {TransportTCP, 0, statesListen, false, true, false, nil},
	"tcp-connected": {TransportTCP, 0, statesConnected, true, false, false, nil},
	"udp4":          {TransportUDP, FamilyIPv4, statesAll, false, true, false, nil},
	"udp6":          {TransportUDP, FamilyIPv6, statesAll, false, true, false, nil},
	"unix":          {TransportUnix, FamilyUnix, statesAll, false, false, false, nil},
}

func readCapture(tb testing.TB, name string) []byte {
	tb.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		tb.Skip("netlink messages are in the byte order of the host, and these were recorded on a little-endian one")
	}
	content, err := os.ReadFile(filepath.Join(capturesDir, name+".bin"))
	require.NoError(tb, err)
	return content
}

// describeCapture decodes the messages that answer the request.
func describeCapture(tb testing.TB, capture []byte, request dumpRequest) string {
	tb.Helper()
	first, _, err := nextMessage(capture)
	require.NoError(tb, err)
	var s Socket
	var text strings.Builder
	done, interrupted, err := eachAnswer(capture, exchange{first.port, first.sequence}, func(payload []byte) bool {
		if request.transport == TransportUnix {
			err = decodeUnixMsg(payload, &s)
		} else {
			err = decodeInetMsg(payload, request.transport, &s)
		}
		require.NoError(tb, err)
		requireAbsentIsZero(tb, &s)
		fmt.Fprintln(&text, describe(&s, fieldsAll))
		return true
	})
	require.NoError(tb, err)
	require.True(tb, done)
	require.False(tb, interrupted)
	return text.String()
}

func TestCaptures(t *testing.T) {
	for name, request := range captures {
		t.Run(name, func(t *testing.T) {
			capture := readCapture(t, name)
			golden, err := os.ReadFile(filepath.Join(capturesDir, name+".golden"))
			require.NoError(t, err)
			require.Equal(t, string(golden), describeCapture(t, capture, request))
		})
	}
}

// Every message of the captures, cut at every byte, is decoded or refused.
func TestCapturesCutOff(t *testing.T) {
	for name, request := range captures {
		t.Run(name, func(t *testing.T) {
			capture := readCapture(t, name)
			first, _, err := nextMessage(capture)
			require.NoError(t, err)
			_, _, err = eachAnswer(capture, exchange{first.port, first.sequence}, func(payload []byte) bool {
				for end := range payload {
					var s Socket
					if request.transport == TransportUnix {
						err = decodeUnixMsg(payload[:end], &s)
					} else {
						err = decodeInetMsg(payload[:end], request.transport, &s)
					}
					if err == nil {
						requireAbsentIsZero(t, &s)
						continue
					}
					require.ErrorIs(t, err, errShortMessage)
				}
				return true
			})
			require.NoError(t, err)
			for end := range capture {
				_, _, err := eachAnswer(capture[:end], exchange{first.port, first.sequence}, func([]byte) bool { return true })
				if err != nil {
					require.ErrorIs(t, err, errShortMessage)
				}
			}
		})
	}
}

// addCaptures makes the messages of the captures seeds of a fuzz target.
func addCaptures(f *testing.F, family Family, add func(transport Transport, payload []byte)) {
	f.Helper()
	for name, request := range captures {
		if request.family != family {
			continue
		}
		content, err := os.ReadFile(filepath.Join(capturesDir, name+".bin"))
		if err != nil {
			f.Fatal(err)
		}
		for len(content) > 0 {
			m, rest, err := nextMessage(content)
			if err != nil {
				break // a big-endian host
			}
			add(request.transport, m.payload)
			content = rest
		}
	}
}

// A message is an error or a socket of which nothing is set that it does not have.
func FuzzDecodeInetMsg(f *testing.F) {
	add := func(transport Transport, payload []byte) { f.Add(byte(transport), payload) }
	for _, family := range []Family{0, FamilyIPv4, FamilyIPv6} {
		addCaptures(f, family, add)
	}
	f.Fuzz(func(t *testing.T, transport byte, b []byte) {
		before := bytes.Clone(b)
		s := Socket{NetNS: 5, Inode: 1, fields: fieldsAll, TCP: TCPInfo{RTT: 1, SegsIn: 1, BytesAcked: 1}, Drops: 1}
		err := decodeInetMsg(b, Transport(transport), &s)
		require.Equal(t, before, b)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, len(b), inetDiagMsgLen)
		require.Equal(t, Transport(transport), s.Transport)
		require.EqualValues(t, 5, s.NetNS)
		require.Equal(t, s.Family == FamilyIPv4, s.Local.Addr().Is4() && s.Remote.Addr().Is4())
		require.Equal(t, s.Family == FamilyIPv6, s.Local.Addr().Is6() && s.Remote.Addr().Is6())
		require.Equal(t, s.Transport == TransportTCP && s.State == TCPListen, s.Has(FieldAcceptQueue|FieldAcceptQueueLimit))
		if s.Has(FieldAcceptQueue) {
			require.Zero(t, s.RecvQueue|s.SendQueue)
			require.False(t, s.Has(FieldTCPInfo))
		}
		requireAbsentIsZero(t, &s)
	})
}

func FuzzDecodeUnixMsg(f *testing.F) {
	addCaptures(f, FamilyUnix, func(_ Transport, payload []byte) { f.Add(payload) })
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		s := Socket{NetNS: 5, UID: 1, RecvQueue: 1, fields: fieldsAll, Drops: 1}
		err := decodeUnixMsg(b, &s)
		require.Equal(t, before, b)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, len(b), unixDiagMsgLen)
		require.Equal(t, FieldCookie, s.fields)
		require.Equal(t, FamilyUnix, s.Family)
		require.EqualValues(t, 5, s.NetNS)
		require.Zero(t, s.Drops)
		if s.State == TCPListen {
			require.Zero(t, s.RecvQueue|s.SendQueue)
		}
	})
}

// What was received is an error, or every message of ours in it is handed on, in its order and within its bounds.
func FuzzEachAnswer(f *testing.F) {
	for name := range captures {
		content, err := os.ReadFile(filepath.Join(capturesDir, name+".bin"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content[:min(len(content), 2000)], uint32(1), uint8(255))
		f.Add(content[max(0, len(content)-500):], uint32(1), uint8(0))
	}
	for _, b := range [][]byte{
		answer(nlmsgError, 0, 1, u32s(1<<32-2)), answer(nlmsgDone, nlmFlagDumpIntr, 1, nil), answer(nlmsgError, 0, 1, nil),
	} {
		f.Add(b, uint32(1), uint8(255))
	}
	f.Fuzz(func(t *testing.T, b []byte, sequence uint32, stopAfter uint8) {
		seen, size := 0, 0
		done, interrupted, err := eachAnswer(b, exchange{answerPort, sequence}, func(payload []byte) bool {
			seen++
			size += nlmsgHeaderLen + len(payload)
			return seen <= int(stopAfter)
		})
		require.LessOrEqual(t, size, len(b))
		stopped := seen > int(stopAfter)
		require.Equal(t, stopped, err == errStopped) //nolint:errorlint // never wrapped
		if stopped {
			require.Equal(t, int(stopAfter)+1, seen)
			require.False(t, done)
		}
		if interrupted {
			require.NotEmpty(t, b)
		}
		if err == nil && !done { // all of b are messages
			for len(b) > 0 {
				var messageErr error
				_, b, messageErr = nextMessage(b)
				require.NoError(t, messageErr)
			}
		}
	})
}

package sockdiag

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

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
		request                      Request
		family, protocol, extensions byte
	}{
		{Request{Family: AFInet, Protocol: ProtocolTCP, TCPInfo: true}, 2, 6, 1 << 1},
		{Request{Family: AFInet6, Protocol: ProtocolTCP, MemInfo: true}, 10, 6, 1 << 6},
		{Request{Family: AFInet, Protocol: ProtocolUDP, TCPInfo: true, MemInfo: true}, 2, 17, 1<<1 | 1<<6},
		{Request{Family: AFInet6, Protocol: ProtocolUDPLite}, 10, 136, 0},
		{Request{Family: AFInet, Protocol: ProtocolRaw}, 2, 255, 0},
	} {
		test.request.States = 0x1234
		b := header(test.request.appendTo(nil, 7), 20)
		require.Len(t, b, 56, "struct inet_diag_req_v2")
		require.Equal(t, []byte{test.family, test.protocol, test.extensions, 0}, b[:4])
		require.EqualValues(t, 0x1234, order.Uint32(b[4:]))
		require.Equal(t, make([]byte, 48), b[8:])
	}

	tcp := Request{Protocol: ProtocolTCP, States: 0x1234, TCPInfo: true, MemInfo: true}
	b := header(tcp.appendTo(nil, 7), 18)
	require.Len(t, b, 60, "struct inet_diag_req")
	require.Equal(t, []byte{0, 0, 0, 1<<1 | 1<<6}, b[:4])
	require.Equal(t, make([]byte, 48), b[4:52])
	require.EqualValues(t, 0x1234, order.Uint32(b[52:]))
	require.EqualValues(t, 0, order.Uint32(b[56:]))

	tcp.Bytecode = []byte{1, 2, 3, 4, 5, 6, 7, 8}
	b = header(append([]byte("before"), tcp.appendTo([]byte("before"), 7)...)[2*len("before"):], 18)
	require.Len(t, b, 60+4+8, "with an attribute")
	require.EqualValues(t, 4+8, order.Uint16(b[60:]))
	require.EqualValues(t, 1, order.Uint16(b[62:]), "INET_DIAG_REQ_BYTECODE")
	require.Equal(t, tcp.Bytecode, b[64:])

	for names, show := range map[bool]uint32{false: 0x50, true: 0x51} {
		unix := Request{Family: AFUnix, States: 0x1234, Names: names}
		b = header(unix.appendTo(nil, 7), 20)
		require.Len(t, b, 24, "struct unix_diag_req")
		require.Equal(t, []byte{1, 0, 0, 0}, b[:4])
		require.EqualValues(t, 0x1234, order.Uint32(b[4:]))
		require.EqualValues(t, 0, order.Uint32(b[8:]))
		require.Equal(t, show, order.Uint32(b[12:]), "UDIAG_SHOW_RQLEN | UDIAG_SHOW_UID, and UDIAG_SHOW_NAME")
		require.Equal(t, make([]byte, 8), b[16:])
	}
}

func TestStateSets(t *testing.T) {
	for state := 1; state <= 12; state++ { // TCP_ESTABLISHED to TCP_NEW_SYN_RECV
		require.Equal(t, state == tcpListen, StatesListen&(1<<state) != 0, state)
		require.Equal(t, state != tcpListen, StatesConnected&(1<<state) != 0, state)
		require.NotZero(t, StatesAll&(1<<state), state)
	}
	const none, boundInactive = 0, 13
	require.Zero(t, StatesAll&(1<<boundInactive|1<<none))
}

package netstat_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

func TestTCPState(t *testing.T) {
	for _, test := range []struct {
		state  netstat.TCPState
		number int // include/net/tcp_states.h
		want   string
	}{
		{netstat.TCPUnknown, 0, ""},
		{netstat.TCPEstablished, 1, "ESTABLISHED"},
		{netstat.TCPSynSent, 2, "SYN_SENT"},
		{netstat.TCPSynRecv, 3, "SYN_RECV"},
		{netstat.TCPFinWait1, 4, "FIN_WAIT1"},
		{netstat.TCPFinWait2, 5, "FIN_WAIT2"},
		{netstat.TCPTimeWait, 6, "TIME_WAIT"},
		{netstat.TCPClose, 7, "CLOSE"},
		{netstat.TCPCloseWait, 8, "CLOSE_WAIT"},
		{netstat.TCPLastAck, 9, "LAST_ACK"},
		{netstat.TCPListen, 10, "LISTEN"},
		{netstat.TCPClosing, 11, "CLOSING"},
		{netstat.TCPNewSynRecv, 12, "NEW_SYN_RECV"},
		{13, 13, "TCPState(13)"},
		{255, 255, "TCPState(255)"},
		{-1, -1, "TCPState(-1)"},
	} {
		require.Equal(t, test.number, int(test.state))
		require.Equal(t, test.want, test.state.String())
	}
}

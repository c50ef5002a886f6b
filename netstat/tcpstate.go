package netstat

import "strconv"

// TCPState is the state of a TCP socket (RFC 9293, section 3.3.2), with the kernel's numbers (include/net/tcp_states.h). The
// kernel uses the same numbers for other protocols: TCPEstablished means connected, TCPClose not connected.
type TCPState int

// The states of a TCP socket.
const (
	TCPUnknown TCPState = iota // TCPUnknown is not a kernel state; its String is empty.

	TCPEstablished
	TCPSynSent
	TCPSynRecv
	TCPFinWait1
	TCPFinWait2
	TCPTimeWait
	TCPClose
	TCPCloseWait
	TCPLastAck
	TCPListen
	TCPClosing
	TCPNewSynRecv // TCPNewSynRecv is internal to the kernel, which reports it as TCPSynRecv.
)

var tcpStateNames = [...]string{
	TCPUnknown:     "",
	TCPEstablished: "ESTABLISHED",
	TCPSynSent:     "SYN_SENT",
	TCPSynRecv:     "SYN_RECV",
	TCPFinWait1:    "FIN_WAIT1",
	TCPFinWait2:    "FIN_WAIT2",
	TCPTimeWait:    "TIME_WAIT",
	TCPClose:       "CLOSE",
	TCPCloseWait:   "CLOSE_WAIT",
	TCPLastAck:     "LAST_ACK",
	TCPListen:      "LISTEN",
	TCPClosing:     "CLOSING",
	TCPNewSynRecv:  "NEW_SYN_RECV",
}

// String returns the name that netstat(8) prints for the state, or TCPState(n) for an invalid value.
func (s TCPState) String() string {
	if s < 0 || int(s) >= len(tcpStateNames) {
		return "TCPState(" + strconv.Itoa(int(s)) + ")"
	}
	return tcpStateNames[s]
}

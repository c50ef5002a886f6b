package netstat

import "strconv"

// TCPState is the state of a TCP socket, numbered as the kernel numbers it: enum in include/net/tcp_states.h. The kernel
// uses the same numbers for the sockets of other protocols, where TCPEstablished means connected and TCPClose not.
type TCPState int

// The states of a TCP socket.
const (
	TCPUnknown TCPState = iota // TCPUnknown is no state of the kernel's; its String is empty.

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
	TCPNewSynRecv // TCPNewSynRecv is internal to the kernel, which shows it to readers as TCPSynRecv.
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

// String returns the name that netstat(8) prints for the state, and TCPState(n) for a number that is no state.
func (s TCPState) String() string {
	if s < 0 || int(s) >= len(tcpStateNames) {
		return "TCPState(" + strconv.Itoa(int(s)) + ")"
	}
	return tcpStateNames[s]
}

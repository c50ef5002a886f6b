package netstat

// rowOrder is what is known of the order of rows in the tables of TCP sockets. Linux writes listening sockets first
// (tcp_seq_start, net/ipv4/tcp_ipv4.c). A copy of a proc file system promises no order, and neither does a kernel that imitates
// Linux, as gVisor, whose proc file system is mounted too.
type rowOrder struct {
	isCopy  bool
	read    bool // a table was read to its end
	checked bool // in an earlier scan
	broken  bool // in a table a listening socket came after another one
}

// nextScan starts a scan.
func (o *rowOrder) nextScan() { o.checked = o.read }

// passes returns the passes over the tables of a transport. The order matters only for TCP. The first scan reads the listening
// sockets in a pass of their own, because it cannot know the order before.
func (o *rowOrder) passes(transport Transport) []rowPass {
	if transport != TransportTCP || !o.isCopy && o.checked && !o.broken {
		return onePass
	}
	return twoPasses
}

// rowPass is a pass over a table.
type rowPass uint8

const (
	passAll       rowPass = iota // yields all sockets
	passListening                // only those that listen
	passOthers                   // the others
)

var onePass, twoPasses = []rowPass{passAll}, []rowPass{passListening, passOthers}

// yields reports whether the pass yields a socket that listens, or one that does not.
func (p rowPass) yields(listens bool) bool { return p == passAll || listens == (p == passListening) }

package testnet

import (
	"testing"
)

// What [Overflow] does.
const (
	OverflowBacklog = 2
	OverflowQueued  = OverflowBacklog + 1 // the kernel refuses a connection when there are more than the backlog
	OverflowOffered = 12
)

// Overflow makes a listener with a backlog of 2 that does not accept, and offers it 12 connections: 3 wait to be accepted, 9
// stay in SYN_SENT. The listener, which is the first socket of the load, drops a packet for each of the 9 at once, and again
// each time they try again: after about 1, 2, 3, … seconds. The networks are those of [States].
func Overflow(tb testing.TB, network string) *Load {
	tb.Helper()
	l := &tcpLoad{Load: newLoad(tb)}
	l.n = l.network(network)
	listener, at := l.listen(OverflowBacklog)
	l.expect(listener, "LISTEN", OverflowQueued, OverflowBacklog)
	for range OverflowQueued {
		client, local, remote := l.dial(at)
		l.must(finishConnect(client, deadline()))
		l.expect(client, "ESTABLISHED", 0, 0)
		l.expectUnheld(remote, local, "ESTABLISHED")
	}
	for range OverflowOffered - OverflowQueued {
		l.expectSynSent(l.dial(at))
	}
	l.settle()
	return l.Load
}

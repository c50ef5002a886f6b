package testnet

import (
	"testing"
)

// The numbers of connections of [Overflow].
const (
	OverflowBacklog = 2
	OverflowQueued  = OverflowBacklog + 1 // full if longer than the backlog: sk_acceptq_is_full (include/net/sock.h)
	OverflowOffered = 12
)

// Overflow creates a listener with a backlog of 2 that does not accept, and 12 connections to it: 3 fill the accept queue, 9 stay
// in SYN_SENT. The listener is the first socket of the load. It drops a SYN of each of the 9, and each retransmission, after
// about 1, 2, 3, … seconds. The networks are those of [States].
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

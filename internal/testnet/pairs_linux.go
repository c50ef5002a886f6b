package testnet

import (
	"net/netip"
	"sync"
	"testing"
)

// maxBacklog is net.core.somaxconn.
const maxBacklog = 4096

// ConnectedPairs starts pairs of processes named server and client, and opens IPv4 connections between the two of each pair. This creates
// 2·pairs·connections sockets in ESTABLISHED, and a listener for each pair. connections is limited by RLIMIT_NOFILE, and by the
// 28,232 ephemeral ports of a client.
func ConnectedPairs(tb testing.TB, pairs, connections int) (servers, clients []*Proc) {
	tb.Helper()
	var wg sync.WaitGroup
	for range pairs {
		server, client := Start(tb, Process{Name: "server"}), Start(tb, Process{Name: "client"})
		servers, clients = append(servers, server), append(clients, client)
		wg.Go(func() {
			listener := server.Listen("tcp4", netip.AddrPortFrom(loopback4, 0), maxBacklog)
			for left := connections; left > 0; left -= maxBacklog {
				n := min(left, maxBacklog)
				client.Connect(listener.Local, n)
				server.Accept(listener, n)
			}
		})
	}
	wg.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
	return servers, clients
}

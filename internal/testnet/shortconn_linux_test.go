package testnet

import (
	"net/netip"
	"testing"
	"time"
)

func TestShortConnections(t *testing.T) {
	Isolate(t, func() {
		const connections = 200
		server, client := Start(t, Process{Name: "server"}), Start(t, Process{Name: "client"})
		listener := server.Listen("tcp6", netip.MustParseAddrPort("[::1]:0"), 100)
		server.Serve(listener, 100, 10)
		client.OpenShortConnections(ShortConnections{To: listener.Local, N: connections, Rate: 1000, Lifetime: 5 * time.Millisecond, Send: 100, Receive: 10})
		for end := deadline(); client.ClosedShortConnections() < connections; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("only %d connections", client.ClosedShortConnections())
			}
		}
		waits := 0
		for _, row := range SS(t, "-t", "-a") {
			if row.State == "TIME_WAIT" && row.Remote == listener.Local {
				waits++
			}
		}
		if waits != connections {
			t.Errorf("%d connections of the client are in TIME_WAIT", waits)
		}
	})
}

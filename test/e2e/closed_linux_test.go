package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Connections shorter than the interval reach InfluxDB: all of them, with all of their bytes, for both processes.
func TestShortConnections(t *testing.T) {
	runPluginAndExecd(t, "[[inputs.procnetstat]]\n", func(t *testing.T, program, inputs string) {
		testnet.RequireBPF(t)
		p := startPipeline(t, program, inputs, lastMeasurement)
		const connections, sent, responseBytes = 400, 100, 50
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", loopback, 100)
		server.Serve(listener, sent, responseBytes)
		client.OpenShortConnections(testnet.ShortConnections{
			To: listener.Local, N: connections, Rate: 500, Lifetime: 20 * time.Millisecond, Send: sent, Receive: responseBytes,
		})
		last := func(process, field string) int64 {
			for _, s := range p.influx.query(fmt.Sprintf("SELECT last(%s) FROM procnetstat_process WHERE process_name = '%s'", field, process)) {
				return p.influx.integer(s.Values[0][1])
			}
			return 0
		}
		waitFor(t, "all connections in InfluxDB", func() bool {
			p.store(p.gathersAfter(time.Now().UnixNano()))
			return client.ClosedShortConnections() == connections && last("server", "tcp_closed") == connections && last("client", "tcp_closed") == connections
		})
		for _, want := range []struct {
			process, field string
			value          int64
		}{
			{"server", "tcp_opened", connections},
			{"client", "tcp_opened", connections},
			{"server", "tcp_bytes_acked", connections * (responseBytes + 1)}, // with the FIN
			{"client", "tcp_bytes_acked", connections * (sent + 2)},          // with SYN and FIN
			{"server", "tcp_bytes_received", connections * (sent + 1)},
		} {
			if got := last(want.process, want.field); got != want.value {
				t.Errorf("%s has %s=%d, want %d", want.process, want.field, got, want.value)
			}
		}
		p.end()
	})
}

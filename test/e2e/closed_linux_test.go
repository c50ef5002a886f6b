package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Connections that live between two gathers get into InfluxDB: all of them, and all of their bytes, of both processes.
func TestShortConnections(t *testing.T) {
	config := "[[inputs.procnetstat]]\n"
	for _, run := range []string{"custom", "execd"} {
		t.Run(run, func(t *testing.T) {
			setUp(t)
			program, inputs := "", config
			if run == "custom" {
				program = customTelegraf(t)
			} else {
				program, inputs = stockTelegraf(t), execdConfig(t, execdProgram(t), "STDIN", config)
			}
			testnet.Isolate(t, func() {
				testnet.RequireBPF(t)
				p := startPipeline(t, program, inputs, lastMeasurement)
				const visits, sent, answered = 400, 100, 50
				server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
				listener := server.Listen("tcp4", loopback, 100)
				server.Serve(listener, sent, answered)
				client.Visit(testnet.Visits{
					To: listener.Local, N: visits, Rate: 500, Lifetime: 20 * time.Millisecond, Send: sent, Receive: answered,
				})
				last := func(process, field string) int64 {
					for _, s := range p.influx.query(fmt.Sprintf("SELECT last(%s) FROM procnetstat_process WHERE process_name = '%s'", field, process)) {
						return p.influx.integer(s.Values[0][1])
					}
					return 0
				}
				waitFor(t, "all connections in InfluxDB", func() bool {
					p.store(p.gathersAfter(time.Now().UnixNano()))
					return client.Visited() == visits && last("server", "tcp_closed") == visits && last("client", "tcp_closed") == visits
				})
				for _, want := range []struct {
					process, field string
					value          int64
				}{
					{"server", "tcp_opened", visits},
					{"client", "tcp_opened", visits},
					{"server", "tcp_bytes_acked", visits * (answered + 1)}, // with the FIN
					{"client", "tcp_bytes_acked", visits * (sent + 2)},     // with SYN and FIN
					{"server", "tcp_bytes_received", visits * (sent + 1)},
				} {
					if got := last(want.process, want.field); got != want.value {
						t.Errorf("%s has %s=%d, want %d", want.process, want.field, got, want.value)
					}
				}
				p.end()
			})
		})
	}
}

package e2e

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// With the script of "make graph", Prometheus has the processes of this host, and its servers end with it.
func TestGraph(t *testing.T) {
	testnet.Require(t, "prometheus")
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		graph := startGraph(t, program)
		p := testnet.Start(t, testnet.Process{Name: "checkout"})
		p.Connect(p.Listen("tcp4", loopback, 10).Local, 7)
		const query = `sum(procnetstat_process_tcp_established{process_name="checkout"}) == 14`
		waitFor(t, query, func() bool {
			graph.check()
			return len(prometheusSeries(t, query)) > 0
		})
		graph.stop()
		for _, address := range []string{metricsAddress, prometheusAddress} {
			if conn, err := net.Dial("tcp", address); err == nil {
				_ = conn.Close()
				t.Errorf("a server still listens at %s", address)
			}
		}
	})
}

// startGraph starts the script of "make graph".
func startGraph(t *testing.T, program string) *server {
	t.Helper()
	script, err := filepath.Abs("../../examples/prometheus/run.sh")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(prometheusAddress, ":")
	return startServer(t, script, program, port)
}

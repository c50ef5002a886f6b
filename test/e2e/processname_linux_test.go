package e2e

import (
	"strings"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A process name has all characters that are special in the line protocol, InfluxQL or a terminal, and a byte that is not UTF-8.
// The process is one series in InfluxDB, with a readable name that a query can select.
func TestArbitraryProcessName(t *testing.T) {
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		process := testnet.Start(t, testnet.Process{Name: serverName})
		listener := process.Listen("tcp4", loopback, 1)
		process.Connect(listener.Local, 1)
		p := startPipeline(t, program, pluginConfig("netlink"), lastMeasurement)

		for _, measurement := range []string{"procnetstat_process", "procnetstat_listener"} {
			requestBytes := strings.ReplaceAll(serverEscaped, `\`, `\\`)
			found := p.influx.query(`SELECT tcp_listen FROM ` + measurement + ` WHERE process_name = '` + requestBytes + `' GROUP BY *`)
			if len(found) != 1 || found[0].Tags["process_name"] != serverEscaped {
				t.Fatalf("%s with process_name %s: InfluxDB has %v", measurement, serverEscaped, found)
			}
			if listening := p.influx.integer(found[0].Values[0][1]); listening != 1 {
				t.Errorf("%s has tcp_listen=%d, want 1", measurement, listening)
			}
		}
		var all []string
		for _, s := range p.influx.query(`SHOW TAG VALUES FROM procnetstat_process WITH KEY = process_name`) {
			for _, row := range s.Values {
				if name, _ := row[1].(string); strings.HasPrefix(name, "a") {
					all = append(all, name)
				}
			}
		}
		if len(all) != 1 || all[0] != serverEscaped {
			t.Errorf("names %q, want only %q", all, serverEscaped)
		}
		p.end()
	})
}

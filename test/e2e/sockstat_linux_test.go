package e2e

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// The kernel counts orphans and memory for all network namespaces together, so other processes change them. The test reads them
// until they are equal before and after a gather: then the gather must have the same values.
func TestSockstat(t *testing.T) {
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		p := startPipeline(t, program, pluginConfig("netlink"), lastMeasurement)
		testnet.States(t, "tcp4") // with orphans
		fillBuffers(t)

		type sample struct {
			at     int64
			values fields
		}
		var samples []sample
		after := time.Now().UnixNano()
		waitFor(t, "gather between two equal reads of /proc/net/sockstat", func() bool {
			samples = append(samples, sample{time.Now().UnixNano(), readSockstat(t)})
			p.telegraf.read()
			for at, g := range p.telegraf.seen {
				report := g.measurement(lastMeasurement)
				if at <= after || len(report) == 0 {
					continue
				}
				const slack = int64(5 * time.Millisecond) // the gather reads the counts after the sockets
				end := at + report.sum("duration_ns") + slack
				var before sample
				for _, s := range samples {
					if s.at < at {
						before = s
					} else if s.at > end && before.values != nil {
						if !maps.Equal(before.values, s.values) {
							break
						}
						requireFields(t, g, hostSeries, s.values)
						return true
					}
				}
			}
			return false
		})
		for name, value := range samples[len(samples)-1].values {
			if value == 0 {
				t.Errorf("%s is 0, so the test did not check it", name)
			}
		}
		p.end()
	})
}

// fillBuffers leaves more bytes unread than the kernel reserves for each processor without counting them: 256 pages
// (SK_MEMORY_PCPU_RESERVE, include/net/sock.h).
func fillBuffers(t *testing.T) {
	t.Helper()
	process := testnet.Start(t, testnet.Process{Name: "buffers"})
	const sockets = 40
	listener := process.Listen("tcp4", loopback, sockets)
	for _, client := range process.Connect(listener.Local, sockets) {
		process.Send(client, 100_000)
	}
	process.Accept(listener, sockets)
	for range sockets {
		server := process.UDP("udp4", loopback, netip.AddrPort{})
		client := process.UDP("udp4", loopback, server.Local)
		process.Send(client, 60_000)
		process.Send(client, 60_000)
	}
}

package e2e

import (
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A listener that does not accept has a full queue, and its drops grow. Telegraf starts before the listener, so that all drops
// count.
func TestOverflowingListener(t *testing.T) {
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		p := startPipeline(t, program, pluginConfig("netlink"), lastMeasurement)
		empty := p.measure()
		listener := testnet.Overflow(t, "tcp4").Sockets[0]

		m := p.measure()
		requireMatchesSS(t, "netlink", m)
		requireTraffic(t, "netlink", p, empty, m)
		at := endpointOf("tcp", listener.Local)
		series := listenerSeries(at, m.before.ownersOf(m.before.listeners()[at]...)[0])
		requireFields(t, m.stored, series, fields{
			"accept_queue": testnet.OverflowQueued, "accept_queue_limit": testnet.OverflowBacklog,
			"accept_queue_used_percent": 100 * testnet.OverflowQueued / testnet.OverflowBacklog,
			"tcp_listen":                1, "tcp_established": testnet.OverflowQueued,
		})
		drops := m.stored[series]["drops"]
		if least := int64(testnet.OverflowOffered - testnet.OverflowQueued); drops < least {
			t.Errorf("%d drops, want at least %d", drops, least)
		}
		waitFor(t, "growing drops", func() bool {
			m = p.measure()
			return m.stored[series]["drops"] > drops
		})
		requireMatchesSS(t, "netlink", m)
		requireTraffic(t, "netlink", p, empty, m)
		p.end()
	})
}

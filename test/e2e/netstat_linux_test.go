package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Our host measurement and Telegraf's inputs.netstat, which it replaces, write the same fields with the same values. The test
// must have no Unix sockets: inputs.netstat counts Unix datagram sockets as UDP, and others as TCP sockets without a state.
func TestDropInForNetstat(t *testing.T) {
	runPluginAndExecd(t, "[[inputs.procnetstat]]\n  measurements = [\"host\"]\n", func(t *testing.T, program, input string) {
		ours, theirs := netstatSeries("procnetstat"), netstatSeries("stock")
		inputs := withReaderTag(input, "procnetstat") + withReaderTag("[[inputs.netstat]]\n", "stock")
		p := startPipeline(t, program, inputs, ours, theirs)
		l := startLoad(t)
		compare := func() {
			t.Helper()
			m := p.measure()
			if unix := testnet.SS(t, "-x"); len(unix) > 0 {
				t.Fatalf("there are Unix sockets: %v", unix)
			}
			want := m.before.expect("netlink")[hostSeries]
			delete(want, "local_ports_used") // the plugin does not know which connections are outgoing
			requireFields(t, m.stored, ours, want)
			requireFields(t, m.stored, ours, m.stored[theirs])
			if fields := slices.Sorted(maps.Keys(m.stored[theirs])); !slices.Equal(fields, netstatFields) {
				t.Errorf("inputs.netstat has the fields %v", fields)
			}
		}
		compare()
		l.change()
		compare()
		p.end()
	})
}

// withReaderTag renames the measurement of an input to netstat, and adds the tag reader.
func withReaderTag(input, reader string) string {
	return fmt.Sprintf("%s  name_override = \"netstat\"\n  tags = {reader = %q}\n", input, reader)
}

func netstatSeries(reader string) string {
	return seriesName("netstat", map[string]string{"reader": reader})
}

// netstatFields are the fields of Telegraf's inputs.netstat, sorted.
var netstatFields = []string{
	"tcp_close", "tcp_close_wait", "tcp_closing", "tcp_established", "tcp_fin_wait1", "tcp_fin_wait2", "tcp_last_ack",
	"tcp_listen", "tcp_none", "tcp_syn_recv", "tcp_syn_sent", "tcp_time_wait", "udp_socket",
}

package procnetstat

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// TestFilterInTheKernelChangesNothing: without the host measurement the kernel does the filtering, and everything else says the
// same as with it.
func TestFilterInTheKernelChangesNothing(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.States(t, "tcp4")
		testnet.States(t, "tcp6")
		server := testnet.Start(t, testnet.Process{Name: "server"})
		client := testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 50)
		client.Connect(listener.Local, 20)
		server.Accept(listener, 15)
		port := listener.Local.Port()
		for _, filter := range []string{
			fmt.Sprintf("local_ports_include = [%d]", port),
			fmt.Sprintf("local_ports_exclude = [%d]", port),
			fmt.Sprintf("remote_ports_include = [\"%d-%d\"]", port-1, port+1),
			fmt.Sprintf("remote_ports_exclude = [%d]", port),
			`remote_cidrs_include = ["127.0.0.0/8"]`,
			`remote_cidrs_exclude = ["127.0.0.0/8"]`,
			`exclude_loopback = true`,
		} {
			const others = `measurements = ["process", "listener", "cgroup", "remote", "connection"`
			here := ofFilter(start(t, others+", \"host\"]\n"+filter))
			inKernel := ofFilter(start(t, others+"]\n"+filter))
			testutil.RequireMetricsEqual(t, here, inKernel, testutil.SortMetrics(), testutil.IgnoreTime())
		}
	})
}

// ofFilter gathers, and returns what the filters apply to, but for what changes with each retransmission.
func ofFilter(l *live) []telegraf.Metric {
	acc := &testutil.Accumulator{}
	require.NoError(l.T, l.plugin.Gather(acc))
	var metrics []telegraf.Metric
	for _, m := range acc.GetTelegrafMetrics() {
		if m.Name() == "procnetstat" {
			continue
		}
		for _, field := range []string{"retrans_segs", "retransmits", "lost", "cwnd", "bytes_sent"} {
			m.RemoveField(field)
		}
		metrics = append(metrics, m)
	}
	return metrics
}

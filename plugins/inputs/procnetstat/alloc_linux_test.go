package procnetstat

import (
	"net/netip"
	"testing"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// discard is an accumulator that keeps nothing, but does not let errors pass.
type discard struct {
	testutil.NopAccumulator
	*testing.T
}

func (d *discard) AddError(err error) { require.NoError(d, err) }

// TestNoAllocationPerSocket: what a gather allocates depends on the number of series and processes, not on that of sockets.
func TestNoAllocationPerSocket(t *testing.T) {
	testnet.Isolate(t, func() {
		server := testnet.Start(t, testnet.Process{Name: "server"})
		client := testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 4000)
		connect := func(n int) {
			client.Connect(listener.Local, n)
			server.Accept(listener, n)
		}
		const all = `
			measurements = ["host", "process", "listener", "cgroup", "remote", "connection", "gather"]
			protocols = ["tcp", "udp", "udplite", "raw", "icmp", "unix"]
			max_series = 50
			process_tags = ["process_name", "user", "pid", "exe", "cmdline", "systemd_unit", "cgroup"]`
		plugins := map[string]*live{
			"netlink": start(t, all),
			"stalls":  start(t, all+"\n details = ["+quoted(detailNames)+"]"),
			"procfs":  start(t, all+"\n source = \"procfs\""),
			"filters": start(t, all+`
				process_include = ["server", "client"]
				cgroup_exclude = ["/no/such*"]
				local_ports_exclude = ["1-1000"]
				remote_ports_exclude = ["1-1000"]
				remote_cidrs_exclude = ["10.0.0.0/8", "2001:db8::/32"]`),
		}
		allocations := func(l *live) float64 {
			acc := &discard{T: t}
			gather := func() { require.NoError(t, l.plugin.Gather(acc)) }
			gather() // makes room
			gather()
			fewest := testing.AllocsPerRun(1, gather)
			for range 20 { // processes come and go on the host, and are new to the plugin
				fewest = min(fewest, testing.AllocsPerRun(1, gather))
			}
			return fewest
		}
		const few, many = 200, 4000
		atFew := map[string]float64{}
		connect(few)
		for name, l := range plugins {
			atFew[name] = allocations(l)
		}
		connect(many - few)
		for name, l := range plugins {
			atMany := allocations(l)
			t.Logf("%s: %.0f allocations with %d connections, %.0f with %d", name, atFew[name], few, atMany, many)
			require.InDelta(t, atFew[name], atMany, 100, name)
		}
	})
}

package procnetstat

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Where cgroups v1 are used beside v2, sockets are in the container that v1 knows, not in the service of its runtime that v2 knows:
// sockets that a process holds, those that are not accepted, and closed ones.
func TestHybridCgroups(t *testing.T) {
	service, inV2 := testnet.Cgroup(t, "system.slice/containerd.service")
	container, inV1 := testnet.CgroupV1(t, "pids", "docker/"+containerID)
	testnet.Isolate(t, func() {
		server := testnet.Start(t, testnet.Process{Name: "server", Cgroup: service})
		require.NoError(t, os.WriteFile(filepath.Join(container, "cgroup.procs"), []byte(strconv.Itoa(server.PID)), 0o644))
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		client := testnet.Start(t, testnet.Process{Name: "client"})
		ends := client.Connect(listener.Local, 5)
		accepted := server.Accept(listener, 3)
		for _, options := range []string{"", `source = "procfs"`} {
			g := start(t, options+"\nmeasurements = [\"cgroup\"]").gather()
			of := g.one("procnetstat_cgroup", "cgroup="+inV1, "container_id="+containerID)
			require.Equal(t, []int64{1, 5}, []int64{of["tcp_listen"], of["tcp_established"]}, options)
			require.Empty(t, g.all("procnetstat_cgroup", "cgroup="+inV2))
		}
		l := start(t, `measurements = ["cgroup"]`)
		l.gather()
		client.Close(ends...)
		server.Close(accepted...)
		closed := int64(0)
		eventually(t, func() bool {
			of := l.gather().one("procnetstat_cgroup", "container_id="+containerID)
			closed = of["tcp_closed"]
			return closed == 3
		})
	})
}

package procnetstat

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// TestAsNobody: without any privilege all but the processes of others is right, and the log says once what would show those.
func TestAsNobody(t *testing.T) {
	testnet.Isolate(t, func() {
		dir, path := testnet.Cgroup(t, "web.service")
		server := testnet.Start(t, testnet.Process{Name: "server", Cgroup: dir})
		client := testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		ends := client.Connect(listener.Local, 9)
		accepted := server.Accept(listener, 7)
		client.Close(ends[:2]...)
		server.Close(accepted[6])
		await(t, "FIN_WAIT2", ends[0], ends[1], accepted[6])
		host, _, _ := fromSS(t, nil)
		var web int64
		for _, row := range testnet.SS(t, "-t") {
			// What the kernel keeps of a closed connection is in no cgroup any more.
			if row.Cgroup == path || row.Cgroup == "" && row.Local == listener.Local {
				web++
			}
		}
		require.Equal(t, int64(1+9), web, "the listener and its connections")
		asRoot := start(t, "").gather()
		port := strconv.Itoa(int(listener.Local.Port()))

		t.Run("nobody", func(t *testing.T) {
			testnet.BecomeNobody(t)
			asRoot.T = t
			l := start(t, "")
			for range 3 {
				g := l.gather()
				host.requireIn(g, "procnetstat")
				require.Len(t, g.all("procnetstat_process"), 1)
				of := g.one("procnetstat_process", "process_name=unattributed", "user=unattributed")
				require.Equal(t, host[""].sockets(), expectation(of).sockets())
				for measurement, tags := range map[string][]string{
					"procnetstat_listener": {"local_address=127.0.0.1", "local_port=" + port},
					"procnetstat_remote":   {"remote_address=127.0.0.1", "remote_port=" + port, "protocol=tcp"},
					"procnetstat_cgroup":   {"systemd_unit=web.service", "cgroup=" + path},
				} {
					require.NotEmpty(t, g.all(measurement, tags...))
					require.Equal(t, asRoot.sum(measurement, tags...), g.sum(measurement, tags...), measurement)
				}
				require.Len(t, g.all("procnetstat_remote", "process_name=unattributed"), 1)
				require.Len(t, g.all("procnetstat_listener", "process_name=unattributed"), 1)
				require.Equal(t, web, expectation(g.one("procnetstat_cgroup", "systemd_unit=web.service")).sockets())
				report := g.one("procnetstat_gather", "source=netlink")
				require.Equal(t, host[""].sockets(), report["unattributed"])
				require.Positive(t, report["denied"])
			}
			messages := l.log.Messages()
			require.Len(t, messages, 2, "a line each")
			require.Contains(t, messages[0].Text, "CAP_BPF and CAP_PERFMON")
			require.Contains(t, messages[1].Text, "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH")
		})
	})
}

package procnetstat

import (
	"net/netip"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// becomeNobody takes this thread, which ends with the test, from its user and all privileges.
func becomeNobody(t *testing.T) {
	t.Helper()
	const nobody = 65534
	runtime.LockOSThread()
	// The functions of package unix would set the user of all threads.
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, nobody, nobody, nobody},
		{unix.SYS_SETRESUID, nobody, nobody, nobody},
	} {
		_, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3])
		if errno == unix.EPERM {
			testnet.SkipOrFail(t, "becoming another user wants CAP_SETUID and CAP_SETGID: "+errno.Error())
		}
		require.Zero(t, errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &sets[0]))
	require.Zero(t, sets[0].Effective|sets[1].Effective)
}

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
			becomeNobody(t)
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

package procnetstat

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// With CAP_BPF and CAP_PERFMON alone, a user sees every outcome as root does: of attempts of processes of others, and of established
// connections.
func TestConnectOutcomesAsUser(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			testnet.RequireBPF(t)
			testnet.Isolate(t, func() {
				c := &connecting{T: t, router: testnet.StartRouter(t), client: testnet.Start(t, testnet.Process{Name: "client"})}
				testnet.Sysctl(t, "net.ipv4.tcp_syn_retries", "1")
				listener := c.listen(network)
				unreachable := map[string]testnet.Answer{"tcp4": testnet.ICMPHost4, "tcp6": testnet.ICMPAddr6}[network]
				drop, accept := c.at(network, testnet.Drop), c.at(network, testnet.Refuse)
				bound := netip.MustParseAddrPort(map[string]string{"tcp4": "10.99.0.1:50000", "tcp6": "[fd99::1]:50000"}[network])
				reuse := c.client.With(testnet.SocketOptions{ReusePort: true})
				all := []attempts{
					{Attempts: testnet.Attempts{To: accept, N: 7, Keep: true}},
					{
						Attempts: testnet.Attempts{To: netip.AddrPortFrom(accept.Addr(), 81), N: 6}, errno: unix.ECONNREFUSED,
						want: "tcp_connect_refused",
					},
					{Attempts: testnet.Attempts{To: drop, N: 5}, errno: unix.ETIMEDOUT, want: "tcp_connect_timed_out"},
					{Attempts: testnet.Attempts{To: c.at(network, unreachable), N: 4}, errno: unix.EHOSTUNREACH, want: "tcp_connect_unreachable"},
					{
						Attempts: testnet.Attempts{To: c.at(network, testnet.Drop), N: 3, NonBlocking: true}, giveUp: testnet.GiveUpClose,
						want: "tcp_connect_aborted",
					},
				}
				withoutPort := testnet.Attempts{To: accept, From: bound, N: 1, Keep: true}

				gathers := c.readBetween(func() {
					c.run(all, func() {})
					require.Zero(t, reuse.Attempt(withoutPort)[0].Errno)
					require.Equal(t, unix.EADDRNOTAVAIL, reuse.Attempt(withoutPort)[0].Errno)
				})
				all[0].N += 2
				all[0].want, all[0].n = "tcp_connect_no_port", 1
				g := gathers[1].withCountersOf(gathers[2])
				c.require(all, g)
				process := g.one("procnetstat_process", "process_name=client")
				for _, name := range connectTimes {
					require.Positive(t, gathers[1].one("procnetstat_process", "process_name=client")[name], name)
				}
				require.Positive(t, process["tcp_syn_retrans"])
				require.EqualValues(t, 1, g.one("procnetstat_gather", "owners=bpf")["connects_seen"])

				established := all[0].N - 1
				gathers = c.readBetween(func() {
					c.router.Reset(c.router.Accept(listener, established)...)
					eventually(t, func() bool { return len(testnet.SS(t, "-t", "dport", "80")) == 0 })
				})
				require.EqualValues(t, established, gathers[0].one("procnetstat_process", "process_name=client")["tcp_established"])
				g = gathers[1].withCountersOf(gathers[2])
				for of, fields := range map[string]map[string]int64{
					"process": g.one("procnetstat_process", "process_name=client"), "host": g.one("procnetstat"),
				} {
					require.EqualValues(t, established, fields["tcp_closed_reset"], of)
				}
			})
		})
	}
}

// readBetween runs the plugin as a user, and does something after its first gather.
func (c *connecting) readBetween(do func()) []gathered {
	c.Helper()
	asked := task{Options: []string{attemptMeasurements}, Waits: true}
	cmd := here.command(c.T, roleBPF, asked)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(c, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(c, err)
	require.NoError(c, cmd.Start())
	lines := bufio.NewReader(stdout)
	for n := range gathersOfReader {
		line, err := lines.ReadString('\n')
		require.NoError(c, err)
		require.Equal(c, "gathered\n", line)
		if n == 0 {
			do()
		}
		fmt.Fprintln(stdin)
	}
	out, err := io.ReadAll(lines)
	require.NoError(c, err)
	require.NoError(c, cmd.Wait())
	return here.reported(c.T, roleBPF, asked, out)[0].gathers
}

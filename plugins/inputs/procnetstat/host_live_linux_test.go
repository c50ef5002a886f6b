package procnetstat

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// nstat returns the counters of a network namespace under the names of the fields, as nstat reports them.
func nstat(t *testing.T, file string) map[string]int64 {
	t.Helper()
	command := exec.Command("nsenter", "--net="+file, "nstat", "-asz")
	command.Env = append(os.Environ(), "NSTAT_HISTORY="+filepath.Join(t.TempDir(), "history"))
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	counters := map[string]int64{}
	for line := range strings.Lines(string(output)) {
		columns := strings.Fields(line)
		name := map[string]string{
			"TcpExtListenOverflows": "tcp_listen_overflows", "TcpExtListenDrops": "tcp_listen_drops",
			"TcpAttemptFails": "tcp_attempt_fails", "TcpEstabResets": "tcp_estab_resets", "TcpOutRsts": "tcp_out_rsts",
			"UdpNoPorts": "udp_no_ports", "UdpRcvbufErrors": "udp_rcvbuf_errors", "UdpSndbufErrors": "udp_sndbuf_errors",
			"Udp6NoPorts": "udp_no_ports", "Udp6RcvbufErrors": "udp_rcvbuf_errors", "Udp6SndbufErrors": "udp_sndbuf_errors",
		}[columns[0]]
		if name != "" {
			value, err := strconv.ParseInt(columns[1], 10, 64)
			require.NoError(t, err)
			counters[name] += value
		}
	}
	require.Len(t, counters, len(hostCounters))
	return counters
}

// provoke has each counter of the namespace of the process grow, but that of send buffers: n datagrams without a socket, and what
// comes of a listener with a full queue, of a full UDP socket and of a reset.
func provoke(p *testnet.Proc, n int) {
	loopback, loopback6 := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")
	for _, at := range []netip.AddrPort{loopback, loopback6} {
		network := map[bool]string{true: "udp4", false: "udp6"}[at.Addr().Is4()]
		gone := p.UDP(network, at, netip.AddrPort{})
		p.Close(gone)
		for range n {
			client := p.UDP(network, at, gone.Local)
			p.Send(client, 100)
			p.Close(client)
		}
		server := p.UDP(network, at, netip.AddrPort{})
		client := p.UDP(network, at, server.Local)
		for range 10 {
			p.Send(client, 60_000)
		}
		p.Close(client, server)
	}
	listener := p.Listen("tcp4", loopback, 16)
	clients := p.Connect(listener.Local, n)
	p.Close(listener) // resets the connections in its queue
	p.Close(clients...)
}

// The kernel's counters of each network namespace are what nstat says that they grew by since the plugin saw the namespace first.
// They begin with 0, also in a namespace that is new itself.
func TestHostCounters(t *testing.T) {
	testnet.Require(t, "nstat", "nsenter")
	testnet.IsolatePIDs(t, func() {
		processes := map[string]*testnet.Proc{
			"self": testnet.Start(t, testnet.Process{Name: "own"}),
			"blue": testnet.Start(t, testnet.Process{Name: "one", In: testnet.Netns(t, "blue")}),
		}
		before := map[string]map[string]int64{}
		for name, process := range processes {
			provoke(process, 3)
			before[name] = nstat(t, process.Netns())
		}
		l := start(t, "namespaces = [\"all\"]\nmeasurements = [\"host\"]")
		requireGrowth := func(g gathered) {
			t.Helper()
			for name, process := range processes {
				got, now := g.one("procnetstat", "netns="+name), nstat(t, process.Netns())
				for field, value := range now {
					require.Equal(t, value-before[name][field], got[field], "%s in %s", field, name)
				}
			}
		}
		requireGrowth(l.gather())

		provoke(processes["self"], 5)
		provoke(processes["blue"], 7)
		requireGrowth(l.gather())

		green := testnet.Start(t, testnet.Process{Name: "one", In: testnet.Netns(t, "green")})
		provoke(green, 4)
		g := l.gather().one("procnetstat", "netns=green")
		for field := range before["self"] {
			require.Contains(t, g, field)
			require.Zero(t, g[field], field)
		}
		processes["green"], before["green"] = green, map[string]int64{}
		provoke(green, 2)
		g2 := l.gather()
		requireGrowth(g2)
		of := g2.one("procnetstat", "netns=green")
		require.EqualValues(t, 2*(4+2), of["udp_no_ports"])
		for _, field := range []string{"udp_rcvbuf_errors", "tcp_estab_resets", "tcp_out_rsts"} {
			require.Positive(t, of[field], field)
		}

		last := of["udp_no_ports"]
		testnet.UnnameNetns(t, "green")
		green.Stop()
		delete(processes, "green")
		requireGrowth(l.gather())
		again := testnet.Start(t, testnet.Process{Name: "one", In: testnet.Netns(t, "green")})
		provoke(again, 1)
		require.EqualValues(t, last+2, l.gather().one("procnetstat", "netns=green")["udp_no_ports"], "another namespace of that name")
	})
}

// The limits of each network namespace are those that sysctl shows there. With family_tag there are none, and no counters.
func TestHostLimits(t *testing.T) {
	testnet.Require(t, "nsenter", "sysctl")
	testnet.IsolatePIDs(t, func() {
		files := map[string]string{"self": "/proc/thread-self/ns/net", "blue": testnet.Netns(t, "blue"), "green": testnet.Netns(t, "green")}
		want := map[string]int64{}
		for name, file := range files {
			want[name] = int64(1000 * (1 + len(want)))
			output, err := exec.Command("nsenter", "--net="+file, "sysctl", "-qw",
				fmt.Sprintf("net.ipv4.ip_local_port_range=30000 %d", 30000+want[name]-1),
				fmt.Sprintf("net.ipv4.tcp_max_tw_buckets=%d", 2*want[name])).CombinedOutput()
			require.NoError(t, err, "%s", output)
		}
		g := start(t, "namespaces = [\"all\"]\nmeasurements = [\"host\"]").gather()
		for name, ports := range want {
			of := g.one("procnetstat", "netns="+name)
			require.Equal(t, ports, of["local_ports"], name)
			require.Equal(t, 2*ports, of["tcp_time_wait_limit"], name)
			require.NotContains(t, of, "tcp_orphan_limit", "of the first namespace")
		}
		for tags, of := range start(t, "namespaces = [\"all\"]\nmeasurements = [\"host\"]\nfamily_tag = true").gather().all("procnetstat") {
			for _, field := range []string{"local_ports", "tcp_time_wait_limit", "tcp_out_rsts", "udp_no_ports"} {
				require.NotContains(t, of, field, tags)
			}
		}
	})
}

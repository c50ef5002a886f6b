package procnetstat

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// The counters of the set connects that a failed attempt has one of.
var failures = []string{
	"tcp_connect_refused", "tcp_connect_timed_out", "tcp_connect_unreachable", "tcp_connect_no_port", "tcp_connect_aborted",
}

var attemptMeasurements = withRemote + `details = ["lifecycle", "connects"]` + "\n"

// connecting is a network namespace with a router, a client and a plugin.
type connecting struct {
	*testing.T
	router *testnet.Router
	client *testnet.Proc
	live   *live
}

// connectIn runs f in a network namespace in which a connect times out after three seconds, once the plugin has gathered.
func connectIn(t *testing.T, options string, f func(*connecting)) {
	t.Helper()
	testnet.RequireBPF(t)
	testnet.Isolate(t, func() {
		c := &connecting{T: t, router: testnet.StartRouter(t), client: testnet.Start(t, testnet.Process{Name: "client"})}
		testnet.Sysctl(t, "net.ipv4.tcp_syn_retries", "1")
		c.live = start(t, attemptMeasurements+options)
		c.live.gather()
		f(c)
	})
}

// attempts are attempts to connect to one endpoint, and the counters that they must give.
type attempts struct {
	testnet.Attempts
	giveUp testnet.GiveUp
	errno  unix.Errno
	want   string // one of failures; empty: they are established
	n      int64  // that fail, if not all
	// kernelCounts: the kernel counts them in AttemptFails.
	kernelCounts bool
}

// run makes the attempts and wants the process to see the error. between is called while those that get no answer wait.
func (c *connecting) run(all []attempts, between func()) {
	c.Helper()
	begun := make([][]testnet.Socket, len(all))
	for i, a := range all {
		begun[i] = c.client.Begin(a.Attempts)
	}
	between()
	for i, a := range all {
		if a.giveUp != "" {
			c.client.GiveUp(a.giveUp, begun[i]...)
		}
	}
	for i, a := range all {
		if a.giveUp != "" {
			continue
		}
		failed := 0
		for _, attempted := range c.client.Finish(begun[i]...) {
			if attempted.Errno != 0 {
				failed++
				require.Equal(c, a.errno, attempted.Errno, "%+v", a)
			}
		}
		if a.want != "" {
			require.EqualValues(c, a.failures(), failed, "%+v", a)
		}
	}
}

func (a *attempts) failures() int64 {
	switch {
	case a.want == "":
		return 0
	case a.n > 0:
		return a.n
	default:
		return int64(a.N)
	}
}

// require wants the counters of all attempts in each measurement.
func (c *connecting) require(all []attempts, g gathered) {
	c.Helper()
	sum := map[string]int64{}
	for _, a := range all {
		want := map[string]int64{"tcp_opened": int64(a.N)}
		if a.want != "" {
			want[a.want] = a.failures()
		}
		remote := []string{"process_name=client", "remote_address=" + a.To.Addr().String(), "remote_port=" + strconv.Itoa(int(a.To.Port()))}
		c.requireFailures(want, g.one("procnetstat_remote", remote...), a.To.String())
		for name, n := range want {
			sum[name] += n
		}
	}
	c.requireFailures(sum, g.one("procnetstat_process", "process_name=client"), "process")
	c.requireFailures(sum, g.sum("procnetstat_cgroup"), "cgroup")
	c.requireFailures(sum, g.one("procnetstat"), "host")
	for name := range g.sum("procnetstat_listener") {
		require.False(c, strings.HasPrefix(name, "tcp_connect_") || name == "tcp_syn_retrans", "listeners have %s", name)
	}
	for _, fields := range g.all("procnetstat_gather") {
		if lost, has := fields["connects_lost"]; has {
			require.Zero(c, lost)
		}
	}
}

// requireFailures wants the counters, and that each attempt is established, has failed, or still tries.
func (c *connecting) requireFailures(want, got map[string]int64, of string) {
	c.Helper()
	failed := int64(0)
	for _, name := range failures {
		require.Equal(c, want[name], got[name], "%s of %s: %v", name, of, got)
		failed += got[name]
	}
	opened := want["tcp_opened"]
	if opened == 0 {
		return
	}
	require.Equal(c, opened, got["tcp_opened"], "%s: %v", of, got)
	require.Equal(c, opened-failed, got["tcp_established"]+got["tcp_syn_sent"], "%s: opened = established + failed + still trying", of)
	require.Equal(c, failed, got["tcp_closed"], of)
}

// attemptFails returns the kernel's count of failed attempts of this network namespace (RFC 4022 tcpAttemptFails).
func attemptFails(t *testing.T) (n int64) {
	t.Helper()
	content, err := os.ReadFile("/proc/thread-self/net/snmp")
	require.NoError(t, err)
	var names []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if fields[0] != "Tcp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		n, err = strconv.ParseInt(fields[slices.Index(names, "AttemptFails")], 10, 64)
		require.NoError(t, err)
	}
	return n
}

// Each attempt that fails counts by its reason, for the process, the peer, the cgroup and the host, whether a gather saw it or not.
func TestConnectOutcomes(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, seen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, seen in SYN_SENT %t", network, seen), func(t *testing.T) {
				connectIn(t, "", func(c *connecting) {
					at := func(answer testnet.Answer) netip.AddrPort {
						return netip.AddrPortFrom(c.router.Address(network, answer), 80)
					}
					unreachable := map[string]testnet.Answer{"tcp4": testnet.ICMPHost4, "tcp6": testnet.ICMPAddr6}[network]
					port := map[string]testnet.Answer{"tcp4": testnet.ICMPPort4, "tcp6": testnet.ICMPPort6}[network]
					all := []attempts{
						{Attempts: testnet.Attempts{To: at(testnet.Refuse), N: 25}, errno: unix.ECONNREFUSED, want: "tcp_connect_refused", kernelCounts: true},
						{
							Attempts: testnet.Attempts{To: at(testnet.Refuse), N: 25, NonBlocking: true, Keep: true},
							errno:    unix.ECONNREFUSED, want: "tcp_connect_refused", kernelCounts: true,
						},
						{Attempts: testnet.Attempts{To: at(port), N: 5}, errno: unix.ECONNREFUSED, want: "tcp_connect_refused", kernelCounts: true},
						{Attempts: testnet.Attempts{To: at(testnet.Drop), N: 5}, errno: unix.ETIMEDOUT, want: "tcp_connect_timed_out", kernelCounts: true},
						{Attempts: testnet.Attempts{To: at(unreachable), N: 5}, errno: unix.EHOSTUNREACH, want: "tcp_connect_unreachable", kernelCounts: true},
						{Attempts: testnet.Attempts{To: at(testnet.Drop), N: 10, NonBlocking: true}, giveUp: testnet.GiveUpClose, want: "tcp_connect_aborted"},
						{Attempts: testnet.Attempts{To: at(testnet.Drop), N: 5}, giveUp: testnet.GiveUpShutdown, want: "tcp_connect_aborted"},
						{Attempts: testnet.Attempts{To: at(testnet.Drop), N: 5, NonBlocking: true}, giveUp: testnet.GiveUpDisconnect, want: "tcp_connect_aborted"},
						{
							Attempts: testnet.Attempts{To: at(testnet.Refuse), N: 3, FastOpen: testnet.FastOpenSend},
							errno:    unix.ECONNREFUSED, want: "tcp_connect_refused", kernelCounts: true,
						},
						{
							Attempts: testnet.Attempts{To: at(testnet.Refuse), N: 3, FastOpen: testnet.FastOpenConnect},
							errno:    unix.ECONNREFUSED, want: "tcp_connect_refused", kernelCounts: true,
						},
						{
							Attempts: testnet.Attempts{To: at(testnet.Refuse), N: 4, SameSocket: true}, errno: unix.ECONNREFUSED,
							want: "tcp_connect_refused", kernelCounts: true,
						},
						{
							Attempts: testnet.Attempts{To: at(testnet.Refuse), N: 4, SameSocket: true, NonBlocking: true, Keep: true},
							errno:    unix.ECONNREFUSED, want: "tcp_connect_refused", kernelCounts: true,
						},
					}
					before := attemptFails(t)
					c.run(all, func() {
						if seen {
							g := c.live.gather()
							require.Positive(t, g.one("procnetstat")["tcp_syn_sent"], "none is in SYN_SENT")
						}
					})
					fails := int64(0)
					for _, a := range all {
						if a.kernelCounts {
							fails += a.failures()
						}
					}
					require.Equal(t, fails, attemptFails(t)-before, "AttemptFails of the kernel")
					c.require(all, c.live.gatherWhole())
				})
			})
		}
	}
}

// Without a free local port an attempt fails before it sends anything.
func TestConnectWithoutPort(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			connectIn(t, "", func(c *connecting) {
				to := netip.AddrPortFrom(c.router.Address(network, testnet.Refuse), 5432)
				wildcard := map[string]netip.Addr{"tcp4": netip.IPv4Unspecified(), "tcp6": netip.IPv6Unspecified()}[network]
				c.router.Listen(network, netip.AddrPortFrom(wildcard, to.Port()), 100)
				testnet.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40009")
				failed := 0
				for _, attempted := range c.client.Attempt(testnet.Attempts{To: to, N: 20, Keep: true}) {
					if attempted.Errno != 0 {
						failed++
						require.Equal(t, unix.EADDRNOTAVAIL, attempted.Errno)
					}
				}
				require.Equal(t, 10, failed)

				g := c.live.gatherWhole()
				for of, fields := range map[string]map[string]int64{
					"host": g.one("procnetstat"), "process": g.one("procnetstat_process", "process_name=client"),
					"remote": g.one("procnetstat_remote", "remote_address="+to.Addr().String()),
				} {
					c.requireFailures(map[string]int64{"tcp_opened": 20, "tcp_connect_no_port": 10}, fields, of)
				}
			})
		})
	}
}

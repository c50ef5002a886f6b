package procnetstat

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// listen makes the router listen at port 80 of its addresses.
func (c *connecting) listen(network string) testnet.Socket {
	c.Helper()
	at := map[string]netip.Addr{"tcp4": netip.IPv4Unspecified(), "tcp6": netip.IPv6Unspecified()}[network]
	return c.router.Listen(network, netip.AddrPortFrom(at, 80), 1000)
}

func (c *connecting) at(network string, answer testnet.Answer) netip.AddrPort {
	return netip.AddrPortFrom(c.router.Address(network, answer), 80)
}

// measuredTimes are the percentiles 50 and 100 in microseconds.
type measuredTimes struct{ p50, most int64 }

// timesOf returns those that the client has measured.
func timesOf(attempted ...testnet.Attempted) measuredTimes {
	took := make([]int64, 0, len(attempted))
	for _, a := range attempted {
		took = append(took, a.Took.Microseconds())
	}
	slices.Sort(took)
	return measuredTimes{took[(len(took)-1)/2], took[len(took)-1]}
}

// isNear reports whether they are within 5 % of those that the client has measured. It wants them to be no longer than those, but for
// the precision of the histogram.
func (measured measuredTimes) isNear(t *testing.T, fields map[string]int64, of string) bool {
	t.Helper()
	near := true
	for name, want := range map[string]int64{"tcp_connect_p50_us": measured.p50, "tcp_connect_max_us": measured.most} {
		require.Contains(t, fields, name, of)
		got := float64(fields[name]) / float64(want)
		require.LessOrEqual(t, got, 1.02, "%s of %s: %d, the client measured %d", name, of, fields[name], want)
		if got < 0.95 {
			t.Logf("%s of %s: %d, the client measured %d", name, of, fields[name], want)
			near = false
		}
	}
	require.LessOrEqual(t, fields["tcp_connect_p50_us"], fields["tcp_connect_p95_us"], of)
	require.LessOrEqual(t, fields["tcp_connect_p95_us"], fields["tcp_connect_max_us"], of)
	return near
}

// requireNoTimes wants no connect times anywhere.
func (c *connecting) requireNoTimes(g gathered, of string) {
	c.Helper()
	for _, measurement := range []string{"procnetstat", "procnetstat_process", "procnetstat_remote", "procnetstat_cgroup", "procnetstat_listener"} {
		for tags, fields := range g.all(measurement) {
			for _, name := range connectTimes {
				require.NotContains(c, fields, name, "%s,%s: %s", measurement, tags, of)
			}
		}
	}
}

// Connect times are those that the client measured itself, of live connections and of ones that no gather saw, in the gather after they
// were established and in no other.
func TestConnectTimes(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		for _, seen := range []bool{true, false} {
			name := map[bool]string{true: ", live", false: ", never seen"}[seen]
			t.Run(network+name, func(t *testing.T) {
				connectIn(t, "", func(c *connecting) {
					c.listen(network)
					const delay = 400 * time.Millisecond
					c.router.Delay(delay)
					delayed, dropped := c.at(network, testnet.Refuse), c.at(network, testnet.DropFirstSYN)
					c.client.Attempt(testnet.Attempts{To: delayed, N: 1}) // the neighbour is found
					c.live.gather()
					c.requireNoTimes(c.live.gather(), "before")

					isNear := func() bool {
						before := c.live.gather().one("procnetstat")["tcp_opened"]
						fast := c.client.Begin(testnet.Attempts{To: delayed, N: 20, Keep: true})
						slow := c.client.Begin(testnet.Attempts{To: dropped, N: 5, Keep: true, NonBlocking: true})
						ofFast, ofSlow := c.client.Finish(fast...), c.client.Finish(slow...)
						for _, a := range slices.Concat(ofFast, ofSlow) {
							require.Zero(t, a.Errno)
							require.GreaterOrEqual(t, a.Took, delay)
						}
						if !seen {
							var ports []uint16
							for _, a := range slices.Concat(ofFast, ofSlow) {
								ports = append(ports, a.Socket.Local.Port())
							}
							ended := awaitableEnds(t)
							c.client.Reset(slices.Concat(fast, slow)...)
							ended.await(ports) // their events have no remote port, as those of listeners
						}
						g := c.live.gather()
						if opened := g.one("procnetstat")["tcp_opened"] - before; opened < int64(len(fast)+len(slow)) {
							t.Logf("the kernel has reported %d connections", opened)
							return false
						}
						near, all := true, timesOf(slices.Concat(ofFast, ofSlow)...)
						for _, test := range []struct {
							measuredTimes
							fields map[string]int64
							of     string
						}{
							{timesOf(ofFast...), g.one("procnetstat_remote", "remote_address="+delayed.Addr().String()), "delayed"},
							{timesOf(ofSlow...), g.one("procnetstat_remote", "remote_address="+dropped.Addr().String()), "dropped SYN"},
							{all, g.one("procnetstat_process", "process_name=client"), "process"},
							{all, g.one("procnetstat"), "host"},
						} {
							require.GreaterOrEqual(t, float64(test.fields["tcp_connect_p50_us"]), 0.98*float64(delay.Microseconds()), test.of)
							near = test.isNear(t, test.fields, test.of) && near
						}
						return near
					}
					// A busy machine wakes the client late, and the plugin.
					for attempts := 1; !isNear(); attempts++ {
						require.Less(t, attempts, 5)
					}

					c.client.Attempt(testnet.Attempts{To: netip.AddrPortFrom(delayed.Addr(), 81), N: 3})
					g := c.live.gather()
					c.requireNoTimes(g, "nothing was established")
					g = g.withCountersOf(c.live.gather())
					require.EqualValues(t, 3, g.one("procnetstat_process", "process_name=client")["tcp_connect_refused"])
				})
			})
		}
	}
}

// A connection that a full listener keeps waiting takes until the next SYN. Listeners have no connect times.
func TestConnectTimeOfFullListener(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			connectIn(t, "", func(c *connecting) {
				server := testnet.Start(t, testnet.Process{Name: "server"})
				at := netip.MustParseAddrPort(map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"}[network])
				listener := server.Listen(network, at, 0)
				to := listener.Local
				fills := c.client.Attempt(testnet.Attempts{To: to, N: 1, Keep: true})
				require.Zero(t, fills[0].Errno)
				c.live.gather()
				isNear := func() bool {
					before, retransBefore := synRetrans(t), c.live.gather().one("procnetstat")["tcp_syn_retrans"]
					waits := c.client.Begin(testnet.Attempts{To: to, N: 1, Keep: true})
					require.Equal(t, "SYN_SENT", waits[0].State)
					c.requireNoTimes(c.live.gather(), "still trying")
					accepted := server.Accept(listener, 1)
					attempted := c.client.Finish(waits...)
					require.Zero(t, attempted[0].Errno)
					require.GreaterOrEqual(t, attempted[0].Took, 900*time.Millisecond)

					g := c.live.gather()
					near, measured := true, timesOf(attempted...)
					for of, fields := range map[string]map[string]int64{
						"process": g.one("procnetstat_process", "process_name=client"), "host": g.one("procnetstat"),
						"remote": g.one("procnetstat_remote", "remote_port="+strconv.Itoa(int(to.Port()))),
					} {
						near = measured.isNear(t, fields, of) && near
						require.Equal(t, fields["tcp_connect_max_us"], fields["tcp_connect_p50_us"], "of one connection")
					}
					require.Equal(t, synRetrans(t)-before, g.one("procnetstat")["tcp_syn_retrans"]-retransBefore)
					require.Positive(t, synRetrans(t)-before)
					for tags, fields := range g.all("procnetstat_listener") {
						for name := range fields {
							require.False(t, strings.HasPrefix(name, "tcp_connect_") || name == "tcp_syn_retrans", "%s of %s", name, tags)
						}
					}
					for _, fields := range g.all("procnetstat_process", "process_name=server") {
						for _, name := range connectTimes {
							require.NotContains(t, fields, name)
						}
					}
					server.Close(accepted...)
					return near
				}
				for attempts := 1; !isNear(); attempts++ {
					require.Less(t, attempts, 5)
				}
			})
		})
	}
}

// synRetrans returns the kernel's count of the SYNs that this network namespace has retransmitted.
func synRetrans(t *testing.T) int64 {
	t.Helper()
	content, err := os.ReadFile("/proc/thread-self/net/netstat")
	require.NoError(t, err)
	var names []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		switch at := slices.Index(names, "TCPSynRetrans"); {
		case fields[0] != "TcpExt:":
		case names == nil:
			names = fields
		default:
			require.Positive(t, at)
			n, err := strconv.ParseInt(fields[at], 10, 64)
			require.NoError(t, err)
			return n
		}
	}
	require.Fail(t, "no TCPSynRetrans")
	return 0
}

// Every retransmitted SYN counts once, whether gathers see the socket in SYN_SENT or not, for attempts that fail and that succeed.
func TestSynRetrans(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			connectIn(t, "", func(c *connecting) {
				c.listen(network)
				seen, unseen, established := c.at(network, testnet.Drop), c.at(network, testnet.Drop), c.at(network, testnet.DropFirstSYN)
				before, hostBefore := synRetrans(t), c.live.gather().one("procnetstat")["tcp_syn_retrans"]

				begun := c.client.Begin(testnet.Attempts{To: seen, N: 5})
				retried := c.client.Begin(testnet.Attempts{To: established, N: 5, Keep: true})
				c.live.gather()
				eventually(t, func() bool { return synRetrans(t)-before >= 10 })
				c.live.gather()
				c.client.Finish(retried...)
				c.client.Finish(begun...)
				opened, lost := int64(0), int64(0)
				// The kernel may not report an attempt on a busy machine: then its SYNs, six at most, are missing.
				requireCount := func(want, got int64, of string) {
					t.Helper()
					require.LessOrEqual(t, got, want, of)
					require.GreaterOrEqual(t, got, want-6*lost, "%s, %d lost", of, lost)
				}
				requireRetrans := func(attempts int64) {
					t.Helper()
					opened += attempts
					eventually(t, func() bool {
						g := c.live.gather()
						return g.one("procnetstat")["tcp_opened"]+g.one("procnetstat_gather")["connects_lost"] >= opened
					})
					c.live.gather() // with it the losses are counted
					want, g := synRetrans(t)-before, c.live.gather()
					lost = g.one("procnetstat_gather")["connects_lost"]
					requireCount(want, g.one("procnetstat")["tcp_syn_retrans"]-hostBefore, "host")
					requireCount(want, g.one("procnetstat_process", "process_name=client")["tcp_syn_retrans"], "process")
				}
				requireRetrans(10)

				c.client.Attempt(testnet.Attempts{To: unseen, N: 5})
				c.client.Attempt(testnet.Attempts{To: established, N: 5})
				requireRetrans(10)
				g := c.live.gather()
				requireCount(10, g.one("procnetstat_remote", "remote_address="+established.Addr().String())["tcp_syn_retrans"], "remote")
			})
		})
	}
}

// Without BPF retransmitted SYNs count when a gather sees them, and the failed attempts of the host by the kernel. All else of attempts
// is absent.
func TestConnectsWithoutBPF(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6"} {
		t.Run(network, func(t *testing.T) {
			connectIn(t, "owners = \"procfs\"\n", func(c *connecting) {
				c.listen(network)
				drop := c.at(network, testnet.Drop)
				before, host := synRetrans(t), c.live.gather().one("procnetstat")
				fails := attemptFails(t)

				begun := c.client.Begin(testnet.Attempts{To: drop, N: 5})
				c.live.gather()
				eventually(t, func() bool { return synRetrans(t)-before >= 5 })
				c.live.gather()
				g := c.live.gather()
				for of, fields := range map[string]map[string]int64{
					"process": g.one("procnetstat_process", "process_name=client"),
					"remote":  g.one("procnetstat_remote", "remote_address="+drop.Addr().String()),
				} {
					require.EqualValues(t, 5, fields["tcp_syn_retrans"], of)
				}
				require.EqualValues(t, 5, g.one("procnetstat")["tcp_syn_retrans"]-host["tcp_syn_retrans"])
				c.client.Finish(begun...)
				c.client.Attempt(testnet.Attempts{To: c.at(network, testnet.Refuse), N: 3, Keep: true})

				g = c.live.gather()
				require.Zero(t, g.one("procnetstat_gather", "owners=procfs")["connects_seen"])
				require.Contains(t, g.one("procnetstat_gather"), "connects_seen")
				require.NotContains(t, g.one("procnetstat_gather"), "connects_lost")
				require.Equal(t, attemptFails(t)-fails, g.one("procnetstat")["tcp_attempt_fails"]-host["tcp_attempt_fails"])
				require.Positive(t, attemptFails(t)-fails)
				for _, m := range g.metrics {
					for _, field := range m.FieldList() {
						require.NotRegexp(t, connectFields, field.Key, m.Name())
					}
				}
			})
		})
	}
}

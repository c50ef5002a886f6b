package procnetstat

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat"
)

// fieldsOfDetails are the fields of each set of the option details.
var fieldsOfDetails = map[string][]string{
	"rtt":       {"tcp_rtt_p50_us", "tcp_rtt_p95_us", "tcp_rtt_max_us", "tcp_closed_rtt_p95_us"},
	"traffic":   {"tcp_bytes_acked", "tcp_bytes_received", "tcp_segs_out", "tcp_segs_in", "tcp_retrans_segs"},
	"lifecycle": {"tcp_opened", "tcp_closed"},
	"connects": {
		"tcp_connect_refused", "tcp_connect_timed_out", "tcp_connect_unreachable", "tcp_connect_no_port", "tcp_connect_aborted",
		"tcp_connect_p50_us", "tcp_connect_p95_us", "tcp_connect_max_us", "tcp_syn_retrans", "tcp_closed_reset", "tcp_closed_timed_out",
	},
	"stalls": {
		"tcp_idle", "tcp_busy_us", "tcp_rwnd_limited_us", "tcp_sndbuf_limited_us", "tcp_notsent_bytes", "tcp_rcv_ooopack",
		"tcp_dsack_dups", "tcp_rto",
	},
}

// connectTimes are absent where no connection has been established since the last gather.
var connectTimes = []string{"tcp_connect_p50_us", "tcp_connect_p95_us", "tcp_connect_max_us"}

// subsets returns all subsets of the names.
func subsets(names ...string) (all [][]string) {
	for bits := range 1 << len(names) {
		subset := []string{}
		for i, name := range names {
			if bits&(1<<i) != 0 {
				subset = append(subset, name)
			}
		}
		all = append(all, subset)
	}
	return all
}

// detailsLoad are connections between two processes.
type detailsLoad struct {
	server, client *testnet.Proc
	listener       testnet.Socket
	ends, accepted []testnet.Socket // that a gather has seen
}

func newDetailsLoad(t *testing.T) *detailsLoad {
	t.Helper()
	d := &detailsLoad{server: testnet.Start(t, testnet.Process{Name: "server"}), client: testnet.Start(t, testnet.Process{Name: "client"})}
	d.listener = d.server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
	d.ends, d.accepted = d.connect(4)
	return d
}

func (d *detailsLoad) connect(n int) (ends, accepted []testnet.Socket) {
	return d.client.Connect(d.listener.Local, n), d.server.Accept(d.listener, n)
}

// burst opens and closes connections, and returns the number of sockets that the kernel has destroyed when all is at rest. Connections
// that no gather has seen are reset: their TIME_WAIT entries would not have an owner without the events of closed connections.
func (d *detailsLoad) burst(t *testing.T) (destroyed int64) {
	t.Helper()
	const reset, closed = 3, 2
	d.client.Send(d.ends[3], 1000)
	await(t, "ESTABLISHED", d.ends[3]) // with all acknowledged
	ends, accepted := d.connect(reset)
	for _, s := range accepted {
		d.server.Send(s, 10)
	}
	await(t, "ESTABLISHED", accepted...)
	d.client.Close(ends...) // with unread data
	d.server.Close(accepted...)
	for _, end := range d.ends[:closed] {
		d.client.Close(end)
		d.server.Close(d.accepted[slices.IndexFunc(d.accepted, func(s testnet.Socket) bool { return s.Remote == end.Local })])
	}
	d.connect(5)
	awaitStates(t, map[string]int{"ESTABLISHED": 2 * (4 - closed + 5), "TIME_WAIT": closed})
	return 2 * (reset + closed)
}

// TestDetails: with each choice of details exactly the fields of its sets are there, in all measurements, also where there are no
// connections, and their values are those of a plugin that has all sets.
func TestDetails(t *testing.T) {
	ofThisMoment := []string{"sockets_used", "tcp_alloc", "tcp_orphan", "tcp_mem_bytes", "udp_mem_bytes"} // and some of the whole host
	measurements := []string{
		"procnetstat", "procnetstat_process", "procnetstat_listener", "procnetstat_cgroup", "procnetstat_remote", "procnetstat_client",
	}
	const options = `measurements = ["host", "process", "listener", "cgroup", "remote", "client"]
`
	ofThisMoment = append(ofThisMoment, connectTimes...) // each plugin measures them
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		load := newDetailsLoad(t)
		first := start(t, "") // the kernel reports closed connections to it last
		whole := start(t, fmt.Sprintf("%sdetails = [%s]", options, quoted(detailNames)))
		choices := subsets(detailNames...)
		require.Len(t, choices, 32)
		var chosen []*live
		for _, choice := range choices {
			chosen = append(chosen, start(t, fmt.Sprintf("%sdetails = [%s]", options, quoted(choice))))
		}
		compare := func(step string) gathered {
			want := whole.gatherWhole()
			for i, choice := range choices {
				t.Run(fmt.Sprint(step, choice), func(t *testing.T) {
					chosen[i].T = t
					got := chosen[i].gatherWhole()
					for _, measurement := range measurements {
						expected, actual := want.all(measurement), got.all(measurement)
						for set, fields := range fieldsOfDetails {
							for _, series := range expected {
								maps.DeleteFunc(series, func(name string, _ int64) bool {
									return !slices.Contains(choice, set) && slices.Contains(fields, name)
								})
							}
						}
						for _, fields := range slices.Concat(slices.Collect(maps.Values(expected)), slices.Collect(maps.Values(actual))) {
							for _, name := range ofThisMoment {
								if has(fields, name) {
									fields[name] = 0
								}
							}
						}
						require.Equal(t, expected, actual, measurement)
					}
				})
			}
			return want
		}
		first.gather()
		compare("baseline")
		destroyed := load.burst(t)
		eventually(t, func() bool { return first.gather().one("procnetstat")["tcp_closed"] == destroyed })
		want := compare("burst")
		for _, measurement := range measurements { // what was compared is not empty
			for tags, fields := range want.all(measurement) {
				if strings.Contains(tags, unattributed) {
					continue
				}
				for set, names := range fieldsOfDetails {
					for _, name := range names {
						if slices.Contains(connectTimes, name) || slices.Contains(withoutOutgoing, name) &&
							slices.Contains([]string{"procnetstat_listener", "procnetstat_client"}, measurement) {
							continue
						}
						if name == "tcp_rto" && tcpFieldsOfKernel(t)&netstat.FieldTCPTotalRTO == 0 {
							continue
						}
						require.Contains(t, fields, name, "%s of %s,%s", set, measurement, tags)
					}
				}
				require.Positive(t, fields["tcp_closed"], "%s,%s", measurement, tags)
				require.Positive(t, fields["tcp_bytes_received"], "%s,%s", measurement, tags)
			}
		}
	})
}

// TestDetailsThatNeedNoTCPInfo: the kernel is asked for the details of connections if a set needs them, and not otherwise.
func TestDetailsThatNeedNoTCPInfo(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.ConnectedPairs(t, 1, 3)
		for _, choice := range subsets(detailNames...) {
			l := start(t, fmt.Sprintf("measurements = [\"host\", \"connection\"]\ndetails = [%s]", quoted(choice)))
			needsInfo := slices.ContainsFunc([]string{"rtt", "traffic", "connects", "stalls"}, func(set string) bool { return slices.Contains(choice, set) })
			connections := 0
			for socket, err := range l.plugin.scanner.Sockets(context.Background()) {
				require.NoError(t, err)
				if isConnection(socket) {
					connections++
					require.Equal(t, needsInfo, socket.Has(netstat.FieldTCPInfo), choice)
				}
			}
			require.Equal(t, 6, connections)
			require.Equal(t, len(choice) > 0, l.plugin.scanner.Namespaces()[0].ClosedEvents(), choice)
		}
	})
}

// TestWhatIsNotNeededIsNotRead: the host measurement alone looks for no owners.
func TestWhatIsNotNeededIsNotRead(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		for options, want := range map[string]netstat.OwnerMethod{
			`measurements = ["host"]`:                          netstat.OwnersOff,
			"measurements = [\"host\"]\nowners = \"procfs\"":   netstat.OwnersOff,
			`measurements = ["host", "process"]`:               netstat.OwnersBPF,
			"measurements = [\"gather\"]\nowners = \"procfs\"": netstat.OwnersProcfs,
		} {
			l := start(t, options)
			l.gather()
			require.Equal(t, want, l.plugin.scanner.Stats().OwnerMethod, options)
		}
	})
}

// TestOwnerMethodsAgree: the series of processes are the same however the owners are found.
func TestOwnerMethodsAgree(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		client.Connect(listener.Local, 5)
		server.Accept(listener, 4)
		const options = withRemote + "details = []\nprocess_tags = [\"process_name\", \"user\", \"pid\", \"exe\", \"cmdline\"]\nowners = "
		byBPF, byProcfs := start(t, options+`"bpf"`).gather(), start(t, options+`"procfs"`).gather()
		require.NotEmpty(t, byBPF.one("procnetstat_gather", "owners=bpf"))
		require.NotEmpty(t, byProcfs.one("procnetstat_gather", "owners=procfs"))
		for _, measurement := range []string{"procnetstat_process", "procnetstat_listener", "procnetstat_remote"} {
			require.Equal(t, byProcfs.all(measurement), byBPF.all(measurement), measurement)
		}
		require.EqualValues(t, 5, byBPF.one("procnetstat_process", "process_name=client")["tcp_established"])
	})
}

// TestAbsentNotZero: a round-trip time of which there is no sample is absent, and so is a state that there cannot be. All other TCP
// fields are there.
func TestAbsentNotZero(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		l := start(t, "measurements = [\"host\", \"process\", \"listener\", \"remote\", \"client\"]\ndetails = ["+quoted(detailNames)+"]")
		rtts := []string{"tcp_rtt_p50_us", "tcp_rtt_p95_us", "tcp_rtt_max_us"}
		ofKernel := tcpFieldsOfKernel(t)
		requireWithout := func(fields map[string]int64, without ...[]string) {
			t.Helper()
			absent := slices.Concat(without...)
			for _, f := range allGroupFields {
				if f.transport == netstat.TransportTCP && f.tcpFields&^ofKernel == 0 {
					require.Equal(t, !slices.Contains(absent, f.name), has(fields, f.name), f.name)
				}
			}
		}
		closedRTT := []string{"tcp_closed_rtt_p95_us"}
		const ofTCP, ofServer, ofClient = "protocol=tcp", "process_name=server", "process_name=client"

		g := l.gather()
		requireWithout(g.one("procnetstat_listener", ofTCP), rtts, closedRTT, withoutOutgoing)
		requireWithout(g.one("procnetstat_process", ofServer), rtts, closedRTT, connectTimes)
		requireWithout(g.one("procnetstat"), rtts, closedRTT, connectTimes)

		ends, accepted := client.Connect(listener.Local, 2), server.Accept(listener, 2)
		g = l.gather()
		requireWithout(g.one("procnetstat_listener", ofTCP), closedRTT, withoutOutgoing)
		requireWithout(g.one("procnetstat_client", ofTCP), closedRTT, withoutOutgoing, withoutListening)
		requireWithout(g.one("procnetstat_remote", ofTCP), closedRTT, withoutListening)
		requireWithout(g.one("procnetstat_process", ofServer), closedRTT, connectTimes)
		requireWithout(g.one("procnetstat_process", ofClient), closedRTT)

		client.Close(ends...)
		server.Close(accepted...)
		hadClosedRTT := false
		eventually(t, func() bool {
			g = l.gather()
			of := g.one("procnetstat_listener", ofTCP)
			hadClosedRTT = hadClosedRTT || has(of, closedRTT[0])
			return of["tcp_closed"] == 2
		})
		require.True(t, hadClosedRTT)
		g = l.gather()
		requireWithout(g.one("procnetstat_listener", ofTCP), rtts, closedRTT, withoutOutgoing)
		requireWithout(g.one("procnetstat"), rtts, closedRTT, connectTimes)
	})
}

package procnetstat

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// A master, as root, and workers, as nobody, share a listener. The short connections that no gather saw count once, for the workers.
func TestShortConnectionsOfWorkers(t *testing.T) {
	for _, test := range []struct {
		name    string
		workers int
		held    int    // connections that the workers hold all the time
		rename  string // the name of the workers
		worker  string // tags of their series
	}{
		{"more workers than masters", 2, 0, "", "user=nobody"},
		{"workers with a name of their own", 2, 0, "worker", "process_name=worker"},
		{"a worker that holds a connection", 1, 1, "", "user=nobody"},
		{"a worker with a name of its own that holds a connection", 1, 1, "worker", "process_name=worker"},
	} {
		t.Run(test.name, func(t *testing.T) {
			testnet.Isolate(t, func() {
				const short = 500
				master, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
				listener := master.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 4096)
				for _, worker := range master.Fork(test.workers) {
					if test.rename != "" {
						worker.Rename(test.rename)
					}
					worker.SetUser(65534)
					worker.Serve(listener, visitBytes, answerBytes)
				}
				client.Connect(listener.Local, test.held)
				awaitStates(t, map[string]int{"ESTABLISHED": 2 * test.held})
				awaitQueued(t, listener, 0)
				l := startTally(t, "")
				l.gather()

				client.OpenShortConnections(testnet.ShortConnections{To: listener.Local, N: short, Rate: 5000, Send: visitBytes, Receive: answerBytes})
				eventually(t, func() bool { return client.ClosedShortConnections() == short })
				awaitStates(t, map[string]int{"TIME_WAIT": short, "ESTABLISHED": 2 * test.held}) // no gather sees one that lives
				l.awaitClosed(2 * short)

				others := map[string]int64{}
				for _, measurement := range []string{"procnetstat_process", "procnetstat_listener"} {
					var sum int64
					for tags, fields := range l.all(measurement) {
						switch name := valueOf(t, tags, "process_name"); {
						case name == "client":
						case measurement == "procnetstat_process" && valueOf(t, tags, "user") == "nobody",
							test.rename != "" && name == test.rename,
							measurement == "procnetstat_listener" && test.rename == "":
							sum += fields["tcp_closed"]
						case fields["tcp_closed"] != 0:
							others[tags] = fields["tcp_closed"]
						}
					}
					require.Equal(t, int64(short), sum, "the workers in %s", measurement)
				}
				require.Empty(t, others)
				require.Equal(t, int64(short), l.sum("procnetstat_process", "process_name=client")["tcp_closed"])
				require.Equal(t, int64(short), l.sum("procnetstat_remote")["tcp_closed"], "of the client")
				require.NotEmpty(t, l.all("procnetstat_process", test.worker))
				require.Equal(t, int64(short), l.sum("procnetstat_process", test.worker)["tcp_opened"])
				require.Equal(t, int64(2*short), l.sum("procnetstat_cgroup")["tcp_closed"])
			})
		})
	}
}

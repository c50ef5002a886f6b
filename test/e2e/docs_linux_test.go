package e2e

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Every query in the cookbook has an answer on metrics of faulty services. If a comment above the query names processes, as in
// "<!-- orders -->", the answer has their names.
func TestDocumentedQueries(t *testing.T) {
	testnet.Require(t, "prometheus")
	testnet.RequireBPF(t) // to see connects
	setUp(t)
	program := customTelegraf(t)
	// Here, outside of the process of Isolate, go test sees that the document has changed.
	queries := documentedQueries(t, "../../docs/COOKBOOK.md")
	require.Greater(t, len(queries), 30)
	testnet.Isolate(t, func() {
		testnet.Sysctl(t, "net.ipv4.tcp_syn_retries", "1") // attempts time out after 3 seconds
		db := newInfluxDB(t)
		db.start()
		makeUnattributedConnections(t)
		startTelegraf(t, program, "1s", prometheusOutput+hostTag+`
[[inputs.procnetstat]]
  measurements = ["host", "process", "listener", "cgroup", "remote", "client", "gather"]
  protocols = ["tcp", "udp", "unix"]
`+allDetails)
		prometheus := startPrometheus(t)
		r := startFaultyServices(t)
		clients := startFaultyClients(t)
		writeMore := startWriters(t)
		fillUnixQueue(t)
		overflow := startOverflow(t, r.users)
		for _, q := range queries {
			answer, polls := "", 0
			waitFor(t, fmt.Sprintf("answer that names %q to %q", q.processes, q.text), func() bool {
				prometheus.check()
				writeMore()
				switch q.processes[0] {
				case "orders":
					r.leak()
				case "resolver":
					overflow()
				case "billing":
					clients.abort()
				case "sessions":
					if polls%100 == 0 { // a process has a limit of descriptors
						clients.leak()
					}
				}
				polls++
				if q.language == "influxql" {
					answer = fmt.Sprint(db.query(q.text))
				} else {
					answer = fmt.Sprint(prometheusSeries(t, q.text))
				}
				isMissing := func(process string) bool { return !strings.Contains(answer, process) }
				return answer != "[]" && !slices.ContainsFunc(q.processes, isMissing)
			})
		}
	})
}

// startWriters starts processes that send to a reader of their own without end, and one that sends little.
//
//   - backup sends to archive, which does not read
//   - replica sends to standby, and 40 % of the packets are lost
//   - sensors sends to metrics what each call of writeMore writes
func startWriters(t *testing.T) (writeMore func()) {
	t.Helper()
	const much, little, archivePort, standbyPort, metricsPort = 1 << 28, 1000, 8091, 8092, 8093
	listen := func(name string, port uint16) (*testnet.Proc, testnet.Socket) {
		reader := testnet.Start(t, testnet.Process{Name: name})
		return reader, reader.Listen("tcp4", netip.AddrPortFrom(loopback.Addr(), port), 100)
	}
	send := func(name string, to testnet.Socket) {
		writer := testnet.Start(t, testnet.Process{Name: name})
		writer.OpenShortConnections(testnet.ShortConnections{To: to.Local, N: 1, Rate: 1, Lifetime: time.Hour, Send: much})
	}
	archive, listener := listen("archive", archivePort)
	send("backup", listener)
	archive.Accept(listener, 1)

	loss := fmt.Sprintf("add rule inet loss in tcp dport %d tcp flags & syn != syn numgen random mod 100 < 40 drop", standbyPort)
	nft(t, "add table inet loss; add chain inet loss in { type filter hook input priority 0; }; "+loss)
	standby, listener := listen("standby", standbyPort)
	standby.Serve(listener, 0, 0)
	send("replica", listener)

	metrics, listener := listen("metrics", metricsPort)
	metrics.Serve(listener, 0, 0)
	sensors := testnet.Start(t, testnet.Process{Name: "sensors"})
	connection := sensors.Connect(listener.Local, 1)[0]
	return func() { sensors.Send(connection, little) }
}

// nft adds rules to this network namespace.
func nft(t *testing.T, rules string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nft", rules).CombinedOutput()
	require.NoError(t, err, "%s: %s", rules, out)
}

// startOverflow starts a UDP server that does not read. It returns a function that fills its receive queue and has it drop.
func startOverflow(t *testing.T, client *testnet.Proc) (overflow func()) {
	t.Helper()
	resolver := testnet.Start(t, testnet.Process{Name: "resolver"})
	server := resolver.UDP("udp4", netip.AddrPortFrom(loopback.Addr(), 53), netip.AddrPort{})
	socket := client.UDP("udp4", netip.AddrPort{}, server.Local)
	return func() {
		for range 100 {
			client.Send(socket, 1000)
		}
	}
}

// fillUnixQueue makes a listening unix socket whose accept queue is full.
func fillUnixQueue(t *testing.T) {
	t.Helper()
	const backlog = 5
	at := &unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), "php-fpm.sock")}
	open := func() int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	listener := open()
	require.NoError(t, unix.Bind(listener, at))
	require.NoError(t, unix.Listen(listener, backlog))
	for range backlog + 1 {
		require.NoError(t, unix.Connect(open(), at))
	}
}

// docQuery is a query in a document.
type docQuery struct {
	language, text string
	processes      []string // at least one; "": any
}

var queryBlock = regexp.MustCompile("(?s)(?:<!-- ([^>]+) -->\n)?```(influxql|promql)\n(.*?)\n```")

func documentedQueries(t *testing.T, document string) (queries []docQuery) {
	t.Helper()
	for _, m := range queryBlock.FindAllStringSubmatch(readFile(t, document), -1) {
		queries = append(queries, docQuery{m[2], m[3], strings.Split(m[1], ", ")})
	}
	return queries
}

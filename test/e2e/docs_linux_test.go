package e2e

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Every query in the cookbook has an answer on metrics of faulty services. If a comment above the query names a process, as in
// "<!-- orders -->", the answer has its name.
func TestDocumentedQueries(t *testing.T) {
	testnet.Require(t, "prometheus")
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		db := newInfluxDB(t)
		db.start()
		makeUnattributedConnections(t)
		startTelegraf(t, program, "1s", prometheusOutput+hostTag+`
[[inputs.procnetstat]]
  measurements = ["host", "process", "listener", "cgroup", "remote", "client", "gather"]
  protocols = ["tcp", "udp", "unix"]
`)
		prometheus := startPrometheus(t)
		r := startFaultyServices(t)
		fillUnixQueue(t)
		overflow := startOverflow(t, r.users)
		queries := documentedQueries(t, "../../docs/COOKBOOK.md")
		if len(queries) < 6 {
			t.Errorf("%d queries, want at least 6", len(queries))
		}
		for _, q := range queries {
			answer := ""
			waitFor(t, fmt.Sprintf("answer that names %q to %q", q.process, q.text), func() bool {
				prometheus.check()
				switch q.process {
				case "orders":
					r.leak()
				case "resolver":
					overflow()
				}
				if q.language == "influxql" {
					answer = fmt.Sprint(db.query(q.text))
				} else {
					answer = fmt.Sprint(prometheusSeries(t, q.text))
				}
				return answer != "[]" && strings.Contains(answer, q.process)
			})
		}
	})
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
type docQuery struct{ language, text, process string }

var queryBlock = regexp.MustCompile("(?s)(?:<!-- ([^>]+) -->\n)?```(influxql|promql)\n(.*?)\n```")

func documentedQueries(t *testing.T, document string) (queries []docQuery) {
	t.Helper()
	for _, m := range queryBlock.FindAllStringSubmatch(readFile(t, document), -1) {
		queries = append(queries, docQuery{m[2], m[3], m[1]})
	}
	return queries
}

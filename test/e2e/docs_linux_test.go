package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// Every query in the documents has an answer on metrics of faulty services. If a comment above the query names a process, as in
// "<!-- orders -->", the answer has its name.
func TestDocumentedQueries(t *testing.T) {
	testnet.Require(t, "prometheus")
	setUp(t)
	program := customTelegraf(t)
	testnet.Isolate(t, func() {
		db := newInfluxDB(t)
		db.start()
		makeUnattributedConnections(t)
		startTelegraf(t, program, "1s", prometheusOutput+hostTag+"[[inputs.procnetstat]]\n")
		prometheus := startPrometheus(t)
		r := startFaultyServices(t)
		for _, document := range []string{"ALERTS.md", "COOKBOOK.md"} {
			queries := documentedQueries(t, "../../docs/"+document)
			if len(queries) < 6 {
				t.Errorf("%s has %d queries, want at least 6", document, len(queries))
			}
			for _, q := range queries {
				answer := ""
				waitFor(t, fmt.Sprintf("answer that names %q to %q of %s", q.process, q.text, document), func() bool {
					prometheus.check()
					if q.process == "orders" {
						r.leak()
					}
					if q.language == "influxql" {
						answer = fmt.Sprint(db.query(q.text))
					} else {
						answer = fmt.Sprint(prometheusSeries(t, q.text))
					}
					return answer != "[]" && strings.Contains(answer, q.process)
				})
			}
		}
	})
}

// docQuery is a query in a document.
type docQuery struct{ language, text, process string }

var queryBlock = regexp.MustCompile("(?s)(?:<!-- ([^>]+) -->\n)?```(influxql|promql)\n(.*?)\n```")

func documentedQueries(t *testing.T, document string) (queries []docQuery) {
	t.Helper()
	for _, m := range queryBlock.FindAllStringSubmatch(readFile(t, document), -1) {
		text := strings.ReplaceAll(m[3], "28232", "10") // the number of ports to a peer
		queries = append(queries, docQuery{m[2], text, m[1]})
	}
	return queries
}

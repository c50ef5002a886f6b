package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	influxAddress = "127.0.0.1:8086" // each test has a network namespace of its own
	database      = "telegraf"
)

const influxConfig = `
reporting-disabled = true
bind-address = "127.0.0.1:8088"
[meta]
  dir = "%[1]s/meta"
[data]
  dir = "%[1]s/data"
  wal-dir = "%[1]s/wal"
  query-log-enabled = false
[http]
  bind-address = "` + influxAddress + `"
  log-enabled = false
[monitor]
  store-enabled = false
[continuous_queries]
  enabled = false
[subscriber]
  enabled = false
`

// influxDB is an InfluxDB with its own data directory. It can be stopped and started again.
type influxDB struct {
	*server
	t          *testing.T
	configFile string
	client     *http.Client
}

func newInfluxDB(t *testing.T) *influxDB {
	t.Helper()
	dir := t.TempDir()
	db := &influxDB{t: t, configFile: filepath.Join(dir, "influxdb.conf"), client: &http.Client{Transport: &http.Transport{}}}
	if err := os.WriteFile(db.configFile, fmt.Appendf(nil, influxConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	return db
}

// start starts the server, with the data that it had when it was stopped, and returns when it answers.
func (db *influxDB) start() {
	db.t.Helper()
	db.server = startServer(db.t, "influxd", "-config", db.configFile)
	waitFor(db.t, "answer of InfluxDB", func() bool {
		db.check()
		answer, err := db.client.Get("http://" + influxAddress + "/ping")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusNoContent
	})
}

func (db *influxDB) stop() {
	db.t.Helper()
	db.client.CloseIdleConnections()
	db.server.stop()
}

// since returns all integers in the database from a time on.
func (db *influxDB) since(time int64) metrics {
	db.t.Helper()
	found, _ := db.all(time)
	return found
}

// all returns all values in the database from a time on.
func (db *influxDB) all(time int64) (metrics, texts) {
	db.t.Helper()
	found, foundTexts := metrics{}, texts{}
	for _, s := range db.query(fmt.Sprintf("SELECT * FROM /.+/ WHERE time >= %d GROUP BY *", time)) {
		series := seriesName(s.Name, s.Tags)
		for _, row := range s.Values {
			at := db.integer(row[0])
			for i, value := range row[1:] {
				field := s.Columns[i+1]
				if text, isText := value.(string); isText {
					foundTexts[textField{at, series, field}] = text
				} else if value != nil { // a field of another measurement
					found.add(at, series, field, db.integer(value))
				}
			}
		}
	}
	return found, foundTexts
}

// wait waits until the database has as many values of a gather as were sent, and returns them: during a write, the fields of a
// gather become visible one by one. Before each query it calls meanwhile.
func (db *influxDB) wait(at int64, sent gather, meanwhile func()) gather {
	db.t.Helper()
	var stored gather
	waitFor(db.t, fmt.Sprintf("gather of %d in InfluxDB", at), func() bool {
		meanwhile()
		stored = db.since(at)[at]
		return stored.values() == sent.values()
	})
	return stored
}

// influxSeries is a series of a result. The first column is the time.
type influxSeries struct {
	Name    string
	Tags    map[string]string
	Columns []string
	Values  [][]any
}

// query returns the series of the result. It keeps the connection open for the next query, so that the sockets do not change.
func (db *influxDB) query(influxQL string) []influxSeries {
	db.t.Helper()
	parameters := url.Values{"db": {database}, "epoch": {"ns"}, "q": {influxQL}}
	answer, err := db.client.Get("http://" + influxAddress + "/query?" + parameters.Encode())
	if err != nil {
		db.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body) // an unread body would close the connection
	if err != nil {
		db.t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var decoded struct {
		Results []struct {
			Series []influxSeries
			Error  string
		}
		Error string
	}
	if err := decoder.Decode(&decoded); err != nil {
		db.t.Fatalf("%s: %s: %v in %q", influxQL, answer.Status, err, text)
	}
	if len(decoded.Results) == 1 && strings.HasPrefix(decoded.Results[0].Error, "database not found") {
		return nil // Telegraf creates it with its first write
	}
	if decoded.Error != "" || len(decoded.Results) != 1 || decoded.Results[0].Error != "" {
		db.t.Fatalf("%s: %s: %q", influxQL, answer.Status, text)
	}
	return decoded.Results[0].Series
}

// integer converts a value of a result, which must be an integer.
func (db *influxDB) integer(value any) int64 {
	db.t.Helper()
	number, isNumber := value.(json.Number)
	if !isNumber {
		db.t.Fatalf("%v is not a number", value)
	}
	n, err := number.Int64()
	if err != nil {
		db.t.Fatal(err)
	}
	return n
}

// requireTypes checks that all fields in the database have the type integer, except texts, which are strings. The values of a
// query do not show this: a float without a fraction looks like an integer.
func (db *influxDB) requireTypes(texts ...string) {
	db.t.Helper()
	for _, s := range db.query("SHOW FIELD KEYS") {
		for _, row := range s.Values {
			want := "integer"
			if slices.Contains(texts, fmt.Sprint(row[0])) {
				want = "string"
			}
			if row[1] != want {
				db.t.Errorf("field %v of %s has the type %v, want %s", row[0], s.Name, row[1], want)
			}
		}
	}
}

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/influxdata/telegraf/plugins/parsers/influx"
)

// agentConfig makes Telegraf write to InfluxDB and to a file. There is nothing that writes to InfluxDB at times of its own
// choice if the first parameter, the flush interval, is long: see telegraf.flush.
const agentConfig = `
[agent]
  interval = "1s"
  precision = "1ns"
  omit_hostname = true
  metric_batch_size = 50000
  metric_buffer_limit = 50000
  skip_processors_after_aggregators = true
[[outputs.influxdb]]
  urls = ["http://` + influxAddress + `"]
  database = "` + database + `"
  flush_interval = "%s"
[[outputs.file]]
  files = [%q]
  data_format = "influx"
  flush_interval = "50ms"
`

// onlyWhenAsked is a flush interval that does not pass.
const onlyWhenAsked = "1h"

// telegraf is a Telegraf that writes to InfluxDB and to a file.
type telegraf struct {
	*server
	file   *os.File
	unread []byte // the beginning of a line

	// What is in the file.
	seen   metrics
	texts  texts
	points map[int64]map[string]int // by time and series: more than one if tags do not tell them apart

	forgotten int // bytes of the log
}

// startTelegraf starts a Telegraf with inputs.
func startTelegraf(t *testing.T, program, flushInterval, inputs string) *telegraf {
	t.Helper()
	dir := t.TempDir()
	metricsFile, configFile := filepath.Join(dir, "metrics"), filepath.Join(dir, "telegraf.conf")
	config := fmt.Sprintf(agentConfig, flushInterval, metricsFile) + inputs
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return follow(t, metricsFile, func() *server { return startServer(t, program, "--config", configFile) })
}

// follow starts a Telegraf that writes to a file.
func follow(t *testing.T, metricsFile string, start func() *server) *telegraf {
	t.Helper()
	file, err := os.OpenFile(metricsFile, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return &telegraf{server: start(), file: file, seen: metrics{}, texts: texts{}, points: map[int64]map[string]int{}}
}

// gatherAfter waits until there is a gather of a later time, and returns the time of the first. What is called last is the
// measurement or series that ends a gather.
func (tg *telegraf) gatherAfter(after int64, last string) int64 {
	tg.t.Helper()
	var found int64
	waitFor(tg.t, "gather", func() bool {
		tg.check()
		tg.read()
		for at, g := range tg.seen {
			if at > after && len(g.measurement(last)) > 0 && (found == 0 || at < found) {
				found = at
			}
		}
		return found != 0
	})
	return found
}

// read reads what has come to the file since it was read before.
func (tg *telegraf) read() {
	tg.t.Helper()
	more, err := io.ReadAll(tg.file)
	if err != nil {
		tg.t.Fatal(err)
	}
	text := slices.Concat(tg.unread, more)
	end := bytes.LastIndexByte(text, '\n') + 1
	tg.unread = text[end:]
	parser := influx.Parser{}
	if err := parser.Init(); err != nil {
		tg.t.Fatal(err)
	}
	points, err := parser.Parse(text[:end])
	if err != nil {
		tg.t.Fatal(err)
	}
	for _, point := range points {
		at, series := point.Time().UnixNano(), seriesName(point.Name(), point.Tags())
		if tg.points[at] == nil {
			tg.points[at] = map[string]int{}
		}
		tg.points[at][series]++
		for name, value := range point.Fields() {
			switch v := value.(type) {
			case int64:
				tg.seen.add(at, series, name, v)
			case string:
				tg.texts[textField{at, series, name}] = v
			default:
				tg.t.Fatalf("%s has %s=%v, which is a %T", series, name, value, value)
			}
		}
	}
}

// flush makes Telegraf write all that it has to its outputs, and returns what InfluxDB then has of the gather.
func (tg *telegraf) flush(db *influxDB, at int64) gather {
	tg.t.Helper()
	var next time.Time
	return db.wait(at, tg.seen[at], func() {
		tg.check()
		// The last lines of the gather may not have been in the file yet.
		tg.read()
		if now := time.Now(); now.After(next) { // the first one can come before Telegraf listens for it
			next = now.Add(time.Second)
			tg.signal(syscall.SIGUSR1)
		}
	})
}

// forgetErrors makes requireNoErrors look only at what is logged from now on.
func (tg *telegraf) forgetErrors() { tg.forgotten = len(tg.log()) }

// requireNoErrors wants no error in the log.
func (tg *telegraf) requireNoErrors() {
	tg.t.Helper()
	for line := range strings.Lines(tg.log()[tg.forgotten:]) {
		if strings.Contains(line, " E! ") {
			tg.t.Errorf("Telegraf logged %s", line)
		}
	}
}

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/influxdata/telegraf/plugins/parsers/influx"
)

// prompted is procnetstat, the program for inputs.execd, that gathers only when the test prompts it.
type prompted struct {
	t       *testing.T
	cmd     *exec.Cmd
	prompts io.Writer
	output  *bufio.Reader
	log     bytes.Buffer

	counters map[string]bool
	isProcfs bool // does not report closed connections

	times   []int64 // of the gathers
	seen    metrics
	reached gather // counters
}

// startPrompted starts the program with a configuration of the plugin.
func startPrompted(t *testing.T, program, config string) *prompted {
	t.Helper()
	file := filepath.Join(t.TempDir(), "procnetstat.conf")
	if err := errors.Join(os.WriteFile(file, []byte(config), 0o644), os.Chmod(filepath.Dir(filepath.Dir(file)), 0o755)); err != nil {
		t.Fatal(err)
	}
	counters, err := schemaCounters()
	if err != nil || len(counters) == 0 {
		t.Fatalf("%d counters in the schema: %v", len(counters), err)
	}
	p := &prompted{t: t, cmd: exec.Command(program, "-config", file, "-poll_interval_disabled"), seen: metrics{}, reached: gather{}, counters: counters}
	p.isProcfs = strings.Contains(config, `source = "procfs"`)
	p.cmd.Stderr = &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	prompts, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.prompts, p.output = prompts, bufio.NewReader(output)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = prompts.Close() // ends the program
		_, _ = io.Copy(io.Discard, output)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%v: %v", p.cmd, err)
		}
		if strings.Contains(p.log.String(), "E! ") {
			t.Errorf("procnetstat logged errors:\n%s", &p.log)
		}
	})
	return p
}

// gather prompts the program for a gather, checks each of its lines, and returns the values. It fails the test if two points have the
// same measurement, tags and field, if a counter series does not begin with 0, or if a counter decreases.
func (p *prompted) gather() gather {
	p.t.Helper()
	if _, err := io.WriteString(p.prompts, "\n"); err != nil {
		p.t.Fatal(err)
	}
	parser := influx.Parser{}
	if err := parser.Init(); err != nil {
		p.t.Fatal(err)
	}
	var at int64
	found := gather{}
	for isLast := false; !isLast; {
		line, err := p.output.ReadBytes('\n')
		if err != nil {
			p.t.Fatalf("%v: %v", p.cmd, err)
		}
		points, err := parser.Parse(line)
		if err != nil || len(points) != 1 {
			p.t.Fatalf("%d points, %v: %q", len(points), err, line)
		}
		point := points[0]
		series := seriesName(point.Name(), point.Tags())
		if at == 0 {
			at = point.Time().UnixNano()
			if len(p.times) > 0 && at <= p.times[len(p.times)-1] {
				p.t.Errorf("a gather at %d after one at %d", at, p.times[len(p.times)-1])
			}
			p.times = append(p.times, at)
		} else if now := point.Time().UnixNano(); now != at {
			p.t.Errorf("%s at %d, in a gather at %d", series, now, at)
		}
		kinds := map[bool]bool{}
		for field, value := range point.Fields() {
			number, isNumber := value.(int64)
			if _, isText := value.(string); !isNumber && !isText {
				p.t.Errorf("%s has %s=%v, which is a %T", series, field, value, value)
			}
			if _, twice := found[series][field]; twice {
				p.t.Errorf("gather %d has %s of %s twice", len(p.times), field, series)
			}
			isCounter := p.counters[field]
			kinds[isCounter] = true
			if isCounter {
				p.requireCounter(series, field, number)
			}
			found.of(series)[field] = number
			p.seen.add(at, series, field, number)
		}
		if len(kinds) != 1 {
			p.t.Errorf("counters and gauges in one line: %q", line)
		}
		isLast = point.Name() == lastMeasurement && kinds[!p.isProcfs]
	}
	return found
}

// requireCounter compares the value of a counter with the last one of its series.
func (p *prompted) requireCounter(series, field string, value int64) {
	p.t.Helper()
	before, found := p.reached[series][field]
	switch {
	case !found && value != 0:
		p.t.Errorf("gather %d: %s of %s begins with %d, want 0", len(p.times), field, series, value)
	case value < before:
		p.t.Errorf("gather %d has %s=%d of %s, after %d", len(p.times), field, value, series, before)
	}
	p.reached.of(series)[field] = value
}

// schemaCounters are the names of all counters in the documented schema. No measurement has a gauge of such a name.
var schemaCounters = sync.OnceValues(func() (map[string]bool, error) {
	schema, err := os.ReadFile("../../docs/developers/SCHEMA.md")
	counters := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\w+) \| counter \|`).FindAllSubmatch(schema, -1) {
		counters[string(row[1])] = true
	}
	return counters, err
})

// absent stands for a value that a gather does not have.
const absent = "absent"

// values returns the values of a field in all gathers.
func (p *prompted) values(series, field string) (values []string) {
	for _, at := range p.times {
		value := absent
		if n, found := p.seen[at][series][field]; found {
			value = strconv.FormatInt(n, 10)
		}
		values = append(values, value)
	}
	return values
}

// pauseFor stops the program with SIGSTOP while f runs.
func (p *prompted) pauseFor(f func()) {
	p.t.Helper()
	signal := func(signal syscall.Signal) {
		if err := p.cmd.Process.Signal(signal); err != nil {
			p.t.Errorf("sending %v to %v: %v", signal, p.cmd, err)
		}
	}
	signal(syscall.SIGSTOP)
	defer signal(syscall.SIGCONT)
	f()
}

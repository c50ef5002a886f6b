package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// In each case of the tests of the rules for Prometheus, the query in InfluxQL has the expected alerts in a real InfluxDB, and the
// task in Flux in an interpreter.
func TestAlertCases(t *testing.T) {
	setUp(t)
	flux := builtOnce(t, "E2E_FLUX", buildFlux)
	testnet.Isolate(t, func() {
		now := time.Now()
		var points []casePoint
		byAlert := map[string][]alertCheck{}
		for _, check := range comparableChecks(t, now) {
			points = append(points, check.points...)
			byAlert[check.name] = append(byAlert[check.name], check)
		}
		require.ElementsMatch(t, alertNames(t), slices.Collect(maps.Keys(byAlert)))
		db := newInfluxDB(t)
		db.start()
		db.write(points)
		inFlux := fluxAlerts(t, flux, now, slices.Collect(maps.Keys(byAlert)), points)
		for alert, checks := range byAlert {
			query := strings.ReplaceAll(influxQLOf(t, alert), "now()", now.UTC().Format("'"+time.RFC3339Nano+"'"))
			inInfluxQL := db.alerts(query)
			for _, check := range checks {
				assert.ElementsMatch(t, check.alerts, check.of(inInfluxQL), "%s at %d m in InfluxQL: %s", alert, check.minute, check.title)
				assert.ElementsMatch(t, check.alerts, check.of(inFlux[alert]), "%s at %d m in Flux: %s", alert, check.minute, check.title)
			}
		}
	})
}

// alertCase is a case of promtool.
type alertCase struct {
	name   string
	series []caseSeries
	checks []alertCheck
}

type caseSeries struct {
	measurement, field string
	tags               map[string]string
	values             []float64 // one a minute; NaN where there is none
}

type alertCheck struct {
	minute int
	name   string
	alerts []map[string]string // labels, without the severity

	title  string // of the case
	number int    // tells the hosts of this check from those of others
	points []casePoint
}

// comparableChecks returns the checks with their points. Each has hosts of its own.
func comparableChecks(t *testing.T, now time.Time) (checks []alertCheck) {
	t.Helper()
	fires := 0
	for _, c := range alertCases(t) {
		for i, check := range c.checks {
			if check.isTooEarly(c.checks[i+1:]) {
				continue
			}
			if len(check.alerts) > 0 {
				fires++
			}
			check.title, check.number = c.name, len(checks)
			check.points = c.pointsAt(check, now)
			checks = append(checks, check)
		}
	}
	require.Greater(t, fires, 20)
	require.Greater(t, len(checks), fires)
	return checks
}

// host returns the name of a host of this check.
func (c alertCheck) host(name string) string { return fmt.Sprintf("%d-%s", c.number, name) }

// of returns the alerts of this check, with the names that hosts have in the case.
func (c alertCheck) of(all []map[string]string) (alerts []map[string]string) {
	for _, alert := range all {
		if name, found := strings.CutPrefix(alert["host"], c.host("")); found {
			alert = maps.Clone(alert)
			alert["host"] = name
			alerts = append(alerts, alert)
		}
	}
	return alerts
}

// isTooEarly reports whether no alert is expected only as the condition has not held for long enough: InfluxQL and Flux have no
// "for". Then a later check expects alerts.
func (c alertCheck) isTooEarly(later []alertCheck) bool {
	return len(c.alerts) == 0 && slices.ContainsFunc(later, func(l alertCheck) bool { return l.name == c.name && len(l.alerts) > 0 })
}

var (
	caseNameLine   = regexp.MustCompile(`^  - name: '(.*)'$`)
	caseSeriesLine = regexp.MustCompile(`^      - series: '(procnetstat(?:_process|_listener|_remote|_gather)?)_(\w+)\{(.*)\}'$`)
	caseValuesLine = regexp.MustCompile(`^        values: '(.*)'$`)
	caseTimeLine   = regexp.MustCompile(`^      - eval_time: (\d+)m$`)
	caseAlertLine  = regexp.MustCompile(`^        alertname: (\w+)$`)
	caseLabelsLine = regexp.MustCompile(`^          - exp_labels: \{severity: '\w+', (.*)\}$`)
	caseTag        = regexp.MustCompile(`(\w+)="(.*?)"`)
	caseLabel      = regexp.MustCompile(`(\w+): '(.*?)'`)
)

// alertCases parses the cases of promtool, which have one form.
func alertCases(t *testing.T) (cases []alertCase) {
	t.Helper()
	for line := range strings.Lines(readFile(t, "../../alerts/prometheus_test.yml")) {
		line = strings.TrimSuffix(line, "\n")
		if m := caseNameLine.FindStringSubmatch(line); m != nil {
			cases = append(cases, alertCase{name: m[1]})
		} else if m := caseSeriesLine.FindStringSubmatch(line); m != nil {
			c := &cases[len(cases)-1]
			c.series = append(c.series, caseSeries{measurement: m[1], field: m[2], tags: pairs(caseTag, m[3])})
		} else if m := caseValuesLine.FindStringSubmatch(line); m != nil {
			c := &cases[len(cases)-1]
			c.series[len(c.series)-1].values = caseValues(t, m[1])
		} else if m := caseTimeLine.FindStringSubmatch(line); m != nil {
			c := &cases[len(cases)-1]
			minute, err := strconv.Atoi(m[1])
			require.NoError(t, err)
			c.checks = append(c.checks, alertCheck{minute: minute})
		} else if m := caseAlertLine.FindStringSubmatch(line); m != nil {
			c := &cases[len(cases)-1]
			c.checks[len(c.checks)-1].name = m[1]
		} else if m := caseLabelsLine.FindStringSubmatch(line); m != nil {
			c := &cases[len(cases)-1]
			check := &c.checks[len(c.checks)-1]
			check.alerts = append(check.alerts, pairs(caseLabel, m[1]))
		}
	}
	text := readFile(t, "../../alerts/prometheus_test.yml")
	series, checks, alerts := 0, 0, 0
	for _, c := range cases {
		series += len(c.series)
		checks += len(c.checks)
		for _, check := range c.checks {
			alerts += len(check.alerts)
		}
	}
	require.Equal(t, []int{strings.Count(text, "series: '"), strings.Count(text, "alertname:"), strings.Count(text, "exp_labels:")},
		[]int{series, checks, alerts}, "lines in a form of their own")
	return cases
}

func pairs(pattern *regexp.Regexp, text string) map[string]string {
	found := map[string]string{}
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		found[m[1]] = m[2]
	}
	return found
}

// caseValues expands values in promtool's notation: "1x2" is 1 1 1, "1+2x2" is 1 3 5, "_x2" is two that are missing.
func caseValues(t *testing.T, text string) (values []float64) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		value, times, repeats := strings.Cut(word, "x")
		n := 0
		if repeats {
			var err error
			n, err = strconv.Atoi(times)
			require.NoError(t, err)
		}
		if value == "_" || value == "stale" {
			values = append(values, slices.Repeat([]float64{math.NaN()}, max(n, 1))...)
			continue
		}
		first, step, _ := strings.Cut(value, "+")
		from, err := strconv.ParseFloat(first, 64)
		require.NoError(t, err)
		by := 0.0
		if step != "" {
			by, err = strconv.ParseFloat(step, 64)
			require.NoError(t, err)
		}
		for i := range n + 1 {
			values = append(values, from+float64(i)*by)
		}
	}
	return values
}

type casePoint struct {
	caseSeries

	time  time.Time
	value int64
}

// pointsAt returns the points up to the time of a check, which is now.
func (c alertCase) pointsAt(check alertCheck, now time.Time) (points []casePoint) {
	now = now.Add(-time.Second) // a range of Flux excludes its end
	for _, s := range c.series {
		s.tags = maps.Clone(s.tags)
		s.tags["host"] = check.host(s.tags["host"])
		for i, value := range s.values[:min(check.minute+1, len(s.values))] {
			if !math.IsNaN(value) {
				points = append(points, casePoint{s, now.Add(time.Duration(i-check.minute) * time.Minute), int64(value)})
			}
		}
	}
	return points
}

func (db *influxDB) write(points []casePoint) {
	db.t.Helper()
	var lines strings.Builder
	for _, p := range points {
		lines.WriteString(p.measurement)
		for tag, value := range p.tags {
			fmt.Fprintf(&lines, ",%s=%s", tag, value)
		}
		fmt.Fprintf(&lines, " %s=%di %d\n", p.field, p.value, p.time.UnixNano())
	}
	db.post("query", "application/x-www-form-urlencoded", url.Values{"q": {"CREATE DATABASE " + database}}.Encode())
	db.post("write?db="+database, "text/plain", lines.String())
}

func (db *influxDB) post(path, contentType, body string) {
	db.t.Helper()
	answer, err := db.client.Post("http://"+influxAddress+"/"+path, contentType, strings.NewReader(body))
	require.NoError(db.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(db.t, err)
	require.Less(db.t, answer.StatusCode, http.StatusMultipleChoices, "%s: %s", path, text)
	require.NotContains(db.t, string(text), "error", path)
}

// influxQLOf returns the query of an alert.
func influxQLOf(t *testing.T, alert string) string {
	t.Helper()
	return readFile(t, "../../alerts/influxql/"+alert+".influxql")
}

// alerts returns the tags of each row of the answer.
func (db *influxDB) alerts(influxQL string) (alerts []map[string]string) {
	db.t.Helper()
	for _, s := range db.query(influxQL) {
		for _, row := range s.Values {
			tags := map[string]string{}
			for i, value := range row {
				if text, isText := value.(string); isText && text != "" {
					tags[s.Columns[i]] = text
				}
			}
			alerts = append(alerts, tags)
		}
	}
	return alerts
}

// fluxAlerts returns by alert the tags of each row that the tasks write. A task runs for each set of tags that the points have: map
// of Flux 0.39 fails on tables with different tags.
func fluxAlerts(t *testing.T, program string, now time.Time, alerts []string, points []casePoint) map[string][]map[string]string {
	t.Helper()
	byTags := map[string][]casePoint{}
	for _, p := range points {
		tags := p.measurement + fmt.Sprint(slices.Sorted(maps.Keys(p.tags)))
		byTags[tags] = append(byTags[tags], p)
	}
	arguments := []string{now.UTC().Format(time.RFC3339Nano)}
	for tags, points := range byTags {
		measurement, _, _ := strings.Cut(tags, "[")
		file := filepath.Join(t.TempDir(), "points.csv")
		require.NoError(t, os.WriteFile(file, annotatedCSV(points), 0o600))
		for _, alert := range alerts {
			task := "../../alerts/flux/" + alert + ".flux"
			if strings.Contains(readFile(t, task), strconv.Quote(measurement)) {
				arguments = append(arguments, task, file)
			}
		}
	}
	command := exec.CommandContext(t.Context(), program, arguments...)
	var failure bytes.Buffer
	command.Stderr = &failure
	rows, err := command.Output()
	require.NoError(t, err, failure.String())
	found := map[string][]map[string]string{}
	for line := range bytes.Lines(rows) {
		row := map[string]string{}
		require.NoError(t, json.Unmarshal(line, &row))
		require.Equal(t, "alerts", row["_measurement"])
		alert := row["_field"]
		delete(row, "_measurement")
		delete(row, "_field")
		found[alert] = append(found[alert], row)
	}
	return found
}

// annotatedCSV returns points of one series after the other in the CSV of InfluxDB 2: a table for each.
func annotatedCSV(points []casePoint) []byte {
	var csv bytes.Buffer
	table, of := -1, ""
	var names []string
	for _, p := range points {
		if series := seriesName(p.measurement+p.field, p.tags); series != of {
			table, of, names = table+1, series, nil
			for name := range p.tags {
				names = append(names, name)
			}
			slices.Sort(names)
			fmt.Fprintf(&csv, "\n#datatype,string,long,dateTime:RFC3339,long,string,string%s\n", strings.Repeat(",string", len(names)))
			fmt.Fprintf(&csv, "#group,false,false,false,false,true,true%s\n", strings.Repeat(",true", len(names)))
			fmt.Fprintf(&csv, "#default,_result,,,,,%s\n", strings.Repeat(",", len(names)))
			fmt.Fprintf(&csv, ",result,table,_time,_value,_measurement,_field,%s\n", strings.Join(names, ","))
		}
		fmt.Fprintf(&csv, ",,%d,%s,%d,%s,%s", table, p.time.UTC().Format(time.RFC3339Nano), p.value, p.measurement, p.field)
		for _, name := range names {
			csv.WriteString("," + p.tags[name])
		}
		csv.WriteString("\n")
	}
	return csv.Bytes()
}

func buildFlux() (string, error) {
	program := filepath.Join(os.Getenv(scratchEnv), "flux")
	build := goTool("build", "-o", program, ".")
	build.Dir = "../flux"
	build.Env = append(build.Env, "GOWORK=off", "GOFLAGS=-mod=readonly")
	return program, run(build)
}

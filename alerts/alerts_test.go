// Package alerts tests that the rules, queries and tasks are those that docs/ALERTS.md documents.
package alerts

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const runbook = "https://github.com/procnetstat/procnetstat/blob/main/docs/ALERTS.md#"

var (
	tableRow   = regexp.MustCompile(`(?m)^\| \[(\w+)\]\(#(\w+)\) \| (.*?) \| (.*?) ?\| (\w+) \| (\w+) \|$`)
	ruleStart  = regexp.MustCompile(`(?m)^      - alert: `)
	comparison = regexp.MustCompile(`[<>]=? ?[\d.]+`)
	duration   = regexp.MustCompile(`\d+[smhd]`)
	window     = map[string]*regexp.Regexp{
		"PromQL":   regexp.MustCompile(`\[(\w+)\]`),
		"InfluxQL": regexp.MustCompile(`now\(\) - (\w+)`),
		"Flux":     regexp.MustCompile(`start: -(\w+)`),
	}
)

// documented is a row of the table.
type documented struct {
	name, anchor, condition, over, delay, severity string
}

func table(t *testing.T) (rows []documented) {
	t.Helper()
	for _, m := range tableRow.FindAllStringSubmatch(read(t, "../docs/ALERTS.md"), -1) {
		rows = append(rows, documented{m[1], m[2], m[3], m[4], m[5], m[6]})
	}
	require.Greater(t, len(rows), 10)
	return rows
}

// rules returns the rules for Prometheus by name.
func rules(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, rule := range ruleStart.Split(read(t, "prometheus.yml"), -1)[1:] {
		name, text, _ := strings.Cut(rule, "\n")
		found[name] = text
	}
	return found
}

// queries returns the query of an alert by language.
func queries(t *testing.T, alert, rule string) map[string]string {
	t.Helper()
	_, promQL, found := strings.Cut(rule, "expr: |\n")
	require.True(t, found, alert)
	promQL, _, found = strings.Cut(promQL, "        for: ")
	require.True(t, found, alert)
	return map[string]string{
		"PromQL":   promQL,
		"InfluxQL": read(t, "influxql/"+alert+".influxql"),
		"Flux":     read(t, "flux/"+alert+".flux"),
	}
}

// TestTable: the thresholds and windows of each alert in all languages are those of the table in docs/ALERTS.md, and so are the
// delay and severity of the rule for Prometheus. Every alert is in the table, with a section.
func TestTable(t *testing.T) {
	rules := rules(t)
	rows := table(t)
	require.Len(t, rows, len(rules))
	for _, extension := range []string{"influxql", "flux"} {
		files, err := filepath.Glob(extension + "/*")
		require.NoError(t, err)
		require.Len(t, files, len(rules))
	}
	document := read(t, "../docs/ALERTS.md")
	for _, row := range rows {
		rule, found := rules[row.name]
		require.True(t, found, "there is no rule %s", row.name)
		require.Equal(t, strings.ToLower(row.name), row.anchor)
		require.Contains(t, document, "\n## "+row.name+"\n")
		assert.Contains(t, rule, "\n        for: "+row.delay+"\n", row.name)
		assert.Contains(t, rule, "\n          severity: "+row.severity+"\n", row.name)
		assert.Contains(t, rule, "\n          runbook_url: "+runbook+row.anchor+"\n", row.name)
		for language, query := range queries(t, row.name, rule) {
			assert.Equal(t, comparisons(row.condition), comparisons(query), "thresholds of %s in %s", row.name, language)
			var windows []string
			for _, m := range window[language].FindAllStringSubmatch(query, -1) {
				windows = append(windows, m[1])
			}
			want := duration.FindAllString(row.over, -1)
			if language != "PromQL" && (len(want) == 0 || strings.HasSuffix(row.name, "Grows")) {
				want = append(want, "1m") // for the gauges of now
			}
			assert.Equal(t, distinct(want), distinct(windows), "windows of %s in %s", row.name, language)
		}
	}
}

// comparisons returns the comparisons with numbers, sorted. Floats of Flux look as the others.
func comparisons(text string) (found []string) {
	for _, c := range comparison.FindAllString(text, -1) {
		found = append(found, strings.TrimSuffix(strings.ReplaceAll(c, " ", ""), ".0"))
	}
	return distinct(found)
}

func distinct(values []string) []string {
	values = slices.Clone(values)
	slices.Sort(values)
	return slices.Compact(values)
}

// ofWholeHost are alerts on what the kernel, or the plugin, has once for all network namespaces.
var ofWholeHost = []string{"OrphansNearlyAtLimit", "TCPMemoryNearlyUsedUp", "ClosedEventsLost", "SeriesFolded", "GathersStopped"}

// TestGroups: what an alert groups by is the same in all languages, and has the network namespace.
func TestGroups(t *testing.T) {
	grouping := map[string]*regexp.Regexp{
		"PromQL":   regexp.MustCompile(`by \((.*?)\)`),
		"InfluxQL": regexp.MustCompile(`GROUP BY (host.*)`),
		"Flux":     regexp.MustCompile(`group\(columns: \[(.*?)\]\)`),
	}
	for alert, rule := range rules(t) {
		var want []string
		for language, query := range queries(t, alert, rule) {
			groups := grouping[language].FindAllStringSubmatch(query, -1)
			require.NotEmpty(t, groups, "%s in %s", alert, language)
			for _, m := range groups {
				tags := strings.Split(strings.ReplaceAll(m[1], `"`, ""), ", ")
				if want == nil {
					want = tags
				}
				require.Equal(t, want, tags, "%s in %s", alert, language)
			}
		}
		require.Equal(t, !slices.Contains(ofWholeHost, alert), slices.Contains(want, "netns"), alert)
	}
}

// TestFields: the plugin emits the fields that the rules have.
func TestFields(t *testing.T) {
	emitted := map[string]bool{}
	groupFields, measurement := []string(nil), ""
	for line := range strings.Lines(read(t, "../docs/developers/SCHEMA.md")) {
		if m := regexp.MustCompile(`^## (procnetstat\w*)`).FindStringSubmatch(line); m != nil {
			measurement = m[1]
			for _, field := range groupFields {
				emitted[measurement+"_"+field] = true
			}
		} else if m := regexp.MustCompile(`^\| (\w+) \| (?:gauge|counter) \|`).FindStringSubmatch(line); m != nil && measurement == "" {
			groupFields = append(groupFields, m[1])
		} else if m != nil {
			emitted[measurement+"_"+m[1]] = true
		}
	}
	metric := regexp.MustCompile(`procnetstat_\w+`)
	for alert, rule := range rules(t) {
		metrics := metric.FindAllString(queries(t, alert, rule)["PromQL"], -1)
		require.NotEmpty(t, metrics, alert)
		for _, m := range metrics {
			assert.True(t, emitted[m], "%s: there is no %s", alert, m)
		}
	}
}

// TestDashboardLinks: each alert links to a dashboard that exists, with variables that it has.
func TestDashboardLinks(t *testing.T) {
	for alert, rule := range rules(t) {
		_, link, found := strings.Cut(rule, "dashboard_url: ")
		require.True(t, found, alert)
		board := regexp.MustCompile(`/d/(procnetstat-(\w+)-promql)\?var-host=`).FindStringSubmatch(link)
		require.NotNil(t, board, alert)
		dashboard := read(t, "../dashboards/promql/"+board[2]+".json")
		require.True(t, strings.Contains(dashboard, `"uid": "`+board[1]+`"`), "%s: %s", alert, board[1])
		for _, m := range regexp.MustCompile(`[?&]var-(\w+)=`).FindAllStringSubmatch(link, -1) {
			variable := regexp.MustCompile(`"type": "query",\s*"name": "` + m[1] + `"`)
			assert.True(t, variable.MatchString(dashboard), "%s: %s has no variable %s", alert, board[1], m[1])
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

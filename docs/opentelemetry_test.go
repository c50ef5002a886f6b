package docs

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	schemaSection = regexp.MustCompile(`(?m)^## (Group fields|procnetstat\w*)$`)
	schemaField   = regexp.MustCompile(`(?m)^\| (\w+) \| (gauge|counter|value) \| ([^|]*) \|`)
	schemaTag     = regexp.MustCompile(`(?m)^\| (\w+) \| [^|]+ \|$`)

	otlpGroupRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `[\\w.]+` \\| (gauge|sum) \\| (\\S+) \\|")
	otlpOwnRow   = regexp.MustCompile(`(?m)^\| (procnetstat\w*) \| ([^|]*) \| ([^|]*)\|$`)
	otlpTagRow   = regexp.MustCompile("(?m)^\\| (`[a-z_`, ]+`) \\| `[^|]+ \\| [^|]*\\|$")
)

// otlpUnits are the units of OpenTelemetry by those of the schema.
var otlpUnits = map[string][]string{
	"sockets": {"{connection}", "{socket}"}, "connections": {"{connection}"}, "bytes": {"By"}, "segments": {"{segment}"},
	"datagrams": {"{datagram}"}, "microseconds": {"s"}, "timeouts": {"{timeout}"},
}

// TestOpenTelemetryNames: OPENTELEMETRY.md has exactly the fields and tags of the schema, with their types and units.
func TestOpenTelemetryNames(t *testing.T) {
	document := read(t, "OPENTELEMETRY.md")
	types, units, tags := map[string]string{}, map[string]string{}, map[string]bool{}
	for _, row := range otlpGroupRow.FindAllStringSubmatch(document, -1) {
		of := "Group fields"
		if row[1] == "tcp_none" {
			of = "procnetstat"
		}
		types[of+" "+row[1]] = strings.Replace(row[2], "sum", "counter", 1)
		units[row[1]] = row[3]
	}
	for _, row := range otlpOwnRow.FindAllStringSubmatch(document, -1) {
		for i, kind := range []string{"gauge", "counter"} {
			for _, span := range codeSpan.FindAllString(row[2+i], -1) {
				types[row[1]+" "+strings.Trim(span, "`")] = kind
			}
		}
	}
	for _, row := range otlpTagRow.FindAllStringSubmatch(document, -1) {
		for _, span := range codeSpan.FindAllString(row[1], -1) {
			tags[strings.Trim(span, "`")] = true
		}
	}

	schema := read(t, "developers/SCHEMA.md")
	wantTypes, wantTags := map[string]string{}, map[string]bool{"host": true, "netns": true}
	sections := schemaSection.FindAllStringSubmatchIndex(schema, -1)
	for i, at := range sections {
		end := len(schema)
		if i+1 < len(sections) {
			end = sections[i+1][0]
		}
		name, text := schema[at[2]:at[3]], schema[at[1]:end]
		for _, row := range schemaField.FindAllStringSubmatch(text, -1) {
			if row[2] == "value" {
				wantTags[row[1]] = true
				continue
			}
			wantTypes[name+" "+row[1]] = row[2]
			if unit, found := units[row[1]]; found {
				require.Contains(t, otlpUnits[row[3]], unit, row[1])
			}
		}
		for _, row := range schemaTag.FindAllStringSubmatch(text, -1) {
			if row[1] != "tag" {
				wantTags[row[1]] = true
			}
		}
	}
	require.Greater(t, len(wantTypes), 50)
	require.Equal(t, wantTypes, types)
	require.Equal(t, wantTags, tags)
}

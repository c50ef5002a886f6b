// Package docs tests the documents of the repository: that what they name is there.
package docs

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	root   = ".."
	plugin = "plugins/inputs/procnetstat"
)

var (
	codeBlock = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	codeSpan  = regexp.MustCompile("`[^`\n]+`")
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)|(?m)^\[[^\]]+\]: (\S+)$`)
	// placeholder matches a link to a host that nobody is at.
	placeholder = regexp.MustCompile(`(?i)TODO|://(?:[^/]*\.)?(?:example\.(?:com|org|net)|localhost)\b`)
	heading     = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// TestLinks: every link to a file of the repository leads to one, and to a heading that it has.
func TestLinks(t *testing.T) {
	links := 0
	for _, document := range documents(t) {
		text := codeSpan.ReplaceAllString(codeBlock.ReplaceAllString(read(t, document), ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := m[1] + m[2]
			if strings.Contains(to, "://") {
				require.NotRegexp(t, placeholder, to, document)
				continue
			}
			links++
			file, anchor, _ := strings.Cut(to, "#")
			if file = filepath.Join(filepath.Dir(document), file); strings.HasPrefix(to, "#") {
				file = document
			}
			_, err := os.Stat(file)
			require.NoError(t, err, "%s links to %s", document, to)
			if anchor != "" {
				require.Contains(t, anchors(t, file), anchor, "%s links to %s", document, to)
			}
		}
	}
	require.Greater(t, links, 50)
}

// anchors returns those that GitHub makes of the headings of a document.
func anchors(t *testing.T, document string) (all []string) {
	t.Helper()
	for _, m := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(read(t, document), ""), -1) {
		anchor := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(anchor, " ", "-"))
	}
	return all
}

// TestMakeTargets: every target of make that a document names is in the Makefile.
func TestMakeTargets(t *testing.T) {
	makefile := read(t, filepath.Join(root, "Makefile"))
	named := 0
	for _, document := range documents(t) {
		for _, m := range regexp.MustCompile("(?m)(?:`|^|&& |\\$ )make\\s+([a-z][a-z-]*)").FindAllStringSubmatch(read(t, document), -1) {
			named++
			require.Regexp(t, "(?m)^"+m[1]+":", makefile, "%s names make %s", document, m[1])
		}
	}
	require.Greater(t, named, 15)
}

// TestArchitectureNames: what ARCHITECTURE.md names is in the code.
func TestArchitectureNames(t *testing.T) {
	var code strings.Builder
	for _, file := range files(t, ".go") {
		if !strings.HasSuffix(file, "_test.go") {
			code.WriteString(read(t, file))
		}
	}
	code.WriteString(read(t, filepath.Join(root, "test/e2e/ss_linux_test.go")))
	all, found := code.String(), 0
	text := read(t, filepath.Join(root, "ARCHITECTURE.md"))
	for _, span := range codeSpan.FindAllString(text, -1) {
		name := strings.Trim(span, "`")
		if !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`).MatchString(name) {
			continue
		}
		isFolder := slices.ContainsFunc([]string{"", plugin, plugin + "/testcases"}, func(in string) bool {
			_, err := os.Stat(filepath.Join(root, in, name))
			return err == nil
		})
		found++
		require.True(t, isFolder || regexp.MustCompile(`\b`+name+`\b`).MatchString(all), "there is no %s", name)
	}
	require.Greater(t, found, 30)
	for _, file := range regexp.MustCompile("`([a-z_]+\\.(?:go|conf))`").FindAllStringSubmatch(text, -1) {
		_, err := os.Stat(filepath.Join(root, plugin, file[1]))
		require.NoError(t, err)
	}
}

// TestMigrationNames: what MIGRATION.md says of the library is in it.
func TestMigrationNames(t *testing.T) {
	var library strings.Builder
	for _, file := range files(t, ".go") {
		if strings.HasPrefix(file, filepath.Join(root, "netstat")) && !strings.HasSuffix(file, "_test.go") {
			library.WriteString(read(t, file))
		}
	}
	_, table, found := strings.Cut(read(t, "MIGRATION.md"), "| v1 | `Scanner` |")
	require.True(t, found)
	names := 0
	for _, m := range regexp.MustCompile(`(?:`+"`"+`|\.)([A-Z][A-Za-z0-9]*)`).FindAllStringSubmatch(table, -1) {
		names++
		require.True(t, regexp.MustCompile(`\b`+m[1]+`\b`).MatchString(library.String()), "there is no %s", m[1])
	}
	require.Greater(t, names, 20)
}

// TestDocumentsNameTests: the tests that the documents name are there, and RELIABILITY.md names every fuzz target.
func TestDocumentsNameTests(t *testing.T) {
	namesIn := func(file string) map[string]bool {
		named := map[string]bool{}
		for _, name := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllStringSubmatch(read(t, file), -1) {
			named[name[1]] = true
		}
		return named
	}
	defined := map[string]bool{}
	for _, file := range files(t, "_test.go") {
		for _, name := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(`).FindAllStringSubmatch(read(t, file), -1) {
			defined[name[1]] = true
		}
	}
	for _, file := range files(t, ".md") {
		for name := range namesIn(file) {
			require.True(t, defined[name], "%s: there is no %s", file, name)
		}
	}
	reliability := namesIn("RELIABILITY.md")
	require.Greater(t, len(reliability), 50)
	for name := range defined {
		require.True(t, !strings.HasPrefix(name, "Fuzz") || reliability[name], "%s is not named", name)
	}
}

// TestFleet: the script counts series, values and bytes, whatever is escaped in them, and says what is wrong.
func TestFleet(t *testing.T) {
	gather := `procnetstat tcp_listen=1i,tcp_close=0i 1
procnetstat tcp_opened=5i 1
> procnetstat_process,process_name=a\,b\=c\ d,user=root tcp_listen=1i,text="a,b c" 1
procnetstat_process,process_name=b,user=root tcp_listen=1i 1

`
	run := func(input string, args ...string) (stdout, stderr string, err error) {
		var out, errors bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "./fleet.sh", args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errors
		err = cmd.Run()
		return out.String(), errors.String(), err
	}
	stdout, stderr, err := run(gather, "hosts=1000", "interval=2", "influxdb=1", "victoriametrics=0.5")
	require.NoError(t, err, stderr)
	require.Equal(t, `a gather of a host         series   values    bytes
procnetstat                     1        3       69
procnetstat_process             2        3      144
all                             3        6      213

1000 hosts, a gather every 2 s
  series in InfluxDB               3.0 k
  time series in VictoriaMetrics   6.0 k
  values a second                  3.0 k
  line protocol a second           106 kB
  InfluxDB stores a day            259 MB at 1 bytes a value
  VictoriaMetrics stores a day     130 MB at 0.5 bytes a value
`, stdout)
	for _, wrong := range []struct {
		input, argument, says string
	}{
		{gather, "hosts=many", `hosts is "many", want a number`},
		{gather, "interval=0.0", `interval is "0.0", want more than 0`},
		{gather, "host=1", `unknown argument "host=1"`},
		{"hello\n", "hosts=1", "line 1 of standard input is not line protocol: hello"},
		{"", "hosts=1", "no gather on standard input"},
	} {
		stdout, stderr, err := run(wrong.input, wrong.argument)
		require.Error(t, err, wrong.argument)
		require.Empty(t, stdout)
		require.Contains(t, stderr, wrong.says)
	}
}

// TestExecdStanzas: in every stanza that a document shows, Telegraf requests the gathers, and INSTALL.md shows that of the packages.
func TestExecdStanzas(t *testing.T) {
	stanzas := 0
	for _, document := range documents(t) {
		for _, block := range codeBlock.FindAllString(read(t, document), -1) {
			if strings.Contains(block, "[[inputs.execd]]") {
				stanzas++
				require.Contains(t, block, `signal = "STDIN"`, document)
				require.Contains(t, block, `"-poll_interval_disabled"]`, document)
			}
		}
	}
	require.Greater(t, stanzas, 1)
	require.Contains(t, read(t, "INSTALL.md"), "```toml\n"+read(t, filepath.Join(root, "packaging/execd.conf"))+"```\n")
}

func documents(t *testing.T) []string {
	t.Helper()
	return files(t, ".md")
}

// files returns those of the repository whose names end so.
func files(t *testing.T, suffix string) (all []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && (slices.Contains([]string{".git", ".cache", "dist"}, entry.Name())) {
			return fs.SkipDir
		}
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, suffix) {
			all = append(all, path)
		}
		return err
	}))
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

package main

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/plugins/inputs"
	"github.com/influxdata/toml"
)

// TestInvalidConfig checks the exit code and the line of error of the program.
func TestInvalidConfig(t *testing.T) {
	const table = "[[inputs.procnetstat]]\n"
	const unknown = "; procnetstat -sample-config lists the options"
	const telegrafOption = " is a Telegraf option; set it in the [[inputs.execd]] table"
	const notAllowed = " is not allowed; the file must contain one [[inputs.procnetstat]] table and nothing else"
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "no [[inputs.procnetstat]] table"},
		{"only comments", "# nothing\n", "no [[inputs.procnetstat]] table"},
		{"inputs without a plugin", "[inputs]\n", "no [[inputs.procnetstat]] table"},
		{"options without a table", "metrics = 1\n", `line 1: "metrics"` + notAllowed},
		{"agent", table + "metrics = 1\n\n[agent]\n", `line 4: "agent"` + notAllowed},
		{"outputs", "[[outputs.file]]\n" + table, `line 1: "outputs"` + notAllowed},
		{"global tags", table + "[global_tags]\na = 'b'\n", `line 2: "global_tags"` + notAllowed},
		{"other plugin", "[[inputs.cpu]]\n", `line 1: "inputs.cpu"` + notAllowed},
		{"other plugin after ours", table + "[[inputs.cpu]]\n", `line 2: "inputs.cpu"` + notAllowed},
		{"second table", table + "metrics = 1\n" + table, "line 3: a second [[inputs.procnetstat]] table; " +
			"run another procnetstat with a separate file for it"},
		{"table of another kind", table + "[inputs.procnetstat]\n",
			"line 2: table `inputs.procnetstat' is in conflict with array table in line 1"},
		{"inputs is a value", "inputs = 1\n", `line 1: "inputs" must be a table`},
		{"inputs is an array", "[[inputs]]\n", `line 1: "inputs" must be a table`},
		{"plugin is a value", "[inputs]\nprocnetstat = 1\n", `line 2: "inputs.procnetstat" must be a table`},

		{"unknown key", table + "metrics = 1\n\nmetrix = 2\n", `line 4: unknown option "metrix"` + unknown},
		{"several unknown keys", table + "b = 1\na = 1\nc = 1\n", `line 2: unknown option "b"` + unknown},
		{"unknown key in a table of an option", table + "[inputs.procnetstat.limits]\nlow = 1\nlaw = 2\n",
			`line 2: unknown option "law"` + unknown},
		{"unknown table", table + "[inputs.procnetstat.limitz]\n", `line 2: unknown option "limitz"` + unknown},
		{"unknown key in lines that end with CR LF", "[[inputs.procnetstat]]\r\n\r\nmetrix = 2\r\n",
			`line 3: unknown option "metrix"` + unknown},
		{"the log is no option", table + "log = 'x'\n",
			"line 2: log = 'x': field corresponding to `log' in main.testInput cannot be set through TOML"},
		{"interval", table + "interval = '1s'\n", `line 2: "interval"` + telegrafOption},
		{"name_override", table + "name_override = 'netstat'\n", `line 2: "name_override"` + telegrafOption},
		{"alias", table + "alias = 'a'\n", `line 2: "alias"` + telegrafOption},
		{"tags", table + "[inputs.procnetstat.tags]\na = 'b'\n", `line 2: "tags"` + telegrafOption},
		{"tagpass", table + "[inputs.procnetstat.tagpass]\na = ['b']\n", `line 2: "tagpass"` + telegrafOption},

		{"string for integer", table + "metrics = '500'\n",
			"line 2: metrics = '500': cannot unmarshal TOML string into int"},
		{"float for integer", table + "metrics = 1.5\n",
			"line 2: metrics = 1.5: cannot unmarshal TOML float into int"},
		{"integer out of range", table + "metrics = 9223372036854775808\n",
			"line 2: metrics = 9223372036854775808: value 9223372036854775808 is out of range for int"},
		{"string for array", table + "names = 'a'\n",
			"line 2: names = 'a': cannot unmarshal TOML string into []string"},
		{"integers for strings", table + "names = [1, 2]\n",
			"line 2: names = [1, 2]: cannot unmarshal TOML integer into string"},
		{"array of several types", table + "names = [\n  'a',\n  2,\n]\n",
			"line 5: names = [ 'a', 2, ]: array can't contain multiple types"},
		{"long value", table + "metrics = '" + strings.Repeat("é", 100) + "'\n",
			"line 2: metrics = '" + strings.Repeat("é", 59) + "…: cannot unmarshal TOML string into int"},
		{"table for array", table + "[inputs.procnetstat.names]\n",
			"line 2: names: cannot unmarshal TOML table into []string (need struct or map)"},
		{"value for table", table + "limits = 1\n",
			"line 2: limits = 1: cannot unmarshal TOML integer into struct { Low int \"toml:\\\"low\\\"\" }"},
		{"wrong type in a table of an option", table + "[inputs.procnetstat.limits]\nlow = 'x'\n",
			"line 2: limits: cannot unmarshal TOML string into int"},
		{"wrong duration", table + "timeout = 'soon'\n",
			`line 2: timeout = 'soon': time: invalid duration "soon"`},

		{"key given twice", table + "metrics = 1\nmetrics = 2\n", "line 3: key `metrics' is in conflict with line 2"},
		{"no TOML", table + "metrics 1\n", "line 2: invalid TOML syntax"},
		{"escape that does not exist", table + `pattern = "\d"` + "\n", "line 2: invalid TOML syntax"},
		{"not UTF-8", table + "pattern = '\xff'\n", "not valid UTF-8"},
		{"UTF-16", "\xff\xfe[\x00", "not valid UTF-8"},
		{"unset variable", table + "names = ['a', '${PROCNETSTAT_TEST_UNSET}']\n", "line 2: names: environment variable " +
			`"PROCNETSTAT_TEST_UNSET" is not set; use ${PROCNETSTAT_TEST_UNSET:-} for an empty default`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := writeFile(t, tt.text)
			got := runToEnd(t, command(t, "", "-config", file))
			if want := (result{1, "", "E! " + file + ": " + tt.want + "\n"}); got != want {
				t.Errorf("got %v\nwant %v", got, want)
			}
		})
	}
}

// TestMistypedPluginOption checks a mistake that the loader of the shim accepts.
func TestMistypedPluginOption(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "[[inputs.procnetstat]]\nmesurements=[\"host\"]\n")
	cmd := command(t, "", "-config", file, "-once")
	cmd.Env = append(cmd.Env, runAsEnv+"=real")
	got := runToEnd(t, cmd)
	want := result{1, "", "E! " + file + `: line 2: unknown option "mesurements"; ` +
		"procnetstat -sample-config lists the options\n"}
	if got != want {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestUnreadableConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.conf")
	for file, want := range map[string]string{
		missing: "E! open " + missing + ": no such file or directory\n",
		dir:     "E! read " + dir + ": is a directory\n",
	} {
		if got := runToEnd(t, command(t, "", "-config", file)); got != (result{1, "", want}) {
			t.Errorf("got %v\nwant exit code 1 and %s", got, want)
		}
	}
}

// TestTelegrafOptions checks that each of Telegraf's options is rejected, with a message that says where it belongs.
func TestTelegrafOptions(t *testing.T) {
	for _, key := range telegrafOptions {
		_, err := parseConfig([]byte("[[inputs.procnetstat]]\n"+key+" = 1\n"), noEnv)
		want := `line 2: "` + key + `" is a Telegraf option; set it in the [[inputs.execd]] table`
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestParseConfig(t *testing.T) {
	env := map[string]string{
		"NAME":   "nginx",
		"EMPTY":  "",
		"SPIKED": "a\"b\\c\nd' # ${NAME}",
	}
	for _, tt := range []struct {
		name, text string
		want       testInput
	}{
		{"defaults", "[[inputs.procnetstat]]", testInput{}},
		{"plain table", "[inputs.procnetstat]\nmetrics = 2\n", testInput{Metrics: 2}},
		{"inside of inputs", "[inputs]\n[[inputs.procnetstat]]\nmetrics = 2\n", testInput{Metrics: 2}},
		{"byte order mark", "\xef\xbb\xbf[[inputs.procnetstat]]\nmetrics = 2\n", testInput{Metrics: 2}},
		{"CR LF", "[[inputs.procnetstat]]\r\nmetrics = 2\r\n", testInput{Metrics: 2}},
		{"no line end", "[[inputs.procnetstat]]\nmetrics = 2", testInput{Metrics: 2}},
		{"all kinds", `
[[inputs.procnetstat]]
  metrics = 1_000
  names = ["a", 'b']
  timeout = "5s"
  init_waits = true
  [inputs.procnetstat.limits]
    low = -3
`, testInput{Metrics: 1000, Names: []string{"a", "b"}, Timeout: config.Duration(5 * time.Second), InitWaits: true,
			Limits: struct {
				Low int `toml:"low"`
			}{-3}}},
		{"comments everywhere", `# first
[[inputs.procnetstat]] # second
  ## third
  names = [ # fourth
    # fifth
    "a#b", # sixth
    # seventh "
    # eighth '
    'c#d',
    # ninth
  ] # tenth
  # metrics = 5
  pattern = '''a#"b''' # ${PROCNETSTAT_TEST_UNSET}
`, testInput{Names: []string{"a#b", "c#d"}, Pattern: `a#"b`}},
		{"quotes in strings", `[[inputs.procnetstat]]
names = ["a\"#b", "\\", '\', '''a'#''b''', "", '', "#"] # "
`, testInput{Names: []string{`a"#b`, `\`, `\`, `a'#''b`, "", "", "#"}}},
		{"backslashes that escape nothing", `[[inputs.procnetstat]]
names = ['\', '#', '''\''', '#'] # '
`, testInput{Names: []string{`\`, "#", `\`, "#"}}},

		{"variable", "[[inputs.procnetstat]]\npattern = '${NAME}'\n", testInput{Pattern: "nginx"}},
		{"variables in an array", "[[inputs.procnetstat]]\nnames = ['${NAME}', \"a-${NAME}-${NAME}\"]\n",
			testInput{Names: []string{"nginx", "a-nginx-nginx"}}},
		{"empty variable", "[[inputs.procnetstat]]\npattern = 'a${EMPTY}b'\n", testInput{Pattern: "ab"}},
		{"variable with all that TOML escapes", "[[inputs.procnetstat]]\nnames = [\"${SPIKED}\", '${SPIKED}']\n",
			testInput{Names: []string{env["SPIKED"], env["SPIKED"]}}},
		{"default of an unset variable", "[[inputs.procnetstat]]\npattern = '${UNSET:-a b}'\n", testInput{Pattern: "a b"}},
		{"default of an empty variable", "[[inputs.procnetstat]]\npattern = '${EMPTY:-x}'\n", testInput{Pattern: "x"}},
		{"default of a set variable", "[[inputs.procnetstat]]\npattern = '${NAME:-x}'\n", testInput{Pattern: "nginx"}},
		{"empty default", "[[inputs.procnetstat]]\npattern = 'a${UNSET:-}b'\n", testInput{Pattern: "ab"}},
		{"escaped reference", "[[inputs.procnetstat]]\npattern = '$${NAME}'\n", testInput{Pattern: "${NAME}"}},
		{"no reference", "[[inputs.procnetstat]]\npattern = '^$NAME$|${1}|$$|${}|$(NAME)|${NAME|{NAME}$'\n",
			testInput{Pattern: "^$NAME$|${1}|$$|${}|$(NAME)|${NAME|{NAME}$"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseConfig([]byte(tt.text), func(name string) (string, bool) {
				value, found := env[name]
				return value, found
			})
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.Metrics == 0 {
				tt.want.Metrics = 1 // the default
			}
			if tt.want.Timeout == 0 {
				tt.want.Timeout = config.Duration(time.Second) // the default
			}
			if !reflect.DeepEqual(got, &tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, &tt.want)
			}
		})
	}
}

func TestEnvironmentVariables(t *testing.T) {
	t.Setenv("PROCNETSTAT_TEST_SET", "from outside")
	got, err := loadInput(writeFile(t, "[[inputs.procnetstat]]\npattern = '${PROCNETSTAT_TEST_SET}'\n"))
	if err != nil {
		t.Fatal(err)
	}
	if pattern := got.(*testInput).Pattern; pattern != "from outside" {
		t.Errorf("got %q", pattern)
	}
}

func TestNoConfig(t *testing.T) {
	got, err := loadInput("")
	if err != nil {
		t.Fatal(err)
	}
	if want := newTestInput(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("[[inputs.procnetstat]]\nmetrics = 2\nnames = ['a', \"b\"]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseConfig(text, fuzzEnv)
		if (got == nil) == (err == nil) {
			t.Fatalf("got %v and %v, want one of the two", got, err)
		}
		again, err2 := parseConfig(text, fuzzEnv)
		if !reflect.DeepEqual(got, again) || errorText(err) != errorText(err2) {
			t.Fatalf("got %v and %v, and the second time %v and %v", got, err, again, err2)
		}
	})
}

// FuzzStripComments checks that text which the parser accepts means the same without its comments.
func FuzzStripComments(f *testing.F) {
	f.Add([]byte("a = '#' # b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var with, without map[string]any
		if !utf8.Valid(text) || toml.Unmarshal(text, &with) != nil {
			return
		}
		stripped := stripComments(text)
		if err := toml.Unmarshal(stripped, &without); err != nil {
			t.Fatalf("%q became %q: %v", text, stripped, err)
		}
		if !reflect.DeepEqual(with, without) && fmt.Sprint(with) != fmt.Sprint(without) { // Sprint: NaN equals NaN
			t.Fatalf("%q became %q: %v, not %v", text, stripped, without, with)
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func fuzzEnv(name string) (string, bool) {
	return "a\"\\\n'${A}", name == "A"
}

func noEnv(string) (string, bool) {
	return "", false
}

func useRealInput(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { inputs.Add(pluginName, newTestInput) })
	inputs.Add(pluginName, newRealInput)
}

var _ telegraf.ServiceInput = (*testInput)(nil)

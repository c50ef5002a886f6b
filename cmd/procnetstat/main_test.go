package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	const hint = " (procnetstat -help lists the flags)\n"
	const interval = " for flag -poll_interval: must be a positive duration with a unit, such as 10s or 500ms; " +
		"-poll_interval_disabled disables polling" + hint
	for _, tt := range []struct {
		args string
		want result
	}{
		{"-sample-config", result{0, "[[inputs.procnetstat]]\n", ""}},
		{"-no_such_flag", result{2, "", "E! flag provided but not defined: -no_such_flag" + hint}},
		{"extra", result{2, "", `E! unexpected argument "extra"` + hint}},
		{"-once extra", result{2, "", `E! unexpected argument "extra"` + hint}},
		{"-config", result{2, "", "E! flag needs an argument: -config" + hint}},
		{"-config=", result{2, "", `E! invalid value "" for flag -config: must be a file name` + hint}},
		{"-poll_interval 0", result{2, "", `E! invalid value "0"` + interval}},
		{"-poll_interval 0s", result{2, "", `E! invalid value "0s"` + interval}},
		{"-poll_interval -10s", result{2, "", `E! invalid value "-10s"` + interval}},
		{"-poll_interval 10", result{2, "", `E! invalid value "10"` + interval}},
		{"-poll_interval soon", result{2, "", `E! invalid value "soon"` + interval}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			got := runToEnd(t, command(t, "", strings.Fields(tt.args)...))
			if got != tt.want {
				t.Errorf("got %v\nwant %v", got, tt.want)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	got := runToEnd(t, command(t, "", "-help"))
	if got.code != 0 || got.stderr != "" {
		t.Error(got)
	}
	for _, flag := range []string{
		"-config file", "-once", "-poll_interval duration", "(default 10s)", "-poll_interval_disabled", "-sample-config",
		"-version",
	} {
		if !strings.Contains(got.stdout, flag) {
			t.Errorf("no %q in:\n%s", flag, got.stdout)
		}
	}
}

// TestManual checks that the manual page documents exactly the flags of the program.
func TestManual(t *testing.T) {
	manual, err := os.ReadFile("../../packaging/procnetstat.1")
	if err != nil {
		t.Fatal(err)
	}
	flags := func(text, pattern string) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return found
	}
	documented := flags(strings.ReplaceAll(string(manual), `\-`, "-"), `(?m)^\.TP\n\.BI? -(\w[\w-]*)`)
	defined := append(flags(usage(), `(?m)^  -([\w-]+)`), "help")
	slices.Sort(defined)
	if !slices.Equal(documented, defined) {
		t.Errorf("the manual documents %q, the program has %q", documented, defined)
	}
}

func TestVersion(t *testing.T) {
	got := runToEnd(t, command(t, "", "-version"))
	if want := (result{0, "procnetstat " + buildVersion() + "\n", ""}); got != want {
		t.Errorf("got %v\nwant %v", got, want)
	}

	defer func(saved string) { version = saved }(version)
	version = "v1.2.3"
	if got := buildVersion(); got != version {
		t.Errorf("got %q, want %q, as set by the linker", got, version)
	}
}

func TestSampleConfigIsValid(t *testing.T) {
	cmd := command(t, "", "-sample-config")
	cmd.Env = append(cmd.Env, runAsEnv+"=real")
	got := runToEnd(t, cmd)
	if want := (result{0, newRealInput().SampleConfig(), ""}); got != want {
		t.Fatalf("got %v\nwant %v", got, want)
	}

	useRealInput(t)
	if _, err := parseConfig([]byte(got.stdout), noEnv); err != nil {
		t.Error(err)
	}
}

func TestOnce(t *testing.T) {
	for _, tt := range []struct {
		name, options string
		lines, code   int
		stderr        string
	}{
		{"metrics", "metrics = 3", 3, 0,
			"I! started\nI! stopped\n"},
		{"no metrics", "metrics = 0", 0, 0,
			"I! started\nI! stopped\n"},
		{"partial failure", "metrics = 2\nadd_error = 'no permission'", 2, 0,
			"I! started\nE! Error in plugin: no permission\nI! stopped\n"},
		{"failure", "metrics = 2\ngather_error = 'no netlink'", 2, 1,
			"I! started\nE! Failed to gather metrics: no netlink\nI! stopped\nE! gather failed\n"},
		{"failure of Start", "start_error = 'no memory'", 0, 1,
			"E! running input failed: failed to start input: no memory\n"},
		{"failure of Init", "init_error = 'metrics: 5 is too many'", 0, 1,
			"E! failed to init input: metrics: 5 is too many\n"},
		{"log", "logs = true", 1, 0,
			"I! started\nE! an error; of two lines\nW! a warning\nI! an information\nD! a detail\nW! from elsewhere\nI! stopped\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := runToEnd(t, command(t, tt.options, "-once"))
			if got.code != tt.code || got.stderr != tt.stderr {
				t.Errorf("got %v\nwant exit code %d and %s", got, tt.code, tt.stderr)
			}
			if tt.lines == 0 && got.stdout != "" {
				t.Errorf("got %q, want no metrics", got.stdout)
			}
			if tt.lines > 0 {
				expectCompleteGathers(t, got.stdout, 1, tt.lines)
			}
		})
	}
}

// TestOnceIgnoresStandardInput checks that -once exits while standard input is open, as at a terminal.
func TestOnceIgnoresStandardInput(t *testing.T) {
	t.Parallel()
	p := start(t, command(t, "metrics = 1", "-once"))
	p.expectGather(1)
	p.expectExit()
}

func TestPollInterval(t *testing.T) {
	t.Parallel()
	p := start(t, command(t, "metrics = 1", "-poll_interval", "1ms"))
	for number := 1; number <= 3; number++ {
		p.expectGather(number)
	}
	p.stdin.Close()
	readAll(t, p) // it may poll again before it reads the end of standard input
	p.expectExit()
}

func TestLinesOfAnyLength(t *testing.T) {
	t.Parallel()
	p := start(t, command(t, "metrics = 1", "-poll_interval_disabled"))
	for number, line := range []string{"\n", strings.Repeat("x", 200_000) + "\n", "words\r\n", "\n", "no end"} {
		if _, err := p.stdin.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(line, "\n") {
			p.stdin.Close()
		}
		p.expectGather(number + 1)
	}
	p.expectExit()
}

// TestLastPromptIsAnswered sends the second prompt and the end of standard input during the first gather, which blocks until
// its output is read.
func TestLastPromptIsAnswered(t *testing.T) {
	t.Parallel()
	p := start(t, command(t, "metrics = 5_000", "-poll_interval_disabled"))
	p.prompt()
	if _, err := p.output.Peek(1); err != nil {
		t.Fatal(err)
	}
	p.prompt()
	p.stdin.Close()
	text := readAll(t, p)
	expectCompleteGathers(t, text, 2, 5_000)
	p.expectExit()
}

// TestContinuesAfterGatherError checks that an error of a gather does not end the program: the next gather may succeed.
func TestContinuesAfterGatherError(t *testing.T) {
	t.Parallel()
	p := start(t, command(t, "gather_error = 'no netlink'", "-poll_interval_disabled"))
	for number := 1; number <= 2; number++ {
		p.prompt()
		p.expectGather(number)
		p.expectMessage("E! Failed to gather metrics: no netlink")
	}
	p.stdin.Close()
	p.expectExit()
}

func readAll(t *testing.T, p *running) string {
	t.Helper()
	var text strings.Builder
	if _, err := p.output.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

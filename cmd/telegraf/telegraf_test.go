package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/metric"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"
)

// The tests run the program for real: the test binary itself, which this variable turns into Telegraf.
const runAsTelegraf = "PROCNETSTAT_TEST_RUN_AS_TELEGRAF"

func TestMain(m *testing.M) {
	if os.Getenv(runAsTelegraf) != "" {
		main()
	}
	os.Exit(m.Run())
}

// deadline is long enough for a busy machine; nothing waits for it unless something is broken.
const deadline = 60 * time.Second

func TestVersion(t *testing.T) {
	require.Regexp(t, `^Telegraf \d+\.\d+\.\d+ \(procnetstat \S+\)\n$`, execute(t, "--version").succeeds().stdout)
	require.Equal(t, execute(t, "--version").stdout, execute(t, "version").stdout)
}

func TestVersionOfTheBuild(t *testing.T) {
	defer func(before string) { version = before }(version)
	version = "v1.2.3"
	require.Equal(t, "Telegraf "+telegrafVersion()+" (procnetstat 1.2.3)", fullVersion())
}

func TestTestPrintsMetrics(t *testing.T) {
	t.Parallel()
	conf := write(t, "telegraf.conf", `
[[inputs.procnetstat]]
[[inputs.mem]]
`)
	ran := execute(t, "--config", conf, "--test").succeeds()
	require.Regexp(t, `(?m)^> procnetstat,host=\S+ .*\btcp_established=\d+`, ran.stdout)
	require.Regexp(t, `(?m)^> mem,host=\S+ .*\btotal=\d+`, ran.stdout)
	require.Contains(t, ran.stderr, "I! Starting Telegraf "+telegrafVersion())
}

func TestTestWaitWaitsForServiceInputs(t *testing.T) {
	t.Parallel()
	// Stopping closes the standard input of the command, which ends cat and thereby the command, metric or no metric.
	conf := write(t, "telegraf.conf", `
[[inputs.execd]]
  command = ["sh", "-c", "(sleep 0.5; echo late value=1) & cat; kill $!"]
  data_format = "influx"
`)
	// No look at the exit code: execd takes the end of its own pipes for an error now and then.
	require.Contains(t, execute(t, "--config", conf, "--test-wait", "2").stdout, "> late,")
}

// A gather that fails is seen by whoever tests a configuration in a script, whether the input returns the error or reports it.
func TestFailedGatherFails(t *testing.T) {
	t.Parallel()
	for input, conf := range map[string]string{
		"inputs.exec":  "[[inputs.exec]]\n  commands = ['false']\n",
		"inputs.nstat": "[[inputs.nstat]]\n  proc_net_netstat = '/no/such/netstat'\n",
	} {
		conf = write(t, "telegraf.conf", conf+"[[outputs.discard]]\n")
		for _, mode := range []string{"--test", "--once"} {
			ran := execute(t, "--config", conf, mode).fails()
			require.Contains(t, ran.stderr, "E! ["+input+"] Error in plugin: ")
			require.Contains(t, ran.stderr, "E! input plugins recorded 1 errors")
		}
	}
}

// A failed start of the plugin stops Telegraf, whatever startup_error_behavior says: see the README of the plugin.
func TestStartupErrorBehavior(t *testing.T) {
	t.Parallel()
	for _, behavior := range []string{"error", "retry", "ignore", "probe"} {
		conf := write(t, "telegraf.conf", "[[inputs.procnetstat]]\n  source = 'netlink'\n  protocols = ['icmp']\n"+
			"  startup_error_behavior = '"+behavior+"'\n[[outputs.discard]]\n")
		require.Contains(t, execute(t, "--config", conf).fails().stderr, "E! starting input inputs.procnetstat: source \"netlink\" is required: ")
	}
}

func TestOnceSends(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "metrics.out")
	ran := execute(t, "--config", write(t, "telegraf.conf", pulse+fileOutput(out)), "--once").succeeds()
	require.Empty(t, ran.stdout)
	require.Equal(t, 1, strings.Count(read(out), "pulse,"), read(out))
}

func TestWrongConfiguration(t *testing.T) {
	const output = "\n[[outputs.discard]]\n"
	for name, test := range map[string]struct{ conf, says string }{
		"unknown option of procnetstat": {
			"[[inputs.procnetstat]]\n  meassurements = []" + output,
			`plugin inputs.procnetstat: line 1: configuration specified the fields ["meassurements"], but they were not used`,
		},
		"unknown option of the agent": {
			"[agent]\n  intervall = '1s'\n[[inputs.mem]]" + output,
			`configuration specified the fields ["intervall"], but they were not used`,
		},
		"unknown input": {
			"[[inputs.procnetstats]]" + output,
			`undefined but requested input: procnetstats`,
		},
		"option of the wrong type": {
			"[[inputs.procnetstat]]\n  max_series = 'many'" + output,
			`error parsing procnetstat, line 2`,
		},
		"not TOML": {
			"[[inputs.mem]" + output,
			`error parsing data`,
		},
		"no inputs": {
			output,
			`no inputs found`,
		},
		"no outputs": {
			"[[inputs.mem]]",
			`no outputs found`,
		},
		"no interval": {
			"[agent]\n  interval = '0s'\n[[inputs.mem]]" + output,
			`[agent] interval must be positive, not 0s`,
		},
		"no flush interval": {
			"[agent]\n  flush_interval = '-1s'\n[[inputs.mem]]" + output,
			`[agent] flush_interval must be positive, not -1s`,
		},
		"flush interval of zero": {
			"[agent]\n  flush_interval = '0s'\n[[inputs.mem]]" + output,
			`[agent] flush_interval must be positive, not 0s`,
		},
		"value that the plugin refuses": {
			"[[inputs.procstat]]\n  exe = 'telegraf'\n  pid_finder = 'guess'" + output,
			`could not initialize input inputs.procstat: unknown pid_finder "guess"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ran := execute(t, "--quiet", "--config", write(t, "telegraf.conf", test.conf)).fails()
			require.Contains(t, ran.stderr, test.says)
			require.Equal(t, 1, strings.Count(ran.stderr, "\n"), "one line of stderr:\n%s", ran.stderr)
		})
	}
}

func TestWrongCommandLine(t *testing.T) {
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"--no-such-flag"}, "flag --no-such-flag is not supported; supported: --config, --config-directory, --test"},
		{[]string{"config", "--no-such-flag"}, "config: flag --no-such-flag is not supported; supported: --input-filter,"},
		{[]string{"plugins", "--deprecated"}, "plugins: flag --deprecated is not supported; supported: --help"},
		{[]string{"--strict-env-handling", "--non-strict-env-handling"}, "exclude each other"},
		{[]string{"--test-wait", "long"}, `invalid value "long" for flag -test-wait`},
		{[]string{"confg"}, `command "confg" is not supported; supported: config, plugins, version`},
		{[]string{"config", "--input-filter", "mem:memm"}, `no plugin "memm" in inputs`},
		{[]string{"config", "--section-filter", "output"}, `no section "output"`},
		{[]string{"plugins", "input"}, `no kind of plugin is called "input"`},
		{[]string{"--config", "/no/such/telegraf.conf"}, "/no/such/telegraf.conf"},
		{[]string{"--config-directory", "/no/such/telegraf.d"}, "--config-directory: open /no/such/telegraf.d: "},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			t.Parallel()
			ran := execute(t, test.args...).fails()
			require.Contains(t, ran.stderr, test.says)
			require.Empty(t, ran.stdout)
		})
	}
}

func TestConfigurationFromSeveralPlaces(t *testing.T) {
	t.Parallel()
	repeated := write(t, "repeated.conf", "[global_tags]\n  a = '1'\n")
	inDirectory := write(t, "some.conf", "[global_tags]\n  b = '2'\n")
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(inDirectory), "not-a-conf"), []byte("["), 0o600))
	inConfigDirectory := write(t, "other.conf", "[global_tags]\n  c = '3'\n")
	remote := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "[global_tags]\n  d = '4'\n")
	}))
	defer remote.Close()

	ran := execute(t, "--test",
		"--config", write(t, "telegraf.conf", pulse+"[agent]\n  omit_hostname = true\n"),
		"--config", repeated+","+filepath.Dir(inDirectory),
		"--config-directory", filepath.Dir(inConfigDirectory),
		"--config", remote.URL).succeeds()
	require.Contains(t, ran.stdout, "> pulse,a=1,b=2,c=3,d=4 value=1")
}

// A setting that is not a string takes a variable with --non-strict-env-handling alone.
func TestEnvironmentVariables(t *testing.T) {
	t.Setenv("PULSE_HOST", "web1")
	t.Setenv("PULSE_DEBUG", "true")
	text := write(t, "text.conf", pulse+"[agent]\n  hostname = '${PULSE_HOST}'\n")
	require.Contains(t, execute(t, "--test", "--config", text).succeeds().stdout, "> pulse,host=web1 ")

	number := write(t, "number.conf", pulse+"[agent]\n  debug = ${PULSE_DEBUG}\n")
	execute(t, "--test", "--config", number).fails()
	execute(t, "--test", "--config", number, "--strict-env-handling").fails()
	require.Contains(t, execute(t, "--test", "--config", number, "--non-strict-env-handling").succeeds().stderr, " D! ")
}

// A test must not open the buffer that a running Telegraf writes to.
func TestTestOpensNoBufferOnDisk(t *testing.T) {
	t.Parallel()
	buffers := filepath.Join(t.TempDir(), "buffers")
	conf := write(t, "telegraf.conf", pulse+"[[outputs.discard]]\n[agent]\n  buffer_strategy = 'disk_write_through'\n"+
		"  buffer_directory = '"+buffers+"'\n")
	execute(t, "--config", conf, "--test").succeeds()
	require.NoDirExists(t, buffers)
	execute(t, "--config", conf, "--once").succeeds()
	require.DirExists(t, buffers)
}

func TestDirectoryWithoutConfiguration(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	require.Contains(t, execute(t, "--config", empty).fails().stderr, "no *.conf file in "+empty)
	require.Contains(t, execute(t, "--config-directory", empty).fails().stderr, "no *.conf file in "+empty)
	// As packages have it: a directory for what the administrator may add.
	execute(t, "--test", "--config", write(t, "telegraf.conf", pulse), "--config-directory", empty).succeeds()
}

func TestConfigurationFromTheDefaultPlace(t *testing.T) {
	t.Setenv("TELEGRAF_CONFIG_PATH", write(t, "telegraf.conf", pulse))
	require.Contains(t, execute(t, "--test").succeeds().stdout, "> pulse,")
}

func TestInputAndOutputFilter(t *testing.T) {
	t.Parallel()
	wanted, unwanted := filepath.Join(t.TempDir(), "wanted"), filepath.Join(t.TempDir(), "unwanted")
	conf := write(t, "telegraf.conf", pulse+fileOutput(wanted)+`
[[inputs.mem]]
[[inputs.system]]
[[outputs.execd]]
  command = ["sh", "-c", "cat > `+unwanted+`"]
`)
	execute(t, "--config", conf, "--once", "--input-filter", "exec:mem", "--output-filter", "file").succeeds()
	require.Contains(t, read(wanted), "pulse,")
	require.Contains(t, read(wanted), "mem,")
	require.NotContains(t, read(wanted), "system,")
	require.NoFileExists(t, unwanted)

	ran := execute(t, "--config", conf, "--once", "--output-filter", "discard").fails()
	require.Contains(t, ran.stderr, "no outputs found")
}

func TestDebugAndQuiet(t *testing.T) {
	t.Parallel()
	conf := write(t, "telegraf.conf", pulse+"[agent]\n  debug = false\n  quiet = false\n")
	for _, test := range []struct {
		flag        string
		debug, info bool
	}{
		{"--debug", true, true},
		{"--quiet", false, false},
		{"--test", false, true},
	} {
		stderr := execute(t, "--config", conf, "--test", test.flag).succeeds().stderr
		require.Equal(t, test.debug, strings.Contains(stderr, " D! "), "%s:\n%s", test.flag, stderr)
		require.Equal(t, test.info, strings.Contains(stderr, " I! "), "%s:\n%s", test.flag, stderr)
	}
}

// The configuration can ask for the same, from when it is read.
func TestDebugAndQuietInConfiguration(t *testing.T) {
	t.Parallel()
	for option, want := range map[string][2]bool{"debug": {true, true}, "quiet": {false, false}} {
		conf := write(t, "telegraf.conf", pulse+"[agent]\n  "+option+" = true\n")
		stderr := execute(t, "--config", conf, "--test").succeeds().stderr
		got := [2]bool{strings.Contains(stderr, " D! "), strings.Contains(stderr, " I! Loaded inputs")}
		require.Equal(t, want, got, "%s:\n%s", option, stderr)
	}
}

func TestLogfile(t *testing.T) {
	t.Parallel()
	logfile := filepath.Join(t.TempDir(), "telegraf.log")
	agent := fmt.Sprintf("[agent]\n  logfile = %q\n  logformat = 'structured'\n", logfile)

	ran := execute(t, "--test", "--config", write(t, "telegraf.conf", pulse+agent)).succeeds()
	require.Contains(t, read(logfile), `"msg":"Loaded inputs: exec"`)
	require.NotContains(t, ran.stderr, "Loaded inputs")

	// What ends the program is on stderr as well.
	broken := "[[inputs.exec]]\n  commands = ['true']\n[[processors.scale]]\n  [[processors.scale.scaling]]\n"
	ran = execute(t, "--test", "--config", write(t, "telegraf.conf", broken+agent)).fails()
	const message = "could not initialize processor processors.scale"
	require.Contains(t, read(logfile), message)
	require.Equal(t, 1, strings.Count(ran.stderr, message), ran.stderr)
}

func TestPIDFile(t *testing.T) {
	t.Parallel()
	out, pidFile := filepath.Join(t.TempDir(), "metrics.out"), filepath.Join(t.TempDir(), "telegraf.pid")
	// What an earlier process has left behind is longer than any process id.
	require.NoError(t, os.WriteFile(pidFile, []byte("99999999999\n"), 0o600))

	p := start(t, "--config", write(t, "telegraf.conf", pulse+fileOutput(out)+fast), "--pidfile", pidFile)
	p.waitFor(out, "pulse,")
	require.Equal(t, fmt.Sprintf("%d\n", p.cmd.Process.Pid), read(pidFile))
	p.stops(syscall.SIGTERM)
	require.NoFileExists(t, pidFile)
}

// What gathers once writes none: it would remove that of the service which runs beside it.
func TestPIDFileIsOfTheService(t *testing.T) {
	t.Parallel()
	for _, once := range []string{"--test", "--once"} {
		pidFile := write(t, "telegraf.pid", "4711\n")
		execute(t, "--config", write(t, "telegraf.conf", pulse+"[[outputs.discard]]\n"), once, "--pidfile", pidFile).succeeds()
		require.Equal(t, "4711\n", read(pidFile), once)
	}
}

// Both together send the metrics, for which there have to be outputs.
func TestOnceAndTest(t *testing.T) {
	t.Parallel()
	ran := execute(t, "--config", write(t, "telegraf.conf", pulse), "--once", "--test").fails()
	require.Contains(t, ran.stderr, "no outputs found")
	out := filepath.Join(t.TempDir(), "metrics.out")
	ran = execute(t, "--config", write(t, "telegraf.conf", pulse+fileOutput(out)), "--once", "--test").succeeds()
	require.NotContains(t, ran.stderr, "Outputs are not used")
	require.Contains(t, ran.stderr, "I! Loaded outputs: file")
	require.Contains(t, read(out), "pulse,")
}

func TestPIDFileThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "metrics.out")
	pidFile := filepath.Join(t.TempDir(), "no-such-directory", "telegraf.pid")
	p := start(t, "--config", write(t, "telegraf.conf", pulse+fileOutput(out)+fast), "--pidfile", pidFile)
	p.waitFor(out, "pulse,")
	require.Contains(t, p.stops(syscall.SIGTERM).stderr, "E! Unable to create pidfile: open "+pidFile)
}

// The new configuration is at work only when the agent with the old one has finished its gather and sent what it had.
func TestSIGHUPReloads(t *testing.T) {
	t.Parallel()
	gathering, out := filepath.Join(t.TempDir(), "gathering"), filepath.Join(t.TempDir(), "metrics.out")
	conf := write(t, "telegraf.conf", fileOutput(out)+`
[global_tags]
  phase = "before"
[agent]
  round_interval = false
  flush_interval = "1h"
[[inputs.exec]]
  commands = ["sh -c 'echo yes > `+gathering+`; sleep 1; echo pulse value=1'"]
  data_format = "influx"
`)
	p := start(t, "--config", conf)
	p.waitFor(gathering, "yes")

	after := pulse + fileOutput(out) + fast + "[global_tags]\n  phase = 'after'\n"
	require.NoError(t, os.WriteFile(conf, []byte(after), 0o600))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	p.waitFor(out, "phase=after")
	p.stops(syscall.SIGTERM)
	require.Regexp(t, `^pulse,host=\S+,phase=before value=1 \d+\npulse,host=\S+,phase=after value=1`, read(out))
}

// As with Telegraf: rather no agent than one that does not do what its configuration says.
func TestSIGHUPWithBrokenConfigurationEnds(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "metrics.out")
	conf := write(t, "telegraf.conf", pulse+fileOutput(out)+fast)
	p := start(t, "--config", conf)
	p.waitFor(out, "pulse,")

	require.NoError(t, os.WriteFile(conf, []byte("[[inputs.mem]]\n  no_such_option = 1\n"), 0o600))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	require.Contains(t, p.ends().fails().stderr, "no_such_option")
}

func TestStopFlushes(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			gathered, out := filepath.Join(t.TempDir(), "gathered"), filepath.Join(t.TempDir(), "metrics.out")
			p := start(t, "--config", write(t, "telegraf.conf", fileOutput(out)+`
[agent]
  round_interval = false
  flush_interval = "1h"
[[inputs.exec]]
  commands = ["sh -c 'echo pulse value=1; echo yes > `+gathered+`'"]
  data_format = "influx"
`))
			p.waitFor(gathered, "yes")
			require.Empty(t, read(out), "sent before the stop: this test proves nothing")
			p.stops(signal)
			require.Contains(t, read(out), "pulse,")
		})
	}
}

// A SIGHUP neither revives what is about to stop, nor hides a SIGTERM that comes while the agent stops for the reload.
func TestStopWinsOverReload(t *testing.T) {
	for name, signals := range map[string][]syscall.Signal{
		"stop then reload": {syscall.SIGTERM, syscall.SIGHUP},
		"reload then stop": {syscall.SIGHUP, syscall.SIGTERM},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gathering := filepath.Join(t.TempDir(), "gathering")
			p := start(t, "--config", write(t, "telegraf.conf", `
[agent]
  round_interval = false
[[inputs.exec]]
  commands = ["sh -c 'echo yes > `+gathering+`; sleep 1; echo pulse value=1'"]
  data_format = "influx"
[[outputs.discard]]
`))
			p.waitFor(gathering, "yes")
			require.NoError(t, p.cmd.Process.Signal(signals[0]))
			time.Sleep(200 * time.Millisecond) // the agent waits for the gather meanwhile
			p.stops(signals[1])
		})
	}
}

// A unit with Type=notify is started when this arrives.
func TestNotifiesSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer listener.Close()
	t.Setenv("NOTIFY_SOCKET", socket)

	p := start(t, "--config", write(t, "telegraf.conf", pulse+"[[outputs.discard]]\n"))
	require.NoError(t, listener.SetReadDeadline(time.Now().Add(deadline)))
	message := make([]byte, 100)
	n, err := listener.Read(message)
	require.NoError(t, err)
	require.Equal(t, "READY=1", string(message[:n]))
	p.stops(syscall.SIGTERM)
}

func TestConfigPrintsWhatIsBuiltIn(t *testing.T) {
	t.Parallel()
	sample := execute(t, "config").succeeds().stdout
	for _, k := range kinds()[:4] { // parsers and serializers have no sections
		for _, name := range k.plugins {
			require.Regexp(t, `(?m)^(# )?\[\[`+k.name+`\.`+name+`\]\]`, sample)
		}
	}
	loaded := load(t, sample)
	require.Equal(t, []string{"procnetstat"}, loaded.InputNames())
	require.Empty(t, loaded.OutputNames())
}

func TestConfigFilters(t *testing.T) {
	t.Parallel()
	filters := []string{"--input-filter", "procnetstat:mem", "--output-filter", "file", "--processor-filter", "rename",
		"--aggregator-filter", "minmax"}
	sample := execute(t, append([]string{"config"}, filters...)...).succeeds().stdout
	loaded := load(t, sample)
	require.Equal(t, []string{"mem", "procnetstat"}, loaded.InputNames())
	require.Equal(t, []string{"file"}, loaded.OutputNames())
	require.Equal(t, []string{"rename"}, loaded.ProcessorNames())
	require.Equal(t, []string{"minmax"}, loaded.AggregatorNames())
	require.NotContains(t, sample, "influxdb")

	require.Equal(t, sample, execute(t, append(filters, "config")...).succeeds().stdout, "filters before the command")

	inputs := execute(t, "config", "--section-filter", "inputs").succeeds().stdout
	require.Contains(t, inputs, "[[inputs.procnetstat]]")
	require.NotContains(t, inputs, "[agent]")
	require.NotContains(t, inputs, "[[outputs.")
}

// Every option in agent.conf is one that Telegraf knows, and its value there is the default.
func TestAgentSampleShowsDefaults(t *testing.T) {
	shown := load(t, strings.ReplaceAll(agentSample, "\n  # ", "\n  ")).Agent
	defaults := load(t, "").Agent
	// Where none is set, Telegraf fills these in later, as it does for the skipping of processors.
	defaults.MetricBatchSize, defaults.MetricBufferLimit = 1000, 10000
	defaults.LogFormat = "text"
	defaults.SkipProcessorsAfterAggregators = new(bool)
	defaults.Hostname = shown.Hostname
	require.Equal(t, defaults, shown)
}

func TestPlugins(t *testing.T) {
	listed := strings.Fields(execute(t, "plugins").succeeds().stdout)
	for kind, names := range map[string]string{
		"inputs":      "procnetstat cpu disk diskio exec execd internal kernel mem net netstat nstat processes procstat swap system",
		"outputs":     "file influxdb influxdb_v2 influxdb_v3 prometheus_client http kafka mqtt graphite socket_writer execd discard",
		"processors":  "regex rename strings topk",
		"aggregators": "basicstats minmax",
		"parsers":     "influx json prometheus",
		"serializers": "influx json prometheus",
	} {
		for _, name := range strings.Fields(names) {
			require.Contains(t, listed, kind+"."+name)
		}
	}
	only := execute(t, "plugins", "outputs").succeeds().stdout
	require.Contains(t, only, "outputs.file\n")
	require.NotContains(t, only, "inputs.")
}

func TestInternalInput(t *testing.T) {
	t.Parallel()
	two := pulse + strings.Replace(pulse, "value=1", "value=2", 1)
	ran := execute(t, "--test", "--config", write(t, "telegraf.conf", two+`
[[inputs.internal]]
  collect_gostats = true
`)).succeeds()
	goVersion := strings.TrimPrefix(runtime.Version(), "go")
	require.Regexp(t,
		`(?m)^> internal_agent,.*go_version=`+goVersion+`.*,version=`+telegrafVersion()+` .*gather_errors=0i`, ran.stdout)
	require.Regexp(t, `(?m)^> internal_memstats,.* alloc_bytes=\d+`, ran.stdout)
	require.Regexp(t, `(?m)^> internal_gostats,.* .*gc_heap_frees_bytes=\d+`, ran.stdout)
	require.Len(t, regexp.MustCompile(`> internal_gather,.*input=exec`).FindAllString(ran.stdout, -1), 1, ran.stdout)

	ran = execute(t, "--test", "--config", write(t, "telegraf.conf", two+`
[[inputs.internal]]
  per_instance = true
  collect_memstats = false
`)).succeeds()
	require.Len(t, regexp.MustCompile(`> internal_gather,.*input=exec`).FindAllString(ran.stdout, -1), 2, ran.stdout)
	require.NotContains(t, ran.stdout, "internal_memstats")
}

func TestSumInstances(t *testing.T) {
	at := time.Unix(0, 0)
	stat := func(input, id string, value int64) telegraf.Metric {
		tags := map[string]string{"input": input, "_id": id}
		return metric.New("internal_gather", tags, map[string]any{"errors": value}, at)
	}
	sums := sumInstances([]telegraf.Metric{stat("exec", "a", 1), stat("mem", "b", 10), stat("exec", "c", 2)})
	testutil.RequireMetricsEqual(t, []telegraf.Metric{
		metric.New("internal_gather", map[string]string{"input": "exec"}, map[string]any{"errors": int64(3)}, at),
		metric.New("internal_gather", map[string]string{"input": "mem"}, map[string]any{"errors": int64(10)}, at),
	}, sums)
}

// The sample.conf of the repository runs as it is, and its other outputs with the comment signs taken away.
func TestRepositorySample(t *testing.T) {
	t.Parallel()
	sample := read(filepath.Join("..", "..", "sample.conf"))
	require.Equal(t, []string{"procnetstat"}, load(t, sample).InputNames())
	require.Equal(t, []string{"file"}, load(t, sample).OutputNames())

	uncommented := sample
	for _, output := range []string{"influxdb", "influxdb_v2"} {
		start := strings.Index(sample, "# [[outputs."+output+"]]\n")
		require.GreaterOrEqual(t, start, 0, output)
		block, _, _ := strings.Cut(sample[start:], "\n\n")
		active := strings.TrimPrefix(strings.ReplaceAll(block, "\n# ", "\n"), "# ")
		uncommented = strings.Replace(uncommented, block, active, 1)
	}
	require.Equal(t, []string{"file", "influxdb", "influxdb_v2"}, load(t, uncommented).OutputNames())
}

// `make run` prints at once, not with the next full interval and its flush.
func TestRepositorySamplePrintsSoon(t *testing.T) {
	t.Parallel()
	p := start(t, "--config", filepath.Join("..", "..", "sample.conf"))
	const soon = 10 * time.Second
	require.Eventually(t, func() bool { return strings.Contains(p.stdout.String(), "procnetstat,") }, soon, tick,
		"nothing within %v", soon)
	p.stops(syscall.SIGTERM)
}

// pulse is an input that gives the metric "pulse value=1".
const pulse = `
[[inputs.exec]]
  commands = ["echo pulse value=1"]
  data_format = "influx"
`

const fast = `
[agent]
  interval = "100ms"
  flush_interval = "100ms"
`

func fileOutput(path string) string {
	return fmt.Sprintf("\n[[outputs.file]]\n  files = [%q]\n", path)
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// read gives what is in a file, which is nothing while there is none.
func read(path string) string {
	content, _ := os.ReadFile(path)
	return string(content)
}

func load(t *testing.T, conf string) *config.Config {
	t.Helper()
	cfg := config.NewConfig()
	require.NoError(t, cfg.LoadConfigData([]byte(conf), "the configuration of the test"))
	return cfg
}

// process is a running Telegraf.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout output
	stderr output
	exited chan error
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	executable, err := os.Executable()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(executable, args...), exited: make(chan error, 1)}
	// The race detector, where it is on, would have every process sleep for a second before it exits.
	p.cmd.Env = append(os.Environ(), runAsTelegraf+"=1", "GORACE=atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	go func() { p.exited <- p.cmd.Wait() }()
	return p
}

const tick = 20 * time.Millisecond

func (p *process) waitFor(path, text string) {
	p.t.Helper()
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(tick) {
		if strings.Contains(read(path), text) {
			return
		}
		if len(p.exited) > 0 {
			p.t.Fatalf("ended before %q was in %s:\n%s", text, path, p.stderr.String())
		}
	}
	p.t.Fatalf("no %q in %s:\n%s", text, path, p.stderr.String())
}

// stops sends the signal, after which the program has to end well.
func (p *process) stops(signal syscall.Signal) result {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(signal))
	return p.ends().succeeds()
}

func (p *process) ends() result {
	p.t.Helper()
	var exit *exec.ExitError
	select {
	case err := <-p.exited:
		if err != nil && !errors.As(err, &exit) {
			require.NoError(p.t, err)
		}
	case <-time.After(deadline):
		p.t.Fatalf("still running after %v:\n%s", deadline, p.stderr.String())
	}
	return result{t: p.t, code: p.cmd.ProcessState.ExitCode(), stdout: p.stdout.String(), stderr: p.stderr.String()}
}

// execute runs the program until it ends by itself.
func execute(t *testing.T, args ...string) result {
	t.Helper()
	return start(t, args...).ends()
}

type result struct {
	t              *testing.T
	code           int
	stdout, stderr string
}

func (r result) succeeds() result {
	r.t.Helper()
	require.Zero(r.t, r.code, "exit code; stderr:\n%s", r.stderr)
	return r
}

func (r result) fails() result {
	r.t.Helper()
	require.Equal(r.t, 1, r.code, "exit code; stderr:\n%s", r.stderr)
	return r
}

// output can be read while a process writes to it.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// TestConfigurationsOfDocs: every configuration that the documents show is one.
func TestConfigurationsOfDocs(t *testing.T) {
	var documents []string
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../plugins/inputs/procnetstat/README.md"} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		documents = append(documents, found...)
	}
	configurations := 0
	for _, document := range documents {
		if filepath.Base(document) == "OPENTELEMETRY.md" {
			continue // for a stock Telegraf: test/e2e runs it
		}
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		for _, block := range regexp.MustCompile("(?s)```toml[^\n]*\n(.*?)```").FindAllSubmatch(text, -1) {
			configurations++
			require.NoError(t, config.NewConfig().LoadConfigData(block[1], document), "%s:\n%s", document, block[1])
		}
	}
	require.Greater(t, configurations, 8)
}

// A plugin that is named twice is printed once, and no line ends in a blank.
func TestSampleIsTidy(t *testing.T) {
	t.Parallel()
	twice := execute(t, "config", "--section-filter", "inputs", "--input-filter", "mem:mem").succeeds().stdout
	require.Equal(t, 1, strings.Count(twice, "[[inputs.mem]]"), twice)
	for line := range strings.Lines(execute(t, "config", "--section-filter", "outputs").succeeds().stdout) {
		if strings.HasPrefix(line, "#") {
			require.NotRegexp(t, `[ ]\n$`, line)
		}
	}
}

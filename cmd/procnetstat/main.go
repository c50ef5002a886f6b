// Command procnetstat runs the procnetstat input plugin outside of Telegraf: it is the program that Telegraf's
// inputs.execd starts. Metrics go to standard output as InfluxDB line protocol, messages to standard error as
// "E! …", "W! …", "I! …" or "D! …", which execd logs at that level.
//
// It gathers every -poll_interval, at every line of standard input, and at SIGHUP, SIGUSR1 and SIGUSR2, which are all
// the ways in which execd asks. Requests that come in while a gather runs are answered together by the next one. At the
// end of standard input, at SIGINT and at SIGTERM it finishes the gather that runs, and exits with code 0.
//
// Exit code 1 is a wrong configuration, a start that failed, or output that could not be written; 2 is a wrong command
// line.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/plugins/common/shim"

	_ "github.com/procnetstat/procnetstat/plugins/inputs/procnetstat"
)

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3-0-g0123abc".
var version string

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if err := setUpLogging(os.Stderr); err != nil {
		logError(os.Stderr, fmt.Errorf("setting up the log: %w", err))
		return exitFailed
	}

	opts, err := parseFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return show(usage())
	case err != nil:
		logError(os.Stderr, fmt.Errorf("%w (procnetstat -help lists the flags)", err))
		return exitUsage
	case opts.showVersion:
		return show("procnetstat " + buildVersion() + "\n")
	case opts.showSampleConfig:
		return show(newInput().SampleConfig())
	}

	if err := serve(opts); err != nil {
		logError(os.Stderr, err)
		return exitFailed
	}
	return exitOK
}

// serve gathers until it is told to end.
func serve(opts *options) error {
	// Before anything slow: a signal that nobody has asked for kills the process.
	signals := watchSignals(opts.once)

	if err := raiseCapabilities(); err != nil {
		printMessage(os.Stderr, telegraf.Warn, err.Error())
	}
	input, err := loadInput(opts.configFile)
	if err != nil {
		return err
	}

	stdin := os.Stdin
	prompts, err := newPrompts()
	if err != nil {
		return fmt.Errorf("making a pipe for prompts: %w", err)
	}
	os.Stdin = prompts.reader // shim.New takes what it finds there

	s := shim.New()
	guarded := &guardedInput{Input: input, log: s.Log(), gathering: prompts.answered}
	if err := s.AddInput(guarded); err != nil {
		return err
	}

	if opts.once {
		prompts.ask()
		go prompts.forward(nil, signals)
	} else {
		go prompts.forward(lines(stdin), signals)
	}

	if err := s.Run(opts.shimInterval()); err != nil {
		return err
	}
	if !guarded.stopped.Load() {
		// The shim itself only warns of this, and would have us exit with code 0.
		return errors.New("stopped because a metric could not be written")
	}
	if opts.once && guarded.failed.Load() {
		return errors.New("not everything was gathered")
	}
	return nil
}

type options struct {
	configFile       string
	pollInterval     pollInterval
	pollingDisabled  bool
	once             bool
	showSampleConfig bool
	showVersion      bool
}

// shimInterval is the interval in the form that the shim takes.
func (o *options) shimInterval() time.Duration {
	if o.once || o.pollingDisabled {
		return shim.PollIntervalDisabled
	}
	return time.Duration(o.pollInterval)
}

func parseFlags(args []string) (*options, error) {
	opts := &options{}
	flags := newFlags(opts)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return opts, nil
}

func newFlags(opts *options) *flag.FlagSet {
	flags := flag.NewFlagSet("procnetstat", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // it would print several lines, and not in the form that execd reads

	flags.Func("config", "read the [[inputs.procnetstat]] table from this `file`; without it, all options have their defaults",
		func(s string) error {
			if s == "" {
				return errors.New("a file name is needed")
			}
			opts.configFile = s
			return nil
		})
	opts.pollInterval = pollInterval(10 * time.Second)
	flags.Var(&opts.pollInterval, "poll_interval", "gather each time this `duration` has passed")
	flags.BoolVar(&opts.pollingDisabled, "poll_interval_disabled", false, "gather only when a line of standard input or a "+
		"signal asks for it; wanted with signal = \"STDIN\", \"SIGHUP\", \"SIGUSR1\" or \"SIGUSR2\" in the [[inputs.execd]] table")
	flags.BoolVar(&opts.once, "once", false, "gather once, print that, and exit")
	flags.BoolVar(&opts.showSampleConfig, "sample-config", false, "print a configuration with all options, and exit")
	flags.BoolVar(&opts.showVersion, "version", false, "print the version, and exit")
	return flags
}

// pollInterval is a flag. A plain duration flag would take 0, which the shim understands as never.
type pollInterval time.Duration

func (p *pollInterval) String() string {
	return time.Duration(*p).String()
}

func (p *pollInterval) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New("a positive duration with its unit is needed, such as 10s or 500ms; " +
			"-poll_interval_disabled turns polling off")
	}
	*p = pollInterval(d)
	return nil
}

func usage() string {
	var b strings.Builder
	b.WriteString("Usage: procnetstat [flags]\n\n" +
		"Gathers what processes, listeners and peers the sockets of this host belong to, and prints it as\n" +
		"InfluxDB line protocol. Made to be run by Telegraf's inputs.execd.\n\n" +
		"Flags:\n")
	flags := newFlags(&options{})
	flags.SetOutput(&b)
	flags.PrintDefaults()
	return b.String()
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func show(text string) int {
	if _, err := io.WriteString(os.Stdout, text); err != nil {
		logError(os.Stderr, err)
		return exitFailed
	}
	return exitOK
}

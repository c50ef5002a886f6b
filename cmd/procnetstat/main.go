// Command procnetstat runs the procnetstat input plugin outside of Telegraf, as the program of Telegraf's inputs.execd.
// Metrics go to standard output as InfluxDB line protocol. Messages go to standard error as "E! …", "W! …", "I! …" or
// "D! …", which execd logs at that level.
//
// It gathers every -poll_interval, for every line of standard input, and for SIGHUP, SIGUSR1 and SIGUSR2, which are the
// prompts that execd can send. Prompts that arrive during a gather are answered by one further gather. At the end of
// standard input, on SIGINT and on SIGTERM it finishes the current gather and exits with code 0.
//
// Exit code 1 means an invalid configuration, a failed start, or output that cannot be written; 2 means an invalid command
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
		return printText(usage())
	case err != nil:
		logError(os.Stderr, fmt.Errorf("%w (procnetstat -help lists the flags)", err))
		return exitUsage
	case opts.showVersion:
		return printText("procnetstat " + buildVersion() + "\n")
	case opts.showSampleConfig:
		return printText(newInput().SampleConfig())
	}

	if err := serve(opts); err != nil {
		logError(os.Stderr, err)
		return exitFailed
	}
	return exitOK
}

// serve gathers until standard input ends or a signal stops it.
func serve(opts *options) error {
	// First, before anything slow: until then SIGHUP, SIGUSR1 and SIGUSR2 kill the process.
	signals := watchSignals(opts.once)

	if err := raiseCapabilities(); err != nil {
		printMessage(os.Stderr, telegraf.Warn, "Cannot raise the permitted capabilities: "+err.Error())
	}
	input, err := loadInput(opts.configFile)
	if err != nil {
		return err
	}

	stdin := os.Stdin
	prompts, err := newPrompts()
	if err != nil {
		return fmt.Errorf("creating a pipe for prompts: %w", err)
	}
	os.Stdin = prompts.reader // for shim.New, which reads os.Stdin

	s := shim.New()
	guarded := &guardedInput{Input: input, log: s.Log(), onGather: prompts.gatherStarted}
	if err := s.AddInput(guarded); err != nil {
		return err
	}

	if opts.once {
		prompts.prompt()
		go prompts.forward(nil, signals, nil)
	} else {
		var overdue <-chan time.Time
		if opts.pollingDisabled {
			overdue = time.After(promptLimit)
		}
		go prompts.forward(lines(stdin), signals, overdue)
	}

	if err := s.Run(opts.shimInterval()); err != nil {
		return err
	}
	if !guarded.stopped.Load() {
		// The shim logs only a warning, and returns nil.
		return errors.New("stopped because a metric could not be written")
	}
	if opts.once && guarded.failed.Load() {
		return errors.New("gather failed")
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

// shimInterval returns the poll interval for the shim.
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
	flags.SetOutput(io.Discard) // its messages have several lines, and execd cannot parse them

	flags.Func("config", "read the [[inputs.procnetstat]] table from this `file`; without it, all options have their defaults",
		func(s string) error {
			if s == "" {
				return errors.New("must be a file name")
			}
			opts.configFile = s
			return nil
		})
	opts.pollInterval = pollInterval(10 * time.Second)
	flags.Var(&opts.pollInterval, "poll_interval", "gather at intervals of this `duration`")
	flags.BoolVar(&opts.pollingDisabled, "poll_interval_disabled", false, "gather only for a line of standard input or a "+
		"signal; use with signal = \"STDIN\", \"SIGHUP\", \"SIGUSR1\" or \"SIGUSR2\" in the [[inputs.execd]] table")
	flags.BoolVar(&opts.once, "once", false, "gather once, print the metrics, and exit")
	flags.BoolVar(&opts.showSampleConfig, "sample-config", false, "print a configuration with all options, and exit")
	flags.BoolVar(&opts.showVersion, "version", false, "print the version, and exit")
	return flags
}

// pollInterval is a flag of a positive duration. The shim would treat 0 as polling disabled.
type pollInterval time.Duration

func (p *pollInterval) String() string {
	return time.Duration(*p).String()
}

func (p *pollInterval) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return errors.New("must be a positive duration with a unit, such as 10s or 500ms; " +
			"-poll_interval_disabled disables polling")
	}
	*p = pollInterval(d)
	return nil
}

func usage() string {
	var b strings.Builder
	b.WriteString("Usage: procnetstat [flags]\n\n" +
		"Attributes the sockets of this host to processes, listeners, services, containers and peers, and prints\n" +
		"metrics as InfluxDB line protocol. Run by Telegraf's inputs.execd.\n\n" +
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

func printText(text string) int {
	if _, err := io.WriteString(os.Stdout, text); err != nil {
		logError(os.Stderr, err)
		return exitFailed
	}
	return exitOK
}

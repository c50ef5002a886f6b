// Telegraf with the procnetstat input built in. Flags, commands and configuration are Telegraf's own.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/awnumar/memguard"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/logger"
	"github.com/urfave/cli/v2"
)

func main() {
	os.Exit(run(os.Args, os.Stdout))
}

func run(args []string, stdout io.Writer) (exitCode int) {
	// Tokens and passwords of outputs are kept in guarded memory.
	defer memguard.Purge()
	defer logger.CloseLogging() //nolint:errcheck // there is nowhere left to say it

	if err := newApp(stdout).Run(args); err != nil {
		log.Printf("E! %v", err)
		return 1
	}
	return 0
}

func newApp(stdout io.Writer) *cli.App {
	return &cli.App{
		Name:         "telegraf",
		Usage:        "collect, process and send metrics; with the procnetstat input built in",
		Description:  "Commands and flags are Telegraf's own. Those of Telegraf that are not listed here are refused.",
		Writer:       stdout,
		Flags:        append(agentFlags(), filterFlags()...),
		Action:       func(ctx *cli.Context) error { return runDefault(ctx, stdout) },
		Commands:     []*cli.Command{configCommand(stdout), pluginsCommand(stdout), versionCommand(stdout)},
		OnUsageError: usageError,
	}
}

func agentFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "config", Usage: "`FILE`, directory or URL to load; may be repeated"},
		&cli.StringSliceFlag{Name: "config-directory", Usage: "`DIRECTORY` with further *.conf files; may be repeated"},
		&cli.BoolFlag{Name: "test", Usage: "gather once, print the metrics instead of sending them, and exit"},
		&cli.IntFlag{Name: "test-wait", Usage: "test, and wait `SECONDS` for service inputs to complete"},
		&cli.BoolFlag{Name: "once", Usage: "gather once, send the metrics, and exit"},
		&cli.BoolFlag{Name: "debug", Usage: "log at debug level"},
		&cli.BoolFlag{Name: "quiet", Usage: "log only errors"},
		&cli.BoolFlag{Name: "strict-env-handling", Usage: "replace environment variables in strings only, as without this flag"},
		&cli.BoolFlag{Name: "non-strict-env-handling", Usage: "replace environment variables in the whole text of the configuration"},
		&cli.StringFlag{Name: "pidfile", Usage: "`FILE` to write the process id to"},
		&cli.BoolFlag{Name: "version", Usage: "print the version and exit"},
	}
}

func filterFlags() []cli.Flag {
	names := func(kind string) string { return kind + " to use, as `NAME[:NAME…]`" }
	return []cli.Flag{
		&cli.StringFlag{Name: "input-filter", Usage: names("inputs")},
		&cli.StringFlag{Name: "output-filter", Usage: names("outputs")},
		&cli.StringFlag{Name: "processor-filter", Usage: names("processors") + " (config command)"},
		&cli.StringFlag{Name: "aggregator-filter", Usage: names("aggregators") + " (config command)"},
		&cli.StringFlag{Name: "section-filter", Usage: names("sections") + " (config command)"},
	}
}

// filter gives the names in a filter flag. Telegraf takes these flags before a command as well as after it.
func filter(ctx *cli.Context, flag string) []string {
	var names []string
	for _, level := range ctx.Lineage() {
		names = append(names, strings.FieldsFunc(level.String(flag), func(r rune) bool { return r == ':' })...)
	}
	return names
}

func runDefault(ctx *cli.Context, stdout io.Writer) error {
	if ctx.NArg() > 0 {
		return unsupportedCommand(ctx, ctx.Args().First())
	}
	if ctx.Bool("version") {
		return printVersion(stdout)
	}
	if ctx.Bool("strict-env-handling") && ctx.Bool("non-strict-env-handling") {
		return errors.New("--strict-env-handling and --non-strict-env-handling exclude each other")
	}
	config.NonStrictEnvVarHandling = ctx.Bool("non-strict-env-handling")
	s := service{
		configs:           ctx.StringSlice("config"),
		configDirectories: ctx.StringSlice("config-directory"),
		inputs:            filter(ctx, "input-filter"),
		outputs:           filter(ctx, "output-filter"),
		test:              ctx.Bool("test") || ctx.Int("test-wait") != 0,
		once:              ctx.Bool("once"),
		wait:              seconds(ctx.Int("test-wait")),
		debug:             ctx.Bool("debug"),
		quiet:             ctx.Bool("quiet"),
		pidFile:           ctx.String("pidfile"),
	}
	return s.serve()
}

func configCommand(stdout io.Writer) *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "print a sample configuration of what is built in",
		Flags: filterFlags(),
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() > 0 {
				return unsupportedCommand(ctx, "config "+ctx.Args().First())
			}
			return printSample(stdout, filter(ctx, "section-filter"), map[string][]string{
				"inputs":      filter(ctx, "input-filter"),
				"outputs":     filter(ctx, "output-filter"),
				"processors":  filter(ctx, "processor-filter"),
				"aggregators": filter(ctx, "aggregator-filter"),
			})
		},
		OnUsageError: usageError,
	}
}

func pluginsCommand(stdout io.Writer) *cli.Command {
	return &cli.Command{
		Name:         "plugins",
		Usage:        "list the plugins that are built in",
		ArgsUsage:    "[" + strings.Join(kindNames(), "|") + "]",
		Action:       func(ctx *cli.Context) error { return printPlugins(stdout, ctx.Args().Slice()) },
		OnUsageError: usageError,
	}
}

func versionCommand(stdout io.Writer) *cli.Command {
	return &cli.Command{
		Name:         "version",
		Usage:        "print the version",
		Action:       func(*cli.Context) error { return printVersion(stdout) },
		OnUsageError: usageError,
	}
}

// usageError leaves the message to run, without the page of help that the cli package would print to stdout.
func usageError(ctx *cli.Context, err error, isSubcommand bool) error {
	// The flag package has no error value for this.
	flag, undefined := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !undefined {
		return fmt.Errorf("%w; see --help", err)
	}
	var supported []string
	for _, f := range ctx.Command.VisibleFlags() {
		supported = append(supported, "--"+f.Names()[0])
	}
	command := ""
	if isSubcommand {
		command = ctx.Command.Name + ": "
	}
	return fmt.Errorf("%sflag --%s is not supported; supported: %s", command, flag, strings.Join(supported, ", "))
}

func unsupportedCommand(ctx *cli.Context, name string) error {
	var supported []string
	for _, c := range ctx.App.VisibleCommands() {
		supported = append(supported, c.Name)
	}
	return fmt.Errorf("command %q is not supported; supported: %s", name, strings.Join(supported, ", "))
}

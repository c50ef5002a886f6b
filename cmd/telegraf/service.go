package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/influxdata/telegraf/agent"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/logger"
	"github.com/influxdata/telegraf/plugins/aggregators"
	"github.com/influxdata/telegraf/plugins/inputs"
	"github.com/influxdata/telegraf/plugins/outputs"
	"github.com/influxdata/telegraf/plugins/parsers"
	"github.com/influxdata/telegraf/plugins/processors"
	"github.com/influxdata/telegraf/selfstat"
)

// service runs Telegraf's agent as the flags say.
type service struct {
	configs           []string // files, directories and URLs
	configDirectories []string
	inputs            []string // names of the only ones to use; empty for all
	outputs           []string
	test              bool
	once              bool
	wait              time.Duration // for service inputs, in test and once
	debug             bool
	quiet             bool
	pidFile           string

	logfile string // as configured; empty for stderr
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// serve runs the agent until it ends or is told to, and with the configuration read anew after each SIGHUP.
func (s *service) serve() (err error) {
	defer func() {
		// Whoever started the program looks at stderr, wherever the log goes.
		if err != nil && s.logfile != "" {
			fmt.Fprintf(os.Stderr, "E! %v\n", err)
		}
	}()

	cfg, err := s.load()
	if err != nil {
		return err
	}
	if s.pidFile != "" && !s.test && !s.once {
		defer writePIDFile(s.pidFile)()
	}

	// Two channels, so that a SIGTERM is never lost behind a SIGHUP that nobody has looked at yet.
	hangup, terminate := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	signal.Notify(terminate, syscall.SIGTERM, os.Interrupt)
	for {
		reload, err := s.runUntilSignal(cfg, hangup, terminate)
		if err != nil || !reload {
			return err
		}
		log.Print("I! Reloading Telegraf config")
		if cfg, err = s.load(); err != nil {
			return err
		}
	}
}

func (s *service) load() (*config.Config, error) {
	paths, err := s.configPaths()
	if err != nil {
		return nil, err
	}
	cfg := config.NewConfig()
	cfg.Agent.Quiet = s.quiet
	cfg.TestMode = s.test && !s.once // opens no buffer on disk, which a running Telegraf may use
	cfg.InputFilters = s.inputs
	cfg.OutputFilters = s.outputs
	if err := cfg.LoadAll(paths...); err != nil {
		return nil, err
	}
	return cfg, s.check(cfg)
}

// configPaths gives the files and URLs to load: those of the flags, or else those of Telegraf's default places.
func (s *service) configPaths() ([]string, error) {
	if len(s.configs) == 0 && len(s.configDirectories) == 0 {
		return config.GetDefaultConfigPath()
	}
	var paths []string
	for _, path := range s.configs {
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			paths = append(paths, path) // a file, a URL, or for LoadAll to say what is wrong with it
			continue
		}
		files, err := config.WalkDirectory(path)
		if err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
		paths = append(paths, files...)
	}
	for _, directory := range s.configDirectories {
		files, err := config.WalkDirectory(directory)
		if err != nil {
			return nil, fmt.Errorf("--config-directory: %w", err)
		}
		paths = append(paths, files...)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no *.conf file in %s", strings.Join(append(s.configs, s.configDirectories...), ", "))
	}
	return paths, nil
}

// check finds what the agent itself does not look at.
func (s *service) check(cfg *config.Config) error {
	switch {
	case len(cfg.Inputs) == 0:
		return errors.New("no inputs found: the configuration, or what --input-filter leaves of it, has none")
	case len(cfg.Outputs) == 0 && (s.once || !s.test):
		return errors.New("no outputs found: the configuration, or what --output-filter leaves of it, has none")
	case cfg.Agent.Interval <= 0:
		return fmt.Errorf("[agent] interval must be positive, not %v", time.Duration(cfg.Agent.Interval))
	case cfg.Agent.FlushInterval <= 0:
		return fmt.Errorf("[agent] flush_interval must be positive, not %v", time.Duration(cfg.Agent.FlushInterval))
	}
	return nil
}

// runUntilSignal runs the agent until it ends by itself, or until a signal stops it, which lets it flush first. It
// tells whether the agent is to run again.
func (s *service) runUntilSignal(cfg *config.Config, hangup, terminate <-chan os.Signal) (reload bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.runAgent(ctx, cfg) }()

	for {
		select {
		case <-hangup:
			reload = true
			cancel()
		case <-terminate:
			reload = false
			hangup = nil // what has been told to stop is not to come back
			cancel()
		case err := <-ended:
			if errors.Is(err, context.Canceled) {
				err = nil
			}
			return reload, err
		}
	}
}

func (s *service) runAgent(ctx context.Context, cfg *config.Config) error {
	if err := s.setUpLogging(cfg.Agent); err != nil {
		return err
	}
	s.logStart(cfg)

	a := agent.NewAgent(cfg)
	switch {
	case s.once:
		return failedGathers(a.Once(ctx, s.wait))
	case s.test:
		return failedGathers(a.Test(ctx, s.wait))
	}
	// Without systemd there is nobody to tell, and that is no error.
	daemon.SdNotify(false, daemon.SdNotifyReady) //nolint:errcheck // the service works without
	return a.Run(ctx)
}

// failedGathers makes an error of those that inputs logged, if there is no other. The agent itself counts only what its RunningInput
// returns, and its Once and Test call the inputs without that (Telegraf 1.39, agent/agent.go).
func failedGathers(err error) error {
	if err != nil {
		return err
	}
	var failed int64
	for _, m := range selfstat.Metrics() {
		if m.Name() == "internal_gather" {
			value, _ := m.GetField("errors")
			logged, _ := value.(int64)
			failed += logged
		}
	}
	if failed > 0 {
		return fmt.Errorf("input plugins recorded %d errors", failed)
	}
	return nil
}

func (s *service) setUpLogging(settings *config.AgentConfig) error {
	logConfig := &logger.Config{
		Debug:                   settings.Debug || s.debug,
		Quiet:                   settings.Quiet || s.quiet,
		LogTarget:               settings.LogTarget,
		LogFormat:               settings.LogFormat,
		Logfile:                 settings.Logfile,
		StructuredLogMessageKey: settings.StructuredLogMessageKey,
		RotationInterval:        time.Duration(settings.LogfileRotationInterval),
		RotationMaxSize:         int64(settings.LogfileRotationMaxSize),
		RotationMaxArchives:     settings.LogfileRotationMaxArchives,
		LogWithTimezone:         settings.LogWithTimezone,
	}
	if err := logger.SetupLogging(logConfig); err != nil {
		return fmt.Errorf("setting up the log: %w", err)
	}
	s.logfile = logConfig.Logfile
	return nil
}

func (s *service) logStart(cfg *config.Config) {
	log.Printf("I! Starting %s", fullVersion())
	log.Printf("I! Available plugins: %d inputs, %d aggregators, %d processors, %d parsers, %d outputs",
		len(inputs.Inputs), len(aggregators.Aggregators), len(processors.Processors), len(parsers.Parsers),
		len(outputs.Outputs))
	log.Printf("I! Loaded inputs: %s", strings.Join(cfg.InputNames(), " "))
	log.Printf("I! Loaded aggregators: %s", strings.Join(cfg.AggregatorNames(), " "))
	log.Printf("I! Loaded processors: %s", strings.Join(cfg.ProcessorNames(), " "))
	if s.test && !s.once {
		log.Print("W! Outputs are not used in testing mode!")
	} else {
		log.Printf("I! Loaded outputs: %s", strings.Join(cfg.OutputNames(), " "))
	}
	log.Printf("I! Tags enabled: %s", cfg.ListTags())
}

// writePIDFile writes the process id, and returns what removes the file again. A file that cannot be written is no
// reason not to run.
func writePIDFile(path string) (remove func()) {
	pid := fmt.Appendln(nil, os.Getpid())
	if err := os.WriteFile(path, pid, 0o640); err != nil { //nolint:gosec // the group may read it, as with Telegraf
		log.Printf("E! Unable to create pidfile: %v", err)
		return func() {}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			log.Printf("E! Unable to remove pidfile: %v", err)
		}
	}
}

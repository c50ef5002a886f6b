package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	exitOK     = 0
	exitMissed = 1 // a target
	exitFailed = 2
)

// roleEnv is the environment variable with the role of a child process.
const roleEnv = "BENCH_ROLE"

const (
	roleLoad    = "load"
	roleSubject = "subject"
)

func main() { os.Exit(start(os.Args[1:])) }

func start(args []string) int {
	var err error
	switch role := os.Getenv(roleEnv); role {
	case "":
		var code int
		if code, err = run(args); err == nil {
			return code
		}
	case roleLoad:
		err = serveLoad(os.Stdin, os.Stdout)
	case roleSubject:
		err = serveSubject(os.Stdin, os.Stdout)
	default:
		err = fmt.Errorf("%s=%q: unknown role", roleEnv, role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return exitFailed
	}
	return exitOK
}

// run is the main function without a role: it measures, and returns the exit code.
func run(args []string) (int, error) {
	// The children exit with the thread that started them (PR_SET_PDEATHSIG, see prctl(2)). This goroutine therefore stays on
	// the main thread, which lives as long as the program.
	runtime.LockOSThread()
	opts, err := parseFlags(args, openFileLimit())
	if errors.Is(err, flag.ErrHelp) {
		_, err = io.WriteString(os.Stdout, usage())
		return exitOK, err
	}
	if err == nil {
		err = opts.checkFiles()
	}
	if err != nil {
		return exitFailed, fmt.Errorf("%w (bench -help lists the flags)", err)
	}
	if err := enterNamespace(); err != nil {
		return exitFailed, err
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	rep, err := measure(ctx, opts)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		return exitFailed, err
	}
	return rep.exitCode(), write(rep, opts)
}

// openFileLimit returns how many files a process may open. That is the hard limit: the Go runtime raises the soft limit to it.
func openFileLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Max, maxFiles))
}

// checkFiles checks the directories of the output files before the measurement, which takes long.
func (o *options) checkFiles() error {
	for _, file := range []string{o.json, o.chart, o.text} {
		if file == "" {
			continue
		}
		if info, err := os.Stat(filepath.Dir(file)); err != nil { //nolint:gosec // the user chooses the file
			return err
		} else if !info.IsDir() {
			return fmt.Errorf("%s is not in a directory", file)
		}
	}
	return nil
}

func (r *report) exitCode() int {
	switch {
	case r.failed():
		return exitFailed
	case r.missed():
		return exitMissed
	}
	return exitOK
}

// write writes the report to standard output and to the files of the options.
func write(r *report, opts *options) error {
	text := r.text()
	_, err := io.WriteString(os.Stdout, text)
	errs := []error{err}
	if opts.text != "" {
		errs = append(errs, os.WriteFile(opts.text, []byte(text), 0o644)) //nolint:gosec // world-readable on purpose
	}
	if opts.json != "" {
		encoded, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = os.WriteFile(opts.json, append(encoded, '\n'), 0o644) //nolint:gosec // world-readable on purpose
		}
		errs = append(errs, err)
	}
	if opts.chart != "" {
		errs = append(errs, writeChart(r, opts.chart))
	}
	return errors.Join(errs...)
}

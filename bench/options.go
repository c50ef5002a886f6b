package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"
)

const (
	// fewSockets is the small load of the allocation measurement.
	fewSockets = 1200
	// maxProcesses leaves each pair a connection when there are fewSockets sockets.
	maxProcesses = fewSockets
	// maxFiles bounds the open files of a process: the connections of a pair share one range of local ports.
	maxFiles = 20000
	// reservedFiles are the open files of a process that are no connections.
	reservedFiles = 20
)

// options are the flags of the command line.
type options struct {
	Sockets   int  `json:"sockets"`
	Processes int  `json:"processes"`
	Runs      int  `json:"runs"`
	Peers     bool `json:"peers"`

	execd, json, chart, text string
	only                     *regexp.Regexp // nil selects all rows
}

// parseFlags parses the command line. A process may have openFiles files open, which bounds the load.
func parseFlags(args []string, openFiles int) (*options, error) {
	opts := &options{}
	flags := newFlags(opts)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return opts, opts.check(min(openFiles, maxFiles) - reservedFiles)
}

func newFlags(opts *options) *flag.FlagSet {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints errors and usage
	flags.IntVar(&opts.Sockets, "sockets", defaultSockets, "`number` of TCP sockets to open: two per connection")
	flags.IntVar(&opts.Processes, "processes", 50, "`number` of processes that hold the sockets: half servers, half clients")
	flags.IntVar(&opts.Runs, "runs", 5, "`number` of measured gathers per subject, after one warm-up gather")
	flags.BoolVar(&opts.Peers, "peers", true, "measure other programs and libraries too, which is slow")
	flags.StringVar(&opts.execd, "execd", "", "the built procnetstat `program`; without it, its row is not measured")
	flags.StringVar(&opts.json, "json", "", "write all results, gather by gather, to this `file`")
	flags.StringVar(&opts.chart, "chart", "", "draw a chart of the CPU times to this SVG `file`")
	flags.StringVar(&opts.text, "text", "", "write the report to this `file` too")
	flags.Func("only", "measure only the rows whose name matches this `regexp`", func(s string) (err error) {
		opts.only, err = regexp.Compile(s)
		return err
	})
	return flags
}

func usage() string {
	var b strings.Builder
	b.WriteString("Usage: bench [flags]\n\n" +
		"Measures the cost of reading the socket tables of a host with many connections.\n\nFlags:\n")
	flags := newFlags(&options{})
	flags.SetOutput(&b)
	flags.PrintDefaults()
	return b.String()
}

// check validates the numbers. A process can hold at most maxPerProcess connections.
func (o *options) check(maxPerProcess int) error {
	switch {
	case maxPerProcess < 1:
		return errors.New("the limit of open files is too low to hold a connection; raise ulimit -n")
	case o.Processes < 2 || o.Processes > maxProcesses || o.Processes%2 != 0:
		return fmt.Errorf("-processes %d: must be an even number from 2 to %d (half servers, half clients)",
			o.Processes, maxProcesses)
	case o.Sockets < o.Processes || o.Sockets%2 != 0:
		return fmt.Errorf("-sockets %d: must be an even number (two per connection), and at least %d (one per process)",
			o.Sockets, o.Processes)
	case o.Runs < 1:
		return fmt.Errorf("-runs %d: must be at least 1", o.Runs)
	}
	perProcess, minProcesses := connectionsOfPair(o.Sockets/2, o.Processes/2, 0), 2*((o.Sockets/2+maxPerProcess-1)/maxPerProcess)
	switch {
	case perProcess <= maxPerProcess:
		return nil
	case minProcesses > maxProcesses:
		return fmt.Errorf("-sockets %d: at most %d (%d processes) are possible", o.Sockets, maxProcesses*maxPerProcess, maxProcesses)
	default:
		return fmt.Errorf("-sockets %d -processes %d: %d sockets per process exceed the limit of %d; "+
			"use -processes %d or more", o.Sockets, o.Processes, perProcess, maxPerProcess, minProcesses)
	}
}

// connectionsOfPair returns how many of all connections belong to a pair.
func connectionsOfPair(total, pairs, pair int) int {
	connections := total / pairs
	if pair < total%pairs {
		connections++
	}
	return connections
}

// selects reports whether a row is to be measured.
func (o *options) selects(name string, g group) bool {
	return (o.Peers || g != groupPeers) && (o.only == nil || o.only.MatchString(name))
}

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
	// fewSockets is the load that allocations are compared with.
	fewSockets = 1200
	// maxProcesses leaves each pair a connection in that.
	maxProcesses = fewSockets
	// maxFiles bounds the files of a process, as there are not many more ports for the connections between a pair.
	maxFiles = 20000
	// spareFiles are those that are no connections.
	spareFiles = 20
)

// options are the command line.
type options struct {
	Sockets   int  `json:"sockets"`
	Processes int  `json:"processes"`
	Runs      int  `json:"runs"`
	Peers     bool `json:"peers"`

	execd, json, chart, text string
	only                     *regexp.Regexp // nil: all
}

// parseFlags reads the command line, of which a load is asked where a process may have so many files open.
func parseFlags(args []string, openFiles int) (*options, error) {
	opts := &options{}
	flags := newFlags(opts)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return opts, opts.check(min(openFiles, maxFiles) - spareFiles)
}

func newFlags(opts *options) *flag.FlagSet {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error
	flags.IntVar(&opts.Sockets, "sockets", usualSockets, "`number` of TCP sockets to make: two for each connection")
	flags.IntVar(&opts.Processes, "processes", 50, "`number` of processes that hold them: half servers, half clients")
	flags.IntVar(&opts.Runs, "runs", 5, "`number` of gathers of each subject that count; one goes before them")
	flags.BoolVar(&opts.Peers, "peers", true, "measure what there is beside procnetstat too, which is slow")
	flags.StringVar(&opts.execd, "execd", "", "the execd `program`, as built; it has no row without this")
	flags.StringVar(&opts.json, "json", "", "write everything, with each single gather, to this `file`")
	flags.StringVar(&opts.chart, "chart", "", "draw the CPU time of all rows to this SVG `file`")
	flags.StringVar(&opts.text, "text", "", "write what goes to standard output to this `file` too")
	flags.Func("only", "measure only the rows with a name that this `regexp` matches", func(s string) (err error) {
		opts.only, err = regexp.Compile(s)
		return err
	})
	return flags
}

func usage() string {
	var b strings.Builder
	b.WriteString("Usage: bench [flags]\n\n" +
		"Measures what it costs to read the socket tables of a host with many connections.\n\nFlags:\n")
	flags := newFlags(&options{})
	flags.SetOutput(&b)
	flags.PrintDefaults()
	return b.String()
}

// check checks the numbers, for processes that can hold up to so many connections.
func (o *options) check(most int) error {
	switch {
	case most < 1:
		return errors.New("a process may not open enough files to hold a connection; raise ulimit -n")
	case o.Processes < 2 || o.Processes > maxProcesses || o.Processes%2 != 0:
		return fmt.Errorf("-processes %d: an even number from 2 to %d is needed, as half are servers and half clients",
			o.Processes, maxProcesses)
	case o.Sockets < o.Processes || o.Sockets%2 != 0:
		return fmt.Errorf("-sockets %d: an even number from %d on is needed, as a connection has two, and each of the %d "+
			"processes holds one at least", o.Sockets, o.Processes, o.Processes)
	case o.Runs < 1:
		return fmt.Errorf("-runs %d: at least 1 is needed", o.Runs)
	}
	each, enough := share(o.Sockets/2, o.Processes/2, 0), 2*((o.Sockets/2+most-1)/most)
	switch {
	case each <= most:
		return nil
	case enough > maxProcesses:
		return fmt.Errorf("-sockets %d: the %d processes that there can be hold %d at most", o.Sockets, maxProcesses, maxProcesses*most)
	default:
		return fmt.Errorf("-sockets %d -processes %d: that is %d sockets a process, which can hold %d at most; "+
			"it takes -processes %d or more", o.Sockets, o.Processes, each, most, enough)
	}
}

// share returns how many of all connections are those of the pair.
func share(all, pairs, pair int) int {
	n := all / pairs
	if pair < all%pairs {
		n++
	}
	return n
}

// wants tells whether a row is to be measured.
func (o *options) wants(name string, of group) bool {
	return (o.Peers || of != groupPeers) && (o.only == nil || o.only.MatchString(name))
}

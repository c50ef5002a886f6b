package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// results are those of the tests with one kernel.
type results struct {
	packages int // whose tests ended
	passed   []string
	failed   []string // tests, and packages of which no test is known to have failed
	failures []string // what failed, with its output
	skipped  []string // with the reasons
}

// readResults reads what the guest wrote to its second serial port.
func readResults(ctx context.Context, path string) (*results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &results{}
	for _, section := range strings.Split("\n"+string(text), "\n"+beginMark)[1:] {
		name, rest, _ := strings.Cut(section, "\n")
		output, status, ended := strings.Cut(rest, "\n"+endMark)
		status = strings.TrimSpace(status)
		events, err := test2json(ctx, output)
		if err != nil {
			return nil, err
		}
		before := len(r.failures)
		r.add(events)
		if ended {
			r.packages++
		}
		var how string
		switch {
		case !ended:
			how = "did not end"
		case status != "0" && len(r.failures) == before:
			how = "ended with status " + status
		default:
			continue
		}
		r.failed = append(r.failed, name)
		r.failures = append(r.failures, fmt.Sprintf("%s\n--- the tests of %s %s", lastLines(output, 40), name, how))
	}
	return r, nil
}

// An event is what test2json makes of a line.
type event struct {
	Action, Test, Output string
}

func test2json(ctx context.Context, output string) (events []event, err error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json")
	cmd.Stdin, cmd.Stderr = strings.NewReader(output), os.Stderr
	converted, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("test2json: %w", err)
	}
	for decoder := json.NewDecoder(bytes.NewReader(converted)); ; {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			return events, nil
		} else if err != nil {
			return nil, fmt.Errorf("decoding what test2json prints: %w", err)
		}
		events = append(events, e)
	}
}

// skip matches the line of a skipped test, also in the output of a test that runs again in another process.
var skip = regexp.MustCompile(`--- SKIP: (\S+)`)

// add counts tests, but not the parts that they run by themselves.
func (r *results) add(events []event) {
	output := make(map[string]string) // by test
	before := make(map[string]string) // the line before, by test: of a skip the reason
	isSkipped := make(map[string]bool)
	for _, e := range events {
		test, _, isPart := strings.Cut(e.Test, "/")
		output[test] += e.Output
		if found := skip.FindStringSubmatch(e.Output); found != nil && !isSkipped[found[1]] {
			isSkipped[found[1]] = true
			r.skipped = append(r.skipped, found[1]+": "+before[test])
		}
		if e.Output != "" {
			before[test] = strings.TrimSpace(e.Output)
		}
		switch {
		case isPart, test == "":
		case e.Action == "pass":
			r.passed = append(r.passed, test)
		case e.Action == "fail":
			r.failed = append(r.failed, test)
			r.failures = append(r.failures, output[test])
		}
	}
}

func (r *results) print(w io.Writer) {
	for _, failure := range r.failures {
		fmt.Fprintln(w, failure)
	}
	for _, s := range r.skipped {
		fmt.Fprintln(w, "--- skipped:", s)
	}
}

// err says why the kernel does not pass; the tests of so many packages were to run. A test that is skipped is an error: the guest
// has all that tests need, and those that do not run there are excluded.
func (r *results) err(packages int) (err error) {
	if len(r.failures) > 0 {
		err = fmt.Errorf("%d failures: %s", len(r.failures), strings.Join(r.failed, " "))
	}
	if len(r.skipped) > 0 {
		err = errors.Join(err, fmt.Errorf("%d tests were skipped", len(r.skipped)))
	}
	if r.packages < packages {
		err = errors.Join(err, fmt.Errorf("the tests of %d packages ended, of %d", r.packages, packages))
	}
	if len(r.passed) == 0 {
		err = errors.Join(err, errors.New("no test passed"))
	}
	return err
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(text, "\r", "")), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

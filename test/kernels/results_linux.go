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
	"slices"
	"strings"
	"time"
)

// results are those of the tests with one kernel.
type results struct {
	ended, planned int // packages
	passed, failed []string
	skipped        []string // with the reasons
	failures       []string // what went wrong, with its output
}

// An event is what test2json prints.
type event struct {
	Action, Package, Test, Output string
}

// readResults reads what the guest has written to its second serial port.
func readResults(ctx context.Context, path string, suites []suite) (*results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &results{planned: len(suites)}
	for _, section := range strings.Split("\n"+string(text), "\n"+beginMark)[1:] {
		name, output, _ := strings.Cut(section, "\n")
		output, status, ended := strings.Cut(output, "\n"+endMark)
		events, err := test2json(ctx, name, output)
		if err != nil {
			return nil, err
		}
		r.add(name, events)
		if status = strings.TrimSpace(status); ended {
			r.ended++
		}
		if ended && status != "0" && len(r.failures) == 0 {
			r.failures = append(r.failures, fmt.Sprintf("the tests of %s ended with status %s", name, status))
		}
	}
	return r, nil
}

func test2json(ctx context.Context, name, output string) (events []event, err error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", name)
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
			return nil, fmt.Errorf("test2json: %w", err)
		}
		events = append(events, e)
	}
}

// skip matches the line of a skipped test. That of one in another process is part of the output of the test that started the process.
var skip = regexp.MustCompile(`--- SKIP: (\S+)`)

func (r *results) add(name string, events []event) {
	output := make(map[string]string) // by test that is not part of another
	reason := make(map[string]string) // the line before that of the skip
	seen := make(map[string]bool)
	for _, e := range events {
		test, _, isPart := strings.Cut(e.Test, "/")
		output[test] += e.Output
		if found := skip.FindStringSubmatch(e.Output); found != nil && !seen[found[1]] {
			seen[found[1]] = true
			r.skipped = append(r.skipped, found[1]+": "+reason[test])
		}
		if e.Output != "" {
			reason[test] = strings.TrimSpace(e.Output)
		}
		if isPart || test == "" {
			continue
		}
		switch e.Action {
		case "pass":
			r.passed = append(r.passed, test)
		case "fail":
			r.failed = append(r.failed, test)
			r.failures = append(r.failures, output[test])
		}
	}
	if last := len(events) - 1; last >= 0 && events[last].Action == "fail" && len(r.failures) == 0 {
		r.failures = append(r.failures, output[""])
	}
}

func (r *results) complete() bool { return r.ended == r.planned }

func (r *results) print(w io.Writer, version string, took time.Duration) {
	for _, failure := range r.failures {
		fmt.Fprintf(w, "%s\n", failure)
	}
	for _, s := range r.skipped {
		fmt.Fprintf(w, "--- skipped: %s\n", s)
	}
	fmt.Fprintf(w, "Linux %s: %d packages, %d tests passed, %d failed, %d skipped, %d excluded, in %v\n",
		version, r.ended, len(r.passed), len(r.failed), len(r.skipped), len(excluded), took.Round(time.Second))
}

// err says why the kernel does not pass: a test that fails, or is skipped, or that did not run.
func (r *results) err() (err error) {
	if len(r.failures) > 0 {
		err = fmt.Errorf("%d failures: %s", len(r.failures), strings.Join(r.failed, ", "))
	}
	if len(r.skipped) > 0 {
		err = errors.Join(err, fmt.Errorf("%d tests were skipped that are not excluded", len(r.skipped)))
	}
	if !r.complete() {
		err = errors.Join(err, fmt.Errorf("the guest ran the tests of %d packages of %d", r.ended, r.planned))
	}
	if len(r.passed) == 0 {
		err = errors.Join(err, errors.New("no test passed"))
	}
	return err
}

var _ = slices.Sort[[]string]

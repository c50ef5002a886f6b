package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An exclusion is a test that does not run in the guest, and why.
type exclusion struct {
	test, reason string
	release      string // the test does not run with; empty: with none of them
}

var exclusions = []exclusion{
	{test: "TestNamespaceOfMovingProcess", reason: "it looks for a race within 50 µs, in which an emulated processor gets nowhere"},
	{test: "TestConnectIndexOfManyCPUs", reason: "it reads no kernel, and takes minutes here"},
	{test: "TestSlowHundredThousandDescriptors", reason: "it reads no kernel, and takes minutes here"},
	{test: "TestFullNameOfProgram", reason: "it copies sleep, which here is busybox: that runs no program by another name"},
	{
		test: "TestOwnersIterationRestarts", release: "6.1",
		reason: "an iterator over one process starts anew when it is read after its end, before Linux 6.7 " +
			"(task_group_seq_get_next, kernel/bpf/task_iter.c); that over all, which the library uses, does not",
	},
}

// excludedWith returns the exclusions that apply to a release.
func excludedWith(release string) (excluded []exclusion) {
	for _, e := range exclusions {
		if e.release == "" || e.release == release {
			excluded = append(excluded, e)
		}
	}
	return excluded
}

// skipPattern is for -test.skip.
func skipPattern(excluded []exclusion) string {
	names := []string{""} // no test has no name
	for _, e := range excluded {
		names = append(names, e.test)
	}
	return runPattern(names)
}

// runPattern is for -test.run.
func runPattern(tests []string) string {
	var patterns []string
	for _, test := range tests {
		patterns = append(patterns, "^"+regexp.QuoteMeta(test)+"$")
	}
	return strings.Join(patterns, "|")
}

// checkExclusions fails if a test is excluded that does not exist.
func checkExclusions(tests []string) (err error) {
	for _, e := range exclusions {
		if !slices.Contains(tests, e.test) {
			err = errors.Join(err, fmt.Errorf("test %s is excluded, and no package has it", e.test))
		}
	}
	return err
}

// checkPluginTests fails if one of pluginTests does not exist: the others would run and pass without it.
func checkPluginTests(tests []string) (err error) {
	for _, name := range pluginTests {
		if !slices.Contains(tests, name) {
			err = errors.Join(err, fmt.Errorf("test %s is to run, and the plugin does not have it", name))
		}
	}
	return err
}

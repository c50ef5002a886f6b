package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNewestPackage(t *testing.T) {
	require.Equal(t, "linux-image-6.1.0-57-cloud-amd64", newestPackage("linux-image-6.1.0-9-cloud-amd64 - Linux 6.1\n"+
		"linux-image-6.1.0-57-cloud-amd64 - Linux 6.1\nlinux-image-6.1.0-48-cloud-amd64 - Linux 6.1\n"))
	require.Equal(t, "linux-image-6.12.117+deb12-cloud-amd64", newestPackage(
		"linux-image-6.12.117+deb12-cloud-amd64 - Linux 6.12\nlinux-image-6.12.99+deb12-cloud-amd64 - Linux 6.12\n"))
	require.Empty(t, newestPackage(""))
}

func TestExclusions(t *testing.T) {
	require.False(t, regexp.MustCompile(skipPattern(nil)).MatchString("TestScanner"))
	excluded := []exclusion{{test: "TestScan"}, {test: "TestUDP"}}
	pattern := regexp.MustCompile(skipPattern(excluded))
	for name, want := range map[string]bool{"TestScan": true, "TestUDP": true, "TestScanner": false, "TestTCP": false} {
		require.Equal(t, want, pattern.MatchString(name), name)
	}

	require.Less(t, len(excludedWith("6.12")), len(excludedWith("6.1")))
	var names []string
	for _, e := range exclusions {
		require.NotEmpty(t, e.reason)
		names = append(names, e.test)
	}
	require.NoError(t, checkExclusions(names))
	require.EqualError(t, checkExclusions(names[1:]), "test "+names[0]+" is excluded, and no package has it")
}

func TestPluginTests(t *testing.T) {
	pattern := regexp.MustCompile(runPattern([]string{"TestScan", "TestUDP"}))
	for name, want := range map[string]bool{"TestScan": true, "TestUDP": true, "TestScanner": false, "TestTCP": false} {
		require.Equal(t, want, pattern.MatchString(name), name)
	}
	require.NoError(t, checkPluginTests(append([]string{"TestScan"}, pluginTests...)))
	require.EqualError(t, checkPluginTests(pluginTests[1:]), "test "+pluginTests[0]+" is to run, and the plugin does not have it")

	root := t.TempDir()
	binary := filepath.Join(t.TempDir(), "p.test")
	require.NoError(t, os.WriteFile(binary, nil, 0o755))
	suites := []suite{{Package: "example.org/all", Binary: binary}, {Package: "example.org/some", Binary: binary, Tests: []string{"TestA"}}}
	require.NoError(t, addSuites(suites, []string{"-test.v"}, root))
	text, err := os.ReadFile(filepath.Join(root, planFile))
	require.NoError(t, err)
	var p plan
	require.NoError(t, json.Unmarshal(text, &p))
	require.Len(t, p.Runs, 2)
	require.Equal(t, []string{"-test.v"}, p.Runs[0].Args)
	require.Equal(t, []string{"-test.v", "-test.run=^TestA$"}, p.Runs[1].Args)
}

// The output is that of test binaries: \x16 begins the lines that are not of another process.
func TestResults(t *testing.T) {
	const (
		end  = "\x16=== NAME  \n"
		pass = "\x16=== RUN   TestA\n\x16=== RUN   TestA/part\n\x16--- PASS: TestA/part (0.00s)\n\x16--- PASS: TestA (1.00s)\n" + end
		skip = "\x16=== RUN   TestB\n    === RUN   TestB\n        b_test.go:3: no VRF\n    --- SKIP: TestB (0.00s)\n    PASS\n" +
			"    b_test.go:2: for the reason above\n\x16--- SKIP: TestB (0.00s)\n" + end
		part = "\x16=== RUN   TestB\n    === RUN   TestB\n    === RUN   TestB/part\n        b_test.go:3: no VRF\n" +
			"        --- SKIP: TestB/part (0.00s)\n    --- PASS: TestB (0.00s)\n    PASS\n\x16--- PASS: TestB (0.00s)\n" + end
		fail  = "\x16=== RUN   TestC\n    c_test.go:7: it is 3\n\x16--- FAIL: TestC (0.00s)\n" + end
		crash = "\x16=== RUN   TestD\npanic: oh\n\ngoroutine 1 [running]:\n"
		stuck = "\x16=== RUN   TestE\n"
	)
	section := func(output, status string) string {
		return "\n" + beginMark + "example.org/p\n" + output + "\n" + endMark + status + "\n"
	}
	for name, test := range map[string]struct {
		output                  string
		packages                int // that were to end
		passed, failed, skipped []string
		failures                []string // regular expressions
		err                     string
	}{
		"all pass": {
			section(pass+"PASS\n", "0") + section(pass+"PASS\n", "0"), 2, []string{"TestA", "TestA"}, nil, nil, nil, "",
		},
		"a skip": {
			section(pass+skip+"PASS\n", "0"), 1, []string{"TestA"}, nil, []string{"TestB: b_test.go:3: no VRF"}, nil,
			"1 tests were skipped",
		},
		"a part is skipped in another process": {
			section(part+"PASS\n", "0"), 1, []string{"TestB"}, nil, []string{"TestB/part: b_test.go:3: no VRF"}, nil,
			"1 tests were skipped",
		},
		"a failure": {
			section(fail+pass+"FAIL\n", "1"), 1, []string{"TestA"}, []string{"TestC"}, nil, []string{"c_test.go:7: it is 3"},
			"1 failures: TestC",
		},
		"a panic": {
			section(pass+crash, "2") + section(pass+"PASS\n", "0"), 2,
			[]string{"TestA", "TestA"}, []string{"example.org/p"}, nil,
			[]string{`(?s)TestD.*panic: oh.*the tests of example\.org/p ended with status 2`}, "1 failures: example.org/p",
		},
		"the guest ends": {
			section(pass+"PASS\n", "0") + "\n" + beginMark + "example.org/q\n" + stuck, 2,
			[]string{"TestA"}, []string{"example.org/q"}, nil,
			[]string{`(?s)TestE.*the tests of example\.org/q did not end`}, "1 failures: example.org/q\nthe tests of 1 packages ended, of 2",
		},
		"the guest does not begin": {"", 1, nil, nil, nil, nil, "the tests of 0 packages ended, of 1\nno test passed"},
		"no tests": {
			section("testing: warning: no tests to run\nPASS\n", "0"), 1, nil, nil, nil, nil, "no test passed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), outputFile)
			require.NoError(t, os.WriteFile(path, []byte(test.output), 0o600))
			r, err := readResults(t.Context(), path)
			require.NoError(t, err)
			require.Equal(t, test.passed, r.passed)
			require.Equal(t, test.failed, r.failed)
			require.Equal(t, test.skipped, r.skipped)
			require.Len(t, r.failures, len(test.failures))
			for i, pattern := range test.failures {
				require.Regexp(t, pattern, r.failures[i])
			}
			if test.err == "" {
				require.NoError(t, r.err(test.packages))
			} else {
				require.EqualError(t, r.err(test.packages), test.err)
			}
		})
	}
}

// A guest that does not end is ended, and what it wrote until then is kept.
func TestBootLimit(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	program := filepath.Join(os.Getenv("PATH"), qemu)
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\nexec /bin/sleep 100\n"), 0o755))
	require.EqualError(t, boot(t.Context(), kernel{}, "", t.TempDir(), 100*time.Millisecond), "the guest did not end in 100ms")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho no machine >&2\nexit 1\n"), 0o755))
	require.EqualError(t, boot(t.Context(), kernel{}, "", t.TempDir(), time.Minute), qemu+": exit status 1: no machine\n")
}

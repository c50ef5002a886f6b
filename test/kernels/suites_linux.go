package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// A suite is the test binary of a package.
type suite struct {
	Package string // import path
	Dir     string // of the source, whose testdata the tests read
	Binary  string
	Tests   []string // to run; empty: all
}

// buildSuites builds the test binaries of the packages that have tests, and by default that of the plugin.
func buildSuites(ctx context.Context, o options, dir string) ([]suite, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	suites, tests, err := buildPackages(ctx, o.packages, dir)
	if err != nil || o.run != "" || strings.Join(o.packages, " ") != defaultPackages {
		return suites, err
	}
	if err := checkExclusions(tests); err != nil {
		return nil, err
	}
	plugin, tests, err := buildPackages(ctx, []string{pluginPackage}, dir)
	if err != nil {
		return nil, err
	}
	for _, s := range plugin {
		s.Tests = pluginTests
		suites = append(suites, s)
	}
	return suites, checkPluginTests(tests)
}

// buildPackages builds the test binaries of packages, and lists their tests.
func buildPackages(ctx context.Context, patterns []string, dir string) (suites []suite, tests []string, err error) {
	packages, err := listPackages(ctx, patterns)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range packages {
		if len(p.TestGoFiles)+len(p.XTestGoFiles) == 0 {
			continue
		}
		s := suite{Package: p.ImportPath, Dir: p.Dir, Binary: filepath.Join(dir, p.ImportPath, path.Base(p.ImportPath)+".test")}
		build := exec.CommandContext(ctx, "go", "test", "-c", "-o", s.Binary, p.ImportPath)
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, nil, fmt.Errorf("building the tests of %s: %w: %s", p.ImportPath, err, out)
		}
		list := exec.CommandContext(ctx, s.Binary, "-test.list=.")
		list.Dir = s.Dir
		out, err := list.Output()
		if err != nil {
			return nil, nil, fmt.Errorf("listing the tests of %s: %w", p.ImportPath, err)
		}
		tests = append(tests, strings.Fields(string(out))...)
		suites = append(suites, s)
	}
	if len(suites) == 0 {
		return nil, nil, fmt.Errorf("no package of %q has tests", patterns)
	}
	return suites, tests, nil
}

type goPackage struct {
	ImportPath, Dir           string
	TestGoFiles, XTestGoFiles []string
}

func listPackages(ctx context.Context, patterns []string) (packages []goPackage, err error) {
	list := exec.CommandContext(ctx, "go", append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, patterns...)...)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing %q: %w", patterns, err)
	}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("decoding the list of packages: %w", err)
		}
		packages = append(packages, p)
	}
}

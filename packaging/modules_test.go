// Package packaging tests what a release consists of.
package packaging

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	program = "example.com/program"
	library = "github.com/procnetstat/procnetstat/netstat"
	testnet = "github.com/procnetstat/procnetstat/internal/testnet"
)

// TestLibraryModules: a program that requires the library alone gets nothing that only the plugin needs. As with every user, its
// requirements are those of the library's go.mod, not those of go.work.
func TestLibraryModules(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	copyFile(t, "testdata/library/main.go", dir)
	copyFile(t, "../netstat/go.sum", dir)

	ofRoot, ofLibrary := requirements(t, ".."), requirements(t, "../netstat")
	run(t, dir, "mod", "init", program)
	run(t, dir, "mod", "edit", "-require="+library+"@"+ofRoot[library].Version,
		"-replace="+library+"="+root+"/netstat", "-replace="+testnet+"="+root+"/internal/testnet")
	run(t, dir, "build", "-o", "program", ".")
	run(t, dir, "vet", ".")

	// What it is built of.
	built := strings.Fields(run(t, dir, "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "."))
	slices.Sort(built)
	require.Equal(t, []string{program, "github.com/cilium/ebpf", library, "golang.org/x/sys"}, slices.Compact(built))

	// What takes part in the selection of its versions: most of it is required by the tests of cilium/ebpf.
	selected := strings.Fields(run(t, dir, "list", "-m", "-f", "{{.Path}}", "all"))
	require.NotContains(t, selected, "github.com/influxdata/telegraf")
	require.Contains(t, ofRoot, "github.com/influxdata/telegraf")
	for path, required := range ofRoot {
		if _, ok := ofLibrary[path]; !ok && !required.Indirect && path != library {
			require.NotContains(t, selected, path)
		}
	}
	require.Len(t, selected, 40, "%s", selected)
}

// TestReleaseCheckUsage: a version that cannot be a tag of these modules is rejected before anything is built.
func TestReleaseCheckUsage(t *testing.T) {
	for argument, message := range map[string]string{
		"":                        "VERSION is missing",
		"VERSION=":                "VERSION is missing",
		"VERSION=1.2.3":           "not a semantic version such as v1.2.3 or v1.2.3-rc.1: 1.2.3",
		"VERSION=v1.2":            "not a semantic version",
		"VERSION=v01.2.3":         "not a semantic version",
		"VERSION=v1.2.3-rc.01":    "not a semantic version",
		"VERSION=v1.2.3+meta":     "not a semantic version",
		"VERSION=v1.2.3;touch":    "not a semantic version",
		"VERSION=netstat/v1.2.3":  "not a semantic version",
		"VERSION=v2.0.0":          "v2.0.0 needs module paths that end in /v2",
		"VERSION=v10.0.0-alpha.1": "v10.0.0-alpha.1 needs module paths that end in /v10",
	} {
		arguments := append([]string{"-s", "release-check"}, strings.Fields(argument)...)
		command := exec.Command("make", arguments...)
		command.Dir = ".."
		command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
			return strings.HasPrefix(v, "VERSION=") || strings.HasPrefix(v, "MAKE") // MAKEFLAGS has the VERSION of make test
		})
		output, err := command.CombinedOutput()
		require.Error(t, err, "make %s", arguments)
		require.Contains(t, string(output), message, "make %s", arguments)
		require.Contains(t, string(output), "usage: ", "make %s", arguments)
	}
}

type requirement struct {
	Path, Version string
	Indirect      bool
}

// requirements returns what the go.mod of a directory requires, by path.
func requirements(t *testing.T, dir string) map[string]requirement {
	t.Helper()
	var mod struct{ Require []requirement }
	require.NoError(t, json.Unmarshal([]byte(run(t, dir, "mod", "edit", "-json")), &mod))
	byPath := map[string]requirement{}
	for _, r := range mod.Require {
		byPath[r.Path] = r
	}
	return byPath
}

// run runs the go command outside of any workspace, and returns what it prints. Hashes that go.sum lacks are not looked up, so that
// a full module cache suffices.
func run(t *testing.T, dir string, arguments ...string) string {
	t.Helper()
	var stderr strings.Builder
	command := exec.Command("go", arguments...)
	command.Dir, command.Stderr = dir, &stderr
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOSUMDB=off")
	output, err := command.Output()
	require.NoError(t, err, "go %s: %s", arguments, &stderr)
	return string(output)
}

func copyFile(t *testing.T, file, dir string) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(file)), content, 0o644))
}

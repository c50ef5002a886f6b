package testnet

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// SkipOrFail ends a test for which this machine lacks something, such as a privilege or a program. It skips the test; where
// the environment says CI=true it fails it, because there everything is meant to be tested.
func SkipOrFail(tb testing.TB, reason string) {
	tb.Helper()
	if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
		tb.Fatalf("%s (CI=true: this must not be skipped)", reason)
	}
	tb.Skip(reason)
}

// Require skips the test, or fails it in CI, unless all of the programs are in the PATH.
func Require(tb testing.TB, programs ...string) {
	tb.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			SkipOrFail(tb, err.Error())
		}
	}
}

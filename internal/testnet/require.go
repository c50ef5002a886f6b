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

// SkipIfShort skips a test of the running kernel, of other programs or of a real server where go test has the flag -short.
// What is left needs no privilege and no program, and takes seconds.
func SkipIfShort(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("not with -short: it is no pure test")
	}
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

package testnet

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// SkipOrFail ends a test because this machine lacks something, such as a privilege or a program. It skips the test, or fails it
// with CI=true in the environment, where every test must run.
func SkipOrFail(tb testing.TB, reason string) {
	tb.Helper()
	if ci, _ := strconv.ParseBool(os.Getenv("CI")); ci {
		tb.Fatalf("%s (CI=true: this must not be skipped)", reason)
	}
	tb.Skip(reason)
}

// SkipIfShort skips a test that needs the running kernel, other programs or a real server if go test has the flag -short. The
// remaining tests need no privileges and no programs, and take seconds.
func SkipIfShort(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("-short: the test needs the kernel or other programs")
	}
}

// SkipUnlessSlow skips a slow test unless the environment has SLOW_TESTS=1, as in make test-slow. It never fails the test, not even
// with CI=true.
func SkipUnlessSlow(tb testing.TB) {
	tb.Helper()
	if slow, _ := strconv.ParseBool(os.Getenv("SLOW_TESTS")); !slow {
		tb.Skip("slow: make test-slow runs it")
	}
}

// Require skips the test, or fails it in CI, unless all programs are in the PATH.
func Require(tb testing.TB, programs ...string) {
	tb.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			SkipOrFail(tb, err.Error())
		}
	}
}

// WaitForGoroutines fails the test if more goroutines than that remain. One that has announced its end runs a moment longer.
func WaitForGoroutines(tb testing.TB, maximum int) {
	tb.Helper()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > maximum; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("%d goroutines, at most %d expected", runtime.NumGoroutine(), maximum)
		}
	}
}

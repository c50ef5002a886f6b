package testnet

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// recorder is a test that records how it ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (*recorder) Helper() {}

func (r *recorder) Skip(args ...any) {
	r.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func TestRequire(t *testing.T) {
	const reason = `exec: "no-such-program": executable file not found in $PATH`
	for _, tt := range []struct {
		ci, program     string
		skipped, failed string
	}{
		{program: "go"},
		{program: "no-such-program", skipped: reason},
		{ci: "false", program: "no-such-program", skipped: reason},
		{ci: "true", program: "no-such-program", failed: reason},
		{ci: "true", program: "go"},
	} {
		t.Run(fmt.Sprintf("CI=%s,%s", tt.ci, tt.program), func(t *testing.T) {
			t.Setenv("CI", tt.ci)
			r := recorder{TB: t}
			var wg sync.WaitGroup
			wg.Go(func() { Require(&r, tt.program) })
			wg.Wait()
			if r.skipped != tt.skipped {
				t.Errorf("skipped with %q, want %q", r.skipped, tt.skipped)
			}
			if !strings.HasPrefix(r.failed, tt.failed) || tt.failed == "" && r.failed != "" {
				t.Errorf("failed with %q, want %q", r.failed, tt.failed)
			}
		})
	}
}

func TestSkipUnlessSlow(t *testing.T) {
	t.Setenv("CI", "true")
	for value, want := range map[string]string{"": "slow: make test-slow runs it", "0": "slow: make test-slow runs it", "1": ""} {
		t.Setenv("SLOW_TESTS", value)
		r := recorder{TB: t}
		var wg sync.WaitGroup
		wg.Go(func() { SkipUnlessSlow(&r) })
		wg.Wait()
		if r.skipped != want || r.failed != "" {
			t.Errorf("SLOW_TESTS=%s: skipped with %q, want %q; failed with %q", value, r.skipped, want, r.failed)
		}
	}
}

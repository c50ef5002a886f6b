package testnet

import (
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRequireBPF(t *testing.T) {
	RequireBPF(t)
	r := recorder{TB: t}
	t.Setenv("CI", "false")
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // the thread without capabilities ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&header, &sets[0]); err != nil {
			t.Error(err)
		}
		sets[0].Effective, sets[1].Effective = 0, 0
		if err := unix.Capset(&header, &sets[0]); err != nil {
			t.Error(err)
		}
		RequireBPF(&r)
	})
	wg.Wait()
	if !strings.Contains(r.skipped, "operation not permitted") {
		t.Errorf("skipped with %q", r.skipped)
	}
	r = recorder{TB: t}
	RequireBPF(&r)
	if r.skipped != "" {
		t.Errorf("skipped with %q", r.skipped)
	}
}

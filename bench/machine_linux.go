package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func readMachine() machine {
	m := machine{CPU: readField("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU()}
	if m.CPU == "" {
		m.CPU = runtime.GOARCH
	}
	kB, _ := strconv.ParseInt(strings.TrimSuffix(readField("/proc/meminfo", "MemTotal"), " kB"), 10, 64)
	m.Memory = kB << 10
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// readField returns the value of the first "name: value" line of a file, or "".
func readField(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// peerModules are the modules of the peers and of the floors.
var peerModules = []string{
	"github.com/influxdata/telegraf",
	"github.com/shirou/gopsutil/v4",
	"github.com/prometheus/procfs",
	"github.com/vishvananda/netlink",
	"github.com/cilium/ebpf",
}

// versions returns the versions of Go, of the peers' modules and of ss.
func versions(ctx context.Context) []version {
	found := []version{{"go", strings.TrimPrefix(runtime.Version(), "go")}}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range peerModules {
			for _, dependency := range info.Deps {
				if dependency.Path == module {
					found = append(found, version{module, dependency.Version})
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "ss", "-V").Output(); err == nil {
		found = append(found, version{"ss", strings.TrimPrefix(strings.TrimSpace(string(out)), "ss utility, ")})
	}
	return found
}

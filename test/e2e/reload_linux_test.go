package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// reloadConfig has two instances of the plugin, which need everything that there is to give back: netlink sockets here and in another
// network namespace, BPF programs, files of the proc file system.
const reloadConfig = `
[agent]
  interval = "100ms"
  flush_interval = "50ms"
  omit_hostname = true
  skip_processors_after_aggregators = true
[[inputs.procnetstat]]
  namespaces = ["self", "blue"]
  tags = {instance = "bpf"}
[[inputs.procnetstat]]
  namespaces = ["self", "blue"]
  source = "procfs"
  owners = "procfs"
  protocols = ["tcp", "udp", "raw", "icmp", "unix"]
  measurements = ["host", "process", "connection"]
  family_tag = true
  tags = {instance = "procfs"}
[[inputs.internal]]
  collect_memstats = false
  collect_gostats = true
[[outputs.file]]
  files = [%q]
  data_format = "influx"
`

// TestReload reloads Telegraf's configuration again and again: metrics of both instances go on, each with what its options say, and
// Telegraf has no more open files, BPF programs, goroutines and threads than it had.
func TestReload(t *testing.T) {
	program := customTelegraf(t)
	testnet.IsolateMounts(t, func() {
		blue := testnet.Netns(t, "blue")
		p := testnet.Start(t, testnet.Process{Name: "listener"})
		p.Listen("tcp4", loopback, 1)
		p.In(blue).Listen("tcp4", loopback, 1)
		r := startReloading(t, program)

		const warmUp, times = 5, 200 // what is made once is there after the first
		for range warmUp {
			r.reload()
		}
		time.Sleep(time.Second) // until all that starts has started
		before := r.usage()
		t.Logf("after %d reloads: %v", warmUp, before)
		for i := range times {
			r.reload()
			if i%10 == 0 || i == times-1 {
				r.requireAsBefore(before, i+1)
			}
		}
		t.Logf("after %d reloads: %v", warmUp+times, r.usage())
		warnings := 0
		for line := range strings.Lines(r.log()) {
			switch {
			case strings.Contains(line, " E! "):
				t.Errorf("Telegraf logged %s", line)
			case strings.Contains(line, "Collection took longer than expected"),
				strings.Contains(line, "did not complete within its flush interval"): // what Telegraf itself says on a slow machine
			case strings.Contains(line, " W! [inputs.procnetstat] Cannot read the descriptors of "):
				warnings++ // of the instance that reads procfs, as on some hosts a process denies even root its descriptors
			case strings.Contains(line, " W! "):
				t.Errorf("Telegraf logged %s", line)
			}
		}
		if starts := 1 + warmUp + times; warnings > starts {
			t.Errorf("there are %d warnings of %d starts:\n%s", warnings, starts, r.log())
		}
	})
}

// reloading is a Telegraf that is told to read its configuration anew.
type reloading struct {
	*server
	metrics string // the file
	starts  int
}

func startReloading(t *testing.T, program string) *reloading {
	t.Helper()
	dir := t.TempDir()
	metricsFile, configFile := filepath.Join(dir, "metrics"), filepath.Join(dir, "telegraf.conf")
	if err := os.WriteFile(configFile, fmt.Appendf(nil, reloadConfig, metricsFile), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &reloading{server: startServer(t, program, "--config", configFile), metrics: metricsFile}
	r.awaitStart()
	return r
}

func (r *reloading) reload() {
	r.t.Helper()
	r.signal(syscall.SIGHUP)
	r.awaitStart()
}

// awaitStart waits until there are metrics of both instances and of Telegraf itself that were gathered since the start.
func (r *reloading) awaitStart() {
	r.t.Helper()
	r.starts++
	waitFor(r.t, fmt.Sprintf("start %d", r.starts), func() bool {
		r.check()
		return strings.Count(r.log(), "Tags enabled") == r.starts
	})
	if err := os.Truncate(r.metrics, 0); err != nil && !os.IsNotExist(err) { // Telegraf appends to it
		r.t.Fatal(err)
	}
	awaited := []string{
		"procnetstat_gather,instance=bpf,owners=bpf,source=netlink ",
		"procnetstat,instance=bpf,netns=blue ",
		"procnetstat,family=ipv4,instance=procfs,netns=blue ",
		"procnetstat_connection,",
		"internal_gostats,",
	}
	waitFor(r.t, fmt.Sprintf("metrics after start %d", r.starts), func() bool {
		r.check()
		text := r.text()
		return !slices.ContainsFunc(awaited, func(series string) bool { return !strings.Contains(text, "\n"+series) })
	})
	text := r.text()
	for _, never := range []string{"procnetstat_gather,instance=procfs", "procnetstat_connection,instance=bpf", "instance=bpf,family="} {
		if strings.Contains(text, never) {
			r.t.Errorf("an instance does what the other was told to: %s", never)
		}
	}
}

// text returns the metrics, each of which begins a line.
func (r *reloading) text() string {
	r.t.Helper()
	text, err := os.ReadFile(r.metrics)
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return "\n" + string(text)
}

// reloadUsage is what a Telegraf takes of the host.
type reloadUsage struct {
	files               map[string]int // by what they are
	goroutines, threads int
	memory              int // KiB
}

func (u reloadUsage) String() string {
	kinds := make([]string, 0, len(u.files))
	for _, kind := range slices.Sorted(maps.Keys(u.files)) {
		kinds = append(kinds, fmt.Sprintf("%d %s", u.files[kind], kind))
	}
	return fmt.Sprintf("%d goroutines, %d threads, %d KiB, files: %s", u.goroutines, u.threads, u.memory, strings.Join(kinds, ", "))
}

var (
	digits         = regexp.MustCompile(`\d+`)
	goroutineCount = regexp.MustCompile(`sched_goroutines_goroutines=(\d+)`)
)

// usage returns what it is between two gathers: the least of some looks, as a gather opens files and closes them.
func (r *reloading) usage() reloadUsage {
	r.t.Helper()
	least := r.usageNow()
	for range 20 {
		u := r.usageNow()
		for kind := range least.files {
			least.files[kind] = min(least.files[kind], u.files[kind])
		}
		maps.DeleteFunc(least.files, func(_ string, n int) bool { return n == 0 })
		least.goroutines, least.threads = min(least.goroutines, u.goroutines), u.threads
	}
	return least
}

func (r *reloading) usageNow() reloadUsage {
	r.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", r.cmd.Process.Pid)
	u := reloadUsage{files: map[string]int{}}
	entries, err := os.ReadDir(proc + "fd")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join(proc, "fd", entry.Name())); err == nil {
			// The thread that opened a file can have ended since: its directory in /proc is gone.
			u.files[digits.ReplaceAllString(strings.TrimSuffix(target, " (deleted)"), "N")]++
		}
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "Threads: %d", &u.threads)
		_, _ = fmt.Sscanf(line, "VmRSS: %d", &u.memory)
	}
	// Those before the last are of a Telegraf that is still starting.
	counts := goroutineCount.FindAllStringSubmatch(r.text(), -1)
	if u.goroutines, err = strconv.Atoi(counts[len(counts)-1][1]); err != nil {
		r.t.Fatal(err)
	}
	return u
}

// requireAsBefore wants Telegraf to take no more than before, if need be after a moment.
func (r *reloading) requireAsBefore(before reloadUsage, reloads int) {
	r.t.Helper()
	const moreThreads = 3 // the scheduler makes them as it needs them, and keeps them
	var now reloadUsage
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		now = r.usage()
		if maps.Equal(now.files, before.files) && now.goroutines <= before.goroutines && now.threads <= before.threads+moreThreads {
			return
		}
	}
	r.t.Errorf("after %d more reloads it has\n%v, before\n%v", reloads, now, before)
}

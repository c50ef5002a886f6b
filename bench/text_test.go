package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFormats(t *testing.T) {
	for want, got := range map[string]string{
		"0":         formatDigits(0),
		"0.0123":    formatDigits(0.01234),
		"1.23":      formatDigits(1.234),
		"12.3":      formatDigits(12.34),
		"123":       formatDigits(123.4),
		"12345":     formatDigits(12345),
		"0.520 ms":  formatDuration(520 * time.Microsecond),
		"57.3 ms":   formatDuration(57300 * time.Microsecond),
		"1.50 s":    formatDuration(1500 * time.Millisecond),
		"0 B":       formatBytes(0),
		"999 B":     formatBytes(999),
		"1.50 kB":   formatBytes(1500),
		"60.0 MB":   formatBytes(60e6),
		"1.20 GB":   formatBytes(12e8),
		"7":         formatCount(7),
		"1,000":     formatCount(1000),
		"1,234,056": formatCount(1234056),
	} {
		require.Equal(t, want, got)
	}
}

func TestAlign(t *testing.T) {
	require.Equal(t, ""+
		"a heading that is long\n"+
		"ä    1 µs  x\n"+
		"bb  10 ms\n"+
		"\n", align("lrl", [][]string{{"a heading that is long"}, {"ä", "1 µs", "x"}, {"bb", "10 ms", ""}, nil}))
}

// TestTable checks the groups, the ratios, the notes, and the reasons of rows without figures.
func TestTable(t *testing.T) {
	r := newTestReport(minTargetSockets, passingCPU())
	r.row(rowHost).Floors = []string{floorDump}
	r.row(rowHost).Runs[0].Heap = &heap{Objects: 1234, Bytes: 5678}
	r.row(rowDefaultsProcfs).Floors = []string{floorInfoDump, floorWalk}
	r.row(rowDefaultsBPF).Failed = "failure"
	r.row(rowExecd).Unavailable = "no -execd given"
	r.row(floorRead).Runs = nil
	r.row(rowV1).Floors = []string{floorRead, floorWalk}
	r.row(rowNetstat).Note = "a note"
	for _, name := range []string{rowConnects, rowConnectsBare} {
		r.row(name).Note = "connects"
	}
	r.row(rowConnects).Floors = []string{rowConnectsBare}
	r.row(rowConnects).Runs[0].BPF = &bpfCost{Time: 12 * time.Millisecond, Runs: 120000}

	var lines []string
	for line := range strings.Lines(r.table()) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	require.Equal(t, []string{
		"wall CPU allocations allocated peak RSS CPU ÷ floor sockets seen",
		"",
		"floors",
		"bare sock_diag dump 0 ms 100 ms – – 50.0 MB – 100,000",
		"bare sock_diag dump with INFO 0 ms 120 ms – – 50.0 MB – 100,000",
		"bare fd walk 0 ms 500 ms – – 50.0 MB – 100,000",
		"bare read of /proc/net/tcp{,6} – – – – – – – not measured",
		"",
		"procnetstat",
		"host only, details = [] 0 ms 115 ms 1,234 5.68 kB 50.0 MB 1.15 × dump 100,000",
		"defaults, BPF owners – – – – – – – FAILED: failure",
		"defaults, procfs owners 0 ms 775 ms – – 50.0 MB 1.25 × (INFO dump + fd walk) 100,000",
		"10,000 connects a second, not recorded 0 ms 200 ms – – 50.0 MB – 100,000 connects",
		"10,000 connects a second, recorded 0 ms 230 ms – – 50.0 MB 1.15 × not recorded 100,000 " +
			"connects; includes 12.0 ms in 120,000 runs of BPF programs",
		"TCP.Connections() (v1 API) 0 ms 1.00 s – – 50.0 MB – 100,000",
		"execd program – – – – – – – not measured: no -execd given",
		"",
		"peers",
		"inputs.netstat 0 ms 6.30 s – – 50.0 MB – 100,000 a note",
		"inputs.procstat, sockets of 2 processes 0 ms 3.60 s – – 50.0 MB – 100,000 1.80 s of CPU per monitored process",
	}, lines)
}

func TestHead(t *testing.T) {
	r := newTestReport(minTargetSockets, nil)
	head := r.header()
	for _, want := range []string{
		"2026-01-02T03:04:05Z", "a CPU, 2 cores, 8.00 GB of memory", "Linux 6.1.0", "go 1.26, telegraf v1.37.2",
		"100,000 established TCP sockets", "in 4 processes, in the current network namespace",
	} {
		require.Contains(t, head, want)
	}
	r.OwnNamespace = true
	require.Contains(t, r.header(), "in 4 processes, in a separate network namespace")
}

func TestShortModule(t *testing.T) {
	for module, want := range map[string]string{
		"github.com/influxdata/telegraf": "telegraf",
		"github.com/shirou/gopsutil/v4":  "gopsutil",
		"github.com/prometheus/procfs":   "prometheus/procfs",
		"go":                             "go",
	} {
		require.Equal(t, want, shortModule(module))
	}
}

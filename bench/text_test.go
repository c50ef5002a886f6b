package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFormats(t *testing.T) {
	for want, got := range map[string]string{
		"0":         digits(0),
		"0.0123":    digits(0.01234),
		"1.23":      digits(1.234),
		"12.3":      digits(12.34),
		"123":       digits(123.4),
		"12345":     digits(12345),
		"0.520 ms":  duration(520 * time.Microsecond),
		"57.3 ms":   duration(57300 * time.Microsecond),
		"1.50 s":    duration(1500 * time.Millisecond),
		"0 B":       size(0),
		"999 B":     size(999),
		"1.50 kB":   size(1500),
		"60.0 MB":   size(60e6),
		"1.20 GB":   size(12e8),
		"7":         count(7),
		"1,000":     count(1000),
		"1,234,056": count(1234056),
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

// TestTable: all rows in their groups, with what they are measured by, and why there are no figures.
func TestTable(t *testing.T) {
	r := madeUp(judgedFrom, good())
	r.row(rowHost).Floors = []string{floorDump}
	r.row(rowHost).Runs[0].Heap = &heap{Objects: 1234, Bytes: 5678}
	r.row(rowDefaultsProcfs).Floors = []string{floorInfoDump, floorWalk}
	r.row(rowDefaultsBPF).Failed = "it broke"
	r.row(rowExecd).Unavailable = "no -execd given"
	r.row(floorRead).Runs = nil
	r.row(rowV1).Floors = []string{floorRead, floorWalk}
	r.row(rowNetstat).Note = "a note"

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
		"host only 0 ms 115 ms 1,234 5.68 kB 50.0 MB 1.15 × dump 100,000",
		"defaults, BPF owners – – – – – – – FAILED: it broke",
		"defaults, procfs owners 0 ms 775 ms – – 50.0 MB 1.25 × (INFO dump + fd walk) 100,000",
		"TCP.Connections() (v1 API) 0 ms 1.00 s – – 50.0 MB – 100,000",
		"execd program – – – – – – – not measured: no -execd given",
		"",
		"peers",
		"inputs.netstat 0 ms 6.30 s – – 50.0 MB – 100,000 a note",
		"inputs.procstat, sockets of 2 processes 0 ms 3.60 s – – 50.0 MB – 100,000 1.80 s of CPU for each process asked for",
	}, lines)
}

func TestHead(t *testing.T) {
	r := madeUp(judgedFrom, nil)
	head := r.head()
	for _, want := range []string{
		"2026-01-02T03:04:05Z", "a CPU, 2 cores, 8.00 GB of memory", "Linux 6.1.0", "go 1.26, telegraf v1.37.2",
		"100,000 established TCP sockets", "in 4 processes, in the present network namespace",
	} {
		require.Contains(t, head, want)
	}
	r.OwnNamespace = true
	require.Contains(t, r.head(), "in 4 processes, in a network namespace of their own")
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

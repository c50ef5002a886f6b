package netstat_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

const firstPID = 1000

// writeConnections creates a proc file system with TCP connections that processes with the pids from firstPID on hold.
func writeConnections(tb testing.TB, connections, processes int) {
	tb.Helper()
	var table strings.Builder
	table.WriteString(header)
	inodes := make([][]int, processes)
	for i := range connections {
		inode := 100000 + i
		fmt.Fprintf(&table, "%4d: 0100007F:%04X 0200007F:%04X 01 00000000:00000000 00:00000000 00000000  1000        0 %d 1 "+
			"0000000000000000 20 4 30 10 -1                     \n", i, uint16(i), i>>8, inode)
		inodes[i%processes] = append(inodes[i%processes], inode)
	}
	root := filepath.Dir(filepath.Dir(writeTable(tb, table.String())))
	for i, held := range inodes {
		addProcess(tb, root, firstPID+i, "program\x00argument\x00", held...)
	}
}

func BenchmarkConnections(b *testing.B) {
	for _, size := range []struct{ connections, processes int }{{1_000, 5}, {10_000, 20}, {120_000, 50}} {
		b.Run(fmt.Sprintf("connections=%d/processes=%d", size.connections, size.processes), func(b *testing.B) {
			writeConnections(b, size.connections, size.processes)
			b.ReportAllocs()
			for b.Loop() {
				connections, err := netstat.TCP.Connections()
				if err != nil || len(connections) != size.connections {
					b.Fatalf("%d connections, error %v", len(connections), err)
				}
			}
		})
	}
}

func TestConnectionsAllocations(t *testing.T) {
	const connections, perConnection, besides = 2000, 3, 500
	writeConnections(t, connections, 4)
	allocs := testing.AllocsPerRun(5, func() {
		if _, err := netstat.TCP.Connections(); err != nil {
			t.Fatal(err)
		}
	})
	require.LessOrEqual(t, allocs, float64(connections*perConnection+besides))
}

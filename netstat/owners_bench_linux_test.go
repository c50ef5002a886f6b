package netstat

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// BenchmarkFDWalk has its own PID namespace, so that it walks the processes of the benchmark only.
func BenchmarkFDWalk(b *testing.B) {
	testnet.IsolatePIDs(b, func() {
		benchmarkOwners(b, func() ownerFinder { return newFDWalk(newProcessCache("/proc", nil)) })
	})
}

// BenchmarkBPFOwners iterates over the descriptors of all processes of the machine, which can hold more sockets than the
// benchmark opens.
func BenchmarkBPFOwners(b *testing.B) {
	testnet.Isolate(b, func() {
		testnet.RequireBPF(b)
		benchmarkOwners(b, func() ownerFinder {
			finder, err := newBPFOwners(newProcessCache("/proc", nil))
			require.NoError(b, err)
			return finder
		})
	})
}

func benchmarkOwners(b *testing.B, newFinder func() ownerFinder) {
	b.Helper()
	grow := growingPair(b)
	for _, size := range []int{1000, 10_000} {
		grow(size)
		b.Run(fmt.Sprintf("sockets=%d", size), func(b *testing.B) {
			finder := newFinder()
			defer finder.close()
			var table ownerTable
			refresh := func() {
				if _, err := finder.refresh(b.Context(), &table); err != nil {
					b.Fatal(err)
				}
			}
			refresh()
			require.GreaterOrEqual(b, table.inUse, size-2)
			b.ReportAllocs()
			for b.Loop() {
				refresh()
			}
			reportPer(b, "socket", table.inUse)
			b.ReportMetric(float64(table.inUse), "sockets")
		})
	}
}

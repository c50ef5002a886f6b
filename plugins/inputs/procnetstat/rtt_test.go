//go:build linux

package procnetstat

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// distributions of round-trip times in microseconds, by the random numbers that they are made of.
var distributions = map[string]func(*rand.Rand) uint32{
	"loopback":  func(r *rand.Rand) uint32 { return 5 + r.Uint32N(60) },
	"uniform":   func(r *rand.Rand) uint32 { return 1 + r.Uint32N(1_000_000) },
	"normal":    func(r *rand.Rand) uint32 { return uint32(max(1, 20_000+3000*r.NormFloat64())) },
	"bimodal":   func(r *rand.Rand) uint32 { return []uint32{300, 80_000}[r.IntN(2)] + r.Uint32N(50) },
	"one value": func(*rand.Rand) uint32 { return 12_345 },
	// The mean of this Pareto distribution is infinite.
	"heavy tail":        func(r *rand.Rand) uint32 { return uint32(min(100/math.Pow(1-r.Float64(), 1/0.8), 1<<32-1)) },
	"all powers of two": func(r *rand.Rand) uint32 { return uint32(1) << r.IntN(32) },
	"2^31 and more":     func(r *rand.Rand) uint32 { return 1<<31 + r.Uint32N(1<<31) },
}

// requirePercentiles compares with the times themselves, by the nearest rank.
func requirePercentiles(t *testing.T, times []uint32, r *rtts) {
	t.Helper()
	require.Equal(t, len(times), r.count)
	sorted := slices.Sorted(slices.Values(times))
	for p := 1; p <= 100; p++ {
		require.LessOrEqual(t, r.percentile(p), r.max, "p%d of %d", p, len(sorted))
		want := sorted[int(math.Ceil(float64(len(sorted))*float64(p)/100))-1]
		if len(sorted) <= maxRTTSamples {
			require.Equal(t, want, r.percentile(p), "p%d of %d", p, len(sorted))
		} else {
			require.InEpsilon(t, want, r.percentile(p), 1./64, "p%d of %d", p, len(sorted))
		}
	}
	require.Equal(t, sorted[len(sorted)-1], r.max)
}

func TestPercentiles(t *testing.T) {
	for name, next := range distributions {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			var r rtts
			for _, n := range []int{1, 2, 19, 20, 21, maxRTTSamples - 1, maxRTTSamples, maxRTTSamples + 1, 1000, 20_000} {
				r.reset()
				times := make([]uint32, n)
				for i := range times {
					times[i] = next(random)
					r.add(times[i])
				}
				requirePercentiles(t, times, &r)
			}
		})
	}
}

func TestPercentilesOfCounting(t *testing.T) {
	for n := range 600 {
		var r rtts
		times := []uint32{}
		for i := range n {
			times = append(times, uint32(i+1))
			r.add(uint32(i + 1))
		}
		if n == 0 {
			require.Zero(t, r.percentile(50))
			require.Zero(t, r.max)
			continue
		}
		requirePercentiles(t, times, &r)
	}
}

// TestMergedPercentiles: it makes no difference which of the times were in which group.
func TestMergedPercentiles(t *testing.T) {
	for name, next := range distributions {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(3, 4))
			for _, sizes := range [][]int{
				{0, 1}, {1, 0}, {0, 0, 5}, {100, 100}, {maxRTTSamples, 1}, {1, maxRTTSamples}, {200, 200}, {1000, 3}, {3, 1000}, {0, 1000}, {1000, 2000, 10},
			} {
				var sum rtts
				var times []uint32
				for _, size := range sizes {
					var part rtts
					for range size {
						times = append(times, next(random))
						part.add(times[len(times)-1])
					}
					before := part.count
					sum.merge(&part)
					require.Equal(t, before, part.count, "what is merged stays as it is")
				}
				requirePercentiles(t, times, &sum)
			}
		})
	}
}

// TestBuckets: every time is in a bucket, in their order.
func TestBuckets(t *testing.T) {
	for bucket := range rttBuckets {
		require.Equal(t, bucket, rttBucketOf(rttBucketMiddle(bucket)))
	}
	last := 0
	for rtt := uint64(0); rtt < 1<<32; rtt += 1 + rtt>>12 {
		bucket := rttBucketOf(uint32(rtt))
		if bucket != last && bucket != last+1 {
			t.Fatalf("%d µs are in bucket %d, after one in bucket %d", rtt, bucket, last)
		}
		last = bucket
	}
	require.Equal(t, rttBuckets-1, last)
	require.Equal(t, rttBuckets-1, rttBucketOf(1<<32-1))
}

func TestRTTsAllocateNothingOnceTheyHaveRoom(t *testing.T) {
	var r, sum rtts
	pass := func() {
		for i := range uint32(10_000) {
			r.add(i)
		}
		sum.merge(&r)
		sum.percentile(95)
		r.reset()
		sum.reset()
	}
	require.Zero(t, testing.AllocsPerRun(3, pass))
}

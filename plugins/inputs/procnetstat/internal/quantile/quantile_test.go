package quantile

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
func requirePercentiles(t *testing.T, times []uint32, r *Times) {
	t.Helper()
	require.Equal(t, len(times), r.count)
	sorted := slices.Sorted(slices.Values(times))
	for p := 1; p <= 100; p++ {
		got, ok := r.Percentile(p)
		require.True(t, ok)
		require.LessOrEqual(t, got, r.max, "p%d of %d", p, len(sorted))
		want := sorted[int(math.Ceil(float64(len(sorted))*float64(p)/100))-1]
		if len(sorted) <= MaxSamples {
			require.Equal(t, want, got, "p%d of %d", p, len(sorted))
		} else {
			require.InEpsilon(t, want, got, 1./64, "p%d of %d", p, len(sorted))
		}
	}
	highest, _ := r.Percentile(100)
	require.Equal(t, sorted[len(sorted)-1], highest)
}

func TestPercentiles(t *testing.T) {
	for name, next := range distributions {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			var r Times
			for _, n := range []int{1, 2, 19, 20, 21, MaxSamples - 1, MaxSamples, MaxSamples + 1, 1000, 20_000} {
				r.Reset()
				times := make([]uint32, n)
				for i := range times {
					times[i] = next(random)
					r.Add(times[i])
				}
				requirePercentiles(t, times, &r)
			}
		})
	}
}

func TestPercentilesOfCounting(t *testing.T) {
	for n := range 600 {
		var r Times
		times := []uint32{}
		for i := range n {
			times = append(times, uint32(i+1))
			r.Add(uint32(i + 1))
		}
		if n == 0 {
			_, ok := r.Percentile(50)
			require.False(t, ok)
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
				{0, 1}, {1, 0}, {0, 0, 5}, {100, 100}, {MaxSamples, 1}, {1, MaxSamples}, {200, 200}, {1000, 3}, {3, 1000}, {0, 1000}, {1000, 2000, 10},
			} {
				var sum Times
				var times []uint32
				for _, size := range sizes {
					var part Times
					for range size {
						times = append(times, next(random))
						part.Add(times[len(times)-1])
					}
					before := part.count
					sum.Merge(&part)
					require.Equal(t, before, part.count, "what is merged stays as it is")
				}
				requirePercentiles(t, times, &sum)
			}
		})
	}
}

// TestBuckets: every time is in a bucket, in their order.
func TestBuckets(t *testing.T) {
	for bucket := range buckets {
		require.Equal(t, bucket, bucketOf(middleOf(bucket)))
	}
	last := 0
	for rtt := uint64(0); rtt < 1<<32; rtt += 1 + rtt>>12 {
		bucket := bucketOf(uint32(rtt))
		if bucket != last && bucket != last+1 {
			t.Fatalf("%d µs are in bucket %d, after one in bucket %d", rtt, bucket, last)
		}
		last = bucket
	}
	require.Equal(t, buckets-1, last)
	require.Equal(t, buckets-1, bucketOf(1<<32-1))
}

func TestTimesAllocateNothingOnceTheyHaveRoom(t *testing.T) {
	var r, sum Times
	pass := func() {
		for i := range uint32(10_000) {
			r.Add(i)
		}
		sum.Merge(&r)
		sum.Percentile(95)
		r.Reset()
		sum.Reset()
	}
	require.Zero(t, testing.AllocsPerRun(3, pass))
}

// Package quantile computes percentiles of a number of durations in bounded memory.
package quantile

import (
	"math/bits"
	"slices"
)

// Times are durations in microseconds. Up to MaxSamples each one is kept; beyond that they are counted in buckets, which bounds the
// memory and the error of the percentiles (1.6 %). The zero value is empty.
type Times struct {
	samples  []uint32
	buckets  *[buckets]uint32 // allocated when first needed, and kept
	bucketed bool             // the times are in buckets, not in samples
	count    int
	max      uint32
}

// MaxSamples is the number of times up to which the percentiles are exact.
const MaxSamples = 256

const (
	// Each time below 64 µs has its own bucket; above, each power of two has 32 buckets.
	exact   = 64
	half    = exact / 2
	buckets = exact + (32-6)*half
)

func bucketOf(time uint32) int {
	if time < exact {
		return int(time)
	}
	shift := bits.Len32(time) - 6
	return shift*half + int(time>>shift)
}

// middleOf returns the middle of the bucket.
func middleOf(bucket int) uint32 {
	if bucket < exact {
		return uint32(bucket)
	}
	shift := bucket/half - 1
	lowest := uint32(bucket-shift*half) << shift
	return lowest + uint32(1)<<shift/2
}

// Add adds a time.
func (t *Times) Add(time uint32) {
	t.count++
	t.max = max(t.max, time)
	if !t.bucketed {
		if len(t.samples) < MaxSamples {
			t.samples = append(t.samples, time)
			return
		}
		t.useBuckets()
	}
	t.buckets[bucketOf(time)]++
}

func (t *Times) useBuckets() {
	if t.buckets == nil {
		t.buckets = new([buckets]uint32)
	}
	for _, time := range t.samples {
		t.buckets[bucketOf(time)]++
	}
	t.samples, t.bucketed = t.samples[:0], true
}

// Merge adds the times of o.
func (t *Times) Merge(o *Times) {
	if !o.bucketed {
		for _, time := range o.samples {
			t.Add(time)
		}
		return
	}
	if !t.bucketed {
		t.useBuckets()
	}
	for bucket, n := range o.buckets {
		t.buckets[bucket] += n
	}
	t.count += o.count
	t.max = max(t.max, o.max)
}

// Percentile returns the p-th percentile (nearest rank), p from 1 to 100, which is the maximum. It reports false if there are no times.
func (t *Times) Percentile(p int) (time uint32, ok bool) {
	if t.count == 0 {
		return 0, false
	}
	if p == 100 {
		return t.max, true
	}
	rank := (t.count*p + 99) / 100 // from 1
	if !t.bucketed {
		slices.Sort(t.samples)
		return t.samples[rank-1], true
	}
	for bucket, n := range t.buckets {
		if rank -= int(n); rank <= 0 {
			return min(middleOf(bucket), t.max), true
		}
	}
	return t.max, true
}

// Reset removes the times and keeps the memory.
func (t *Times) Reset() {
	if t.bucketed {
		*t.buckets = [buckets]uint32{}
	}
	t.samples, t.bucketed, t.count, t.max = t.samples[:0], false, 0, 0
}

//go:build linux

package procnetstat

import (
	"math/bits"
	"slices"
)

// rtts are the round-trip times of the connections of a group, in microseconds. Up to maxRTTSamples each one is kept; beyond that
// they are counted in buckets, which bounds the memory of a group and the error of its percentiles (1.6 %).
type rtts struct {
	samples  []uint32
	buckets  *[rttBuckets]uint32 // allocated when first needed, and kept
	bucketed bool                // the times are in buckets, not in samples
	count    int
	max      uint32
}

const (
	maxRTTSamples = 256
	// Each time below 64 µs has its own bucket; above, each power of two has 32 buckets.
	rttExact   = 64
	rttHalf    = rttExact / 2
	rttBuckets = rttExact + (32-6)*rttHalf
)

func rttBucketOf(rtt uint32) int {
	if rtt < rttExact {
		return int(rtt)
	}
	shift := bits.Len32(rtt) - 6
	return shift*rttHalf + int(rtt>>shift)
}

// rttBucketMiddle returns the middle of the bucket.
func rttBucketMiddle(bucket int) uint32 {
	if bucket < rttExact {
		return uint32(bucket)
	}
	shift := bucket/rttHalf - 1
	lowest := uint32(bucket-shift*rttHalf) << shift
	return lowest + uint32(1)<<shift/2
}

func (r *rtts) add(rtt uint32) {
	r.count++
	r.max = max(r.max, rtt)
	if !r.bucketed {
		if len(r.samples) < maxRTTSamples {
			r.samples = append(r.samples, rtt)
			return
		}
		r.useBuckets()
	}
	r.buckets[rttBucketOf(rtt)]++
}

func (r *rtts) useBuckets() {
	if r.buckets == nil {
		r.buckets = new([rttBuckets]uint32)
	}
	for _, rtt := range r.samples {
		r.buckets[rttBucketOf(rtt)]++
	}
	r.samples, r.bucketed = r.samples[:0], true
}

func (r *rtts) merge(o *rtts) {
	if !o.bucketed {
		for _, rtt := range o.samples {
			r.add(rtt)
		}
		return
	}
	if !r.bucketed {
		r.useBuckets()
	}
	for bucket, n := range o.buckets {
		r.buckets[bucket] += n
	}
	r.count += o.count
	r.max = max(r.max, o.max)
}

// percentile returns the p-th percentile (nearest rank), or 0 if there are no connections.
func (r *rtts) percentile(p int) uint32 {
	if r.count == 0 {
		return 0
	}
	rank := (r.count*p + 99) / 100 // from 1
	if !r.bucketed {
		slices.Sort(r.samples)
		return r.samples[rank-1]
	}
	for bucket, n := range r.buckets {
		if rank -= int(n); rank <= 0 {
			return min(rttBucketMiddle(bucket), r.max)
		}
	}
	return r.max
}

func (r *rtts) reset() {
	if r.bucketed {
		*r.buckets = [rttBuckets]uint32{}
	}
	r.samples, r.bucketed, r.count, r.max = r.samples[:0], false, 0, 0
}

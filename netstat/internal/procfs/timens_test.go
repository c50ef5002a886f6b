package procfs

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBootClock(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		want    uint64 // ticks of 1,000 seconds after boot
	}{
		"the machine's":        {"monotonic           0         0\nboottime            0         0\n", 100_000},
		"more":                 {"monotonic          86400         0\nboottime           604800         0\n", 60_580_000},
		"less":                 {"monotonic           0         0\nboottime         -900         0\n", 10_000},
		"less, in nanoseconds": {"boottime          -1         1\n", 99_900},
		"more, in nanoseconds": {"boottime          0         10000000\n", 100_001},
		"the most":             {"boottime 4611686018 999999999\n", 461_168_701_899},
		"another clock":        {"monotonic 1 0\n", 100_000},
		"too many seconds":     {"boottime 92233720368 0\n", 100_000},
		"no number":            {"boottime x 0\nboottime 0 y\n", 100_000},
		"columns":              {"boottime\n\nboottime 1\nboottime 1 0 0\n", 100_000},
		"cut off":              {"boottime 1", 100_000},
		"nothing":              {"", 100_000},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, ParseBootClock([]byte(test.content)).Ticks(1000e9))
		})
	}
}

func FuzzParseBootClock(f *testing.F) {
	f.Add([]byte("monotonic           0         0\nboottime         -900         5\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		const maxOffset = 1<<33*1e9 + 1<<30 // ns: it does not overflow
		offset := int64(ParseBootClock(content))
		require.LessOrEqual(t, offset, int64(maxOffset))
		require.GreaterOrEqual(t, offset, -int64(maxOffset))
	})
}

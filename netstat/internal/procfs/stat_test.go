package procfs

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseStat(t *testing.T) {
	const after = ") S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 153230 19050496 3739"
	for name, test := range map[string]struct {
		content, want    string
		flags, startTime uint64
	}{
		"plain":             {"7 (nginx" + after, "nginx", 4194560, 153230},
		"empty name":        {"7 (" + after, "", 4194560, 153230},
		"blanks":            {"7 (a b  c " + after, "a b  c ", 4194560, 153230},
		"parentheses":       {"7 (a) S (b) 1" + after, "a) S (b) 1", 4194560, 153230},
		"newline, no UTF-8": {"7 (caf\xe9\n\x1b" + after + "\n", "caf\xe9\n\x1b", 4194560, 153230},
		"kernel thread":     {"2 (kworker/0:0H-events_highpri) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 0 -20 1 0 24 0 0", "kworker/0:0H-events_highpri", 69238880, 24},
		"no more columns":   {"7 (a) S 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 18446744073709551615", "a", 0, 1<<64 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			stat, err := ParseStat([]byte(test.content))
			require.NoError(t, err)
			require.Equal(t, test.want, string(stat.Comm))
			require.Equal(t, test.flags, stat.Flags)
			require.Equal(t, test.startTime, stat.StartTime)
		})
	}
}

func TestParseStatErrors(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		want    error
	}{
		"empty":              {"", errShortStat},
		"no name":            {"7 nginx S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 153230", errShortStat},
		"name without end":   {"7 (nginx S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 153230", errShortStat},
		"parentheses turned": {"7 )nginx( S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 153230", errShortStat},
		"cut":                {"7 (nginx) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0", errShortStat},
		"wide flags":         {"7 (nginx) S 1 7 7 0 -1 18446744073709551616 1 2 3 4 5 6 7 8 20 0 1 0 153230", ErrRange},
		"no number":          {"7 (nginx) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 -153230", ErrSyntax},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseStat([]byte(test.content))
			require.ErrorIs(t, err, test.want)
		})
	}
}

func TestIsZombie(t *testing.T) {
	for stat, want := range map[string]bool{
		"7 (name) Z 1 7":   true,
		"7 (name) S 1 7":   false,
		"7 (a) Z b) S 1 7": false,
		"7 (a) S b) Z 1 7": true,
		"7 (name)":         false,
		"7 name Z 1 7":     false,
		" Z 1 7":           false,
		"":                 false,
	} {
		require.Equal(t, want, IsZombie([]byte(stat)), "%q", stat)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte) {
		stat, err := ParseStat(content)
		if err != nil {
			require.Equal(t, Stat{}, stat, "an error or a value")
			return
		}
		require.True(t, bytes.Contains(content, fmt.Appendf(nil, "(%s)", stat.Comm)))
		again, err := ParseStat(fmt.Appendf(nil, "7 (%s) S 1 7 7 0 -1 %d 1 2 3 4 5 6 7 8 20 0 1 0 %d", stat.Comm, stat.Flags, stat.StartTime))
		require.NoError(t, err)
		require.Equal(t, stat, again)
	})
}

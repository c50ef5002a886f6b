package procfs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSockstat(t *testing.T) {
	var got []string
	content := "sockets: used 34\nTCP: inuse 7 orphan -4\nNEW:\nFRAG: memory 18446744073709551615"
	line, err := ParseSockstat([]byte(content), func(name, key []byte, value uint64) error {
		got = append(got, fmt.Sprintf("%s %s %d", name, key, value))
		return nil
	})
	require.NoError(t, err)
	require.Zero(t, line)
	require.Equal(t, []string{"sockets used 34", "TCP inuse 7", "TCP orphan 0", "FRAG memory 18446744073709551615"}, got)

	failed := errors.New("not now")
	line, err = ParseSockstat([]byte(content), func(_, key []byte, _ uint64) error {
		if string(key) == "inuse" {
			return failed
		}
		return nil
	})
	require.ErrorIs(t, err, failed)
	require.EqualError(t, err, `inuse "7": not now`)
	require.Equal(t, 2, line)
}

func TestParseSockstatErrors(t *testing.T) {
	for _, test := range []struct {
		content string
		line    int
		want    string
	}{
		{"", 1, "file has no content"},
		{"\n", 1, `"" has no colon`},
		{"sockets: used 1\ngarbage\n", 2, `"garbage" has no colon`},
		{"sockets: used 1\n\n", 2, `"" has no colon`},
		{"TCP: inuse 1 orphan\n", 1, `"orphan" has no value`},
		{"TCP: inuse x\n", 1, `inuse "x": not a number`},
		{"TCP: inuse --1\n", 1, `inuse "--1": not a number`},
		{"TCP: inuse -\n", 1, `inuse "-": not a number`},
		{"TCP: inuse 18446744073709551616\n", 1, `inuse "18446744073709551616": out of range`},
		{"TCP: inuse -9223372036854775808\n", 1, `inuse "-9223372036854775808": out of range`}, // a sum of ints would overflow
		{"NEW: what 1.5\n", 1, `what "1.5": not a number`},
	} {
		line, err := ParseSockstat([]byte(test.content), func([]byte, []byte, uint64) error { return nil })
		require.EqualError(t, err, test.want)
		require.Equal(t, test.line, line)
	}
}

// An error, or counts of the file.
func FuzzParseSockstat(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte) {
		line, err := ParseSockstat(content, func(name, key []byte, value uint64) error {
			require.Contains(t, string(content), string(name)+":")
			require.Contains(t, string(content), string(key))
			if value != 0 {
				require.Contains(t, string(content), strconv.FormatUint(value, 10))
			}
			return nil
		})
		if err != nil {
			require.Positive(t, line)
			require.LessOrEqual(t, line, strings.Count(string(content), "\n")+1)
			return
		}
		require.Zero(t, line)
	})
}

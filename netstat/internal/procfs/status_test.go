package procfs

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseStatusUID(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		want    uint32
		err     error
	}{
		"effective id":  {"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n", 2, nil},
		"biggest":       {"Uid:\t0\t4294967295\t0\t0\n", 1<<32 - 1, nil},
		"no line end":   {"Uid:\t0\t7", 7, nil},
		"name":          {"Name:\tUid:\t9\nUid:\t0\t7\n", 7, nil}, // the kernel escapes newlines in names
		"empty":         {"", 0, errNoUID},
		"none":          {"Name:\tx\nGid:\t5\t6\t7\t8\n", 0, errNoUID},
		"one":           {"Uid:\t1\n", 0, errNoUID},
		"too big":       {"Uid:\t0\t4294967296\t0\t0\n", 0, ErrRange},
		"negative":      {"Uid:\t0\t-2\t0\t0\n", 0, ErrSyntax},
		"first is used": {"Uid:\t1\nUid:\t0\t7\n", 0, errNoUID},
	} {
		t.Run(name, func(t *testing.T) {
			uid, err := ParseStatusUID([]byte(test.content))
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.want, uid)
		})
	}
}

func TestShowsOwnPIDs(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tx\nNSpid:\t17\nNSpgid:\t17\t1\n": true,
		"NSpid:\t4711\t17\n":                     false,
		"Name:\tNSpid:\t17\nPid:\t17\n":          false, // Linux before 4.1
		"NSpid:\n":                               false,
		"":                                       false,
	} {
		require.Equal(t, want, showsOwnPIDs([]byte(status)), "%q", status)
	}
}

func FuzzParseStatusUID(f *testing.F) {
	f.Fuzz(func(t *testing.T, status []byte) {
		uid, err := ParseStatusUID(status)
		if err != nil {
			require.Zero(t, uid, "an error or a value")
			return
		}
		// A simple implementation finds the same.
		at := strings.Index("\n"+string(status), "\nUid:")
		require.GreaterOrEqual(t, at, 0)
		line, _, _ := strings.Cut(string(status)[at:], "\n")
		require.Equal(t, uint64(uid), mustParse(t, strings.Fields(line[len("Uid:"):])[1]))
	})
}

func mustParse(t *testing.T, number string) uint64 {
	t.Helper()
	v, err := strconv.ParseUint(number, 10, 64)
	require.NoError(t, err)
	return v
}

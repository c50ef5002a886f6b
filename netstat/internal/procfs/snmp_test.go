package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSNMP(t *testing.T) {
	var got []string
	collect := func(name, key, text []byte) error {
		got = append(got, fmt.Sprintf("%s %s %s", name, key, text))
		return nil
	}
	content := "Tcp: MaxConn OutRsts\nTcp: -1 4\nNew:\nNew:\nUdp: NoPorts\nUdp: 7\n"
	line, err := ParseSNMP([]byte(content), collect)
	require.NoError(t, err)
	require.Zero(t, line)
	require.Equal(t, []string{"Tcp MaxConn -1", "Tcp OutRsts 4", "Udp NoPorts 7"}, got)

	for _, test := range []struct {
		content string
		line    int
		want    string
	}{
		{"", 1, "file has no content"},
		{"\n", 1, `"" has no colon`},
		{"Tcp: A\n", 2, "the line has no end"},
		{"Tcp: A\nTcp: 12", 2, "the line has no end"},
		{"Tcp: A\nTcp 1\n", 2, `"Tcp 1" has no colon`},
		{"Tcp: A\nUdp: 1\n", 2, `"Udp" follows the keys of "Tcp"`},
		{"Tcp: A B\nTcp: 1\n", 2, "Tcp has not as many values as keys"},
		{"Tcp: A\nTcp: 1 2\n", 2, "Tcp has not as many values as keys"},
		{"Tcp: A\nTcp: 1\nUdp:", 3, "the line has no end"},
	} {
		line, err := ParseSNMP([]byte(test.content), func(_, _, _ []byte) error { return nil })
		require.EqualError(t, err, test.want)
		require.Equal(t, test.line, line)
	}

	failed := errors.New("not now")
	line, err = ParseSNMP([]byte(content), func(_, key, _ []byte) error {
		if string(key) == "NoPorts" {
			return failed
		}
		return nil
	})
	require.ErrorIs(t, err, failed)
	require.EqualError(t, err, `Udp NoPorts "7": not now`)
	require.Equal(t, 6, line)
}

func TestParseSNMP6(t *testing.T) {
	var got []string
	content := "Ip6InReceives                   \t86\nUdp6NoPorts\t7\n"
	line, err := ParseSNMP6([]byte(content), func(key, text []byte) error {
		got = append(got, fmt.Sprintf("%s %s", key, text))
		return nil
	})
	require.NoError(t, err)
	require.Zero(t, line)
	require.Equal(t, []string{"Ip6InReceives 86", "Udp6NoPorts 7"}, got)

	for _, test := range []struct {
		content string
		line    int
		want    string
	}{
		{"", 1, "file has no content"},
		{"\n", 1, `"" has no value`},
		{"Udp6NoPorts 1\nUdp6NoPorts\n", 2, `"Udp6NoPorts" has no value`},
		{"Udp6NoPorts 12", 1, "the line has no end"},
	} {
		line, err := ParseSNMP6([]byte(test.content), func(_, _ []byte) error { return nil })
		require.EqualError(t, err, test.want)
		require.Equal(t, test.line, line)
	}

	failed := errors.New("not now")
	line, err = ParseSNMP6([]byte(content), func(_, _ []byte) error { return failed })
	require.ErrorIs(t, err, failed)
	require.EqualError(t, err, `Ip6InReceives "86": not now`)
	require.Equal(t, 1, line)
}

// An error, or as many values as keys, each from the line that it is in.
func FuzzParseSNMP(f *testing.F) {
	f.Add([]byte("Tcp: MaxConn OutRsts\nTcp: -1 4\nUdp: NoPorts\nUdp: 7\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		values := 0
		line, err := ParseSNMP(content, func(name, key, text []byte) error {
			require.NotEmpty(t, key)
			require.NotEmpty(t, text)
			require.True(t, bytes.HasPrefix(content, name) || bytes.Contains(content, append([]byte("\n"), name...)))
			values++
			return nil
		})
		if err != nil {
			require.Positive(t, line)
			require.LessOrEqual(t, line, bytes.Count(content, newline)+1)
			return
		}
		require.Zero(t, line)
		columns := 0
		for i, row := range strings.Split(string(content), "\n") {
			if i%2 == 0 {
				continue
			}
			_, texts, _ := strings.Cut(row, ":")
			columns += len(strings.FieldsFunc(texts, func(r rune) bool { return r == ' ' || r == '\t' }))
		}
		require.Equal(t, columns, values)
	})
}

// An error, or a value for each line.
func FuzzParseSNMP6(f *testing.F) {
	f.Add([]byte("Ip6InReceives                   \t86\nUdp6NoPorts\t7\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		values := 0
		line, err := ParseSNMP6(content, func(key, text []byte) error {
			require.NotEmpty(t, key)
			require.NotEmpty(t, text)
			values++
			return nil
		})
		if err != nil {
			require.Positive(t, line)
			require.LessOrEqual(t, line, bytes.Count(content, newline)+1)
			return
		}
		require.Zero(t, line)
		require.Equal(t, bytes.Count(content, newline), values)
	})
}

package main

import (
	"strings"
	"testing"
)

// TestLines checks that a line counts once, whatever its length, even if it ends where the buffer of the reader is full.
func TestLines(t *testing.T) {
	const buffer = 4096 // the default of bufio.NewReader
	for text, want := range map[string]int{
		"":                                     0,
		"\n":                                   1,
		"a":                                    1,
		"\n\na":                                3,
		strings.Repeat("a", buffer-1) + "\n":   1,
		strings.Repeat("a", buffer):            1,
		strings.Repeat("a", buffer) + "\n":     1,
		strings.Repeat("a", 3*buffer) + "\n\n": 2,
		"\n" + strings.Repeat("a", buffer-1) + "\nb": 3,
	} {
		got := 0
		for range lines(strings.NewReader(text)) {
			got++
		}
		if got != want {
			t.Errorf("%d bytes with prefix %.3q: got %d lines, want %d", len(text), text, got, want)
		}
	}
}

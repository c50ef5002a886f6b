package main

import (
	"bytes"
	"log"
	"os"
	"strings"
	"testing"
	"time"
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

// TestPromptOverdue checks that forward warns if no prompt has come when one is overdue, and only then.
func TestPromptOverdue(t *testing.T) {
	for name, want := range map[string]string{
		"never prompted": `W! No gather requested for 1m0s: unless interval is longer, set signal = "STDIN" in the [[inputs.execd]] table`,
		"prompted":       "",
	} {
		t.Run(name, func(t *testing.T) {
			var logged bytes.Buffer
			log.SetOutput(&logged)
			defer log.SetOutput(os.Stderr)
			p, err := newPrompts()
			if err != nil {
				t.Fatal(err)
			}
			defer p.reader.Close()
			received, overdue, done := make(chan struct{}), make(chan time.Time), make(chan struct{})
			s := &signals{gather: make(chan os.Signal), stop: make(chan os.Signal)}
			go func() {
				defer close(done)
				p.forward(received, s, overdue)
			}()
			if want == "" {
				received <- struct{}{}
				select {
				case overdue <- time.Now():
					t.Error("forward still waits for a first prompt")
				case s.gather <- os.Interrupt:
				}
			} else {
				overdue <- time.Now()
			}
			s.stop <- os.Interrupt
			<-done
			if _, got, _ := strings.Cut(logged.String(), "W! "); got != strings.TrimPrefix(want, "W! ")+"\n" && got+want != "" {
				t.Errorf("logged %q, want %q", logged.String(), want)
			}
		})
	}
}

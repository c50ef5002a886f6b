package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"

	"github.com/influxdata/telegraf"
)

func TestPrintMessage(t *testing.T) {
	long := strings.Repeat("é", maxMessage) // twice the maximum, in bytes
	for _, tt := range []struct {
		level         telegraf.LogLevel
		message, want string
	}{
		{telegraf.Error, "a", "E! a\n"},
		{telegraf.Warn, "a", "W! a\n"},
		{telegraf.Info, "a", "I! a\n"},
		{telegraf.Debug, "a", "D! a\n"},
		{telegraf.Trace, "a", "T! a\n"},
		{telegraf.Error, "a\nb\r\nc\rd\n", "E! a; b; c; d\n"},
		{telegraf.Error, "", "E! \n"},
		{telegraf.Error, long, "E! " + long[:maxMessage] + "…\n"},
		{telegraf.Error, "x" + long, "E! x" + long[:maxMessage-2] + "…\n"},
	} {
		var got bytes.Buffer
		printMessage(&got, tt.level, tt.message)
		if got.String() != tt.want {
			t.Errorf("%q: got %q, want %q", tt.message, got.String(), tt.want)
		}
		if got.Len() >= bufio.MaxScanTokenSize {
			t.Errorf("a line of %d bytes is longer than execd can read", got.Len())
		}
	}
}

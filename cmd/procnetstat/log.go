package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/logger"
)

// maxMessage is the maximum length of a message in bytes. At a line of 64 KiB, execd stops reading standard error, and this
// program would block once the pipe is full.
const maxMessage = 16 << 10

// setUpLogging writes everything that is logged through Telegraf's logger or the standard one to w, in the form that execd
// parses. It passes on all levels: log_level of the [[inputs.execd]] table selects from them.
//
// The output of the logger itself is discarded: all its formats begin with the time.
func setUpLogging(w io.Writer) error {
	logger.RedirectLogging(io.Discard)
	_, err := logger.AddCallback(
		func(level telegraf.LogLevel, _ time.Time, _ string, _ map[string]interface{}, args ...interface{}) {
			printMessage(w, level, fmt.Sprint(args...))
		})
	return err
}

func logError(w io.Writer, err error) {
	printMessage(w, telegraf.Error, err.Error())
}

var lineBreaks = strings.NewReplacer("\r\n", "; ", "\n", "; ", "\r", "; ")

// printMessage prints one line. execd would log a second line as a separate message of unknown level.
func printMessage(w io.Writer, level telegraf.LogLevel, message string) {
	message = lineBreaks.Replace(strings.TrimSpace(message))
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	// There is nowhere to report an error of standard error.
	_, _ = fmt.Fprintf(w, "%s %s\n", level.Indicator(), message)
}

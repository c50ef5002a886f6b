package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/logger"
)

// maxMessage is the number of bytes of a message that are printed. At a line of 64 KiB execd stops reading standard
// error for good, and we would hang as soon as the pipe is full.
const maxMessage = 16 << 10

// setUpLogging makes all that is logged through Telegraf's logger or the standard one go to w, in the form that execd
// reads. All levels are passed on; which are wanted is for log_level in the [[inputs.execd]] table to say.
//
// None of the logger's own formats will do: they begin with the time. So they are sent to nowhere.
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

// printMessage prints one line: execd takes a further one for a message of its own, of unknown level.
func printMessage(w io.Writer, level telegraf.LogLevel, message string) {
	message = lineBreaks.Replace(strings.TrimSpace(message))
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	// There is nowhere left to say that this failed.
	_, _ = fmt.Fprintf(w, "%s %s\n", level.Indicator(), message)
}

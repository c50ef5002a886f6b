//go:build unix

package main

import (
	"os"
	"syscall"
)

// gatherSignals are the signals that inputs.execd can send as prompts.
var gatherSignals = []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

//go:build unix

package main

import (
	"os"
	"syscall"
)

// gatherSignals are those that inputs.execd can be set to send for a gather.
var gatherSignals = []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

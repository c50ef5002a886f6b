//go:build !unix

package main

import "os"

// gatherSignals is empty: these signals do not exist here, and inputs.execd can only prompt through standard input.
var gatherSignals []os.Signal

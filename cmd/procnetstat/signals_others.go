//go:build !unix

package main

import "os"

// gatherSignals is empty: where these signals do not exist, inputs.execd asks through standard input only.
var gatherSignals []os.Signal

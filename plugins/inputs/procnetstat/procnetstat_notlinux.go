//go:build !linux

package procnetstat

import (
	"errors"
	"runtime"

	"github.com/influxdata/telegraf"
)

// gatherState is empty: the plugin gathers on Linux only.
type gatherState struct{}

// Init returns an error.
func (*ProcNetStat) Init() error {
	return errors.New("inputs.procnetstat supports only Linux, not " + runtime.GOOS)
}

// Gather does nothing.
func (*ProcNetStat) Gather(telegraf.Accumulator) error { return nil }

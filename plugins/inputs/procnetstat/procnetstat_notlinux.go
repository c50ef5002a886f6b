//go:build !linux

package procnetstat

import (
	"errors"
	"runtime"

	"github.com/influxdata/telegraf"
)

// gathering is nothing, where nothing can be gathered.
type gathering struct{}

// Init says that the plugin is not supported.
func (*ProcNetStat) Init() error {
	return errors.New("inputs.procnetstat reads the socket tables of Linux; it is not supported on " + runtime.GOOS)
}

// Gather does nothing.
func (*ProcNetStat) Gather(telegraf.Accumulator) error { return nil }

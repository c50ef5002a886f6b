//go:build !linux

// Package procnetstat is a Telegraf input plugin for Linux.
package procnetstat

import (
	_ "embed"
	"errors"
	"runtime"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/plugins/inputs"
)

//go:embed sample.conf
var sampleConfig string

// ProcNetStat stands in for the plugin where it is not supported. It takes the same options.
type ProcNetStat struct {
	Measurements []string        `toml:"measurements"`
	Protocols    []string        `toml:"protocols"`
	Source       string          `toml:"source"`
	Owners       string          `toml:"owners"`
	ProcessTags  []string        `toml:"process_tags"`
	FamilyTag    bool            `toml:"family_tag"`
	MaxSeries    int             `toml:"max_series"`
	Log          telegraf.Logger `toml:"-"`
}

// SampleConfig returns the plugin's configuration with all defaults.
func (*ProcNetStat) SampleConfig() string { return sampleConfig }

// Init says that the plugin is not supported.
func (*ProcNetStat) Init() error {
	return errors.New("inputs.procnetstat reads the socket tables of Linux; it is not supported on " + runtime.GOOS)
}

// Gather does nothing.
func (*ProcNetStat) Gather(telegraf.Accumulator) error { return nil }

func init() {
	inputs.Add("procnetstat", func() telegraf.Input { return &ProcNetStat{} })
}

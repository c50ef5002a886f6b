// Package procnetstat is a Telegraf input plugin that attributes every socket of the host to its process, listener, service,
// container and peer, and reports its health.
package procnetstat

import (
	_ "embed"
	"strings"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/plugins/inputs"
)

//go:embed sample.conf
var sampleConfig string

// ProcNetStat is the plugin.
type ProcNetStat struct {
	Measurements       []string        `toml:"measurements"`
	Namespaces         []string        `toml:"namespaces"`
	Protocols          []string        `toml:"protocols"`
	Source             string          `toml:"source"`
	Owners             string          `toml:"owners"`
	Details            []string        `toml:"details"`
	IdleAfter          config.Duration `toml:"idle_after"`
	ClosedConnections  string          `toml:"closed_connections"`
	ProcessTags        []string        `toml:"process_tags"`
	ConnectionTags     []string        `toml:"connection_tags"`
	FamilyTag          bool            `toml:"family_tag"`
	RemotePrefixV4     int             `toml:"remote_prefix_v4"`
	RemotePrefixV6     int             `toml:"remote_prefix_v6"`
	ClientPrefixV4     int             `toml:"client_prefix_v4"`
	ClientPrefixV6     int             `toml:"client_prefix_v6"`
	MaxSeries          int             `toml:"max_series"`
	ProcessInclude     []string        `toml:"process_include"`
	ProcessExclude     []string        `toml:"process_exclude"`
	UserInclude        []string        `toml:"user_include"`
	UserExclude        []string        `toml:"user_exclude"`
	CgroupInclude      []string        `toml:"cgroup_include"`
	CgroupExclude      []string        `toml:"cgroup_exclude"`
	LocalPortsInclude  []ports         `toml:"local_ports_include"`
	LocalPortsExclude  []ports         `toml:"local_ports_exclude"`
	RemotePortsInclude []ports         `toml:"remote_ports_include"`
	RemotePortsExclude []ports         `toml:"remote_ports_exclude"`
	RemoteCIDRsInclude []string        `toml:"remote_cidrs_include"`
	RemoteCIDRsExclude []string        `toml:"remote_cidrs_exclude"`
	ExcludeLoopback    bool            `toml:"exclude_loopback"`
	Log                telegraf.Logger `toml:"-"`

	gatherState `toml:"-"`
}

// ports is a port or a range of ports in an option: 80, "80" or "8000-8100".
type ports string

// UnmarshalTOML accepts a number or a string.
func (p *ports) UnmarshalTOML(source []byte) error {
	*p = ports(strings.Trim(string(source), `"'`))
	return nil
}

const defaultIdleAfter = 15 * time.Minute

func newPlugin() *ProcNetStat {
	return &ProcNetStat{
		IdleAfter: config.Duration(defaultIdleAfter), MaxSeries: 500,
		RemotePrefixV4: 32, RemotePrefixV6: 128, ClientPrefixV4: 24, ClientPrefixV6: 48,
	}
}

// SampleConfig returns the plugin's configuration with all defaults.
func (*ProcNetStat) SampleConfig() string { return sampleConfig }

func init() {
	inputs.Add("procnetstat", func() telegraf.Input { return newPlugin() })
}

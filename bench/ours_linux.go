package main

import (
	"errors"
	"fmt"

	"github.com/procnetstat/procnetstat/netstat"
	_ "github.com/procnetstat/procnetstat/plugins/inputs/procnetstat" // for startPlugin
)

// Values of the option owners.
const (
	ownersBPF    = "bpf"
	ownersProcfs = "procfs"
	ownersNone   = "none"
)

// Configurations of the plugin.
const (
	hostAllDetails = `
measurements = ["host"]
`
	hostOnly       = hostAllDetails + withoutDetails
	defaults       = ``
	withoutDetails = `
details = []
`

	allButMeasurements = `
protocols = ["tcp", "udp", "udplite", "raw", "icmp", "unix"]
process_tags = ["process_name", "user", "pid", "exe", "cmdline", "systemd_unit", "container_id", "pod_uid", "cgroup"]
family_tag = true
`
	everything = allButMeasurements + `
measurements = ["host", "process", "listener", "cgroup", "remote", "gather"]
`
	everythingWithoutOwners = allButMeasurements + `
measurements = ["host", "listener", "cgroup", "remote", "gather"]
`
	everythingAndConnections = allButMeasurements + `
measurements = ["host", "process", "listener", "cgroup", "remote", "connection", "gather"]
max_series = 10000000
`
)

var ours = []subject{
	pluginSubject(rowHost, hostOnly, ownersNone, floorDump),
	pluginSubject("host only, all details", hostAllDetails, ownersNone, floorInfoDump),
	pluginSubject(rowDefaultsBPF, defaults, ownersBPF, floorInfoDump),
	pluginSubject(rowDefaultsProcfs, defaults, ownersProcfs, floorInfoDump, floorWalk),
	pluginSubject("defaults, no owners", defaults, ownersNone, floorInfoDump),
	pluginSubject("defaults, details = []", withoutDetails, ownersBPF, floorDump),
	pluginSubject("everything on, BPF owners", everything, ownersBPF, floorInfoDump),
	pluginSubject("everything on, procfs owners", everything, ownersProcfs, floorInfoDump, floorWalk),
	pluginSubject("everything on, no owners", everythingWithoutOwners, ownersNone, floorInfoDump),
	pluginSubject("everything on + connection, BPF owners", everythingAndConnections, ownersBPF, floorInfoDump),
	{
		name: "defaults, 20,000 short connections", group: groupOurs, floors: []string{floorInfoDump}, exact: true,
		note:  "BPF owners; CPU includes receiving 40,000 close events in the 2 seconds before the gather",
		start: startShortConnections,
	},
	connectsSubject(rowConnectsBare, ownersNone),
	connectsSubject(rowConnects, ownersBPF, rowConnectsBare),
	{
		name: rowV1, group: groupOurs, floors: []string{floorRead, floorWalk}, exact: true,
		start: func(task) (gather, error) { return measureInProcess(v1Connections), nil },
	},
	{
		name: rowExecd, group: groupOurs, floors: []string{floorInfoDump}, exact: true,
		note: `defaults, run like inputs.execd with signal = "STDIN"`, start: startExecd,
	},
}

func pluginSubject(name, options, owners string, floors ...string) subject {
	return subject{
		name: name, group: groupOurs, floors: floors, exact: true,
		start: func(task) (gather, error) {
			gatherOnce, err := startWithOwners(owners, options)
			if err != nil {
				return nil, err
			}
			return pluginGather(gatherOnce, owners, options), nil
		},
	}
}

// startWithOwners starts the plugin. It returns an unavailable error when the kernel or the privileges rule the owners out.
func startWithOwners(owners, options string) (func() (*tally, error), error) {
	gatherOnce, err := startPlugin("procnetstat", fmt.Sprintf("owners = %q\n%s", owners, options))
	if errors.Is(err, errors.ErrUnsupported) {
		err = unavailable(err)
	}
	return gatherOnce, err
}

func pluginGather(gatherOnce func() (*tally, error), owners, options string) gather {
	var acc *tally
	measure := measureInProcess(func() (established int, err error) {
		if acc, err = gatherOnce(); err == nil {
			err = acc.check(owners, options)
		}
		return acc.established, err
	})
	return func() (sample, error) {
		s, err := measure()
		s.Owners, s.Heap.BoxedNumbers = acc.owners, int64(acc.boxedNumbers)
		return s, err
	}
}

// check checks that the gather used the owner lookup and the measurements of its row.
func (t *tally) check(owners, options string) error {
	if t.owners != "" && t.owners != owners {
		return fmt.Errorf("owner lookup was %q, want %q", t.owners, owners)
	}
	if options == everythingAndConnections && t.connectionPoints < t.established {
		return fmt.Errorf("emitted %d points for %d connections", t.connectionPoints, t.established)
	}
	return nil
}

func v1Connections() (established int, err error) {
	connections, err := netstat.TCP.Connections()
	for _, c := range connections {
		if c.State == netstat.TCPEstablished {
			established++
		}
	}
	return established, err
}

package main

import (
	"fmt"

	"github.com/procnetstat/procnetstat/netstat"
	_ "github.com/procnetstat/procnetstat/plugins/inputs/procnetstat" // startPlugin finds it by its name
)

// Ways to find owners.
const (
	ownersBPF    = "bpf"
	ownersProcfs = "procfs"
	ownersNone   = "none"
)

// Options of the plugin.
const (
	hostOnly = `
measurements = ["host"]
tcp_details = false
`
	hostDetails = `
measurements = ["host"]
tcp_details = true
`
	defaults = ``

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
	ownPlugin(rowHost, hostOnly, ownersNone, floorDump),
	ownPlugin("host only, TCP details", hostDetails, ownersNone, floorInfoDump),
	ownPlugin(rowDefaultsBPF, defaults, ownersBPF, floorInfoDump),
	ownPlugin(rowDefaultsProcfs, defaults, ownersProcfs, floorInfoDump, floorWalk),
	ownPlugin("defaults, no owners", defaults, ownersNone, floorInfoDump),
	ownPlugin("everything on, BPF owners", everything, ownersBPF, floorInfoDump),
	ownPlugin("everything on, procfs owners", everything, ownersProcfs, floorInfoDump, floorWalk),
	ownPlugin("everything on, no owners", everythingWithoutOwners, ownersNone, floorInfoDump),
	ownPlugin("everything on + connection, BPF owners", everythingAndConnections, ownersBPF, floorInfoDump),
	{
		name: "defaults, 20,000 short connections", group: groupOurs, floors: []string{floorInfoDump}, exact: true,
		note:  "BPF owners; CPU is that of the gather, and of hearing of 40,000 closed sockets in the 2 seconds before it",
		start: startClosed,
	},
	{
		name: rowV1, group: groupOurs, floors: []string{floorRead, floorWalk}, exact: true,
		start: func(task) (gather, error) { return inProcess(connectionsOfV1), nil },
	},
	{
		name: rowExecd, group: groupOurs, floors: []string{floorInfoDump}, exact: true,
		note: `defaults, run as by execd with signal = "STDIN"`, start: startExecd,
	},
}

func ownPlugin(name, options, owners string, floors ...string) subject {
	return subject{
		name: name, group: groupOurs, floors: floors, exact: true,
		start: func(task) (gather, error) {
			once, err := startPlugin("procnetstat", fmt.Sprintf("owners = %q\n%s", owners, options))
			if err != nil {
				return nil, err
			}
			return ownGather(once, owners, options), nil
		},
	}
}

func ownGather(once func() (*tally, error), owners, options string) gather {
	var seen *tally
	measured := inProcess(func() (established int, err error) {
		if seen, err = once(); err == nil {
			err = seen.check(owners, options)
		}
		return seen.established, err
	})
	return func() (sample, error) {
		s, err := measured()
		s.Owners, s.Heap.Numbers = seen.owners, int64(seen.numbers)
		return s, err
	}
}

// check checks that the gather did what its row says.
func (t *tally) check(owners, options string) error {
	if t.owners != "" && t.owners != owners {
		if owners == ownersBPF {
			if iterator, err := openIterator(); err != nil {
				return err
			} else if err := iterator.Close(); err != nil {
				return err
			}
		}
		return fmt.Errorf("it found owners by %q, and not by %q", t.owners, owners)
	}
	if options == everythingAndConnections && t.points < t.established {
		return fmt.Errorf("it emitted %d points for %d connections", t.points, t.established)
	}
	return nil
}

func connectionsOfV1() (established int, err error) {
	connections, err := netstat.TCP.Connections()
	for _, c := range connections {
		if c.State == netstat.TCPEstablished {
			established++
		}
	}
	return established, err
}

package main

import "strings"

type group string

const (
	groupFloors group = "floors"
	groupOurs   group = "procnetstat"
	groupPeers  group = "peers"
)

// Names of the rows that are denominators of ratios or have a target.
const (
	floorDump     = "bare sock_diag dump"
	floorInfoDump = "bare sock_diag dump with INFO"
	floorWalk     = "bare fd walk"
	floorRead     = "bare read of /proc/net/tcp{,6}"
	floorBPF      = "bare BPF iterator"

	rowHost           = "host only, details = []"
	rowDefaultsBPF    = "defaults, BPF owners"
	rowDefaultsProcfs = "defaults, procfs owners"
	rowV1             = "TCP.Connections() (v1 API)"
	rowExecd          = "execd program"

	rowConnects     = "10,000 connects a second, recorded"
	rowConnectsBare = "10,000 connects a second, not recorded"

	rowNetstat  = "inputs.netstat"
	rowProcstat = "inputs.procstat, sockets of 2 processes"
)

// procstatProcesses is the number of processes that inputs.procstat monitors.
const procstatProcesses = 2

// floorAbbreviations are short names of the floors, for ratios.
var floorAbbreviations = map[string]string{
	floorDump:     "dump",
	floorInfoDump: "INFO dump",
	floorWalk:     "fd walk",
	floorRead:     "read",
	floorBPF:      "BPF",

	rowConnectsBare: "not recorded",
}

// joinFloors returns the sum of floors as text, such as "(INFO dump + fd walk)".
func joinFloors(floors ...string) string {
	short := make([]string, len(floors))
	for i, floor := range floors {
		short[i] = floorAbbreviations[floor]
	}
	joined := strings.Join(short, " + ")
	if len(floors) > 1 {
		joined = "(" + joined + ")"
	}
	return joined
}

package main

import "strings"

type group string

const (
	groupFloors group = "floors"
	groupOurs   group = "procnetstat"
	groupPeers  group = "peers"
)

// The rows that others are measured by, or that have a target.
const (
	floorDump     = "bare sock_diag dump"
	floorInfoDump = "bare sock_diag dump with INFO"
	floorWalk     = "bare fd walk"
	floorRead     = "bare read of /proc/net/tcp{,6}"
	floorBPF      = "bare BPF iterator"

	rowHost           = "host only"
	rowDefaultsBPF    = "defaults, BPF owners"
	rowDefaultsProcfs = "defaults, procfs owners"
	rowV1             = "TCP.Connections() (v1 API)"
	rowExecd          = "execd program"

	rowNetstat  = "inputs.netstat"
	rowProcstat = "inputs.procstat, sockets of 2 processes"
)

// procstatProcesses is the number of processes that inputs.procstat is asked for.
const procstatProcesses = 2

// shortFloors are what floors are called where there is little room.
var shortFloors = map[string]string{
	floorDump:     "dump",
	floorInfoDump: "INFO dump",
	floorWalk:     "fd walk",
	floorRead:     "read",
	floorBPF:      "BPF",
}

// joinFloors returns what several floors are called together.
func joinFloors(floors ...string) string {
	short := make([]string, len(floors))
	for i, floor := range floors {
		short[i] = shortFloors[floor]
	}
	joined := strings.Join(short, " + ")
	if len(floors) > 1 {
		joined = "(" + joined + ")"
	}
	return joined
}

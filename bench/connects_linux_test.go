package main

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

func TestAttachedProgram(t *testing.T) {
	const position = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1059\n"
	for name, tt := range map[string]struct {
		fdinfo   string
		want     ebpf.ProgramID
		attached bool
	}{
		"tracepoint": {position + "link_type:\traw_tracepoint\nlink_id:\t3\nprog_tag:\td4dd8ccb93bd7acb\nprog_id:\t31\n", 31, true},
		"fentry":     {position + "link_type:\ttracing\nlink_id:\t3\nprog_tag:\td4dd8ccb93bd7acb\nprog_id:\t4294967295\n", 1<<32 - 1, true},
		"iterator":   {position + "link_type:\titer\nlink_id:\t3\nprog_tag:\td4dd8ccb93bd7acb\nprog_id:\t31\ntarget_name:\ttask\n", 0, false},
		"program":    {position + "prog_type:\t26\nprog_jited:\t1\nprog_id:\t31\nrun_time_ns:\t7\nrun_cnt:\t1\n", 0, false},
		"detached":   {position + "link_type:\ttracing\nlink_id:\t3\n", 0, false},
		"no number":  {position + "link_type:\ttracing\nprog_id:\tx\n", 0, false},
		"a file":     {position, 0, false},
		"empty":      {"", 0, false},
	} {
		id, attached := attachedProgram(tt.fdinfo)
		require.Equal(t, tt.attached, attached, name)
		if attached {
			require.Equal(t, tt.want, id, name)
		}
	}
}

func TestCostOfMeasurement(t *testing.T) {
	cost := bpfCost{Time: 1000, Runs: 10}
	require.Equal(t, bpfCost{Time: 600, Runs: 10}, cost.less(bpfCost{Time: 200, Runs: 5}))
	require.Equal(t, cost, cost.less(bpfCost{}))
}

func TestClosedCounter(t *testing.T) {
	var c closedCounter
	for _, tt := range []struct {
		total, want int
		err         string
	}{
		{total: 0, want: 100}, // counters begin with 0
		{total: 100, want: 100},
		{total: 195, want: 100},
		{total: 289, want: 100, err: "received close events of 94 sockets, want 100"},
		{total: 289, want: 0},
		{total: 289, want: 1, err: "received close events of 0 sockets, want 1"},
	} {
		before := c.total
		err := c.add(&tally{closed: tt.total}, tt.want)
		if tt.err == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, tt.err)
		}
		require.Equal(t, tt.total-before, c.last)
	}
}

package main

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFlags(t *testing.T) {
	opts, err := parseFlags(nil, 1<<20)
	require.NoError(t, err)
	require.Equal(t, &options{Sockets: 120000, Processes: 50, Runs: 5, Peers: true}, opts)

	opts, err = parseFlags([]string{"-sockets=1000000", "-processes=60", "-runs=1", "-peers=false", "-only=dump"}, 1<<20)
	require.NoError(t, err)
	require.Equal(t, options{Sockets: 1000000, Processes: 60, Runs: 1, only: opts.only}, *opts)
	require.True(t, opts.selects(floorDump, groupFloors))
	require.False(t, opts.selects(floorWalk, groupFloors))
	require.False(t, opts.selects("a dump", groupPeers))
}

func TestInvalidFlags(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-sockets=x"}, `invalid value "x" for flag -sockets: parse error`},
		{[]string{"-only=("}, "invalid value \"(\" for flag -only: error parsing regexp: missing closing ): `(`"},
		{[]string{"-nonsense"}, "flag provided but not defined: -nonsense"},
		{[]string{"nonsense"}, `unexpected argument "nonsense"`},
		{[]string{"-processes=0"}, "-processes 0: must be an even number from 2 to 1200 (half servers, half clients)"},
		{[]string{"-processes=3"}, "-processes 3: must be an even number from 2 to 1200 (half servers, half clients)"},
		{[]string{"-processes=1202"}, "-processes 1202: must be an even number from 2 to 1200 (half servers, half clients)"},
		{[]string{"-sockets=121"}, "-sockets 121: must be an even number (two per connection), and at least 50 (one per process)"},
		{[]string{"-sockets=8", "-processes=10"},
			"-sockets 8: must be an even number (two per connection), and at least 10 (one per process)"},
		{[]string{"-sockets=-2"}, "-sockets -2: must be an even number (two per connection), and at least 50 (one per process)"},
		{[]string{"-sockets=1000000"}, "-sockets 1000000 -processes 50: 20000 sockets per process exceed the limit of 19980; " +
			"use -processes 52 or more"},
		{[]string{"-sockets=23976002"}, "-sockets 23976002: at most 23976000 (1200 processes) are possible"},
		{[]string{"-runs=0"}, "-runs 0: must be at least 1"},
	} {
		_, err := parseFlags(tt.args, 1<<20)
		require.EqualError(t, err, tt.want)
	}
	_, err := parseFlags(nil, 1024)
	require.ErrorContains(t, err, "exceed the limit of 1004; use -processes 120 or more")
	_, err = parseFlags(nil, reservedFiles)
	require.EqualError(t, err, "the limit of open files is too low to hold a connection; raise ulimit -n")
}

func TestHelp(t *testing.T) {
	_, err := parseFlags([]string{"-help"}, 1<<20)
	require.ErrorIs(t, err, flag.ErrHelp)
	require.Contains(t, usage(), "-sockets number")
}

// TestConnectionsOfPair checks that the pairs together have all connections, evenly distributed.
func TestConnectionsOfPair(t *testing.T) {
	for _, total := range []int{25, 26, 49, 60000} {
		sum := 0
		for pair := range 25 {
			n := connectionsOfPair(total, 25, pair)
			require.Contains(t, []int{total / 25, total/25 + 1}, n)
			sum += n
		}
		require.Equal(t, total, sum)
	}
}

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
	require.True(t, opts.wants(floorDump, groupFloors))
	require.False(t, opts.wants(floorWalk, groupFloors))
	require.False(t, opts.wants("a dump", groupPeers))
}

func TestWrongFlags(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-sockets=x"}, `invalid value "x" for flag -sockets: parse error`},
		{[]string{"-only=("}, "invalid value \"(\" for flag -only: error parsing regexp: missing closing ): `(`"},
		{[]string{"-nonsense"}, "flag provided but not defined: -nonsense"},
		{[]string{"nonsense"}, `unexpected argument "nonsense"`},
		{[]string{"-processes=0"}, "-processes 0: an even number from 2 to 1200 is needed, as half are servers and half clients"},
		{[]string{"-processes=3"}, "-processes 3: an even number from 2 to 1200 is needed, as half are servers and half clients"},
		{[]string{"-processes=1202"}, "-processes 1202: an even number from 2 to 1200 is needed, as half are servers and half clients"},
		{[]string{"-sockets=121"}, "-sockets 121: an even number from 50 on is needed, as a connection has two, and each of the 50 " +
			"processes holds one at least"},
		{[]string{"-sockets=8", "-processes=10"}, "-sockets 8: an even number from 10 on is needed, as a connection has two, and each " +
			"of the 10 processes holds one at least"},
		{[]string{"-sockets=-2"}, "-sockets -2: an even number from 50 on is needed, as a connection has two, and each of the 50 " +
			"processes holds one at least"},
		{[]string{"-sockets=1000000"}, "-sockets 1000000 -processes 50: that is 20000 sockets a process, which can hold 19980 at most; " +
			"it takes -processes 52 or more"},
		{[]string{"-sockets=23976002"}, "-sockets 23976002: the 1200 processes that there can be hold 23976000 at most"},
		{[]string{"-runs=0"}, "-runs 0: at least 1 is needed"},
	} {
		_, err := parseFlags(tt.args, 1<<20)
		require.EqualError(t, err, tt.want)
	}
	_, err := parseFlags(nil, 1024)
	require.ErrorContains(t, err, "which can hold 1004 at most; it takes -processes 120 or more")
	_, err = parseFlags(nil, spareFiles)
	require.EqualError(t, err, "a process may not open enough files to hold a connection; raise ulimit -n")
}

func TestHelp(t *testing.T) {
	_, err := parseFlags([]string{"-help"}, 1<<20)
	require.ErrorIs(t, err, flag.ErrHelp)
	require.Contains(t, usage(), "-sockets number")
}

// TestShare: the pairs have as many connections as were asked for, and none has two more than another.
func TestShare(t *testing.T) {
	for _, all := range []int{25, 26, 49, 60000} {
		sum := 0
		for pair := range 25 {
			n := share(all, 25, pair)
			require.Contains(t, []int{all / 25, all/25 + 1}, n)
			sum += n
		}
		require.Equal(t, all, sum)
	}
}

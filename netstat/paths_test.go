package netstat

import (
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestPathTable(t *testing.T) {
	var table pathTable
	for name, want := range map[string]string{
		"": "", "/run/a b": "/run/a b", "/run/nul\x00\x00": "/run/nul", "\x00": "@", "\x00x\x00": "@x@", "\x00\xff\n": "@\xff\n",
	} {
		require.Equal(t, want, table.getDiag([]byte(name)), "%q", name)
	}
	buffer := []byte("/run/a")
	first := table.get(buffer)
	table.nextScan()
	again := table.get(buffer)
	require.Same(t, unsafe.StringData(first), unsafe.StringData(again))
	copy(buffer, "changed")
	require.Equal(t, "/run/a", again)
	require.Equal(t, "/run/a", table.get([]byte("/run/a")))
	table.nextScan()
	require.Len(t, table.byName, 1, "the others were not seen")
	table.nextScan()
	require.Empty(t, table.byName)
}

// The names of more sockets are right, but not kept.
func TestPathTableIsBounded(t *testing.T) {
	var table pathTable
	for i := range maxPaths + 10 {
		name := strconv.Itoa(i)
		require.Equal(t, name, table.get([]byte(name)))
	}
	require.Len(t, table.byName, maxPaths)
	table.nextScan()
	table.nextScan()
	require.Equal(t, "new", table.get([]byte("new")))
	require.Len(t, table.byName, 1)
}

package netstat

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOwnerTable(t *testing.T) {
	var table ownerTable
	a, b, c := &Process{PID: 1}, &Process{PID: 2}, &Process{PID: 3}
	for range 2 { // it can be filled again
		table.clear()
		require.Nil(t, table.first(10))
		require.Empty(t, table.appendOwners(nil, 10))

		table.add(a, []uint64{10, 11, 10, 10, 0}) // with duplicates of a descriptor
		table.add(b, []uint64{11})
		table.add(c, []uint64{11, 12, 11})

		for inode, want := range map[uint64][]*Process{10: {a}, 11: {a, b, c}, 12: {c}, 13: nil, 0: nil} {
			require.Equal(t, want, table.appendOwners(nil, inode), "inode %d", inode)
			if want == nil {
				require.Nil(t, table.first(inode), "inode %d", inode)
			} else {
				require.Same(t, want[0], table.first(inode), "inode %d", inode)
			}
		}
	}
	require.Equal(t, []*Process{c, a}, table.appendOwners([]*Process{c}, 10), "appended")
}

// A table that was not filled has no owners.
func TestOwnerTableZero(t *testing.T) {
	var table ownerTable
	require.Nil(t, table.first(1))
	require.Empty(t, table.appendOwners(nil, 1))
}

func TestOwnerTableDoesNotAllocate(t *testing.T) {
	var table ownerTable
	processes, inodes := []*Process{{PID: 1}, {PID: 2}}, make([]uint64, 1000)
	for i := range inodes {
		inodes[i] = uint64(i)
	}
	owners := make([]*Process, 0, len(processes))
	allocs := testing.AllocsPerRun(10, func() {
		table.clear()
		for _, p := range processes {
			table.add(p, inodes)
		}
		for _, inode := range inodes {
			owners = table.appendOwners(owners[:0], inode)
		}
	})
	require.Zero(t, allocs)
}

func TestOwnerMethod(t *testing.T) {
	for method, name := range map[OwnerMethod]string{OwnersAuto: "auto", OwnersBPF: "bpf", OwnersProcfs: "procfs", OwnersNone: "none"} {
		require.Equal(t, name, method.String())
		got, err := ParseOwnerMethod(name)
		require.NoError(t, err)
		require.Equal(t, method, got)
	}
	require.Equal(t, "OwnerMethod(200)", OwnerMethod(200).String())
	_, err := ParseOwnerMethod("Procfs")
	require.EqualError(t, err, `"Procfs" is not one of auto, bpf, procfs, none`)
}

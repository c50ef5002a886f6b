package netstat

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
)

// deadline panics if the test hangs.
func deadline(t *testing.T) {
	t.Helper()
	name := t.Name()
	timer := time.AfterFunc(time.Minute, func() { panic(name + " hangs") })
	t.Cleanup(func() { timer.Stop() })
}

// The table grows before it is full, as a search in a full table would not end.
func TestOwnerTableGrows(t *testing.T) {
	deadline(t)
	var table ownerTable
	table.clear()
	inodes := make([]uint64, 10*minSlots)
	for i := range inodes {
		inodes[i] = uint64(i + 1)
	}
	table.add(&Process{PID: 1}, inodes)
	require.Greater(t, len(table.slots), len(inodes))
	require.Empty(t, table.appendOwners(nil, uint64(len(inodes)+1)))
}

func TestOwnerTable(t *testing.T) {
	deadline(t)
	type add struct {
		pid    int
		inodes []uint64
	}
	for name, test := range map[string]struct {
		adds []add
		want map[uint64][]int
	}{
		"nothing":          {nil, map[uint64][]int{0: nil, 1: nil, math.MaxUint64: nil}},
		"no sockets":       {[]add{{1, nil}, {2, []uint64{7}}}, map[uint64][]int{7: {2}, 8: nil}},
		"duplicates":       {[]add{{1, []uint64{7, 8, 7, 7}}}, map[uint64][]int{7: {1}, 8: {1}}},
		"no inode":         {[]add{{1, []uint64{0, 7}}, {2, []uint64{0}}}, map[uint64][]int{0: nil, 7: {1}}},
		"limits":           {[]add{{1, []uint64{1, math.MaxUint32}}}, map[uint64][]int{1: {1}, math.MaxUint32: {1}, math.MaxUint32 - 1: nil}},
		"more than 32 bit": {[]add{{1, []uint64{1<<32 + 7, math.MaxUint64}}, {2, []uint64{7, 1 << 32}}}, map[uint64][]int{7: {1, 2}, 1<<40 + 7: {1, 2}, 1 << 32: nil, math.MaxUint32: {1}}},
		"two":              {[]add{{1, []uint64{7}}, {2, []uint64{7}}}, map[uint64][]int{7: {1, 2}}},
		"two, descending":  {[]add{{2, []uint64{7}}, {1, []uint64{7}}}, map[uint64][]int{7: {1, 2}}},
		"ascending":        {[]add{{1, []uint64{7}}, {2, []uint64{7}}, {3, []uint64{7, 8}}, {9, []uint64{7}}}, map[uint64][]int{7: {1, 2, 3, 9}, 8: {3}}},
		"descending":       {[]add{{9, []uint64{7}}, {3, []uint64{7, 8}}, {2, []uint64{7}}, {1, []uint64{7}}}, map[uint64][]int{7: {1, 2, 3, 9}, 8: {3}}},
		"between":          {[]add{{1, []uint64{7}}, {9, []uint64{7}}, {3, []uint64{7}}, {2, []uint64{7}}, {5, []uint64{7}}}, map[uint64][]int{7: {1, 2, 3, 5, 9}}},
		"twice":            {[]add{{1, []uint64{7, 8}}, {1, []uint64{7, 9}}}, map[uint64][]int{7: {1}, 8: {1}, 9: {1}}},
		"twice the first":  {[]add{{1, []uint64{7}}, {2, []uint64{7}}, {3, []uint64{7}}, {1, []uint64{7}}}, map[uint64][]int{7: {1, 2, 3}}},
		"twice the middle": {[]add{{1, []uint64{7}}, {2, []uint64{7, 7}}, {3, []uint64{7}}, {2, []uint64{7}}}, map[uint64][]int{7: {1, 2, 3}}},
		"twice the last":   {[]add{{1, []uint64{7}}, {2, []uint64{7}}, {3, []uint64{7, 7}}, {3, []uint64{7}}}, map[uint64][]int{7: {1, 2, 3}}},
	} {
		t.Run(name, func(t *testing.T) {
			var table ownerTable
			for range 3 { // it can be reused
				table.clear()
				for _, add := range test.adds {
					table.add(&Process{PID: add.pid}, add.inodes)
				}
				for inode, want := range test.want {
					var pids []int
					for _, p := range table.appendOwners(nil, inode) {
						pids = append(pids, p.PID)
					}
					require.Equal(t, want, pids, "inode %d", inode)
					if first := table.first(inode); want == nil {
						require.Nil(t, first, "inode %d", inode)
					} else {
						require.Equal(t, want[0], first.PID, "inode %d", inode)
					}
				}
			}
		})
	}
}

func TestOwnerTableAppends(t *testing.T) {
	var table ownerTable
	a, b, c := &Process{PID: 1}, &Process{PID: 2}, &Process{PID: 3}
	table.clear()
	table.add(a, []uint64{10, 11})
	table.add(b, []uint64{11})
	require.Equal(t, []*Process{c, a}, table.appendOwners([]*Process{c}, 10))
	require.Equal(t, []*Process{c, a, b}, table.appendOwners([]*Process{c}, 11))
	require.Equal(t, []*Process{c}, table.appendOwners([]*Process{c}, 12))
}

// A zero table has no owners.
func TestOwnerTableZero(t *testing.T) {
	var table ownerTable
	for range 2 {
		table.prefetch(1)
		require.Nil(t, table.first(1))
		require.Empty(t, table.appendOwners(nil, 1))
		table.clear()
	}
}

// inodePatterns are possible numberings: pattern(i) is the number of the i-th socket.
var inodePatterns = []struct {
	name    string
	pattern func(i int) uint64
}{
	{"one after the other", func(i int) uint64 { return uint64(1_000_000 + i) }},
	{"descending", func(i int) uint64 { return uint64(10_000_000 - i) }},
	{"to the end of 32 bits", func(i int) uint64 { return math.MaxUint32 - uint64(i) }},
	{"every second", func(i int) uint64 { return uint64(1 + 2*i) }},
	{"every eighth", func(i int) uint64 { return uint64(8 * (i + 1)) }},
	{"stride 64", func(i int) uint64 { return uint64(64 * (i + 1)) }},
	{"stride 4096", func(i int) uint64 { return uint64(4096*(i+1)) % (1 << 32) }},
	{"stride 65537", func(i int) uint64 { return uint64(65537*(i+1)) % (1 << 32) }},
	{"by processor", func(i int) uint64 { return uint64(i%16*65536 + i/16 + 1) }}, // get_next_ino, fs/inode.c: blocks of 1024
	{"runs with gaps", func(i int) uint64 { return uint64(i/100*100_000 + i%100 + 1) }},
	{"bits in reverse", func(i int) uint64 { return uint64(reverse(uint32(i + 1))) }},
	{"random", func(i int) uint64 { return 1 + rand.New(rand.NewPCG(uint64(i), 1)).Uint64N(math.MaxUint32) }},
}

func reverse(v uint32) (reversed uint32) {
	for range 32 {
		reversed, v = reversed<<1|v&1, v>>1
	}
	return reversed
}

// Whatever the numbers, a socket is found near the slot where its search starts.
func TestOwnerTableSpreads(t *testing.T) {
	for _, numbers := range inodePatterns {
		for _, size := range []int{100, 10_000, 100_000} {
			t.Run(fmt.Sprintf("%s/%d", numbers.name, size), func(t *testing.T) {
				var table ownerTable
				table.clear()
				inodes := make([]uint64, size)
				for i := range inodes {
					inodes[i] = numbers.pattern(i)
				}
				table.add(&Process{PID: 1}, inodes)
				for _, inode := range inodes {
					require.NotNil(t, table.first(inode))
				}
				far, mask := 0, uint32(len(table.slots)-1)
				for i, s := range table.slots {
					if s.inode != 0 {
						far += int((uint32(i) - table.home(s.inode)) & mask)
					}
				}
				require.LessOrEqual(t, 2*table.inUse, len(table.slots)+2)
				require.Less(t, float64(far)/float64(table.inUse), 8.0, "mean distance in slots")
			})
		}
	}
}

// modelTable is a simple model of ownerTable.
type modelTable map[uint32][]*Process

func (m modelTable) add(p *Process, inodes []uint64) {
	for _, inode := range inodes {
		holders := m[uint32(inode)]
		i, held := slices.BinarySearchFunc(holders, p, func(a, b *Process) int { return cmp.Compare(a.PID, b.PID) })
		if !held && uint32(inode) != 0 {
			m[uint32(inode)] = slices.Insert(holders, i, p)
		}
	}
}

// requireSame compares the owners of every asked socket, including absent ones.
func (m modelTable) requireSame(t *testing.T, table *ownerTable, asked []uint64) {
	t.Helper()
	var owners []*Process
	for _, inode := range asked {
		owners = table.appendOwners(owners[:0], inode)
		if want := m[uint32(inode)]; !slices.Equal(want, owners) {
			t.Fatalf("socket %d has the owners %v, want %v", inode, owners, want)
		}
		if first := table.first(inode); len(owners) > 0 && first != owners[0] || len(owners) == 0 && first != nil {
			t.Fatalf("socket %d has the first owner %v of %v", inode, first, owners)
		}
	}
	require.Len(t, m, table.inUse)
}

// Tables that grow and shrink from scan to scan match the model.
func TestOwnerTableMatchesModel(t *testing.T) {
	const seed = 20
	for _, numbers := range inodePatterns {
		t.Run(numbers.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, uint64(len(numbers.name))))
			var table ownerTable
			for _, sockets := range []int{10, 5000, 300, 0, 20_000, 1, 1, 1, 1, 1, 1, 1, 1, 1, 100, 7000} {
				table.clear()
				model := modelTable{}
				asked := []uint64{0, math.MaxUint64, 1 << 32}
				for range 1 + sockets/50 {
					p := &Process{PID: 1 + random.IntN(1+sockets/20)} // some are added several times
					inodes := make([]uint64, 0, 60)
					for range random.IntN(min(sockets+1, 60)) {
						i := random.IntN(sockets)
						if random.IntN(3) == 0 {
							i = random.IntN(1 + sockets/100) // with many holders
						}
						inodes = append(inodes, numbers.pattern(i))
					}
					if random.IntN(10) == 0 {
						inodes = append(inodes, 0, random.Uint64())
					}
					table.add(p, inodes)
					model.add(p, inodes)
					asked = append(asked, inodes...)
				}
				for i := range sockets + 10 {
					asked = append(asked, numbers.pattern(i), numbers.pattern(i)+1)
				}
				model.requireSame(t, &table, asked)
			}
		})
	}
}

// After a peak the table releases its processes at once, and half of its memory with each scan.
func TestOwnerTableShrinks(t *testing.T) {
	const big, small = 100_000, 10
	var table ownerTable
	table.clear()
	inodes := make([]uint64, big)
	for i := range inodes {
		inodes[i] = uint64(i + 1)
	}
	p := &Process{PID: 1}
	gone := weak.Make(p)
	table.add(p, inodes)
	runtime.GC()
	require.NotNil(t, gone.Value())
	require.GreaterOrEqual(t, len(table.slots), 2*big)

	table.clear() // the next scan may be as big
	require.GreaterOrEqual(t, len(table.slots), 2*big)
	runtime.GC()
	require.Nil(t, gone.Value(), "the process of the previous scan")

	for scan := 0; len(table.slots) > minSlots; scan++ {
		require.Less(t, scan, 20)
		before := len(table.slots)
		table.add(&Process{PID: 2}, inodes[:small])
		for i := range 2 * small {
			require.Equal(t, i < small, table.first(inodes[i]) != nil)
		}
		table.clear()
		require.Len(t, table.slots, before/2)
		for i := range small {
			require.Nil(t, table.first(inodes[i]))
		}
	}
	table.clear()
	require.Len(t, table.slots, minSlots)
}

// A table that is a quarter full does not shrink, as it would soon grow again.
func TestOwnerTableKeepsItsSize(t *testing.T) {
	var table ownerTable
	inodes := make([]uint64, 10_000)
	for i := range inodes {
		inodes[i] = uint64(i + 1)
	}
	table.clear()
	table.add(&Process{PID: 1}, inodes)
	size := len(table.slots)
	for range 10 {
		table.clear()
		table.add(&Process{PID: 1}, inodes[:len(inodes)/4])
		require.Len(t, table.slots, size)
	}
}

func TestOwnerTableDoesNotAllocate(t *testing.T) {
	const sockets = 1000
	var table ownerTable
	var processes []*Process
	for pid := range 20 {
		processes = append(processes, &Process{PID: pid * 7 % 20}) // not sorted
	}
	inodes := make([]uint64, sockets)
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
			table.prefetch(uint32(inode))
			owners = table.appendOwners(owners[:0], inode)
		}
	})
	require.Zero(t, allocs)
	require.Len(t, owners, len(processes))
}

func BenchmarkOwnerTable(b *testing.B) {
	for _, size := range []int{1000, 100_000, 1_000_000} {
		inodes := make([]uint64, size)
		for i := range inodes {
			inodes[i] = inodePatterns[8].pattern(i)
		}
		// The kernel returns sockets in the order of its own hash table.
		shuffled := slices.Clone(inodes)
		random := rand.New(rand.NewPCG(1, 2))
		random.Shuffle(size, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		processes := make([]*Process, 50)
		for i := range processes {
			processes[i] = &Process{PID: i + 1}
		}
		var table ownerTable
		fill := func() {
			table.clear()
			for i, p := range processes {
				table.add(p, inodes[i*size/len(processes):(i+1)*size/len(processes)])
			}
		}
		fill()
		b.Run(fmt.Sprintf("fill/sockets=%d", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				fill()
			}
			reportPer(b, "socket", size)
		})
		b.Run(fmt.Sprintf("lookup/sockets=%d", size), func(b *testing.B) {
			owners := make([]*Process, 0, 4)
			b.ReportAllocs()
			for b.Loop() {
				for _, inode := range shuffled {
					owners = table.appendOwners(owners[:0], inode)
				}
			}
			reportPer(b, "socket", size)
			require.Len(b, owners, 1)
		})
	}
}

// reportPer reports the time per item of an iteration.
func reportPer(b *testing.B, thing string, count int) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(count), "ns/"+thing)
}

//go:build linux

package procnetstat

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

// TestFlowTable compares a flowTable with a map, through passes in which sockets come, go and change their order.
func TestFlowTable(t *testing.T) {
	for name, id := range map[string]func(n uint64) uint64{
		"one after the other": func(n uint64) uint64 { return n + 1 },
		"far apart":           func(n uint64) uint64 { return (n + 1) << 32 },
		"equal low bits":      func(n uint64) uint64 { return n<<16 | 7 },
		"from inodes":         func(n uint64) uint64 { return n | 1<<63 },
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			var r flowTable
			model := map[uint64]uint64{}
			alive := []uint64{}
			next := uint64(0)
			for pass := range uint32(60) {
				for range random.IntN(400) {
					alive = append(alive, id(next))
					next++
				}
				if pass%10 == 5 { // a load ends
					alive = alive[:len(alive)/20]
				}
				if pass%3 == 0 {
					random.Shuffle(len(alive), func(i, j int) { alive[i], alive[j] = alive[j], alive[i] })
				}
				for _, socket := range alive {
					value := random.Uint64()
					was, known := model[socket]
					got := r.find(socket)
					require.Equal(t, known, got != nil)
					if got == nil {
						r.add(flow{id: socket, kernelCounters: kernelCounters{bytesAcked: value}, pass: pass})
					} else {
						require.Equal(t, was, got.bytesAcked)
						got.bytesAcked, got.pass = value, pass
					}
					model[socket] = value
				}
				r.keep(func(of *flow) bool { return of.pass == pass })
				for socket := range model {
					if r.find(socket) == nil {
						delete(model, socket)
					}
				}
				require.Len(t, r.all, len(alive))
				require.Len(t, model, len(alive))
			}
			r.keep(func(*flow) bool { return false })
			require.Nil(t, r.find(id(0)))
			require.LessOrEqual(t, cap(r.all)+len(r.slots), 256, "memory is given back")
		})
	}
}

func TestFlowTableDoNotAllocate(t *testing.T) {
	r := flowTable{hasStalls: true}
	pass := func() {
		for id := range uint64(5000) {
			if r.find(id+1) == nil {
				r.add(flow{id: id + 1})
			}
		}
		r.keep(func(of *flow) bool { return of.id%10 != 0 }) // some go, and come again
	}
	pass()
	require.LessOrEqual(t, testing.AllocsPerRun(10, pass), 1.0)
}

// TestLocalPortsShrink: after a peak the table is as small as what is left, which keeps its numbers.
func TestLocalPortsShrink(t *testing.T) {
	p := newLocalPorts()
	all := make([]flow, 10_000)
	for i := range all {
		s := connected(netstat.TransportTCP, "198.51.100.1:443")
		s.Remote = netip.AddrPortFrom(s.Remote.Addr(), uint16(i/2))
		all[i].ports = p.add(7, s)
	}
	const left = 3
	for i := range all[:len(all)-left] {
		p.remove(all[i].ports)
	}
	all = append([]flow{{}}, all[len(all)-left:]...)
	p.shrink(all)
	require.Len(t, p.all, 1+2)
	require.Len(t, p.indexes, 2)
	require.Equal(t, map[uint64]int64{7: 2}, p.most())
	require.Zero(t, all[0].ports)
	for _, f := range all {
		p.remove(f.ports)
	}
	require.Empty(t, p.indexes)
	require.Empty(t, p.most())
}

//go:build linux

package procnetstat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/influxdata/telegraf/testutil"

	"github.com/procnetstat/procnetstat/netstat"
)

// group is what a benchmark feeds with sockets: a pass and all measurements that group them.
type group struct {
	pass         *pass
	scopes       scopes
	measurements []measurement
	sockets      []*netstat.Socket
	owners       []*owner
}

// usualDetails are those that are on by default.
var usualDetails = detailOf(defaultDetails)

// newGroup makes sockets of as many processes, half of which listen and half of which connect.
func newGroup(sockets, processes int) *group {
	limit := seriesOptions{details: usualDetails, maxSeries: 500, log: testutil.Logger{Quiet: true}}
	var wantAll filters // without conditions
	g := &group{pass: newPass(wantAll, usualDetails, newUserNames(nil), newCgroups(false, "", nil))}
	g.measurements = []measurement{
		newHostMeasurement(false, false, seriesOptions{details: usualDetails}),
		newProcessMeasurement([]string{tagProcessName}, g.pass.owners, limit),
		newListenerMeasurement(true, limit),
		newCgroupMeasurement(limit),
		newRemoteMeasurement(true, 32, 128, nobodyAt, limit),
	}
	for i := range processes {
		process := &netstat.Process{PID: 1000 + i, Name: fmt.Sprint("process", i)}
		g.owners = append(g.owners, &owner{process: process, name: process.Name, wanted: true})
	}
	server := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), uint16(80+i))
	}
	client := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), uint16(10000+i%50000))
	}
	for i := range max(processes/2, 1) {
		g.sockets = append(g.sockets, &netstat.Socket{
			Transport: netstat.TransportTCP, Family: netstat.FamilyIPv4, State: netstat.TCPListen, Local: server(i),
		})
	}
	for i := range sockets {
		s := &netstat.Socket{
			Transport: netstat.TransportTCP, Family: netstat.FamilyIPv4, State: netstat.TCPEstablished,
			Local: server(i % max(processes/2, 1)), Remote: client(i), Cookie: uint64(i + 1),
			TCP: netstat.TCPInfo{RTT: uint32(50 + i%1000), BytesAcked: 1},
		}
		s.Set(netstat.FieldCookie | netstat.FieldTCPInfo | netstat.FieldTCPBytes)
		if i%2 == 1 {
			s.Local, s.Remote = s.Remote, s.Local
		}
		g.sockets = append(g.sockets, s)
	}
	return g
}

func (g *group) observe() {
	g.pass.begin(time.Now(), false)
	tcp := protocolSet{netstat.TransportTCP: true}
	g.scopes = scopes{protocols: tcp}
	in := g.scopes.get(&own)
	g.pass.enter(in)
	for _, m := range g.measurements {
		m.enter(in)
	}
	for _, w := range g.owners {
		g.pass.owners.use(w)
	}
	for i, s := range g.sockets {
		s.Namespace = &own
		o := g.pass.observe(s)
		o.owners = g.owners[i%len(g.owners) : i%len(g.owners)+1]
		for _, m := range g.measurements {
			m.observe(o)
		}
	}
	g.pass.end(&g.scopes)
}

func (g *group) emit() {
	to := emission{acc: &testutil.NopAccumulator{}, now: time.Now(), scopes: &g.scopes}
	for _, m := range g.measurements {
		m.emit(to)
	}
}

// BenchmarkGrouping is what a gather does with sockets that have been read, all measurements on; BenchmarkEmit what it does
// with the series after.
func BenchmarkGrouping(b *testing.B) {
	for _, sockets := range []int{1000, 100_000} {
		for _, processes := range []int{10, 400} {
			b.Run(fmt.Sprintf("sockets=%d/processes=%d", sockets, processes), func(b *testing.B) {
				g := newGroup(sockets, processes)
				g.observe() // makes room
				g.emit()
				b.ReportAllocs()
				for b.Loop() {
					g.observe()
					b.StopTimer()
					g.emit()
					b.StartTimer()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(g.sockets)), "ns/socket")
			})
		}
	}
}

func BenchmarkEmit(b *testing.B) {
	for _, processes := range []int{10, 100, 400} {
		b.Run(fmt.Sprintf("processes=%d", processes), func(b *testing.B) {
			g := newGroup(10_000, processes)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				g.observe()
				b.StartTimer()
				g.emit()
			}
		})
	}
}

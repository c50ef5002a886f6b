//go:build linux

package procnetstat

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
	"github.com/procnetstat/procnetstat/plugins/inputs/procnetstat/internal/quantile"
)

// sent returns a connection that has sent and received so many bytes, and as many segments.
func sent(cookie, bytes uint64) *netstat.Socket {
	s := &netstat.Socket{
		Transport: netstat.TransportTCP, Family: netstat.FamilyIPv4, State: netstat.TCPEstablished, Cookie: cookie,
		TCP: netstat.TCPInfo{
			BytesAcked: bytes, BytesReceived: 2 * bytes, SegsOut: uint32(3 * bytes), SegsIn: uint32(4 * bytes),
			RetransSegs: uint32(5 * bytes),
		},
	}
	s.Set(netstat.FieldCookie | netstat.FieldTCPInfo | netstat.FieldTCPBytes | netstat.FieldTCPSegs)
	return s
}

// datagrams returns a UDP socket that has dropped so many datagrams; from procfs, if cookie is 0.
func datagrams(cookie, inode uint64, drops uint32) *netstat.Socket {
	s := &netstat.Socket{
		Transport: netstat.TransportUDP, Family: netstat.FamilyIPv4, State: netstat.TCPClose, Cookie: cookie, Inode: inode,
		Drops: drops,
	}
	s.Set(netstat.FieldDrops)
	if cookie != 0 {
		s.Set(netstat.FieldCookie)
	}
	return s
}

var (
	tcpOnly = protocolSet{netstat.TransportTCP: true}
	udpOnly = protocolSet{netstat.TransportUDP: true}
	tcpUDP  = protocolSet{netstat.TransportTCP: true, netstat.TransportUDP: true}
)

// own is the network namespace that the sockets are in.
var own = netstat.Namespace{ID: 1, Self: true}

// sum returns what the sockets did, all together, in a pass that could read these protocols.
func (t *flows) sum(read protocolSet, sockets ...*netstat.Socket) traffic {
	in := &scope{namespace: &own, read: read}
	t.enter(in)
	var sum traffic
	for _, s := range sockets {
		sum.addLive(t, s)
	}
	t.end(&scopes{protocols: read, all: []*scope{in}})
	return sum
}

// of is what the connection of sent does with so many bytes.
func of(bytes int64) traffic {
	return traffic{
		countBytesAcked: bytes, countBytesReceived: 2 * bytes, countSegsOut: 3 * bytes, countSegsIn: 4 * bytes, countRetransSegs: 5 * bytes,
	}
}

func TestFlowsFirstPassReplaysNothing(t *testing.T) {
	tr := newFlows(everyDetail)
	require.Equal(t, traffic{}, tr.sum(tcpUDP, sent(1, 1000), datagrams(2, 20, 7)))
	require.Equal(t, of(5), tr.sum(tcpUDP, sent(1, 1005), datagrams(2, 20, 7)))
	require.Equal(t, traffic{countUDPDrops: 2}, tr.sum(tcpUDP, sent(1, 1005), datagrams(2, 20, 9)))
}

func TestFlowsCountsNewSocketsWhole(t *testing.T) {
	tr := newFlows(everyDetail)
	tr.sum(tcpUDP)
	require.Equal(t, of(1000), tr.sum(tcpUDP, sent(1, 1000)))
	require.Equal(t, traffic{countUDPDrops: 7}, tr.sum(tcpUDP, sent(1, 1000), datagrams(2, 20, 7)))
}

// TestFlowsFailedPass: in a pass that failed for a protocol all, some or none of its sockets are seen.
func TestFlowsFailedPass(t *testing.T) {
	tr := newFlows(everyDetail)
	tr.sum(tcpUDP, sent(1, 1000), sent(2, 1000))
	for range 2 * maxMissedPasses {
		require.Equal(t, traffic{}, tr.sum(udpOnly))
	}
	require.Equal(t, of(10), tr.sum(udpOnly, sent(1, 1010)))
	require.Equal(t, of(3+20), tr.sum(tcpUDP, sent(1, 1013), sent(2, 1020)), "neither lost nor replayed")
}

func TestFlowsFirstPassFails(t *testing.T) {
	tr := newFlows(everyDetail)
	require.Equal(t, traffic{}, tr.sum(udpOnly, sent(1, 1000)))
	require.Equal(t, of(1), tr.sum(udpOnly, sent(1, 1001), sent(2, 500)), "of the second it is not known when it was made")
	require.Equal(t, of(2), tr.sum(tcpUDP, sent(1, 1002), sent(2, 501), sent(3, 500)))
	require.Equal(t, of(4+500), tr.sum(tcpUDP, sent(1, 1003), sent(2, 502), sent(3, 502), sent(4, 500)))
}

// TestFlowsForgetsWhatWasRead: that one protocol can never be read does not keep the sockets of the others.
func TestFlowsForgetsWhatWasRead(t *testing.T) {
	tr := newFlows(everyDetail)
	tr.sum(tcpOnly, datagrams(1, 0, 0))
	for cookie := range uint64(100) {
		tr.sum(tcpOnly, sent(10+cookie, 1))
	}
	require.LessOrEqual(t, len(tr.table.all), 1+maxMissedPasses+1)
	require.NotNil(t, tr.table.find(1), "it may be there still")
}

// TestFlowsMissedPasses: a dump can miss a socket, and counting it as new would count its past.
func TestFlowsMissedPasses(t *testing.T) {
	tr := newFlows(everyDetail)
	tr.sum(tcpOnly, sent(1, 1000))
	for missed := range maxMissedPasses {
		for range missed + 1 {
			require.Equal(t, traffic{}, tr.sum(tcpOnly))
		}
		require.Equal(t, of(1), tr.sum(tcpOnly, sent(1, 1001+uint64(missed))))
	}
	for range maxMissedPasses {
		require.Equal(t, traffic{}, tr.sum(tcpOnly))
	}
	require.Equal(t, traffic{}, tr.sum(udpOnly), "it was not looked for")
	require.Equal(t, of(1), tr.sum(tcpOnly, sent(1, 1001+maxMissedPasses)))
	for range maxMissedPasses + 1 {
		tr.sum(tcpOnly)
	}
	require.Empty(t, tr.table.all)
}

func TestFlowsWrap(t *testing.T) {
	tr := newFlows(everyDetail)
	before, after := sent(1, 0), sent(1, 0)
	before.TCP = netstat.TCPInfo{BytesAcked: 1 << 40, SegsOut: 1<<32 - 1, SegsIn: 1<<32 - 10, RetransSegs: 1<<32 - 2}
	after.TCP = netstat.TCPInfo{BytesAcked: 1<<40 + 9, SegsOut: 4, SegsIn: 1 << 30, RetransSegs: 1<<32 - 1}
	tr.sum(tcpUDP, before, datagrams(2, 20, 1<<32-1))
	require.Equal(t, traffic{countBytesAcked: 9, countSegsOut: 5, countSegsIn: 1<<30 + 10, countRetransSegs: 1, countUDPDrops: 3},
		tr.sum(tcpUDP, after, datagrams(2, 20, 2)))
}

// TestFlowsRestarted: any of the counters can show that a socket was restarted.
func TestFlowsRestarted(t *testing.T) {
	for name, last := range map[string]netstat.TCPInfo{
		"bytes acked":    {BytesAcked: 1000},
		"bytes received": {BytesReceived: 1000},
		"segments out":   {SegsOut: 1000},
		"segments in":    {SegsIn: 1000},
		"retransmitted":  {RetransSegs: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newFlows(everyDetail)
			before := sent(1, 0)
			before.TCP = last
			tr.sum(tcpOnly, before)
			require.Equal(t, of(7), tr.sum(tcpOnly, sent(1, 7)))
		})
	}
}

// TestFlowsOfProcfs: without cookies sockets are told apart by their inodes, which are not mistaken for cookies.
func TestFlowsOfProcfs(t *testing.T) {
	tr := newFlows(everyDetail)
	tr.sum(udpOnly, datagrams(0, 1, 10), datagrams(0, 2, 20), datagrams(1, 3, 30))
	require.Equal(t, traffic{countUDPDrops: 1 + 2 + 4}, tr.sum(udpOnly, datagrams(0, 1, 11), datagrams(0, 2, 22), datagrams(1, 3, 34)))
	require.Equal(t, traffic{countUDPDrops: 5}, tr.sum(udpOnly, datagrams(0, 4, 5)))
	for range 3 { // two without an inode cannot be told apart
		require.Equal(t, traffic{}, tr.sum(udpOnly, datagrams(0, 0, 100), datagrams(0, 0, 7)))
	}
}

func TestFlowsLooksAtWhatIsThere(t *testing.T) {
	tr := newFlows(everyDetail)
	timeWait := &netstat.Socket{Transport: netstat.TransportTCP, State: netstat.TCPTimeWait}
	tr.sum(tcpOnly, timeWait)
	require.Equal(t, traffic{}, tr.sum(tcpOnly, timeWait))
	require.Empty(t, tr.table.all, "nothing is kept of what has no numbers")
}

// processScene is a process measurement that is fed by hand, with one process of each name.
type processScene struct {
	*testing.T
	pass        *pass
	measurement *processMeasurement
	owners      map[string]*owner
	now         time.Time
}

func newProcessScene(t *testing.T, maxSeries int) *processScene {
	p := newPass(filters{}, everyDetail, newUserNames(nil), newCgroups(false, "", nil))
	limit := seriesOptions{details: everyDetail, maxSeries: maxSeries, log: testutil.Logger{Quiet: true}}
	return &processScene{
		T: t, pass: p, owners: map[string]*owner{}, now: time.Unix(1000, 0),
		measurement: newProcessMeasurement([]string{tagProcessName}, p.owners, limit),
	}
}

// holding is a socket and the name of the process that holds it.
type holding struct {
	name string
	*netstat.Socket
}

// gather returns the gauges and counters of a gather, by process name.
func (tr *processScene) gather(after time.Duration, held ...holding) map[string]map[string]int64 {
	tr.Helper()
	tr.now = tr.now.Add(after)
	tr.pass.begin(tr.now, false)
	in := &scope{namespace: &own, read: tcpOnly, tcpFields: ^netstat.Field(0)}
	tr.pass.enter(in)
	tr.measurement.enter(in)
	for _, o := range tr.owners {
		tr.pass.owners.use(o)
	}
	for i, h := range held {
		if tr.owners[h.name] == nil {
			tr.owners[h.name] = &owner{process: &netstat.Process{Name: h.name}, name: h.name}
		}
		var did traffic
		_, idle := tr.pass.flows.live(h.Socket, &did)
		tr.measurement.observe(&observation{
			Socket: h.Socket, number: uint64(i + 1), delta: did, idle: idle, stall: tr.pass.flows.stall, rtt: h.TCP.RTT,
			owners: []*owner{tr.owners[h.name]},
		})
	}
	acc := &testutil.Accumulator{}
	all := &scopes{protocols: tcpOnly, all: []*scope{in}}
	tr.pass.end(all)
	tr.measurement.emit(emission{acc: acc, now: tr.now, scopes: all})
	fields := map[string]map[string]int64{}
	for tags, of := range (gathered{tr.T, acc.GetTelegrafMetrics()}).all("procnetstat_process") {
		fields[tags[len("process_name="):]] = of
	}
	return fields
}

// A series begins with 0. What it counted by then is added in the next gather, in which it is emitted even without sockets, once.
func TestCountersBeginWithZero(t *testing.T) {
	tr := newProcessScene(t, 10)
	tr.gather(0)
	burst := sent(1, 100)
	burst.TCP.RTT = 7
	got := tr.gather(interval, holding{"a", burst})
	require.Equal(t, int64(1), got["a"]["tcp_established"])
	require.Equal(t, int64(7), got["a"]["tcp_rtt_max_us"])
	require.Zero(t, got["a"]["tcp_bytes_acked"])
	got = tr.gather(interval)
	require.Zero(t, got["a"]["tcp_established"])
	require.NotContains(t, got["a"], "tcp_rtt_max_us")
	require.Zero(t, got["a"]["processes"])
	require.Equal(t, int64(100), got["a"]["tcp_bytes_acked"])
	require.Empty(t, tr.gather(interval))
	require.Equal(t, int64(105), tr.gather(interval, holding{"a", sent(2, 5)})["a"]["tcp_bytes_acked"])
}

// The sum of the rest is a series too: it begins with 0, and is emitted once more when nothing is folded any longer, within max_series.
func TestOtherBeginsWithZero(t *testing.T) {
	tr := newProcessScene(t, 2)
	tr.gather(0)
	of := func(acked ...uint64) (held []holding) {
		for i, n := range acked {
			for range len(acked) - i { // the first is the busiest
				held = append(held, holding{string(rune('a' + i)), sent(uint64(1+10*i+len(held)), n)})
			}
		}
		return held
	}
	acked := func(got map[string]map[string]int64) map[string]int64 {
		values := map[string]int64{}
		for name, fields := range got {
			values[name] = fields["tcp_bytes_acked"]
		}
		return values
	}
	held := of(10, 20, 30)
	require.Equal(t, map[string]int64{"a": 0, other: 0}, acked(tr.gather(interval, held...)))
	require.Equal(t, map[string]int64{"a": 30, other: 70}, acked(tr.gather(interval, held[:5]...)), "a and b: b is folded for other")
	require.Equal(t, map[string]int64{"a": 30, "b": 0}, acked(tr.gather(interval, held[:5]...)))
}

func TestCountersKeepWhatClosedSocketsDid(t *testing.T) {
	tr := newProcessScene(t, 10)
	tr.gather(0, holding{"a", sent(1, 100)}, holding{"a", sent(2, 100)})
	got := tr.gather(interval, holding{"a", sent(1, 110)}, holding{"a", sent(2, 200)})
	require.Equal(t, int64(110), got["a"]["tcp_bytes_acked"])
	got = tr.gather(interval, holding{"a", sent(1, 111)})
	require.Equal(t, int64(111), got["a"]["tcp_bytes_acked"])
	require.Equal(t, int64(5*111), got["a"]["tcp_retrans_segs"])
	require.Empty(t, tr.gather(interval))
	got = tr.gather(interval, holding{"a", sent(3, 4)})
	require.Equal(t, int64(115), got["a"]["tcp_bytes_acked"])
}

// TestCountersOfSocketThatMoves: what a socket did before it was handed to another process stays with the first.
func TestCountersOfSocketThatMoves(t *testing.T) {
	tr := newProcessScene(t, 10)
	tr.gather(0, holding{"a", sent(1, 0)}, holding{"b", sent(9, 0)})
	require.Equal(t, int64(100), tr.gather(interval, holding{"a", sent(1, 100)}, holding{"b", sent(9, 0)})["a"]["tcp_bytes_acked"])
	got := tr.gather(interval, holding{"b", sent(1, 107)}, holding{"a", sent(2, 0)})
	require.Equal(t, int64(100), got["a"]["tcp_bytes_acked"])
	require.Equal(t, int64(7), got["b"]["tcp_bytes_acked"])
	require.Equal(t, int64(1), got["b"]["tcp_established"])
}

// TestFoldingLosesNothing: with series folded or not, gauges add up to the same in every gather, and so does what the counters
// grew by in the end; and no counter goes back.
func TestFoldingLosesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	whole, folded := newProcessScene(t, 1000), newProcessScene(t, 5)
	did := map[uint64]uint64{}
	last := map[string]int64{}
	sum := func(series map[string]map[string]int64, field string) (n int64) {
		for _, fields := range series {
			n += fields[field]
		}
		return n
	}
	type counted struct {
		traffic traffic
		stalls  stallCounts
	}
	total := func(tr *processScene) (sum counted) {
		for _, s := range append(slices.Collect(maps.Values(tr.measurement.series.byKey)), tr.measurement.series.other) {
			for _, counts := range []traffic{s.total, s.pending} {
				sum.traffic.add(&counts)
			}
			for _, counts := range []stallCounts{s.stalls.total, s.stalls.pending} {
				sum.stalls.add(&counts)
			}
		}
		return sum
	}
	for range 200 {
		var held []holding
		for cookie := range uint64(60) {
			if random.IntN(3) == 0 {
				continue
			}
			did[cookie] += random.Uint64N(1000)
			s := sent(cookie, did[cookie])
			s.RecvQueue, s.SendQueue = random.Uint32N(100), random.Uint32N(100)
			s.TCP.RTT = 1 + random.Uint32N(100_000)
			s.TCP.BusyTime, s.TCP.DSACKDups, s.TCP.NotsentBytes = 3*did[cookie], uint32(did[cookie]), random.Uint32N(100)
			held = append(held, holding{"process" + strconv.Itoa(random.IntN(20)), s})
		}
		all, some := whole.gather(interval, held...), folded.gather(interval, held...)
		require.Len(t, some, min(len(all), 5))
		for _, gauge := range []string{"tcp_established", "tcp_rx_queue", "tcp_tx_queue", "processes", "tcp_idle", "tcp_notsent_bytes"} {
			require.Equal(t, sum(all, gauge), sum(some, gauge), gauge)
		}
		require.Equal(t, total(whole), total(folded))
		for name, fields := range some {
			require.GreaterOrEqual(t, fields["tcp_bytes_acked"], last[name], name)
			last[name] = fields["tcp_bytes_acked"]
		}
	}
	require.Positive(t, last[other])
	require.Positive(t, total(whole).stalls[countBusy])
}

// TestFoldedRoundTripTimes are those of all connections of the series that were folded.
func TestFoldedRoundTripTimes(t *testing.T) {
	tr := newProcessScene(t, 2)
	var held []holding
	for i := range uint64(1000) {
		s := sent(i+1, 0)
		s.TCP.RTT = uint32(i + 1)
		held = append(held, holding{"process" + strconv.Itoa(int(i%10)), s}, holding{"busiest", sent(2000+i, 0)})
	}
	of := tr.gather(0, held...)[other]
	require.InEpsilon(t, 500, of["tcp_rtt_p50_us"], 0.02)
	require.InEpsilon(t, 950, of["tcp_rtt_p95_us"], 0.02)
	require.Equal(t, int64(1000), of["tcp_rtt_max_us"])
}

// TestStatsOfClosedSocketThatDoesNotCount: it has been counted before, or was there before the first pass.
func TestStatsOfClosedSocketThatDoesNotCount(t *testing.T) {
	over := closed(1, 5)
	over.TCP.RTT = 700
	var st stats
	st.add(&observation{Socket: over})
	require.Zero(t, st)
}

// TestMergedStats: it makes no difference which of the sockets were in which group.
func TestMergedStats(t *testing.T) {
	all := protocolSet{}
	for transport := netstat.TransportTCP; transport <= netstat.TransportUnix; transport++ {
		all[transport] = true
	}
	over := closed(1, 5)
	over.TCP.RTT = 700
	var observed []*observation
	for state := netstat.TCPUnknown; state <= netstat.TCPClosing; state++ {
		s := sent(uint64(state)+2, 10)
		s.State, s.RecvQueue, s.SendQueue, s.TCP.RTT = state, 3, 4, 100*uint32(state)
		observed = append(observed, &observation{Socket: s, delta: with(of(10), 1, 0), rtt: s.TCP.RTT})
	}
	observed = append(observed, &observation{Socket: over, delta: with(of(5), 0, 1), rtt: 7})
	for transport := netstat.TransportUDP; transport <= netstat.TransportUnix; transport++ {
		s := &netstat.Socket{Transport: transport, State: netstat.TCPClose, RecvQueue: 5, SendQueue: 6}
		observed = append(observed, &observation{Socket: s, delta: traffic{countUDPDrops: 2, countListenDrops: 3}})
	}
	var whole, sum stats
	for _, o := range observed {
		whole.add(o)
		var part stats
		part.add(o)
		sum.merge(&part)
	}
	require.Equal(t, whole, sum)
	require.NotZero(t, whole.closedRTTs)
}

// TestSeriesMemory: for an hour the counters of a series without sockets continue; after that they restart at 0.
func TestSeriesMemory(t *testing.T) {
	tr := newProcessScene(t, 10)
	tr.gather(0)
	tr.gather(interval, holding{"a", sent(1, 5)})
	got := tr.gather(interval)
	require.Equal(t, int64(5), got["a"]["tcp_bytes_acked"], "it began with 0")
	got = tr.gather(counterMemory, holding{"a", sent(2, 6)})
	require.Equal(t, int64(11), got["a"]["tcp_bytes_acked"])
	tr.gather(counterMemory)
	got = tr.gather(1, holding{"a", sent(3, 7)})
	require.Equal(t, int64(18), got["a"]["tcp_bytes_acked"])
	tr.gather(counterMemory + 1)
	got = tr.gather(1, holding{"a", sent(4, 8)})
	require.Zero(t, got["a"]["tcp_bytes_acked"])
	got = tr.gather(1)
	require.Equal(t, int64(8), got["a"]["tcp_bytes_acked"])
}

// TestSeriesThatCountedNothing: of a series without sockets that has never counted anything there is nothing to go on with.
func TestSeriesThatCountedNothing(t *testing.T) {
	tr := newProcessScene(t, 10)
	tr.gather(0, holding{"a", sent(1, 5)}, holding{"b", sent(2, 5)})
	tr.gather(interval, holding{"a", sent(1, 6)}, holding{"b", sent(2, 5)})
	require.Len(t, tr.measurement.series.byKey, 2)
	tr.gather(interval)
	require.Len(t, tr.measurement.series.byKey, 1)
	require.Contains(t, tr.measurement.series.byKey, "a")
}

// TestSeriesOfLastPass: what a series emits depends on what the last pass could read of its namespace.
func TestSeriesOfLastPass(t *testing.T) {
	set := newSeriesSet(&measurementSchema{name: "m"}, []string{"port"}, []string{other}, seriesOptions{details: everyDetail, maxSeries: 10})
	for range 2 {
		set.scope = &scope{}
		require.Same(t, set.scope, set.get([]string{"80"}).scope)
	}
}

// TestSeriesWithoutSocketsAreSmall: they do not keep the room for round-trip times.
func TestSeriesWithoutSocketsAreSmall(t *testing.T) {
	tr := newProcessScene(t, 10)
	tr.gather(0)
	var held []holding
	for i := range uint64(2 * quantile.MaxSamples) {
		s := sent(i+1, 5)
		s.TCP.RTT = 1
		held = append(held, holding{"a", s})
	}
	tr.gather(interval, held...)
	require.NotZero(t, tr.measurement.series.byKey["a"].stats.rtts)
	tr.gather(interval)
	tr.gather(interval)
	require.Zero(t, tr.measurement.series.byKey["a"].stats.rtts)
}

// TestSeriesMemoryIsBounded: of too many series without sockets those are forgotten that have been so for longest.
func TestSeriesMemoryIsBounded(t *testing.T) {
	limit := seriesOptions{details: everyDetail, maxSeries: 2 * maxIdleSeries, log: testutil.Logger{Quiet: true}}
	set := newSeriesSet(&measurementSchema{name: "m"}, []string{"port"}, []string{other}, limit)
	now := time.Unix(1000, 0)
	const batch, batches = 1000, maxIdleSeries/1000 + 2
	number := uint64(0)
	for b := range batches {
		for i := range batch {
			number++
			set.get([]string{strconv.Itoa(b*batch + i)}).count(&observation{
				Socket: sent(number, 0), number: number, delta: traffic{countBytesAcked: 1},
			})
		}
		set.emit(now, func(s *series) { s.emit(countBytesAcked) })
		now = now.Add(time.Second)
	}
	require.Len(t, set.byKey, maxIdleSeries+2*batch, "those that are emitted do not count")
	set.emit(now, func(s *series) { s.emit(countBytesAcked) })
	require.Len(t, set.byKey, maxIdleSeries+batch)
	set.emit(now, func(s *series) { s.emit(countBytesAcked) })
	require.Len(t, set.byKey, maxIdleSeries)
	require.NotContains(t, set.byKey, "0")
	require.NotContains(t, set.byKey, strconv.Itoa(2*batch-1))
	require.Contains(t, set.byKey, strconv.Itoa(2*batch))
}

func TestStatsBySocket(t *testing.T) {
	var of series
	add := func(s netstat.Socket) { of.stats.add(&observation{Socket: &s, rtt: s.TCP.RTT}) }
	add(netstat.Socket{Transport: netstat.TransportTCP, State: netstat.TCPEstablished, RecvQueue: 1 << 31, SendQueue: 1 << 31, TCP: netstat.TCPInfo{RTT: 40}})
	add(netstat.Socket{Transport: netstat.TransportTCP, State: netstat.TCPCloseWait, RecvQueue: 1 << 31, SendQueue: 1 << 31, TCP: netstat.TCPInfo{RTT: 90}})
	add(netstat.Socket{Transport: netstat.TransportTCP, State: netstat.TCPNewSynRecv})
	add(netstat.Socket{Transport: netstat.TransportTCP, State: 77})
	add(netstat.Socket{Transport: netstat.TransportUDP, State: netstat.TCPClose, RecvQueue: 5, SendQueue: 6})
	add(netstat.Socket{Transport: netstat.TransportRaw, State: netstat.TCPClose, RecvQueue: 1000})
	add(netstat.Socket{Transport: netstat.TransportUnix, State: netstat.TCPListen, Local: netip.AddrPort{}})
	fields := map[string]any{}
	emission{
		acc: &testutil.Accumulator{}, tcpFields: ^netstat.Field(0), read: protocolSet{
			netstat.TransportTCP: true, netstat.TransportUDP: true, netstat.TransportRaw: true, netstat.TransportUnix: true,
		},
	}.group("m", hostSchema.groupFields(everyDetail), &of, fields, map[string]any{})
	for name, want := range map[string]int64{
		"tcp_established": 1, "tcp_close_wait": 1, "tcp_syn_recv": 1, "tcp_listen": 0,
		"tcp_rx_queue": 1 << 32, "tcp_tx_queue": 1 << 32,
		"tcp_rtt_p50_us": 40, "tcp_rtt_max_us": 40,
		"udp_socket": 1, "udp_rx_queue": 5, "udp_tx_queue": 6, "raw_socket": 1, "unix_socket": 1,
	} {
		require.Equal(t, want, fields[name], name)
	}
	require.Equal(t, int64(7), of.stats.sockets)
	require.NotContains(t, fields, "icmp_socket")
}

// passOver is a pass over the sockets of namespaces, that could read these protocols in each; it returns what they did in each.
func (t *flows) passOver(sockets socketsIn, read readIn) trafficIn {
	return t.passOverFrom(netstat.SourceAuto, sockets, read)
}

// passOverFrom is passOver where the tables come from a source.
func (t *flows) passOverFrom(source netstat.Source, sockets socketsIn, read readIn) trafficIn {
	did := trafficIn{}
	all := &scopes{protocols: tcpUDP}
	for namespace, of := range sockets {
		in := &scope{namespace: namespace, read: tcpUDP}
		if can, differs := read[namespace]; differs {
			in.read = can
		}
		all.all = append(all.all, in)
		t.enter(in)
		var sum traffic
		for _, s := range of {
			s.Namespace, s.NetNS = namespace, namespace.Inode
			sum.addLive(t, s)
		}
		if sum != (traffic{}) {
			did[namespace] = sum
		}
	}
	for _, in := range all.all {
		for transport := range in.read {
			in.sources[transport] = source
		}
	}
	t.end(all)
	return did
}

type (
	socketsIn = map[*netstat.Namespace][]*netstat.Socket
	readIn    = map[*netstat.Namespace]protocolSet
	trafficIn = map[*netstat.Namespace]traffic
)

// TestFlowsTellsNamespacesApart: before Linux 5.10 each has cookies of its own.
func TestFlowsTellsNamespacesApart(t *testing.T) {
	tr := newFlows(everyDetail)
	a, b := &netstat.Namespace{ID: 1, Inode: 4026531833}, &netstat.Namespace{ID: 2, Inode: 4026532345}
	require.Empty(t, tr.passOver(socketsIn{a: {sent(7, 1000), datagrams(8, 0, 1)}, b: {sent(7, 50), datagrams(8, 0, 90)}}, nil))
	require.Len(t, tr.table.all, 4)
	require.Equal(t, trafficIn{a: of(1), b: of(20)},
		tr.passOver(socketsIn{a: {sent(7, 1001), datagrams(8, 0, 1)}, b: {sent(7, 70), datagrams(8, 0, 90)}}, nil))
	require.Equal(t, trafficIn{a: {countUDPDrops: 2}, b: {countUDPDrops: 3}},
		tr.passOver(socketsIn{a: {sent(7, 1001), datagrams(8, 0, 3)}, b: {sent(7, 70), datagrams(8, 0, 93)}}, nil))
	require.Equal(t, trafficIn{a: of(9)}, tr.passOver(socketsIn{a: {sent(7, 1010)}}, nil))
}

// TestFlowsNewNamespace: the sockets of a namespace that has come into being since the pass before have too; one that is
// only read for the first time can have had them for long.
func TestFlowsNewNamespace(t *testing.T) {
	for countNew, want := range map[bool]int64{true: 500, false: 0} {
		tr := newFlows(everyDetail)
		tr.countNewNamespaces = countNew
		a, b := &netstat.Namespace{ID: 1, Inode: 1}, &netstat.Namespace{ID: 2, Inode: 2}
		require.Empty(t, tr.passOver(socketsIn{a: {sent(1, 1000)}}, nil))
		got := tr.passOver(socketsIn{a: {sent(1, 1000)}, b: {sent(2, 500)}}, nil)
		require.Equal(t, of(want), got[b])
		require.Zero(t, got[a])
		require.Equal(t, trafficIn{b: of(7 + 30)}, tr.passOver(socketsIn{a: {sent(1, 1000)}, b: {sent(2, 507), sent(3, 30)}}, nil))
		require.Empty(t, tr.passOver(socketsIn{a: {sent(1, 1000)}}, nil))
		require.Len(t, tr.histories, 1, "of namespaces that are gone nothing is kept")
	}
}

// TestFlowsOtherSource: what a namespace's sockets did before they were read from another source, which has more fields or
// other identifiers, is not counted again.
func TestFlowsOtherSource(t *testing.T) {
	for _, countNew := range []bool{true, false} {
		tr := newFlows(everyDetail)
		tr.countNewNamespaces = countNew
		a := &netstat.Namespace{ID: 1, Inode: 1}
		from := func(source netstat.Source, sockets ...*netstat.Socket) trafficIn {
			return tr.passOverFrom(source, socketsIn{a: sockets}, nil)
		}
		from(netstat.SourceProcfs, datagrams(0, 20, 5))
		require.Equal(t, trafficIn{a: {countUDPDrops: 1}}, from(netstat.SourceProcfs, datagrams(0, 20, 6)))
		require.Empty(t, from(netstat.SourceNetlink, datagrams(2, 20, 6), sent(1, 1000)))
		require.Equal(t, trafficIn{a: {countUDPDrops: 3}}, from(netstat.SourceNetlink, datagrams(2, 20, 9), sent(1, 1000)))
		require.Equal(t, trafficIn{a: of(1)}, from(netstat.SourceNetlink, datagrams(2, 20, 9), sent(1, 1001)))
	}
}

// TestFlowsOtherSourceOfTransport: the same where the source of one transport changes, as a kernel module is loaded.
func TestFlowsOtherSourceOfTransport(t *testing.T) {
	tr := newFlows(everyDetail)
	namespace := &netstat.Namespace{ID: 1, Inode: 1}
	pass := func(tcp, udp netstat.Source, sockets ...*netstat.Socket) (did traffic) {
		in := &scope{namespace: namespace, read: tcpUDP}
		tr.enter(in)
		for _, s := range sockets {
			did.addLive(&tr, s)
		}
		in.sources[netstat.TransportTCP], in.sources[netstat.TransportUDP] = tcp, udp
		tr.end(&scopes{protocols: tcpUDP, all: []*scope{in}})
		return did
	}
	const netlink, procfs = netstat.SourceNetlink, netstat.SourceProcfs
	require.Zero(t, pass(procfs, netlink, datagrams(2, 20, 5)))
	require.Equal(t, traffic{countUDPDrops: 1}, pass(procfs, netlink, datagrams(2, 20, 6)))
	require.Zero(t, pass(netlink, netlink, datagrams(2, 20, 6), sent(1, 1000)), "tcp_diag was loaded")
	require.Equal(t, of(7), pass(netlink, netlink, datagrams(2, 20, 6), sent(1, 1007)))
	require.Equal(t, of(30), pass(netlink, netlink, datagrams(2, 20, 6), sent(1, 1007), sent(3, 30)), "what is new counts")
	require.Zero(t, pass(netlink, procfs, datagrams(0, 20, 9), sent(1, 1007), sent(3, 30)), "udp_diag was unloaded")
	require.Equal(t, traffic{countUDPDrops: 4}, pass(netlink, procfs, datagrams(0, 20, 13), sent(1, 1007), sent(3, 30)))
}

// TestFlowsOtherSourceAndClosed: what a connection did before does not count again when it is destroyed, although it was missing
// from the tables and the source of a transport has changed meanwhile.
func TestFlowsOtherSourceAndClosed(t *testing.T) {
	const netlink, procfs = netstat.SourceNetlink, netstat.SourceProcfs
	for name, change := range map[string][2]netstat.Source{"udp": {netlink, procfs}, "tcp": {procfs, netlink}} {
		t.Run(name, func(t *testing.T) {
			tr := newFlows(everyDetail)
			namespace := &netstat.Namespace{ID: 1, Inode: 1}
			pass := func(tcp, udp netstat.Source, sockets ...*netstat.Socket) (did traffic) {
				in := &scope{namespace: namespace, read: tcpUDP, closedEvents: true}
				tr.enter(in)
				for _, s := range sockets {
					if s.Closed {
						_, now := tr.destroyed(s)
						did.add(&now)
					} else {
						did.addLive(&tr, s)
					}
				}
				in.sources[netstat.TransportTCP], in.sources[netstat.TransportUDP] = tcp, udp
				tr.end(&scopes{protocols: tcpUDP, all: []*scope{in}})
				return did
			}
			require.Zero(t, pass(netlink, netlink, sent(1, 1000), datagrams(2, 20, 5)))
			require.Zero(t, pass(netlink, netlink, datagrams(2, 20, 5)), "the peer has reset it, and its process still holds it")
			tcp, udp := change[0], change[1]
			cookie := uint64(0)
			if udp == netlink {
				cookie = 2
			}
			for range 3 * maxMissedPasses {
				require.Zero(t, pass(tcp, udp, datagrams(cookie, 20, 5)))
			}
			closed := sent(1, 1000)
			closed.Closed, closed.State = true, netstat.TCPClose
			closed.Remote = netip.MustParseAddrPort("192.0.2.1:80")
			did := pass(tcp, udp, closed)
			require.Zero(t, did[countBytesAcked]+did[countBytesReceived]+did[countOpened], "%+v", did)
		})
	}
}

// TestFlowsNamespaceThatFails: that a namespace cannot be read does not keep the new sockets of others from being counted.
func TestFlowsNamespaceThatFails(t *testing.T) {
	tr := newFlows(everyDetail)
	a, b := &netstat.Namespace{ID: 1, Inode: 1}, &netstat.Namespace{ID: 2, Inode: 2}
	fails := readIn{b: udpOnly}
	require.Empty(t, tr.passOver(socketsIn{a: {sent(1, 1000)}, b: {sent(2, 1000)}}, fails))
	require.Equal(t, trafficIn{a: of(500)}, tr.passOver(socketsIn{a: {sent(1, 1000), sent(3, 500)}, b: {sent(2, 1000), sent(4, 600)}}, fails))
	require.Equal(t, trafficIn{a: of(1), b: of(2)},
		tr.passOver(socketsIn{a: {sent(1, 1001), sent(3, 500)}, b: {sent(2, 1002), sent(4, 600)}}, nil))
	require.Equal(t, trafficIn{b: of(70)},
		tr.passOver(socketsIn{a: {sent(1, 1001), sent(3, 500)}, b: {sent(2, 1002), sent(4, 600), sent(5, 70)}}, nil))
}

// everyDetail are all sets of details.
var everyDetail = detailOf(detailNames)

// stateFields are the fields of the TCP states.
var stateFields = func() (names []string) {
	for _, f := range allGroupFields {
		if f.transport == netstat.TransportTCP && f.unit == unitSockets {
			names = append(names, f.name)
		}
	}
	return names
}()

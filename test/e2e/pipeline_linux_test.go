package e2e

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// pipeline is a Telegraf that writes to an InfluxDB.
type pipeline struct {
	t           *testing.T
	influx      *influxDB
	telegraf    *telegraf
	last        []string
	retransmits func(owner) bool
	held        map[uint64]holding // by cookie: the sockets that a gather has seen with a holder
}

// startPipeline starts both. Telegraf writes to InfluxDB only when measure flushes it, so that nothing changes in between. last
// are the measurements or series that each input writes last in a gather.
func startPipeline(t *testing.T, program, inputs string, last ...string) *pipeline {
	t.Helper()
	db := newInfluxDB(t)
	db.start()
	p := &pipeline{
		t: t, influx: db, telegraf: startTelegraf(t, program, onlyWhenAsked, inputs), last: last, retransmits: mayRetransmit,
		held: map[uint64]holding{},
	}
	first := p.gathersAfter(0)
	p.store(first) // opens the connection to InfluxDB, which then stays open
	return p
}

// mayRetransmit reports whether an owner has sockets that retransmit to peers that drop everything: the test itself holds them,
// or no process.
func mayRetransmit(o owner) bool { return o == noOwner || o.name == testComm }

// noneRetransmits makes measure wait for a gather between two retransmissions, whose intervals grow.
func noneRetransmits(owner) bool { return false }

// testComm is the name of this process.
var testComm = func() string {
	comm, _ := os.ReadFile("/proc/self/comm") // with an empty name, no socket of this process may retransmit
	return strings.TrimSuffix(string(comm), "\n")
}()

func (p *pipeline) gathersAfter(after int64) []int64 {
	p.t.Helper()
	var gathers []int64
	for _, last := range p.last {
		gathers = append(gathers, p.telegraf.gatherAfter(after, last))
	}
	return gathers
}

// store flushes gathers to InfluxDB, and returns the values that InfluxDB has.
func (p *pipeline) store(gathers []int64) gather {
	p.t.Helper()
	stored := gather{}
	for _, at := range gathers {
		maps.Copy(stored, p.telegraf.flush(p.influx, at))
	}
	return stored
}

// measurement has the values of a gather in InfluxDB, and the output of ss before and after the gather.
type measurement struct {
	gathers       []int64 // the time of the gather of each input
	stored        gather
	before, after snapshot // equal, except for the counters of sockets that retransmit
}

// measure waits for a gather during which the sockets do not change, and returns it.
func (p *pipeline) measure() measurement {
	p.t.Helper()
	snapshot := func() snapshot {
		s := takeSnapshot(p.t)
		s.last = maps.Clone(p.held)
		return s
	}
	m := measurement{before: snapshot()}
	for end := time.Now().Add(waitLimit); ; m.before = m.after {
		gathers := p.gathersAfter(time.Now().UnixNano())
		// The time of a gather may be its end, so the first gather may have started before the snapshot; the second has not, and
		// the third has what the counters of series that are new in the second count.
		for range 2 {
			gathers = p.gathersAfter(slices.Max(gathers))
		}
		m.after = snapshot()
		p.remember(m.before, m.after)
		if m.before.equal(m.after, p.retransmits) {
			m.gathers, m.stored = gathers, p.store(gathers)
			return m
		}
		if time.Now().After(end) {
			p.t.Fatalf("the sockets changed during every gather; the last ones were\n%v", m.after.sockets)
		}
	}
}

// remember records what the sockets belong to that are held in two snapshots, between which there was a gather.
func (p *pipeline) remember(before, after snapshot) {
	isHeld := map[uint64]bool{}
	for _, r := range before.sockets {
		isHeld[r.Cookie] = len(r.Processes) > 0
	}
	listeners := after.listeners()
	for _, r := range after.sockets {
		if isHeld[r.Cookie] && len(r.Processes) > 0 {
			cgroups := map[string]string{}
			for _, source := range []string{"netlink", "procfs"} {
				cgroups[source] = after.cgroupOf(source, r, listeners)
			}
			p.held[r.Cookie] = holding{after.ownersOf(r), cgroups}
		}
	}
}

// end stops Telegraf, and checks what must hold after every run. textFields are the names of the string fields.
func (p *pipeline) end(textFields ...string) {
	p.t.Helper()
	p.telegraf.requireNoErrors() // before stop: inputs.execd can log errors of reading pipes that it has closed
	p.telegraf.stop()
	p.telegraf.read()
	stored, texts := p.influx.all(0)
	requireMetrics(p.t, stored, p.telegraf.seen)
	if !maps.Equal(texts, p.telegraf.texts) {
		p.t.Errorf("InfluxDB has the string fields\n%v, want\n%v", texts, p.telegraf.texts)
	}
	requireCounters(p.t, p.telegraf.seen)
	p.influx.requireTypes(textFields...)
}

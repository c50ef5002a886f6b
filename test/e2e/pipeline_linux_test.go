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
}

// startPipeline starts both. Nothing is sent to InfluxDB but when measure wants it, so that all is quiet in between. What is
// called last are the measurements or series that end the gather of each input.
func startPipeline(t *testing.T, program, inputs string, last ...string) *pipeline {
	t.Helper()
	db := newInfluxDB(t)
	db.start()
	p := &pipeline{t, db, startTelegraf(t, program, onlyWhenAsked, inputs), last, mayRetransmit}
	first := p.gathersAfter(0)
	requireZeroCounters(t, p.telegraf.seen[first[0]])
	p.store(first) // makes the connection to InfluxDB, which then stays
	return p
}

// isNoisy tells of the sockets that send again and again what their peers do not hear: the test itself holds them, or nobody.
func mayRetransmit(o owner) bool { return o == noOwner || o.name == testComm }

// noneIsNoisy is for a measurement between all that is sent again, which takes longer and longer.
func noneRetransmits(owner) bool { return false }

// testName is what the kernel calls this process.
var testComm = func() string {
	comm, _ := os.ReadFile("/proc/self/comm") // without a name all sockets are to be quiet
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

// store returns what InfluxDB has of gathers.
func (p *pipeline) store(gathers []int64) gather {
	p.t.Helper()
	stored := gather{}
	for _, at := range gathers {
		maps.Copy(stored, p.telegraf.flush(p.influx, at))
	}
	return stored
}

// measurement is what InfluxDB has of a gather, and what ss said before and after it.
type measurement struct {
	gathers       []int64 // one of each input
	stored        gather
	before, after snapshot // equal
}

// measure waits for a gather during which the sockets stay the same, and gets what InfluxDB has of it.
func (p *pipeline) measure() measurement {
	p.t.Helper()
	m := measurement{before: takeSnapshot(p.t)}
	for end := time.Now().Add(waitLimit); ; m.before = m.after {
		gathers := p.gathersAfter(time.Now().UnixNano())
		// Some inputs give a gather the time when it ends. The second one has begun after the first snapshot in any case.
		gathers = p.gathersAfter(slices.Max(gathers))
		m.after = takeSnapshot(p.t)
		if m.before.equal(m.after, p.retransmits) {
			m.gathers, m.stored = gathers, p.store(gathers)
			return m
		}
		if time.Now().After(end) {
			p.t.Fatalf("the sockets never stayed the same for the time of a gather; lastly they were\n%v", m.after.sockets)
		}
	}
}

// end ends Telegraf, and checks what is to be checked of any run. The fields that are texts are named.
func (p *pipeline) end(textFields ...string) {
	p.t.Helper()
	p.telegraf.requireNoErrors() // stopping inputs.execd can log some: it reads on from the pipes that it has closed
	p.telegraf.stop()
	p.telegraf.read()
	stored, texts := p.influx.all(0)
	requireMetrics(p.t, stored, p.telegraf.seen)
	if !maps.Equal(texts, p.telegraf.texts) {
		p.t.Errorf("InfluxDB has the texts\n%v, expected\n%v", texts, p.telegraf.texts)
	}
	requireMonotonic(p.t, p.telegraf.seen)
	p.influx.requireTypes(textFields...)
}

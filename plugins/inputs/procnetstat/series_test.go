//go:build linux

package procnetstat

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
)

func TestTagValue(t *testing.T) {
	long := strings.Repeat("x", maxTagValue)
	for name, want := range map[string]string{
		"nginx":              "nginx",
		"a b,c=d\"e":         "a b,c=d\"e",
		"größe ☃":            "größe ☃",
		"":                   "(empty)",
		"new\nline\x00\x7f":  `new\x0aline\x00\x7f`,
		"\xff\xfe":           `\xff\xfe`,
		`back\`:              `back\x5c`,
		"rtl\u202eo":         `rtl\U0000202eo`,
		"\u0085next":         `\U00000085next`,
		"\ufffd":             `\U0000fffd`,
		long:                 long,
		long + "y":           long[3:] + "…",
		long[4:] + "\n":      long[4:] + `\x0a`,
		long[3:] + "\n":      long[3:] + "…",
		long[2:] + "☃":       long[3:] + "…",
		long[3:] + "☃":       long[3:] + "☃",
		"cut\xe2\x98":        `cut\xe2\x98`,
		"tab\there":          `tab\x09here`,
		"other":              `\x6fther`,
		"unattributed":       `\x75nattributed`,
		"unknown":            `\x75nknown`,
		"others":             "others",
		`\x6fther`:           `\x5cx6fther`,
		"\x1b[31mred\x1b[0m": `\x1b[31mred\x1b[0m`,
	} {
		require.Equal(t, want, tagValue(name))
	}
}

func FuzzTagValue(f *testing.F) {
	f.Add("nginx")
	f.Add("a\nb\\\xff\u202e")
	f.Add("other")
	f.Fuzz(func(t *testing.T, name string) {
		got := tagValue(name)
		require.NotEmpty(t, got)
		require.True(t, strings.ToValidUTF8(got, "") == got)
		require.NotContains(t, got, "\n")
		require.False(t, strings.HasSuffix(got, `\`))
		require.LessOrEqual(t, len(got), maxTagValue)
		require.NotContains(t, []string{unattributed, other, unknown}, got)
	})
}

// scene is a listener measurement that is fed by hand.
type scene struct {
	*testing.T
	measurement *listenerMeasurement
	pass        *pass
	now         time.Time
}

func newScene(t *testing.T, maxSeries int) *scene {
	return &scene{
		T:           t,
		measurement: newListenerMeasurement(false, seriesOptions{details: everyDetail, maxSeries: maxSeries, log: testutil.Logger{Quiet: true}}),
		pass:        newPass(noFilters(t), everyDetail, newUserNames(nil), newCgroups(false, "", nil)),
		now:         time.Unix(1000, 0),
	}
}

func noFilters(t *testing.T) filters {
	t.Helper()
	f, err := newPlugin().newFilters()
	require.NoError(t, err)
	return f
}

// socket returns a listening socket.
func socket(port uint16, cookie uint64, drops uint32) *netstat.Socket {
	s := &netstat.Socket{
		Transport: netstat.TransportTCP, Family: netstat.FamilyIPv4, State: netstat.TCPListen,
		Local:  netip.AddrPortFrom(netip.IPv4Unspecified(), port),
		Cookie: cookie, Drops: drops,
	}
	s.Set(netstat.FieldCookie | netstat.FieldDrops)
	return s
}

// gather is one gather, after the time; it returns the drops by local_port.
func (s *scene) gather(after time.Duration, sockets ...*netstat.Socket) map[string]int64 {
	s.Helper()
	s.now = s.now.Add(after)
	read := protocolSet{netstat.TransportTCP: true}
	s.pass.begin(s.now, false)
	in := &scope{namespace: &own, read: read}
	s.pass.enter(in)
	s.measurement.enter(in)
	for _, socket := range sockets {
		socket.Namespace = &own
		o := s.pass.observe(socket)
		require.True(s, o.wanted)
		s.measurement.observe(o)
	}
	acc := &testutil.Accumulator{}
	all := &scopes{protocols: read, all: []*scope{in}}
	s.pass.end(all)
	s.measurement.emit(emission{acc: acc, now: s.now, scopes: all})
	drops := map[string]int64{}
	for _, m := range acc.GetTelegrafMetrics() {
		if m.Type() != telegraf.Counter {
			require.False(s, m.HasField("drops"))
			continue
		}
		value, ok := m.GetField("drops")
		require.True(s, ok)
		port, _ := m.GetTag("local_port")
		drops[port] = value.(int64)
	}
	return drops
}

const interval = 10 * time.Second

func TestDropsAreACounter(t *testing.T) {
	s := newScene(t, 10)
	require.Equal(t, map[string]int64{"80": 0}, s.gather(0, socket(80, 1, 700)), "what was before the start is not replayed")
	require.Equal(t, map[string]int64{"80": 5}, s.gather(interval, socket(80, 1, 705)))
	require.Equal(t, map[string]int64{"80": 5}, s.gather(interval, socket(80, 1, 705)))
	require.Equal(t, map[string]int64{"80": 8}, s.gather(interval, socket(80, 2, 3)), "a socket made since counts whole")
	require.Equal(t, map[string]int64{}, s.gather(interval))
	require.Equal(t, map[string]int64{"80": 9}, s.gather(counterMemory-interval, socket(80, 2, 4)), "it goes on after a pause")
	require.Equal(t, map[string]int64{"80": 15}, s.gather(interval, socket(80, 2, 4), socket(80, 3, 6)), "the sum of all of the port")
}

func TestDropsWrap(t *testing.T) {
	s := newScene(t, 10)
	s.gather(0, socket(80, 1, 1<<32-2))
	require.Equal(t, map[string]int64{"80": 5}, s.gather(interval, socket(80, 1, 3)))
}

func TestCountersAreForgottenAfterAWhile(t *testing.T) {
	s := newScene(t, 10)
	s.gather(0)
	s.gather(interval, socket(80, 1, 5))
	s.gather(interval)
	require.Len(t, s.measurement.series.byKey, 1)
	require.Len(t, s.pass.flows.table.all, 1, "a dump can miss a socket")
	s.gather(interval)
	s.gather(interval)
	require.Empty(t, s.pass.flows.table.all, "of sockets that are gone nothing is kept")
	s.gather(counterMemory)
	require.Empty(t, s.measurement.series.byKey)
}

// TestFoldedCountersOnlyGrow: whichever series are folded, no counter goes back and no drop counts twice.
func TestFoldedCountersOnlyGrow(t *testing.T) {
	s := newScene(t, 2)
	connection := func(port uint16) *netstat.Socket {
		c := socket(port, 0, 0)
		c.State, c.Remote = netstat.TCPEstablished, netip.MustParseAddrPort(visitor)
		return c
	}
	one, two, three := connection(1), connection(2), connection(3)
	require.Equal(t, map[string]int64{"1": 0, "other": 0}, s.gather(0, socket(1, 1, 0), socket(2, 2, 0), socket(3, 3, 0), one))
	require.Equal(t, map[string]int64{"1": 1, "other": 2 + 3},
		s.gather(interval, socket(1, 1, 1), socket(2, 2, 2), socket(3, 3, 3), one))
	require.Equal(t, 2, s.measurement.folded())
	require.Equal(t, map[string]int64{"2": 0, "other": 5 + 100 + 1000},
		s.gather(interval, socket(1, 1, 101), socket(2, 2, 12), socket(3, 3, 1003), two), "2 is new")
	require.Equal(t, map[string]int64{"3": 0, "other": 1105 + 7 + 10},
		s.gather(interval, socket(1, 1, 108), socket(2, 2, 12), socket(3, 3, 1003), three), "what 2 did before is not lost")
	require.Equal(t, map[string]int64{"1": 2, "other": 1122},
		s.gather(interval, socket(1, 1, 109), socket(2, 2, 12), socket(3, 3, 1003), one))
	require.Equal(t, map[string]int64{"1": 2, "2": 0},
		s.gather(interval, socket(1, 1, 109), socket(2, 2, 12)), "within the limit nothing is folded")
	require.Zero(t, s.measurement.folded())
}

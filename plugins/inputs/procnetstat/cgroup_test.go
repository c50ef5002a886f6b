//go:build linux

package procnetstat

import (
	"testing"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat"
	"github.com/procnetstat/procnetstat/netstat/cgroup"
)

// knownCgroups returns cgroups in a pass that has asked for these ids.
func knownCgroups(paths map[uint64]string) *cgroups {
	c := newCgroups(false, "", nil)
	c.needed, c.tree = true, &cgroup.Tree{}
	c.learn(paths)
	return c
}

func (c *cgroups) learn(paths map[uint64]string) {
	for id, path := range paths {
		if c.byID[id] = nil; path != "" {
			c.byID[id] = c.entry(path)
		}
	}
}

// inCgroup returns a socket that was made in the cgroup.
func inCgroup(id uint64) *netstat.Socket {
	s := &netstat.Socket{CgroupID: id}
	s.Set(netstat.FieldCgroupID)
	return s
}

func pathOf(entry *cgroupEntry) string {
	if entry == nil {
		return ""
	}
	return entry.path
}

func TestCgroupOfSocket(t *testing.T) {
	c := knownCgroups(map[uint64]string{1: "/", 2: "/a", 3: "/b", 4: ""})
	of := func(id uint64, owners ...*owner) string { return pathOf(c.ofSocket(inCgroup(id), owners)) }
	inC := &owner{ownerInScope: ownerInScope{cgroup: c.entry("/c"), cgroupKnown: true}}
	inNone := &owner{process: &netstat.Process{}}
	for range 2 {
		require.Equal(t, "/a", of(2))
		require.Equal(t, "/a", of(2, inC), "where it was made")
		require.Equal(t, "/b", of(3))
		require.Equal(t, "/a", of(2))
		require.Equal(t, "/c", of(1, inC), "the cgroup of the process is more specific than the root of v2")
		require.Equal(t, "/", of(1))
		require.Equal(t, "/c", of(4, inC))
		require.Equal(t, "/", of(1, inNone))
		require.True(t, inNone.cgroupKnown, "it is looked up once")
		require.Empty(t, of(4))
		require.Empty(t, pathOf(c.ofSocket(&netstat.Socket{CgroupID: 2}, nil)), "of a source without cgroup ids")
	}
	require.Equal(t, "/a", of(2))
	c.begin()
	c.learn(map[uint64]string{2: "/renamed"})
	require.Equal(t, "/renamed", of(2), "asked in each pass")
}

// A cgroup with sockets in two namespaces has a series in each.
func TestCgroupSeriesOfNamespaces(t *testing.T) {
	c := knownCgroups(map[uint64]string{1: "/a"})
	m := newCgroupMeasurement(seriesOptions{details: everyDetail, maxSeries: 10, netNS: true, log: testutil.Logger{Quiet: true}})
	for number, tag := range []string{"self", "blue"} {
		m.enter(&scope{tag: tag})
		for _, of := range []*cgroupEntry{c.ofSocket(inCgroup(1), nil), nil} {
			m.observe(&observation{Socket: connected(netstat.TransportTCP, "198.51.100.1:443"), number: uint64(number + 1), cgroup: of})
		}
	}
	require.Len(t, m.series.byKey, 4)
	for key, s := range m.series.byKey {
		require.EqualValues(t, 1, s.stats.sockets, key)
	}
}

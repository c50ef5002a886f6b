//go:build linux

package procnetstat

import (
	"errors"
	"time"

	"github.com/influxdata/telegraf"

	"github.com/procnetstat/procnetstat/netstat"
	"github.com/procnetstat/procnetstat/netstat/cgroup"
)

// The tags of a cgroup. In process_tags they are those of the process's cgroup.
const (
	tagCgroup      = "cgroup"
	tagSystemdUnit = "systemd_unit"
	tagContainerID = "container_id"
	tagPodUID      = "pod_uid"
)

// cgroupEntry is a cgroup, identified by its path.
type cgroupEntry struct {
	path     string
	workload cgroup.Workload
	series   *series // in procnetstat_cgroup, in this scope
}

// tag returns the value of one of the tags above, or an empty string if the cgroup has none.
func (c *cgroupEntry) tag(name string) string {
	if c == nil {
		return ""
	}
	value := ""
	switch name {
	case tagCgroup:
		value = c.path
	case tagSystemdUnit:
		value = c.workload.SystemdUnit
	case tagContainerID:
		value = c.workload.ContainerID
	case tagPodUID:
		value = c.workload.PodUID
	}
	if value == "" {
		return ""
	}
	return tagValue(value)
}

// pathOrUnattributed returns the value that the filters match.
func (c *cgroupEntry) pathOrUnattributed() string {
	if c == nil {
		return unattributed
	}
	return c.path
}

// pathIfKnown returns the path, or an empty string if the cgroup is not known.
func (c *cgroupEntry) pathIfKnown() string {
	if c == nil {
		return ""
	}
	return c.path
}

// cgroups finds the cgroup of a socket: the one that it was created in, which sock_diag reports, else the current one of its
// first owner. On a host that uses cgroup v1, sock_diag reports the root of v2, and the cgroup of the process is more precise.
type cgroups struct {
	needed     bool         // some option uses cgroups
	tree       *cgroup.Tree // nil if there is no cgroup2 file system
	root       string       // of the proc file system
	retryAt    time.Time    // not before: look for the cgroup2 file system again
	byID       map[uint64]*cgroupEntry
	previousID uint64 // cache: most sockets have the same cgroup as the previous socket
	previous   *cgroupEntry
	byPath     map[string]*cgroupEntry
	log        telegraf.Logger
	warned     bool
	now        func() time.Time
}

// cgroupRetryInterval is the interval of looking for a cgroup2 file system on a host without one: it may be mounted later.
const cgroupRetryInterval = 5 * time.Minute

func newCgroups(needed bool, procRoot string, log telegraf.Logger) *cgroups {
	c := &cgroups{
		needed: needed, byID: map[uint64]*cgroupEntry{}, byPath: map[string]*cgroupEntry{}, root: procRoot, log: log, now: time.Now,
	}
	if err := c.open(); err != nil {
		logf := log.Warnf
		if errors.Is(err, cgroup.ErrNotMounted) {
			logf = log.Infof
		}
		logf("Cannot look up the cgroups of sockets; using those of their processes: %v", err)
	}
	return c
}

// open looks for the cgroup2 file system, if it is needed, not open yet and retryAt has passed. After an exhausted resource
// (EMFILE, ENOMEM) it tries again in the next pass.
func (c *cgroups) open() error {
	if !c.needed || c.tree != nil || c.now().Before(c.retryAt) {
		return nil
	}
	tree, err := cgroup.NewTree(c.root)
	if errors.Is(err, cgroup.ErrNotMounted) {
		c.retryAt = c.now().Add(cgroupRetryInterval)
	}
	if err == nil {
		c.tree = tree
	}
	return err
}

// end ends a pass. It logs the first error of reading cgroups.
func (c *cgroups) end() {
	if c.tree == nil || c.warned {
		return
	}
	if err := c.tree.Err(); err != nil {
		c.warned = true
		c.log.Warnf("Reading the cgroups: %v", err)
	}
}

// begin starts a pass. IDs are looked up again in every pass: a lookup is cheap, and cgroups come and go.
func (c *cgroups) begin() {
	_ = c.open() // newCgroups has logged the error
	c.previous = nil
	clear(c.byID)
	clear(c.byPath)
}

// enter starts a scope.
func (c *cgroups) enter() {
	for _, entry := range c.byPath {
		entry.series = nil
	}
}

// ofSocket returns nil if the cgroup is not known.
func (c *cgroups) ofSocket(s *netstat.Socket, owners []*owner) *cgroupEntry {
	if !c.needed {
		return nil
	}
	entry := c.ofID(s)
	if len(owners) > 0 && (entry == nil || entry.path == "/") {
		first := owners[0]
		if !first.cgroupKnown {
			first.cgroup, first.cgroupKnown = c.ofProcess(first.process), true
		}
		if first.cgroup != nil {
			return first.cgroup
		}
	}
	return entry
}

func (c *cgroups) ofID(s *netstat.Socket) *cgroupEntry {
	if c.tree == nil || !s.Has(netstat.FieldCgroupID) {
		return nil
	}
	if c.previous != nil && c.previousID == s.CgroupID {
		return c.previous
	}
	entry, cached := c.byID[s.CgroupID]
	if !cached {
		if path, known := c.tree.Path(s.CgroupID); known {
			entry = c.entry(path)
		}
		c.byID[s.CgroupID] = entry
	}
	c.previous, c.previousID = entry, s.CgroupID
	return entry
}

// ofPath returns nil if there is no path.
func (c *cgroups) ofPath(path string) *cgroupEntry {
	if path == "" {
		return nil
	}
	return c.entry(path)
}

func (c *cgroups) ofProcess(process *netstat.Process) *cgroupEntry {
	return c.ofPath(process.Cgroup())
}

func (c *cgroups) entry(path string) *cgroupEntry {
	entry := c.byPath[path]
	if entry == nil {
		entry = &cgroupEntry{path: path, workload: cgroup.WorkloadOf(path)}
		c.byPath[path] = entry
	}
	return entry
}

// cgroupMeasurement is procnetstat_cgroup: the sockets by cgroup, which identifies service, container and pod.
type cgroupMeasurement struct {
	series       *seriesSet
	unattributed *series // in this scope
}

var cgroupTags = []string{tagCgroup, tagSystemdUnit, tagContainerID, tagPodUID}

func newCgroupMeasurement(options seriesOptions) *cgroupMeasurement {
	others := []string{other, "", "", ""}
	return &cgroupMeasurement{series: newSeriesSet("procnetstat_cgroup", cgroupTags, others, options)}
}

func (m *cgroupMeasurement) enter(sc *scope) {
	m.series.scope, m.unattributed = sc, nil
}

func (m *cgroupMeasurement) observe(o *observation) {
	if o.cgroup == nil {
		if m.unattributed == nil {
			m.unattributed = m.series.get([]string{unattributed, "", "", ""})
		}
		m.unattributed.count(o)
		return
	}
	if o.cgroup.series == nil {
		values := make([]string, len(cgroupTags))
		for i, name := range cgroupTags {
			values[i] = o.cgroup.tag(name)
		}
		o.cgroup.series = m.series.get(values)
	}
	o.cgroup.series.count(o)
}

func (m *cgroupMeasurement) emit(out emission) {
	m.series.emit(out.now, func(s *series) {
		out.forScope(s.scope).group(m.series.measurement, s, map[string]any{}, map[string]any{})
	})
}

func (m *cgroupMeasurement) folded() int { return m.series.folded }

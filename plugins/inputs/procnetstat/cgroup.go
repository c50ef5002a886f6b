//go:build linux

package procnetstat

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	pass     uint64  // the last one that used it
	scope    *scope  // of series
	series   *series // in procnetstat_cgroup
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

// cgroups finds the cgroup of a socket: the one that it was created in, which sock_diag reports, else the current one of its
// first holder. On a host that uses cgroups v1 too, sock_diag reports the root of v2 or the cgroup of the container runtime, and
// the cgroup of the process is more precise.
type cgroups struct {
	needed     bool         // some option uses cgroups
	tree       *cgroup.Tree // nil if there is no cgroup2 file system
	root       string       // of the proc file system
	retryAt    time.Time    // not before: look for the cgroup2 file system again
	usesV1     bool         // processes are in cgroups v1 too
	checkV1At  time.Time    // not before: look at usesV1 again
	pass       uint64
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
	c.updateUsesV1()
	c.previous = nil
	clear(c.byID)
	maps.DeleteFunc(c.byPath, func(_ string, entry *cgroupEntry) bool { return entry.pass != c.pass })
	c.pass++
}

// updateUsesV1 looks for cgroups v1 now and then: they can be mounted later. All processes are in the same hierarchies.
func (c *cgroups) updateUsesV1() {
	now := c.now()
	if !c.needed || now.Before(c.checkV1At) {
		return
	}
	c.checkV1At = now.Add(cgroupRetryInterval)
	if content, err := os.ReadFile(filepath.Join(c.root, "self", "cgroup")); err == nil {
		c.usesV1 = cgroup.HasV1(content)
	}
}

// ofSocket returns nil if the cgroup is not known.
func (c *cgroups) ofSocket(s *netstat.Socket, holders []*owner) *cgroupEntry {
	if !c.needed {
		return nil
	}
	var entry *cgroupEntry
	if s.Has(netstat.FieldCgroupID) {
		entry = c.ofID(s.CgroupID)
	}
	if len(holders) == 0 || !c.isVague(entry) {
		return entry
	}
	return c.preferred(entry, c.ofOwner(holders[0]))
}

// ofIDOrProcess returns the cgroup with the ID, or that of the process; nil if neither is known.
func (c *cgroups) ofIDOrProcess(id uint64, w *owner) *cgroupEntry {
	if !c.needed {
		return nil
	}
	var entry *cgroupEntry
	if id != 0 {
		entry = c.ofID(id)
	}
	if !c.isVague(entry) {
		return entry
	}
	return c.preferred(entry, c.ofOwner(w))
}

// isVague reports whether another source can know the cgroup more precisely than the ID in v2.
func (c *cgroups) isVague(entry *cgroupEntry) bool {
	return entry == nil || entry.path == "/" || c.usesV1 && entry.workload.ContainerID == ""
}

// preferred returns the cgroup of a socket, or the other one if that is more precise.
func (c *cgroups) preferred(of, other *cgroupEntry) *cgroupEntry {
	if other == nil {
		return of
	}
	if of == nil || of.path == "/" || c.usesV1 && of.workload.ContainerID == "" && other.workload.ContainerID != "" {
		return other
	}
	return of
}

func (c *cgroups) ofOwner(w *owner) *cgroupEntry {
	if !w.cgroupKnown {
		w.cgroup, w.cgroupKnown = c.ofProcess(w.process), true
	}
	return w.cgroup
}

func (c *cgroups) ofID(id uint64) *cgroupEntry {
	if c.tree == nil {
		return nil
	}
	if c.previous != nil && c.previousID == id {
		return c.previous
	}
	entry, cached := c.byID[id]
	if !cached {
		if path, known := c.tree.Path(id); known {
			entry = c.entry(path)
		}
		c.byID[id] = entry
	}
	c.previous, c.previousID = entry, id
	return entry
}

func (c *cgroups) ofProcess(process *netstat.Process) *cgroupEntry {
	if path := process.Cgroup(); path != "" {
		return c.entry(path)
	}
	return nil
}

func (c *cgroups) entry(path string) *cgroupEntry {
	entry := c.byPath[path]
	if entry == nil {
		entry = &cgroupEntry{path: path, workload: cgroup.WorkloadOf(path)}
		c.byPath[path] = entry
	}
	entry.pass = c.pass
	return entry
}

// use returns the cgroup of an earlier pass for use in this one; nil for nil.
func (c *cgroups) use(entry *cgroupEntry) *cgroupEntry {
	if entry == nil || entry.pass == c.pass {
		return entry
	}
	if current := c.byPath[entry.path]; current != nil {
		entry = current
	} else {
		c.byPath[entry.path] = entry
	}
	entry.pass = c.pass
	return entry
}

var cgroupSchema = measurementSchema{
	name: "procnetstat_cgroup", option: measureCgroup, about: "The sockets by the cgroup that they were created in",
	tags: slices.Concat([]tag{{tagCgroup, "Path"}}, workloadTags),
}

// cgroupMeasurement is procnetstat_cgroup: the sockets by cgroup, which identifies service, container and pod.
type cgroupMeasurement struct {
	series       *seriesSet
	unattributed *series // in this scope
}

var cgroupTags = []string{tagCgroup, tagSystemdUnit, tagContainerID, tagPodUID}

func newCgroupMeasurement(options seriesOptions) *cgroupMeasurement {
	others := []string{other, "", "", ""}
	return &cgroupMeasurement{series: newSeriesSet(&cgroupSchema, cgroupTags, others, options)}
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
	if o.cgroup.scope != m.series.scope {
		o.cgroup.scope, o.cgroup.series = m.series.scope, nil
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
		m.series.group(out.forScope(s.scope), s, map[string]any{}, map[string]any{})
	})
}

func (m *cgroupMeasurement) folded() int { return m.series.folded }

package netstat

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// ErrNoCgroup2 says that the paths of cgroups cannot be known: no cgroup2 file system can be seen, or it is not Linux.
var ErrNoCgroup2 = errors.New("no cgroup2 file system is mounted")

// Cgroups knows the paths of the cgroups v2 by their ids, which are [Socket].CgroupID. Any user may use it. It is not for
// concurrent use.
//
// It reads the directories of the cgroup2 file system when it is asked for an id that it does not know, and then knows all
// there are. An id that is not among them is not looked for again; and all the reading takes no more than a hundredth of the
// time, however many cgroups come and go. The path of a cgroup that was removed is remembered while it is asked for, since
// its sockets can live on: of the last 1024, if there are more.
type Cgroups struct {
	tree  cgroupTree
	known map[uint64]*cgroup
	// missing are ids that were asked for and that the tree did not have: removed cgroups, or those outside of the mount.
	missing map[uint64]struct{}

	walks  uint64        // so far
	credit time.Duration // that walks may take
	asOf   time.Time     // when credit was last added
	err    error         // of the last walk
}

type cgroup struct {
	path  string
	seen  uint64 // the walk that met it last
	asked uint64 // the number of walks when it was asked for last
}

// cgroupTree is the cgroup2 file system, for tests to replace.
type cgroupTree interface {
	// each calls visit with the id and the path of every cgroup, those of a level before those below, until visit
	// returns false. It returns nil if all were visited that there have been all the time.
	each(visit func(id uint64, path string) bool) error
}

const (
	walkShare      = 100 // one part in so many of the time is for walks
	walkCredit     = 100 * time.Millisecond
	maxRemoved     = 1024
	maxMissing     = 4096
	maxCgroupBytes = 16 << 20 // of memory, about: what a user can make us keep who may make cgroups
)

var errManyCgroups = errors.New("too many cgroups: not all of them have a path")

// NewCgroups returns the cgroups of the cgroup2 file system that <procRoot>/self/mountinfo tells of, "/proc" if empty. An
// error that is [ErrNoCgroup2] says that there is none.
func NewCgroups(procRoot string) (*Cgroups, error) {
	if procRoot == "" {
		procRoot = "/proc"
	}
	tree, err := openCgroupTree(procRoot)
	if err != nil {
		return nil, err
	}
	return newCgroups(tree), nil
}

func newCgroups(tree cgroupTree) *Cgroups {
	return &Cgroups{
		tree: tree, known: map[uint64]*cgroup{}, missing: map[uint64]struct{}{},
		credit: walkCredit, asOf: time.Now(),
	}
}

// Path returns the path of the cgroup with the id, from the root of the hierarchy; false if it is not known. Where only a
// part of the hierarchy can be seen, as in a container, the path begins as it does in /proc/<pid>/cgroup there. It can hold
// any byte but newlines.
func (c *Cgroups) Path(id uint64) (path string, ok bool) {
	id &= cgroupIDMask
	if known := c.known[id]; known != nil {
		known.asked = c.walks
		return known.path, true
	}
	if _, ok := c.missing[id]; ok || !c.mayWalk() {
		return "", false
	}
	c.walk()
	if known := c.known[id]; known != nil {
		known.asked = c.walks
		return known.path, true
	}
	if c.err == nil {
		if len(c.missing) == maxMissing {
			clear(c.missing)
		}
		c.missing[id] = struct{}{}
	}
	return "", false
}

// Err returns what went wrong when the tree was last read; paths may be unknown for it.
func (c *Cgroups) Err() error { return c.err }

// cgroupIDMask is what an inode number holds of a cgroup's id: the lower half where ino_t has 32 bits. The lower halves of
// the ids that are in use are unique (__kernfs_new_node, fs/kernfs/dir.c).
const cgroupIDMask = 1<<bits.UintSize - 1

func (c *Cgroups) mayWalk() bool {
	now := time.Now()
	c.credit = min(c.credit+now.Sub(c.asOf)/walkShare, walkCredit)
	c.asOf = now
	return c.credit > 0
}

// walk reads the tree, and forgets what is too much of the removed cgroups.
func (c *Cgroups) walk() {
	start := time.Now()
	c.walks++
	used := 0
	var tooMany error
	err := c.tree.each(func(id uint64, path string) bool {
		id &= cgroupIDMask
		const perEntry = 128
		if used += len(path) + perEntry; used > maxCgroupBytes {
			tooMany = errManyCgroups
			return false
		}
		known := c.known[id]
		if known == nil || known.path != path {
			known = &cgroup{path: path}
			c.known[id] = known
		}
		known.seen = c.walks
		return true
	})
	c.err = errors.Join(err, tooMany)
	c.forget()
	c.credit -= time.Since(start)
}

// forget bounds the number of cgroups that the last walk did not meet.
func (c *Cgroups) forget() {
	removed := slices.Collect(maps.Keys(c.known))
	removed = slices.DeleteFunc(removed, func(id uint64) bool { return c.known[id].seen == c.walks })
	if len(removed) <= maxRemoved {
		return
	}
	slices.SortFunc(removed, func(a, b uint64) int {
		return cmp.Or(cmp.Compare(c.known[a].asked, c.known[b].asked), cmp.Compare(c.known[a].seen, c.known[b].seen))
	})
	for _, id := range removed[:len(removed)-maxRemoved] {
		delete(c.known, id)
	}
}

// cgroupMount is a place where the cgroup2 file system is mounted.
type cgroupMount struct {
	root  string // the cgroup that is mounted, seen from the root of the reader's cgroup namespace
	point string // where
}

// below tells how far the root of the mount is below that of the reader's cgroup namespace: less than 0 is above.
func (m cgroupMount) below() int {
	depth := 0
	for component := range strings.SplitSeq(m.root, "/") {
		switch component {
		case "":
		case "..":
			depth--
		default:
			depth++
		}
	}
	return depth
}

// parseMountinfo returns the mounts of cgroup2 file systems in /proc/<pid>/mountinfo, written by show_mountinfo
// (fs/proc_namespace.c), those that show most of the hierarchy first:
//
//	id parent major:minor root mountpoint options [optional fields] - type source superoptions
//
// All but the last two cannot hold blanks: they are written as \040.
func parseMountinfo(content []byte) ([]cgroupMount, error) {
	const root, point, columnCount = 3, 4, 6
	var mounts []cgroupMount
	number := 0
	for line := range bytes.Lines(content) {
		number++
		line = bytes.TrimSuffix(line, []byte("\n"))
		before, after, ok := bytes.Cut(line, []byte(" - "))
		var columns [columnCount][]byte
		if n := procfs.SplitFields(before, columns[:]); !ok || n < columnCount {
			return nil, fmt.Errorf("line %d: %.100q is not a mount", number, line)
		}
		if fsType, _, _ := bytes.Cut(after, []byte(" ")); string(fsType) != "cgroup2" {
			continue
		}
		mount := cgroupMount{root: unescapeOctal(columns[root]), point: unescapeOctal(columns[point])}
		if mount.root[0] != '/' || mount.point[0] != '/' {
			return nil, fmt.Errorf("line %d: %.100q: root and mount point are not absolute", number, line)
		}
		mounts = append(mounts, mount)
	}
	slices.SortStableFunc(mounts, func(a, b cgroupMount) int { return cmp.Compare(a.below(), b.below()) })
	return mounts, nil
}

// unescapeOctal undoes what seq_escape (fs/seq_file.c) does: a backslash and three octal digits stand for a byte.
func unescapeOctal(text []byte) string {
	if !bytes.ContainsRune(text, '\\') {
		return string(text)
	}
	plain := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		const digits = 3
		if text[i] == '\\' && i+digits < len(text) {
			if b, err := strconv.ParseUint(string(text[i+1:i+1+digits]), 8, 8); err == nil {
				plain = append(plain, byte(b))
				i += digits
				continue
			}
		}
		plain = append(plain, text[i])
	}
	return string(plain)
}

var errNoHierarchy = errors.New("cgroup has no hierarchy")

// parseProcCgroup returns the path of the cgroup in /proc/<pid>/cgroup, written by proc_cgroup_show
// (kernel/cgroup/cgroup.c):
//
//	hierarchy:controllers:path
//
// The line of cgroup v2 has hierarchy 0 and no controllers. The path can hold any byte but newlines, and nothing in it is
// escaped: that of a v2 cgroup that was removed, which a zombie can be in, is followed by " (deleted)".
//
// A process is in one cgroup of each hierarchy. That of v2 is returned, and one of v1 only where it says more: where v2
// is not in use, or where a container runtime puts containers into v1 cgroups and leaves them in its own v2 cgroup.
func parseProcCgroup(content []byte) (string, error) {
	var paths procCgroupPaths
	number := 0
	for line := range bytes.Lines(content) {
		number++
		line = bytes.TrimSuffix(line, []byte("\n"))
		hierarchy, rest, _ := bytes.Cut(line, []byte(":"))
		controllers, path, ok := bytes.Cut(rest, []byte(":"))
		id, err := procfs.ParseDecimal(hierarchy, 32)
		if !ok || err != nil || len(path) == 0 || path[0] != '/' {
			return "", fmt.Errorf("line %d: %.100q is not a cgroup", number, line)
		}
		if id == 0 && len(controllers) == 0 {
			path = bytes.TrimSuffix(path, []byte(" (deleted)"))
		}
		paths.add(id, string(controllers), string(path))
	}
	if number == 0 {
		return "", errNoHierarchy
	}
	return paths.best(), nil
}

// procCgroupPaths are the paths of a process's cgroups; the lower ranks are preferred.
type procCgroupPaths struct {
	ranked [len(cgroupRanks) + 2][]string
}

// cgroupRanks are the v1 hierarchies that are looked at first: what runs a service or container makes cgroups in these.
var cgroupRanks = [...]string{"name=systemd", "memory", "cpu", "pids"}

func (p *procCgroupPaths) add(hierarchy uint64, controllers, path string) {
	rank := len(p.ranked) - 1
	if hierarchy == 0 && controllers == "" {
		rank = 0
	} else {
		for controller := range strings.SplitSeq(controllers, ",") {
			if i := slices.Index(cgroupRanks[:], controller); i >= 0 {
				rank = min(rank, i+1)
			}
		}
	}
	p.ranked[rank] = append(p.ranked[rank], path)
}

// best is the first path that is in a container, else the first that is not the root.
func (p *procCgroupPaths) best() string {
	best := "/"
	for _, paths := range p.ranked {
		for _, path := range paths {
			if WorkloadOf(path).ContainerID != "" {
				return path
			}
			if best == "/" {
				best = path
			}
		}
	}
	return best
}

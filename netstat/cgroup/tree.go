package cgroup

import (
	"cmp"
	"errors"
	"maps"
	"math/bits"
	"slices"
	"time"
)

// ErrNotMounted means that no cgroup2 file system is visible, or that the system is not Linux.
var ErrNotMounted = errors.New("no cgroup2 file system is mounted")

// Tree maps ids of cgroups v2 (netstat.Socket.CgroupID) to paths. It is not safe for concurrent use.
//
// Path reads all directories of the cgroup2 file system when it gets an unknown id, and caches the result. It does not search
// again for an id that was missing. Reading takes at most 1 % of the elapsed time, even if cgroups are created and removed all
// the time. The Tree keeps the paths of removed cgroups, whose sockets can live on: at most 1024, the most recently used ones.
type Tree struct {
	fs    fileSystem
	known map[uint64]*entry
	// missing are requested ids that the file system does not have: of removed cgroups, or of cgroups outside the mount.
	missing map[uint64]struct{}

	walks  uint64        // number of walks so far
	credit time.Duration // time left for walks
	asOf   time.Time     // when credit was last increased
	err    error         // of the last walk
}

// entry is a cgroup.
type entry struct {
	path  string
	seen  uint64 // the last walk that found it
	asked uint64 // the number of walks at its last use
}

// fileSystem is the cgroup2 file system. Tests replace it.
type fileSystem interface {
	// each calls visit with the id and path of every cgroup, parents before children, until visit returns false. It returns nil
	// if it visited all cgroups that existed during the whole call.
	each(visit func(id uint64, path string) bool) error
}

const (
	walkShare  = 100 // walks take at most 1/walkShare of the time
	walkCredit = 100 * time.Millisecond
	maxRemoved = 1024
	maxMissing = 4096
	maxBytes   = 16 << 20 // approximate memory limit: users can create any number of cgroups
)

var errTooMany = errors.New("too many cgroups: some paths are unknown")

// NewTree returns the tree of the cgroup2 file system in <procRoot>/self/mountinfo; an empty procRoot is "/proc". The error is
// [ErrNotMounted] if there is none, or if procRoot is a copy of a proc file system.
func NewTree(procRoot string) (*Tree, error) {
	if procRoot == "" {
		procRoot = "/proc"
	}
	fs, err := openFileSystem(procRoot)
	if err != nil {
		return nil, err
	}
	return newTree(fs), nil
}

func newTree(fs fileSystem) *Tree {
	return &Tree{fs: fs, known: map[uint64]*entry{}, missing: map[uint64]struct{}{}, credit: walkCredit, asOf: time.Now()}
}

// Path returns the path of the cgroup with the id, relative to the root of the hierarchy; ok is false if it is unknown. If only a
// part of the hierarchy is mounted, as in a container, the path is relative to the reader's cgroup namespace, as in
// /proc/<pid>/cgroup. It can contain any byte except newline.
func (t *Tree) Path(id uint64) (path string, ok bool) {
	id &= idMask
	if known := t.known[id]; known != nil {
		known.asked = t.walks
		return known.path, true
	}
	if _, ok := t.missing[id]; ok || !t.mayWalk() {
		return "", false
	}
	t.walk()
	if known := t.known[id]; known != nil {
		known.asked = t.walks
		return known.path, true
	}
	if t.err == nil {
		if len(t.missing) == maxMissing {
			clear(t.missing)
		}
		t.missing[id] = struct{}{}
	}
	return "", false
}

// Err returns the error of the last read of the directories; nil if it was complete. After an error Path can miss cgroups.
func (t *Tree) Err() error { return t.err }

// idMask selects the bits of a cgroup id that fit into an inode number: the lower half if ino_t has 32 bits. The lower halves of
// existing ids are unique (__kernfs_new_node, fs/kernfs/dir.c).
const idMask = 1<<bits.UintSize - 1

func (t *Tree) mayWalk() bool {
	now := time.Now()
	t.credit = min(t.credit+now.Sub(t.asOf)/walkShare, walkCredit)
	t.asOf = now
	return t.credit > 0
}

// walk reads the directories and drops the oldest removed cgroups.
func (t *Tree) walk() {
	start := time.Now()
	t.walks++
	used := 0
	var tooMany error
	err := t.fs.each(func(id uint64, path string) bool {
		id &= idMask
		const perEntry = 128
		if used += len(path) + perEntry; used > maxBytes {
			tooMany = errTooMany
			return false
		}
		known := t.known[id]
		if known == nil || known.path != path {
			known = &entry{path: path}
			t.known[id] = known
		}
		known.seen = t.walks
		return true
	})
	t.err = errors.Join(err, tooMany)
	t.forget()
	t.credit -= time.Since(start)
}

// forget limits the number of removed cgroups to maxRemoved.
func (t *Tree) forget() {
	removed := slices.Collect(maps.Keys(t.known))
	removed = slices.DeleteFunc(removed, func(id uint64) bool { return t.known[id].seen == t.walks })
	if len(removed) <= maxRemoved {
		return
	}
	slices.SortFunc(removed, func(a, b uint64) int {
		return cmp.Or(cmp.Compare(t.known[a].asked, t.known[b].asked), cmp.Compare(t.known[a].seen, t.known[b].seen))
	})
	for _, id := range removed[:len(removed)-maxRemoved] {
		delete(t.known, id)
	}
}

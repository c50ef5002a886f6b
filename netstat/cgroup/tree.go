package cgroup

import (
	"cmp"
	"errors"
	"maps"
	"math/bits"
	"slices"
	"time"
)

// ErrNotMounted means that the paths of cgroups cannot be known: no cgroup2 file system can be seen, or the system is not Linux.
var ErrNotMounted = errors.New("no cgroup2 file system is mounted")

// Tree knows the paths of cgroups v2 by their ids, as in netstat.Socket.CgroupID. It is not for concurrent use.
//
// It reads the directories of the cgroup2 file system when it is asked for an id that it does not know, and then knows all
// that exist. It does not look again for an id that is not among them, and all reading takes no more than a hundredth of the
// time, however many cgroups come and go. It remembers the paths of removed cgroups, since their sockets can live on: at
// most 1024, those that were asked for last.
type Tree struct {
	fs    fileSystem
	known map[uint64]*entry
	// missing are ids that were asked for and that the file system did not have: removed cgroups, or those outside of the mount.
	missing map[uint64]struct{}

	walks  uint64        // so far
	credit time.Duration // that walks may take
	asOf   time.Time     // when credit was last added
	err    error         // of the last walk
}

// entry is a cgroup.
type entry struct {
	path  string
	seen  uint64 // the last walk that found it
	asked uint64 // the number of walks when it was last asked for
}

// fileSystem is the cgroup2 file system, for tests to replace.
type fileSystem interface {
	// each calls visit with the id and the path of every cgroup, those of a level before those below, until visit returns false.
	// It returns nil if it visited all that existed all the time.
	each(visit func(id uint64, path string) bool) error
}

const (
	walkShare  = 100 // one part in so many of the time is for walks
	walkCredit = 100 * time.Millisecond
	maxRemoved = 1024
	maxMissing = 4096
	maxBytes   = 16 << 20 // of memory, about: any user who may make cgroups can make us keep this much
)

var errTooMany = errors.New("too many cgroups: some paths are unknown")

// NewTree returns the tree of the cgroup2 file system that <procRoot>/self/mountinfo lists; an empty procRoot is "/proc".
// The error is [ErrNotMounted] if there is none.
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

// Path returns the path of the cgroup with the id, from the root of the hierarchy; false if it is not known. Where only a
// part of the hierarchy can be seen, as in a container, the path begins as in /proc/<pid>/cgroup there. It can hold any byte
// but newlines.
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

// Err returns the error of the last reading of the directories, because of which paths can be unknown.
func (t *Tree) Err() error { return t.err }

// idMask is what an inode number holds of a cgroup's id: the lower half where ino_t has 32 bits. The lower halves of
// the ids that are in use are unique (__kernfs_new_node, fs/kernfs/dir.c).
const idMask = 1<<bits.UintSize - 1

func (t *Tree) mayWalk() bool {
	now := time.Now()
	t.credit = min(t.credit+now.Sub(t.asOf)/walkShare, walkCredit)
	t.asOf = now
	return t.credit > 0
}

// walk reads the directories, and forgets the removed cgroups that are too many.
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

// forget bounds the number of cgroups that the last walk did not find.
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

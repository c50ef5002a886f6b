package netstat

import "bytes"

// pathTable keeps the names of unix sockets from scan to scan: a name that stays costs no allocation. It is bounded: any process can
// make names.
type pathTable struct {
	byName map[string]*pathEntry
	scan   uint64
	buf    []byte
}

type pathEntry struct {
	path string
	seen uint64 // the last scan that saw it
}

const maxPaths = 1 << 16 // a name has at most 108 bytes

// nextScan starts a scan, and forgets the names that the last one did not see.
func (t *pathTable) nextScan() {
	for name, entry := range t.byName {
		if entry.seen != t.scan {
			delete(t.byName, name)
		}
	}
	t.scan++
}

// get returns the name as a string.
func (t *pathTable) get(name []byte) string {
	if len(name) == 0 {
		return ""
	}
	if entry := t.byName[string(name)]; entry != nil {
		entry.seen = t.scan
		return entry.path
	}
	path := string(name)
	if len(t.byName) < maxPaths {
		if t.byName == nil {
			t.byName = map[string]*pathEntry{}
		}
		t.byName[path] = &pathEntry{path, t.scan}
	}
	return path
}

// getDiag is get for a name of sock_diag. It formats the name as /proc/net/unix does. An abstract name begins with a NUL.
func (t *pathTable) getDiag(name []byte) string {
	if len(name) == 0 || name[0] != 0 {
		return t.get(bytes.TrimRight(name, "\x00"))
	}
	t.buf = append(t.buf[:0], name...)
	for i, c := range t.buf {
		if c == 0 {
			t.buf[i] = '@'
		}
	}
	return t.get(t.buf)
}

package cgroup

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// mount is a mount of the cgroup2 file system.
type mount struct {
	root  string // path of the mounted cgroup, relative to the reader's cgroup namespace
	point string // mount point
}

// below returns the depth of the mounted cgroup below the root of the reader's cgroup namespace; negative if it is above.
func (m mount) below() int {
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

// parseMountinfo returns the cgroup2 mounts in /proc/<pid>/mountinfo, written by show_mountinfo (fs/proc_namespace.c), those that
// show the largest part of the hierarchy first:
//
//	id parent major:minor root mountpoint options [optional fields] - type source superoptions
//
// Blanks are written as \040, except in the last two columns.
func parseMountinfo(content []byte) ([]mount, error) {
	const root, point, columnCount = 3, 4, 6
	var mounts []mount
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
		m := mount{root: unescapeOctal(columns[root]), point: unescapeOctal(columns[point])}
		if m.root[0] != '/' || m.point[0] != '/' {
			return nil, fmt.Errorf("line %d: %.100q: root and mount point are not absolute", number, line)
		}
		mounts = append(mounts, m)
	}
	slices.SortStableFunc(mounts, func(a, b mount) int { return cmp.Compare(a.below(), b.below()) })
	return mounts, nil
}

// unescapeOctal reverses seq_escape (fs/seq_file.c), which writes a byte as a backslash and three octal digits.
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

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

var errNoHierarchy = errors.New("cgroup has no hierarchy")

// ParseProcess returns a process's cgroup path from the content of /proc/<pid>/cgroup, which proc_cgroup_show
// (kernel/cgroup/cgroup.c) writes:
//
//	hierarchy:controllers:path
//
// The line of cgroup v2 has hierarchy 0 and no controllers. The path can contain any byte except newline, without escapes. The
// suffix " (deleted)" of a removed v2 cgroup, which can contain zombies, is removed.
//
// A process is in one cgroup of each hierarchy. ParseProcess returns the v2 path, unless only a v1 path contains a container or
// v2 is not in use. The error names the first invalid line.
func ParseProcess(content []byte) (path string, err error) {
	var paths processPaths
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

// processPaths are the cgroup paths of a process, in order of preference.
type processPaths struct {
	ranked [len(ranks) + 2][]string
}

// ranks are the preferred v1 hierarchies: service managers and container runtimes create cgroups in these.
var ranks = [...]string{"name=systemd", "memory", "cpu", "pids"}

func (p *processPaths) add(hierarchy uint64, controllers, path string) {
	rank := len(p.ranked) - 1
	if hierarchy == 0 && controllers == "" {
		rank = 0
	} else {
		for controller := range strings.SplitSeq(controllers, ",") {
			if i := slices.Index(ranks[:], controller); i >= 0 {
				rank = min(rank, i+1)
			}
		}
	}
	p.ranked[rank] = append(p.ranked[rank], path)
}

// best returns the first path in a container, or else the first that is not the root.
func (p *processPaths) best() string {
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

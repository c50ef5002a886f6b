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
// A process is in one cgroup of each hierarchy. ParseProcess returns the v2 path, unless only a v1 path contains a container, or
// v2 has no path but the root. The error names the first invalid line.
func ParseProcess(content []byte) (path string, err error) {
	var paths processPaths
	number := 0
	for line := range bytes.Lines(content) {
		number++
		line = bytes.TrimSuffix(line, []byte("\n"))
		id, controllers, path, ok := splitLine(line)
		if !ok {
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

// HasV1 reports whether the host uses cgroups v1, alone or beside v2, from the content of /proc/<pid>/cgroup of any process, such
// as self: each process is in a cgroup of every hierarchy in use. Any v1 hierarchy counts, as any can have cgroups of containers:
// of controllers (hybrid hosts of Docker, LXC, Nomad) or named (systemd's). Then the cgroup that sock_diag reports for a socket,
// which is in v2, can be the root or that of a container runtime. Invalid lines are ignored.
func HasV1(content []byte) bool {
	for line := range bytes.Lines(content) {
		id, controllers, _, ok := splitLine(bytes.TrimSuffix(line, []byte("\n")))
		if ok && id != 0 && len(controllers) > 0 {
			return true
		}
	}
	return false
}

// splitLine splits a line of /proc/<pid>/cgroup.
func splitLine(line []byte) (hierarchy uint64, controllers, path []byte, ok bool) {
	number, rest, _ := bytes.Cut(line, []byte(":"))
	controllers, path, _ = bytes.Cut(rest, []byte(":"))
	hierarchy, err := procfs.ParseDecimal(number, 32)
	return hierarchy, controllers, path, err == nil && len(path) > 0 && path[0] == '/'
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

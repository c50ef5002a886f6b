package cgroup

import (
	"strings"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// Workload is the systemd unit, container and pod of a cgroup. A field is empty if there is none.
type Workload struct {
	// SystemdUnit is the innermost service, scope or slice, as systemctl(1) names it. For a container that systemd manages it is
	// the scope of the container; for a container that runs systemd it is a unit inside.
	SystemdUnit string
	// ContainerID is the id of the innermost container: 64 hexadecimal digits (Docker, containerd, CRI-O, Podman), the task id and
	// a number (Amazon ECS on Fargate), <allocation id>.<task name> (Nomad), the handle (Cloud Foundry Garden), or a name (LXC).
	ContainerID string
	// PodUID is the uid of the innermost Kubernetes pod. For a static pod, which kubelet reads from a file, it is the annotation
	// kubernetes.io/config.hash.
	PodUID string
}

// WorkloadOf returns the workload of a cgroup by its path. It only compares names: any user who can create cgroups can use the
// same ones.
func WorkloadOf(cgroupPath string) Workload {
	var w Workload
	for rest := cgroupPath; rest != ""; {
		parent, name := "", rest
		if slash := strings.LastIndexByte(rest, '/'); slash >= 0 {
			parent, name = rest[:slash], rest[slash+1:]
		}
		if rest = parent; name == "" {
			continue
		}
		if w.SystemdUnit == "" {
			w.SystemdUnit = systemdUnit(name)
		}
		if w.ContainerID == "" {
			w.ContainerID = containerID(name, parent)
		}
		if w.PodUID == "" {
			w.PodUID = podUID(name)
		}
	}
	return w
}

// systemdUnit returns the unit that a cgroup of the name is for. Its own escapes, such as \x2d, are part of a unit's name;
// the underscore before a name that the kernel could take for one of its files is not (cg_escape in systemd).
func systemdUnit(name string) string {
	name = strings.TrimPrefix(name, "_")
	const maxUnitName = 255
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 || len(name) > maxUnitName || name[0] == '@' {
		return ""
	}
	switch name[dot:] {
	case ".service", ".scope", ".slice":
	default:
		return ""
	}
	if strings.Trim(name, unitNameBytes) != "" {
		return ""
	}
	return name
}

// unitNameBytes are the valid bytes of a unit name (VALID_CHARS in systemd).
const unitNameBytes = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" + `:-_.\@`

// containerID returns the id of the container whose cgroup has the name and the parent's path; empty if it is none:
//
//	<id>                                 Docker, containerd, Podman, kubelet, ECS: the cgroupfs driver
//	<prefix>-<id>.scope                  all of them: the systemd driver; the prefix is docker, cri-containerd, crio, libpod, …
//	<prefix>-<id>                        CRI-O and Podman: the cgroupfs driver; Podman with --cgroups=split: libpod-payload-<id>
//	<slice>:<prefix>:<id>                containerd: the cgroupfs driver, given a path that is meant for the systemd driver
//	<task>/<task>-<number>               ECS on Fargate
//	<allocation>.<task>.scope            Nomad, cgroup v2: in nomad.slice, since Nomad 1.7 in its share.slice or reserve.slice
//	nomad/<allocation>.<task>            Nomad 1.7, cgroup v1
//	garden[-<tag>][/good|/bad]/<handle>  Cloud Foundry Garden, Concourse, BOSH Lite; good and bad: throttling of the CPU
//	lxc/<name>  lxc.payload/<name>       LXC 3
//	lxc.payload.<name>                   LXC 4
//
// A Nomad allocation can have several tasks, each with a cgroup, so its id alone does not identify one. Nomad's Docker driver
// makes cgroups with Docker's names.
//
// Cgroups of monitor processes do not count: <prefix>-conmon-<id>, lxc.monitor.<name>.
func containerID(name, parentPath string) string {
	if payload, ok := strings.CutPrefix(name, "lxc.payload."); ok {
		return payload
	}
	parent := lastName(parentPath)
	scope, isScope := strings.CutSuffix(name, ".scope")
	switch {
	case parent == "lxc", parent == "lxc.payload":
		return name
	case isGardenHandle(name) && isGarden(parentPath):
		return name
	case (isScope || parent == "nomad") && isNomadTask(scope):
		return scope
	}
	if isHexGroups(parent, 32) {
		if number, ok := strings.CutPrefix(name, parent+"-"); ok && isNumber(number) {
			return name
		}
	}
	const digits = 64
	if len(scope) < digits {
		return ""
	}
	prefix, id := scope[:len(scope)-digits], scope[len(scope)-digits:]
	switch {
	case !isHexGroups(id, digits):
		return ""
	case prefix == "" && !isScope, len(prefix) > 1 && strings.HasSuffix(prefix, ":"):
		return id
	case len(prefix) > 1 && strings.HasSuffix(prefix, "-") && !strings.HasSuffix(prefix, "conmon-"):
		return id
	}
	return ""
}

// isNomadTask reports whether the name is that of a Nomad task's cgroup (scopeCG2, client/lib/cgroupslib). The name of the task
// can contain anything but slashes.
func isNomadTask(name string) bool {
	return len(name) > uuidLength+1 && name[uuidLength] == '.' && isUUID(name[:uuidLength])
}

// isGardenHandle reports whether the name is a handle of Garden. Diego, which runs the applications of Cloud Foundry, cuts the
// UUIDs of their instances at 28 characters.
func isGardenHandle(name string) bool {
	return isUUID(name) || isHexGroups(name, 8, 4, 4, 4, 4)
}

// isGarden reports whether the path is that of the cgroup in which Garden makes those of its containers (rundmc/cgroups in
// cloudfoundry/guardian).
func isGarden(path string) bool {
	name := lastName(path)
	if name == "good" || name == "bad" {
		name = lastName(strings.TrimSuffix(path[:len(path)-len(name)], "/"))
	}
	return name == "garden" || strings.HasPrefix(name, "garden-")
}

// lastName returns what is after the last slash.
func lastName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// podUID returns the uid of the pod whose cgroup has the name; empty if it is none:
//
//	pod<uid>                           the cgroupfs driver
//	kubepods[-<class>]-pod<uid>.slice  the systemd driver, with underscores for dashes
//	<the same>:<prefix>:<id>           a container's cgroup: see containerID
func podUID(name string) string {
	const pod, slice = "pod", ".slice"
	name, _, _ = strings.Cut(name, ":")
	uid, isPod := strings.CutPrefix(name, pod)
	if unit, ok := strings.CutSuffix(name, slice); ok {
		at := strings.LastIndex(unit, "-"+pod)
		if isPod = at >= 0; isPod {
			uid = unit[at+len("-"+pod):]
		}
	}
	switch {
	case !isPod:
		return ""
	case isHexGroups(uid, 32):
		return uid
	}
	if uid = strings.ReplaceAll(uid, "_", "-"); isUUID(uid) {
		return uid
	}
	return ""
}

const uuidLength = len("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")

func isUUID(text string) bool { return isHexGroups(text, 8, 4, 4, 4, 12) }

// isHexGroups reports whether the text consists of groups of so many lower-case hexadecimal digits, separated by dashes.
func isHexGroups(text string, groups ...int) bool {
	for i, digits := range groups {
		if i > 0 {
			var ok bool
			if text, ok = strings.CutPrefix(text, "-"); !ok {
				return false
			}
		}
		if len(text) < digits {
			return false
		}
		for _, c := range []byte(text[:digits]) {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
		text = text[digits:]
	}
	return text == ""
}

func isNumber(text string) bool {
	_, err := procfs.ParseDecimal([]byte(text), 64)
	return err == nil
}

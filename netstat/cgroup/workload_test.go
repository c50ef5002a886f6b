package cgroup

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	id1 = "8d3f0c5b9a71e264d3c0b5a49788f6e1d2c3b4a5968778695a4b3c2d1e0f1a2b"
	id2 = "2403ccfe427f1dc7b6120dccb9ac58c2f8456950380d587a9f33ea7f00dd303d"

	pod1, pod1Slice = "6f3e0a5c-1b2d-4c3e-8f9a-0b1c2d3e4f5a", "pod6f3e0a5c_1b2d_4c3e_8f9a_0b1c2d3e4f5a.slice"
	pod2, pod2Slice = "404bd273-57bc-4508-a386-e2b76d3c9cfe", "pod404bd273_57bc_4508_a386_e2b76d3c9cfe.slice"
	staticPod       = "8daa50c3a64c9ff60bb9eab7b44b56fd"

	userService = "/user.slice/user-1000.slice/user@1000.service"
	kubeSlice   = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-"
)

func TestWorkloadOf(t *testing.T) {
	for _, test := range []struct {
		path                   string
		unit, container, podID string
	}{
		// systemd: its manual pages on slices, scopes and special units, and its text on delegation.
		{"/", "", "", ""},
		{"/init.scope", "init.scope", "", ""},
		{"/system.slice", "system.slice", "", ""},
		{"/system.slice/nginx.service", "nginx.service", "", ""},
		{"/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", "", ""},
		{`/system.slice/system-postgresql.slice/postgresql@16\x2dmain.service`, `postgresql@16\x2dmain.service`, "", ""},
		{`/system.slice/dev-disk-by\x2duuid-1.swap`, "system.slice", "", ""},
		{"/system.slice/systemd-udevd.service/udev", "systemd-udevd.service", "", ""},
		{"/user.slice/user-1000.slice/session-3.scope", "session-3.scope", "", ""},
		{userService + "/init.scope", "init.scope", "", ""},
		{userService + "/app.slice/syncthing.service", "syncthing.service", "", ""},
		{userService + `/app.slice/app-gnome-org.mozilla.firefox-4711.scope`, "app-gnome-org.mozilla.firefox-4711.scope", "", ""},
		// systemd escapes names that could be kernel files with an underscore: cg_escape and its tests.
		{"/system.slice/_cpu.service", "cpu.service", "", ""},
		{"/system.slice/__foobar.service", "_foobar.service", "", ""},
		// systemd-nspawn and libvirt: the unit contains the name of the machine.
		{"/machine.slice/systemd-nspawn@web.service/payload", "systemd-nspawn@web.service", "", ""},
		{`/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator`, `machine-qemu\x2d1\x2dvm.scope`, "", ""},

		// Docker, both drivers: issue threads of moby, netns, cAdvisor.
		{"/docker/" + id1, "", id1, ""},
		{"/system.slice/docker-" + id1 + ".scope", "docker-" + id1 + ".scope", id1, ""},
		{userService + "/user.slice/docker-" + id1 + ".scope", "docker-" + id1 + ".scope", id1, ""}, // rootless
		{"/my.slice/docker-" + id1 + ".scope", "docker-" + id1 + ".scope", id1, ""},                 // --cgroup-parent
		{"/my-parent/" + id1, "", id1, ""},
		{"/system.slice/docker.service", "docker.service", "", ""},
		// systemd in a container: issue threads of systemd and minikube.
		{"/docker/" + id1 + "/system.slice/opendkim.service", "opendkim.service", id1, ""},
		{"/system.slice/docker-" + id1 + ".scope/init.scope", "init.scope", id1, ""},
		// Docker in Docker: issue threads of kubernetes and dd-agent. The inner container counts.
		{"/docker/" + id1 + "/docker/" + id2, "", id2, ""},
		{"/system.slice/docker-" + id1 + ".scope/docker/" + id2, "docker-" + id1 + ".scope", id2, ""},
		// A scope of a container has the name of the runtime before the ID.
		{"/system.slice/" + id1 + ".scope", id1 + ".scope", "", ""},
		{"/docker/" + id2 + "/" + id1 + ".scope", id1 + ".scope", id2, ""},
		// BuildKit's ids are of another form: issue thread of cryptnono.
		{"/docker/buildkit/t4967jvf8rbufklrhkicskyes", "", "", ""},

		// containerd and nerdctl: issue threads of containerd, cri, netdata.
		{"/default/" + id1, "", id1, ""},
		{"/system.slice/nerdctl-" + id1 + ".scope", "nerdctl-" + id1 + ".scope", id1, ""},
		{"/system.slice/containerd.service", "containerd.service", "", ""},
		{"/system.slice/system-getty.slice/cri-containerd-" + id1 + ".scope", "cri-containerd-" + id1 + ".scope", id1, ""},

		// Kubernetes, the cgroupfs driver: the kubelet's documentation, issue threads of containerd, traceloop, k3k (K3s).
		{"/kubepods/burstable/pod" + pod1 + "/" + id1, "", id1, pod1},
		{"/kubepods/besteffort/pod" + pod1 + "/" + id1, "", id1, pod1},
		{"/kubepods/pod" + pod1 + "/" + id1, "", id1, pod1}, // QoS class Guaranteed
		{"/kubepods/pod" + pod1, "", "", pod1},
		{"/kubepods/burstable/pod" + staticPod + "/" + id1, "", id1, staticPod},
		{"/kubepods/besteffort/pod" + pod1 + "/crio-" + id1, "", id1, pod1},
		{"/kubepods/besteffort/pod" + pod1 + "/crio-conmon-" + id1, "", "", pod1},
		// The systemd driver: issue threads of kubernetes, pharos-cluster, netdata, traceloop, cryptnono (K3s), runc.
		{kubeSlice + pod1Slice + "/cri-containerd-" + id1 + ".scope", "cri-containerd-" + id1 + ".scope", id1, pod1},
		{kubeSlice + pod1Slice + "/docker-" + id1 + ".scope", "docker-" + id1 + ".scope", id1, pod1},
		{kubeSlice + pod1Slice + "/crio-" + id1 + ".scope", "crio-" + id1 + ".scope", id1, pod1},
		{kubeSlice + pod1Slice + "/crio-" + id1 + ".scope/container", "crio-" + id1 + ".scope", id1, pod1},
		{kubeSlice + pod1Slice + "/crio-conmon-" + id1 + ".scope", "crio-conmon-" + id1 + ".scope", "", pod1},
		{kubeSlice + pod1Slice, "kubepods-burstable-" + pod1Slice, "", pod1},
		{kubeSlice + "pod" + staticPod + ".slice/cri-containerd-" + id1 + ".scope", "cri-containerd-" + id1 + ".scope", id1, staticPod},
		{"/kubepods.slice/kubepods-" + pod1Slice + "/crio-" + id1 + ".scope", "crio-" + id1 + ".scope", id1, pod1}, // QoS class Guaranteed
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-" + pod1Slice + "/crio-" + id1 + ".scope", "crio-" + id1 + ".scope", id1, pod1},
		{"/kubepods.slice", "kubepods.slice", "", ""},
		// --cgroup-root with the same word in its name.
		{"/a-podium-" + pod1Slice + "/crio-" + id1 + ".scope", "crio-" + id1 + ".scope", id1, pod1},
		{"/a-" + pod2Slice[:len(pod2Slice)-len(".slice")] + "-" + pod1Slice, "a-" + pod2Slice[:len(pod2Slice)-len(".slice")] + "-" + pod1Slice, "", pod1},
		// Different drivers of kubelet and runtime: issue threads of kubernetes and runwasi.
		{"/system.slice/containerd.service/kubepods-burstable-" + pod1Slice + ":cri-containerd:" + id1, "containerd.service", id1, pod1},
		{"/system.slice/containerd.service/kubepods-burstable-pod" + staticPod + ".slice:cri-containerd:" + id1, "containerd.service", id1, staticPod},
		{"/kubepods-besteffort-" + pod1Slice + ":cri-containerd:" + id1, "", id1, pod1},
		{"/system.slice/docker.service/BestEffort.slice/BestEffort-" + pod1Slice + "/" + id1, "BestEffort-" + pod1Slice, id1, pod1},
		// kind, minikube and K3s in a container, whose pods are below it: issue threads of kind and minikube.
		{"/docker/" + id2 + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-" + pod1Slice +
			"/cri-containerd-" + id1 + ".scope", "cri-containerd-" + id1 + ".scope", id1, pod1},
		{"/docker/" + id2 + "/kubelet.slice/kubelet.service", "kubelet.service", id2, ""},
		{"/system.slice/docker-" + id2 + ".scope/kubepods/burstable/pod" + pod1 + "/" + id1, "docker-" + id2 + ".scope", id1, pod1},
		// Pods in a pod, and containers in one: issue threads of k3k and test-infra.
		{kubeSlice + pod2Slice + "/cri-containerd-" + id2 + ".scope/kubepods/pod" + pod1 + "/" + id1, "cri-containerd-" + id2 + ".scope", id1, pod1},
		{"/kubepods/pod" + pod2 + "/" + id2 + "/docker/" + id1, "", id1, pod2},

		// Podman: issue threads of podman, coroot, datadog-agent.
		{"/machine.slice/libpod-" + id1 + ".scope", "libpod-" + id1 + ".scope", id1, ""},
		{"/machine.slice/libpod-" + id1 + ".scope/container", "libpod-" + id1 + ".scope", id1, ""},
		{"/machine.slice/libpod-conmon-" + id1 + ".scope", "libpod-conmon-" + id1 + ".scope", "", ""},
		{"/machine.slice/machine-libpod_pod_" + id2 + ".slice/libpod-" + id1 + ".scope/container", "libpod-" + id1 + ".scope", id1, ""},
		{"/libpod_parent/libpod-" + id1, "", id1, ""},
		{"/libpod_parent/libpod-conmon-" + id1, "", "", ""},
		{userService + "/user.slice/libpod-" + id1 + ".scope/container", "libpod-" + id1 + ".scope", id1, ""},
		{userService + "/user.slice/user-libpod_pod_" + id2 + ".slice/libpod-" + id1 + ".scope/container", "libpod-" + id1 + ".scope", id1, ""},
		{userService + "/user.slice/podman-4711.scope", "podman-4711.scope", "", ""},
		// A service of Quadlet with --cgroups=split.
		{"/system.slice/quadlet-minimal.service/libpod-payload-" + id1, "quadlet-minimal.service", id1, ""},
		{"/system.slice/quadlet-minimal.service/runtime", "quadlet-minimal.service", "", ""},

		// LXC, LXD, Incus, Proxmox VE: issue threads of lxc, sysdig, netdata.
		{"/lxc/web", "", "web", ""},
		{"/lxc/101/ns/system.slice/ssh.service", "ssh.service", "101", ""},
		{"/lxc.payload/web", "", "web", ""},
		{"/lxc.payload.web.1/system.slice/ssh.service", "ssh.service", "web.1", ""},
		{"/lxc.monitor.web", "", "", ""},
		{"/lxc.monitor/web", "", "", ""},
		{"/lxc", "", "", ""},
		{"/lxc.payload.a/lxc.payload.b", "", "b", ""},
		{"/lxc.payload.a/lxc.monitor.b", "", "a", ""},
		{"/lxc.payload.a/system.slice/docker-" + id1 + ".scope", "docker-" + id1 + ".scope", id1, ""},

		// Amazon ECS, on EC2 and on Fargate: issue threads of amazon-ecs-agent, cAdvisor, opentelemetry-js-contrib.
		{"/ecs/0410eff2-7e59-4111-823e-1e0d98ef7f30/" + id1, "", id1, ""},
		{"/ecs/cluster/c23e5f76c09d438aa1824ca4058bdcab/" + id1, "", id1, ""},
		{"/ecs/c23e5f76c09d438aa1824ca4058bdcab/c23e5f76c09d438aa1824ca4058bdcab-1234678", "", "c23e5f76c09d438aa1824ca4058bdcab-1234678", ""},
		{"/ecs/c23e5f76c09d438aa1824ca4058bdcab", "", "", ""},
		// Garden of Cloud Foundry: issue threads of elastic's agents, the source of guardian.
		{"/system.slice/garden.service/garden/70eb4ce5-a065-4401-6990-88ed", "garden.service", "70eb4ce5-a065-4401-6990-88ed", ""},
		{"/garden/" + pod1, "", pod1, ""},
		{"/system.slice/runit.service/garden/" + pod1, "runit.service", pod1, ""},
		{"/docker/" + id1 + "/garden/" + pod1, "", pod1, ""}, // Concourse in a container
		{"/garden-1/" + pod1, "", pod1, ""},                  // --tag
		{"/garden/good/70eb4ce5-a065-4401-6990-88ed", "", "70eb4ce5-a065-4401-6990-88ed", ""},
		{"/garden/bad/" + pod1, "", pod1, ""},
		{"/garden-1/good/" + pod1 + "/init", "", pod1, ""}, // cgroup v2
		{"/garden/" + pod2 + "/garden/" + pod1, "", pod1, ""},
		{"/garden/good", "", "", ""},

		// Nomad: scopeCG1 and scopeCG2 in its cgroupslib, pull request of nomad-driver-containerd.
		{"/nomad.slice/share.slice/" + pod1 + ".redis.scope", pod1 + ".redis.scope", pod1 + ".redis", ""},
		{"/nomad.slice/reserve.slice/" + pod1 + ".redis.scope", pod1 + ".redis.scope", pod1 + ".redis", ""},
		{"/nomad.slice/" + pod1 + ".redis.scope", pod1 + ".redis.scope", pod1 + ".redis", ""}, // before 1.7
		{"/my.slice/share.slice/" + pod1 + ".redis.scope", pod1 + ".redis.scope", pod1 + ".redis", ""},
		{"/nomad.slice/share.slice/" + pod1 + ".redis.scope/workers", pod1 + ".redis.scope", pod1 + ".redis", ""},
		{"/nomad.slice/share.slice/" + pod1 + ".a.b-c_d.scope", pod1 + ".a.b-c_d.scope", pod1 + ".a.b-c_d", ""},
		{"/nomad.slice/share.slice/" + pod1 + ".a b\xff.scope", "share.slice", pod1 + ".a b\xff", ""},
		{"/nomad.slice/share.slice/" + pod1 + ".redis.scope/docker/" + id1, pod1 + ".redis.scope", id1, ""},
		{"/nomad.slice/share.slice/docker-" + id1 + ".scope", "docker-" + id1 + ".scope", id1, ""},
		{"/nomad.slice/share.slice", "share.slice", "", ""},
		{"/nomad/" + pod1 + ".redis", "", pod1 + ".redis", ""},
		{"/nomad/" + pod1 + ".redis.scope", pod1 + ".redis.scope", pod1 + ".redis", ""}, // cgroup v2 and cgroup_parent = "nomad"
		{"/" + pod1 + "..scope", pod1 + "..scope", "", ""},
		{"/" + pod1 + ".scope", pod1 + ".scope", "", ""},
		{"/" + pod1 + "-redis.scope", pod1 + "-redis.scope", "", ""},
		{"/x" + pod1 + ".redis.scope", "x" + pod1 + ".redis.scope", "", ""},
		{"/" + strings.ToUpper(pod1) + ".redis.scope", strings.ToUpper(pod1) + ".redis.scope", "", ""},
		{"/" + pod1 + ".redis.service", pod1 + ".redis.service", "", ""},

		// Outside the cgroup namespace of the reader.
		{"/../../system.slice/docker-" + id1 + ".scope", "docker-" + id1 + ".scope", id1, ""},
		{"/..", "", "", ""},
	} {
		require.Equal(t, Workload{test.unit, test.container, test.podID}, WorkloadOf(test.path), test.path)
	}
}

// Names that resemble those of workloads but are not.
func TestWorkloadOfSimilarNames(t *testing.T) {
	const notHex = "8d3f0c5b9a71e264d3c0b5a49788f6e1d2c3b4a5968778695a4b3c2d1e0f1a2g"
	for _, path := range []string{
		"", "//", "docker", "///docker//",
		"/docker/" + notHex,
		"/docker/" + id1[1:],
		"/docker/" + id1 + "0",
		"/docker/" + strings.ToUpper(id1),
		"/docker-" + notHex + "/docker-" + id1 + "0",
		"/docker-" + id1 + "-extra",
		"/docker" + id1,
		"/-" + id1, "/:" + id1,
		"/docker-" + id1[:63] + "\xff",
		"/docker-" + id1[:63] + "\x00",
		"/c750678d33b3f7578a946435a298c99e",
		"/a/c750678d33b3f7578a946435a298c99e-1",
		"/c750678d33b3f7578a946435a298c99e/c750678d33b3f7578a946435a298c99e-",
		"/c750678d33b3f7578a946435a298c99e/c750678d33b3f7578a946435a298c99e-1a",
		"/garden/web", "/garden/" + pod1 + "0", "/garden/" + strings.ToUpper(pod1), "/gardens/" + pod1, "/garden/x/" + pod1,
		"/garden/good/good/" + pod1, "/good/" + pod1, "good/" + pod1, "bad/" + pod1, "/xgarden/bad/" + pod1, "/" + pod1,
		"/nomad/" + pod1, "/nomad/" + pod1 + ".", "/nomad/web", "/nomad/x/" + pod1 + ".redis", "/" + pod1 + ".redis", pod1,
		"/lxc.payload./lxc/", "/lxc.payload/", "/lxc.payloads.web", "/xlxc/web",
		"/pod", "/pod" + pod1[1:], "/pod" + pod1 + "0", "/pod" + notHex[32:], "/pods" + pod1, "/xpod" + pod1,
		"/pod6f3e0a5c-1b2d-4c3e-8f9a+0b1c2d3e4f5a", "/pod6F3E0A5C-1B2D-4C3E-8F9A-0B1C2D3E4F5A",
		"/pod" + staticPod[1:], "/libpod_pod_" + staticPod,
		"/.service", "/.slice", "/_.scope", "/@.service", "/service", "/nginx.service.d", "/nginx.socket", "/x.mount",
		"/a b.service", "/a\n.service", "/\xff.service", "/caf\xc3\xa9.service", "/nginx.service (deleted)",
		"/" + strings.Repeat("a", 248) + ".service",
	} {
		require.Equal(t, Workload{}, WorkloadOf(path), "%q", path)
	}
}

func TestWorkloadOfDoesNotAllocate(t *testing.T) {
	for _, path := range []string{
		kubeSlice + "pod" + staticPod + ".slice/cri-containerd-" + id1 + ".scope",
		"/nomad.slice/share.slice/" + pod1 + ".redis.scope",
		"/garden-1/good/" + pod1 + "/init",
	} {
		require.Zero(t, testing.AllocsPerRun(10, func() {
			if WorkloadOf(path).ContainerID == "" {
				t.Fatal("wrong")
			}
		}), path)
	}
}

// The result is part of the path and in a valid form.
func FuzzWorkloadOf(f *testing.F) {
	f.Fuzz(func(t *testing.T, path string) {
		w := WorkloadOf(path)
		require.Contains(t, path, w.SystemdUnit)
		require.Contains(t, path, w.ContainerID)
		require.Contains(t, strings.ReplaceAll(path, "_", "-"), w.PodUID)
		require.NotContains(t, w.SystemdUnit+w.ContainerID+w.PodUID, "/")
		require.Empty(t, strings.Trim(w.SystemdUnit, unitNameBytes))
		require.Empty(t, strings.Trim(w.PodUID, "0123456789abcdef-"))
		if strings.HasPrefix(path, "/") {
			require.Equal(t, w, WorkloadOf("/more"+path), "a parent that is no workload does not matter")
		}
	})
}

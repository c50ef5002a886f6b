package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseProcess(t *testing.T) {
	const id = "2403ccfe427f1dc7b6120dccb9ac58c2f8456950380d587a9f33ea7f00dd303d"
	for _, test := range []struct {
		name, content, want string
	}{
		{"unified", "0::/system.slice/nginx.service\n", "/system.slice/nginx.service"},
		{"root", "0::/\n", "/"},
		{"no line end", "0::/a", "/a"},
		{"hybrid", "1:name=systemd:/user.slice/user-0.slice/session-1.scope\n0::/user.slice/user-0.slice/session-1.scope\n",
			"/user.slice/user-0.slice/session-1.scope"},
		{"v2 is not in use", "5:memory:/b\n3:cpu,cpuacct:/c\n2:name=systemd:/a\n0::/\n", "/a"},
		{"systemd is not in use", "6:pids:/d\n5:memory:/b\n3:cpu,cpuacct:/c\n2:name=systemd:/\n0::/\n", "/b"},
		{"joint controllers", "6:pids:/d\n4:cpuset:/e\n3:cpuacct,cpu:/c\n0::/\n", "/c"},
		{"joint controllers, the first of which counts", "5:memory,pids:/a\n3:cpu,cpuacct:/b\n", "/a"},
		{"another controller", "8:net_cls,net_prio:/f\n4:cpuset:/e\n", "/f"},
		{"a hierarchy of no controllers", "2:name=mine:/g\n1:name=systemd:/\n", "/g"},
		{"all are roots", "2:memory:/\n1:name=systemd:/\n0::/\n", "/"},
		// Docker with v1 cgroups, which leaves its containers in containerd's v2 cgroup: issue threads of many tools.
		{"container in v1 only", "12:pids:/docker/" + id + "\n10:rdma:/\n1:name=systemd:/docker/" + id + "\n0::/system.slice/containerd.service\n",
			"/docker/" + id},
		{"container in both", "1:name=systemd:/docker/x\n0::/system.slice/docker-" + id + ".scope\n", "/system.slice/docker-" + id + ".scope"},
		{"removed", "1:name=systemd:/\n0::/user.slice/a (deleted)\n", "/user.slice/a"},
		{"not removed: v1 says nothing of it", "1:name=systemd:/a (deleted)\n0::/\n", "/a (deleted)"},
		{"colons", "0::/kubepods.slice:cri-containerd:1:2\n", "/kubepods.slice:cri-containerd:1:2"},
		{"any bytes", "0::/\xff\xe9 \t\\x2d\\n\r\n", "/\xff\xe9 \t\\x2d\\n\r"},
		{"outside of the namespace", "0::/../../system.slice\n", "/../../system.slice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path, err := ParseProcess([]byte(test.content))
			require.NoError(t, err)
			require.Equal(t, test.want, path)
		})
	}
}

func TestParseProcessErrors(t *testing.T) {
	for _, test := range []struct {
		content, want string
	}{
		{"", "cgroup has no hierarchy"},
		{"garbage\n", `line 1: "garbage" is not a cgroup`},
		{"0::/\n\n", `line 2: "" is not a cgroup`},
		{"0:/a\n", `line 1: "0:/a" is not a cgroup`},
		{"0::\n", `line 1: "0::" is not a cgroup`},
		{"0::a\n", `line 1: "0::a" is not a cgroup`},
		{"1:name=systemd:/a\n-1::/\n", `line 2: "-1::/" is not a cgroup`},
		{"4294967296::/\n", `line 1: "4294967296::/" is not a cgroup`},
		{"::/\n", `line 1: "::/" is not a cgroup`},
	} {
		path, err := ParseProcess([]byte(test.content))
		require.EqualError(t, err, test.want)
		require.Empty(t, path)
	}
}

// The content of /proc/<pid>/cgroup on hosts of all kinds.
func TestProcessOnHosts(t *testing.T) {
	for _, test := range []struct {
		file, path string
		hasV1      bool
	}{
		{"cgroup_unified", "/system.slice/docker-" + id1 + ".scope", false},
		{"cgroup_hybrid", "/docker/" + id1, true}, // Docker with the cgroupfs driver
		{"cgroup_v1", "/docker/" + id1, true},     // cgroup2 was never mounted
		{"cgroup_hybrid_systemd", "/system.slice/nginx.service", true},
		{"cgroup_hybrid_net_cls", "/system.slice/nginx.service", true}, // some VPNs mount this controller only
	} {
		t.Run(test.file, func(t *testing.T) {
			content, err := os.ReadFile(filepath.Join("testdata", test.file))
			require.NoError(t, err)
			require.Equal(t, test.hasV1, HasV1(content))
			path, err := ParseProcess(content)
			require.NoError(t, err)
			require.Equal(t, test.path, path)
		})
	}
}

func TestHasV1(t *testing.T) {
	for _, test := range []struct {
		content string
		want    bool
	}{
		{"0::/a\n1:name=mine:/\n", true}, // the order is not promised
		{"0::/a\n12:memory:/\n", true},
		{"garbage\n7:misc:/", true},
		{"", false},
		{"0::/\n", false},
		{"0::/3:memory:/\n", false}, // names of cgroups can have colons
		{"0::/a (deleted)\n", false},
		{"0:memory:/\n", false},
		{"1::/\n", false},
		{"1:memory\n", false},
		{"1:memory:\n", false},
		{"1:memory:a\n", false},
		{"x:memory:/\n", false},
		{":memory:/\n", false},
		{"-1:memory:/\n", false},
		{"4294967296:memory:/\n", false},
		{"\n\n", false},
	} {
		require.Equal(t, test.want, HasV1([]byte(test.content)), "%q", test.content)
	}
}

// An error, or a path of the file.
func FuzzParseProcess(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte) {
		path, err := ParseProcess(content)
		if err != nil {
			require.Empty(t, path, "an error or a value")
			return
		}
		if !HasV1(content) {
			require.NotRegexp(t, `(?m)^0*[1-9][0-9]*:[^:\n]`, string(content))
		}
		require.Equal(t, byte('/'), path[0])
		require.NotContains(t, path, "\n")
		require.Contains(t, string(content), ":"+path)
		again, err := ParseProcess(fmt.Appendf(nil, "7:memory:/x\n0::%s (deleted)\n", path))
		require.NoError(t, err)
		if path != "/" {
			require.Equal(t, path, again)
		}
	})
}

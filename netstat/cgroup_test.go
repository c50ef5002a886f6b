package netstat

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

// fakeTree is a cgroup2 file system that counts how often it is read.
type fakeTree struct {
	paths map[uint64]string
	err   error
	takes time.Duration
	walks int
}

func (f *fakeTree) each(visit func(id uint64, path string) bool) error {
	f.walks++
	time.Sleep(f.takes)
	for id, path := range f.paths {
		if !visit(id, path) {
			return nil
		}
	}
	return f.err
}

var _ cgroupTree = (*fakeTree)(nil)

func requirePath(t *testing.T, c *Cgroups, id uint64, want string) {
	t.Helper()
	path, ok := c.Path(id)
	require.True(t, ok, "cgroup %d", id)
	require.Equal(t, want, path)
}

func requireNoPath(t *testing.T, c *Cgroups, id uint64) {
	t.Helper()
	path, ok := c.Path(id)
	require.False(t, ok, "cgroup %d", id)
	require.Empty(t, path)
}

func TestCgroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := &fakeTree{paths: map[uint64]string{1: "/", 20: "/a"}}
		c := newCgroups(tree)
		requirePath(t, c, 1, "/")
		requirePath(t, c, 20, "/a")
		require.Equal(t, 1, tree.walks, "read once")

		requireNoPath(t, c, 30)
		requireNoPath(t, c, 30)
		require.Equal(t, 2, tree.walks, "not read again for an id that is not there")

		tree.paths = map[uint64]string{1: "/", 40: "/b\xff\\x2d"}
		requirePath(t, c, 40, "/b\xff\\x2d")
		requirePath(t, c, 20, "/a") // removed
		require.Equal(t, 3, tree.walks)

		tree.paths = map[uint64]string{1: "/", 20: "/c", 50: "/d"} // where ids have 32 bits, they come again
		requirePath(t, c, 50, "/d")
		requirePath(t, c, 20, "/c")
		require.Equal(t, 4, tree.walks)
		require.NoError(t, c.Err())
	})
}

// What failed is said, is no reason to believe that a cgroup is not there, and is tried again.
func TestCgroupsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		tree := &fakeTree{paths: map[uint64]string{1: "/"}, err: broken}
		c := newCgroups(tree)
		requireNoPath(t, c, 20)
		require.ErrorIs(t, c.Err(), broken)
		requirePath(t, c, 1, "/")

		tree.paths[20], tree.err = "/a", nil
		requirePath(t, c, 20, "/a")
		require.NoError(t, c.Err())
	})
}

// However many unknown ids there are, reading the tree takes no more than its share of the time.
func TestCgroupsTimeIsBounded(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tree := &fakeTree{takes: takes}
				c := newCgroups(tree)
				start, id := time.Now(), uint64(0)
				for time.Since(start) < time.Hour {
					for range 100 {
						id++
						requireNoPath(t, c, id)
					}
					time.Sleep(10 * time.Second)
				}
				spent := time.Duration(tree.walks) * takes
				require.Less(t, spent, time.Since(start)/walkShare+walkCredit+takes)
				require.Greater(t, spent, min(time.Since(start)/walkShare, 360*walkCredit)*8/10, "the share is used")

				time.Sleep(time.Hour)
				tree.paths = map[uint64]string{id + 1: "/new"}
				requirePath(t, c, id+1, "/new")
				require.LessOrEqual(t, len(c.missing), maxMissing)
			})
		})
	}
}

// A long time without an unknown id saves up no more for walks than a short one.
func TestCgroupsTimeIsNotSavedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tree := &fakeTree{takes: walkCredit / 10}
		c := newCgroups(tree)
		time.Sleep(time.Hour)
		for id := range uint64(100) {
			requireNoPath(t, c, id)
		}
		require.InDelta(t, 10, tree.walks, 1)
	})
}

// Removed cgroups are remembered, those that were asked for last, and no more than fit.
func TestCgroupsMemoryIsBounded(t *testing.T) {
	const generations, each = 10, maxRemoved / 4
	synctest.Test(t, func(t *testing.T) {
		tree := &fakeTree{paths: map[uint64]string{1: "/", 2: "/asked for"}}
		c := newCgroups(tree)
		requirePath(t, c, 2, "/asked for")
		for generation := range generations {
			tree.paths = map[uint64]string{1: "/"}
			for i := range each {
				tree.paths[uint64(1000*(generation+1)+i)] = fmt.Sprintf("/%d/%d", generation, i)
			}
			requirePath(t, c, uint64(1000*(generation+1)), fmt.Sprintf("/%d/0", generation))
			requirePath(t, c, 2, "/asked for")
			require.LessOrEqual(t, len(c.known), maxRemoved+1+each)
		}
		requirePath(t, c, 1000*generations-1000+7, "/8/7") // not asked for, but it went only lately
		requireNoPath(t, c, 1007)
	})
}

// A tree that is too big is read from the top as far as there is room.
func TestCgroupsTooMany(t *testing.T) {
	c := newCgroups(endlessTree{})
	requirePath(t, c, 1, endlessTree{}.path(1))
	requireNoPath(t, c, 1<<30)
	require.ErrorIs(t, c.Err(), errManyCgroups)
	require.Less(t, len(c.known), maxCgroupBytes/4096+1)
}

type endlessTree struct{}

func (endlessTree) path(id uint64) string { return fmt.Sprintf("/%04000d", id) }

func (e endlessTree) each(visit func(id uint64, path string) bool) error {
	for id := uint64(1); visit(id, e.path(id)); id++ {
	}
	return nil
}

func TestCgroupsPathDoesNotAllocate(t *testing.T) {
	c := newCgroups(&fakeTree{paths: map[uint64]string{1: "/"}})
	requireNoPath(t, c, 2)
	require.Zero(t, testing.AllocsPerRun(10, func() {
		_, known := c.Path(1)
		_, unknown := c.Path(2)
		if !known || unknown {
			t.Fatal("wrong")
		}
	}))
}

func TestNewCgroupsErrors(t *testing.T) {
	_, err := NewCgroups(smallTree)
	require.ErrorIs(t, err, ErrNoCgroup2)
	if runtime.GOOS == "linux" {
		require.EqualError(t, err, "no cgroup2 file system is mounted: "+smallTree+" is not a proc file system but a copy of one")
	}
}

func readTestdata(tb testing.TB, elements ...string) []byte {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, elements...)...))
	require.NoError(tb, err)
	return content
}

func TestParseMountinfo(t *testing.T) {
	for _, test := range []struct {
		file string
		want []cgroupMount
	}{
		{"mountinfo_unified", []cgroupMount{{"/", "/sys/fs/cgroup"}}},
		{"mountinfo_hybrid", []cgroupMount{{"/", "/sys/fs/cgroup/unified"}}},
		{"mountinfo_v1", nil},
		// A container with a cgroup namespace of its own, which has the host's file system besides.
		{"mountinfo_container", []cgroupMount{{"/../..", "/hostfs/sys/fs/cgroup"}, {"/", "/sys/fs/cgroup"}}},
		// A container in the cgroup namespace of the host; a mount point with blanks and the like; optional fields; a
		// source without a name.
		{"mountinfo_part", []cgroupMount{
			{"/a slice", "/mnt/a \\b\tc\ndé"},
			{"/docker/8d3f0c5b9a71e264d3c0b5a49788f6e1d2c3b4a5968778695a4b3c2d1e0f1a2b", "/sys/fs/cgroup"},
		}},
	} {
		t.Run(test.file, func(t *testing.T) {
			mounts, err := parseMountinfo(readTestdata(t, "cgroup", test.file))
			require.NoError(t, err)
			require.Equal(t, test.want, mounts)
		})
	}
}

func TestParseMountinfoErrors(t *testing.T) {
	const good = "28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
	for _, test := range []struct {
		name, content, want string
	}{
		{"no separator", good + "32 22 0:28 / /sys/fs/cgroup rw shared:9 cgroup2 cgroup2 rw\n",
			`line 2: "32 22 0:28 / /sys/fs/cgroup rw shared:9 cgroup2 cgroup2 rw" is not a mount`},
		{"few columns", "32 22 0:28 / /sys/fs/cgroup - cgroup2 cgroup2 rw\n",
			`line 1: "32 22 0:28 / /sys/fs/cgroup - cgroup2 cgroup2 rw" is not a mount`},
		{"empty line", good + "\n" + good, `line 2: "" is not a mount`},
		{"cut off", good + good[:20], `line 2: "28 1 259:2 / / rw,re" is not a mount`},
		{"relative root", "32 22 0:28 cg:[4026531835] /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
			`line 1: "32 22 0:28 cg:[4026531835] /sys/fs/cgroup rw - cgroup2 cgroup2 rw": root and mount point are not absolute`},
		{"relative point", "32 22 0:28 / sys rw - cgroup2 cgroup2 rw",
			`line 1: "32 22 0:28 / sys rw - cgroup2 cgroup2 rw": root and mount point are not absolute`},
	} {
		t.Run(test.name, func(t *testing.T) {
			mounts, err := parseMountinfo([]byte(test.content))
			require.EqualError(t, err, test.want)
			require.Nil(t, mounts)
		})
	}
}

func TestUnescapeOctal(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{`/a\040b`, "/a b"},
		{`\134040`, `\040`},
		{`\377\000`, "\xff\x00"},
		{`\400`, `\400`}, // no byte
		{`\04`, `\04`},
		{`\049`, `\049`},
		{`\`, `\`},
		{`\\040`, `\ `},
	} {
		require.Equal(t, test.want, unescapeOctal([]byte(test.text)), "%q", test.text)
	}
}

func TestParseProcCgroup(t *testing.T) {
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
			path, err := parseProcCgroup([]byte(test.content))
			require.NoError(t, err)
			require.Equal(t, test.want, path)
		})
	}
}

func TestParseProcCgroupErrors(t *testing.T) {
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
		path, err := parseProcCgroup([]byte(test.content))
		require.EqualError(t, err, test.want)
		require.Empty(t, path)
	}
}

func TestProcessCgroup(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	for pid, want := range map[int]string{
		1:    "/init.scope",
		2:    "/",
		1002: "/system.slice/nginx.service",
		3:    "", // there is no such process
	} {
		p := &Process{PID: pid, root: root}
		require.Equal(t, want, p.Cgroup(), "process %d", pid)
		require.NoError(t, os.RemoveAll(filepath.Join(root, strconv.Itoa(pid))))
		require.Equal(t, want, p.Cgroup(), "process %d has gone: what was read is kept", pid)
	}
	for _, pid := range []int{1001, 1002} {
		require.Empty(t, (&Process{PID: pid, root: brokenTree}).Cgroup())
	}
}

// An error or mounts, each as it was written.
func FuzzParseMountinfo(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte) {
		mounts, err := parseMountinfo(content)
		if err != nil {
			require.Nil(t, mounts, "an error or a value")
			return
		}
		require.LessOrEqual(t, len(mounts), bytes.Count(content, []byte(" - cgroup2")))
		var again []byte
		escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
		for i, mount := range mounts {
			require.Equal(t, byte('/'), mount.root[0])
			require.Equal(t, byte('/'), mount.point[0])
			if i > 0 {
				require.LessOrEqual(t, mounts[i-1].below(), mount.below())
			}
			again = fmt.Appendf(again, "1 2 0:3 %s %s rw - cgroup2 none rw\n", escape.Replace(mount.root), escape.Replace(mount.point))
		}
		parsed, err := parseMountinfo(again)
		require.NoError(t, err)
		require.Equal(t, mounts, parsed)
	})
}

// An error or a path that is in the file.
func FuzzParseProcCgroup(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte) {
		path, err := parseProcCgroup(content)
		if err != nil {
			require.Empty(t, path, "an error or a value")
			return
		}
		require.Equal(t, byte('/'), path[0])
		require.NotContains(t, path, "\n")
		require.Contains(t, string(content), ":"+path)
		again, err := parseProcCgroup(fmt.Appendf(nil, "7:memory:/x\n0::%s (deleted)\n", path))
		require.NoError(t, err)
		if path != "/" {
			require.Equal(t, path, again)
		}
	})
}

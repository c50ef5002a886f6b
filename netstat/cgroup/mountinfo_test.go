package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseMountinfo(t *testing.T) {
	for _, test := range []struct {
		file string
		want []mount
	}{
		{"mountinfo_unified", []mount{{"/", "/sys/fs/cgroup"}}},
		{"mountinfo_hybrid", []mount{{"/", "/sys/fs/cgroup/unified"}}},
		{"mountinfo_v1", nil},
		// A container with its own cgroup namespace that also mounts the host's file system.
		{"mountinfo_container", []mount{{"/../..", "/hostfs/sys/fs/cgroup"}, {"/", "/sys/fs/cgroup"}}},
		// A container in the cgroup namespace of the host, escaped characters in a mount point, optional fields, and a mount
		// without a source.
		{"mountinfo_part", []mount{
			{"/a slice", "/mnt/a \\b\tc\ndé"},
			{"/docker/8d3f0c5b9a71e264d3c0b5a49788f6e1d2c3b4a5968778695a4b3c2d1e0f1a2b", "/sys/fs/cgroup"},
		}},
	} {
		t.Run(test.file, func(t *testing.T) {
			content, err := os.ReadFile(filepath.Join("testdata", test.file))
			require.NoError(t, err)
			mounts, err := parseMountinfo(content)
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
		{`\400`, `\400`}, // not a byte
		{`\04`, `\04`},
		{`\049`, `\049`},
		{`\`, `\`},
		{`\\040`, `\ `},
	} {
		require.Equal(t, test.want, unescapeOctal([]byte(test.text)), "%q", test.text)
	}
}

// An error, or mounts that survive formatting and parsing.
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
		for i, m := range mounts {
			require.Equal(t, byte('/'), m.root[0])
			require.Equal(t, byte('/'), m.point[0])
			if i > 0 {
				require.LessOrEqual(t, mounts[i-1].below(), m.below())
			}
			again = fmt.Appendf(again, "1 2 0:3 %s %s rw - cgroup2 none rw\n", escape.Replace(m.root), escape.Replace(m.point))
		}
		parsed, err := parseMountinfo(again)
		require.NoError(t, err)
		require.Equal(t, mounts, parsed)
	})
}

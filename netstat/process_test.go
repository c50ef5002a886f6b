package netstat

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/proctree"
)

const (
	smallTree  = "../testdata/proc/small"
	brokenTree = "../testdata/proc/broken"
)

func openProcDir(t *testing.T, root string) *procDir {
	t.Helper()
	dir := new(procDir)
	require.NoError(t, dir.open(root))
	t.Cleanup(dir.close)
	return dir
}

func TestParseStat(t *testing.T) {
	const after = ") S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 153230 19050496 3739"
	for name, test := range map[string]struct {
		content, want    string
		flags, startTime uint64
	}{
		"plain":             {"7 (nginx" + after, "nginx", 4194560, 153230},
		"empty name":        {"7 (" + after, "", 4194560, 153230},
		"blanks":            {"7 (a b  c " + after, "a b  c ", 4194560, 153230},
		"parentheses":       {"7 (a) S (b) 1" + after, "a) S (b) 1", 4194560, 153230},
		"newline, no UTF-8": {"7 (caf\xe9\n\x1b" + after + "\n", "caf\xe9\n\x1b", 4194560, 153230},
		"kernel thread":     {"2 (kworker/0:0H-events_highpri) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 0 -20 1 0 24 0 0", "kworker/0:0H-events_highpri", 69238880, 24},
		"no more columns":   {"7 (a) S 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 18446744073709551615", "a", 0, 1<<64 - 1},
	} {
		t.Run(name, func(t *testing.T) {
			stat, err := parseStat([]byte(test.content))
			require.NoError(t, err)
			require.Equal(t, test.want, string(stat.name))
			require.Equal(t, test.flags, stat.flags)
			require.Equal(t, test.startTime, stat.startTime)
		})
	}
}

func TestParseStatErrors(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		want    error
	}{
		"empty":              {"", errShortStat},
		"no name":            {"7 nginx S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 153230", errShortStat},
		"name without end":   {"7 (nginx S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 153230", errShortStat},
		"parentheses turned": {"7 )nginx( S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 153230", errShortStat},
		"cut":                {"7 (nginx) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0", errShortStat},
		"wide flags":         {"7 (nginx) S 1 7 7 0 -1 18446744073709551616 1 2 3 4 5 6 7 8 20 0 1 0 153230", errRange},
		"no number":          {"7 (nginx) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 -153230", errNoNumber},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseStat([]byte(test.content))
			require.ErrorIs(t, err, test.want)
		})
	}
}

func TestParseStatusUID(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		want    uint32
		err     error
	}{
		"effective id":  {"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n", 2, nil},
		"biggest":       {"Uid:\t0\t4294967295\t0\t0\n", 1<<32 - 1, nil},
		"no line end":   {"Uid:\t0\t7", 7, nil},
		"name":          {"Name:\tUid:\t9\nUid:\t0\t7\n", 7, nil}, // the kernel escapes newlines in names
		"empty":         {"", 0, errNoUID},
		"none":          {"Name:\tx\nGid:\t5\t6\t7\t8\n", 0, errNoUID},
		"one":           {"Uid:\t1\n", 0, errNoUID},
		"too big":       {"Uid:\t0\t4294967296\t0\t0\n", 0, errRange},
		"negative":      {"Uid:\t0\t-2\t0\t0\n", 0, errNoNumber},
		"first is used": {"Uid:\t1\nUid:\t0\t7\n", 0, errNoUID},
	} {
		t.Run(name, func(t *testing.T) {
			uid, err := parseStatusUID([]byte(test.content))
			require.ErrorIs(t, err, test.err)
			require.Equal(t, test.want, uid)
		})
	}
}

func TestProcess(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	dir, cache := openProcDir(t, root), newProcessCache(root, nil)
	for _, want := range []struct {
		pid       int
		startTime uint64
		name, exe string
		cmdline   []string
		uid       uint32
	}{
		{1, 10, "systemd", "/usr/lib/systemd/systemd", []string{"/sbin/init", "splash"}, 0},
		{2, 10, "kthreadd", "", []string{}, 0},
		{1002, 1201, "nginx", "/usr/sbin/nginx", []string{"nginx: worker process"}, 33},
		{1004, 1400, "caf\xe9) (a\nb", "", []string{}, 1<<32 - 2},
		{1005, 1500, "coredns", "/coredns (deleted)", []string{"/coredns", "-conf", "/etc/coredns/Corefile"}, 0},
	} {
		p := cache.get(dir, want.pid)
		require.NotNil(t, p)
		require.Equal(t, want.pid, p.PID)
		require.Equal(t, want.startTime, p.StartTime)
		require.Equal(t, want.name, p.Name)
		require.Equal(t, want.exe, p.Exe())
		require.Equal(t, want.cmdline, p.Cmdline())
		uid, known := p.UID()
		require.True(t, known)
		require.Equal(t, want.uid, uid)
	}
	require.True(t, cache.isKernelThread(dir, 2))
	require.False(t, cache.isKernelThread(dir, 1))
	require.False(t, cache.isKernelThread(dir, 3), "there is no such process")
}

func TestProcessBroken(t *testing.T) {
	root := proctree.Materialize(t, brokenTree)
	dir, cache := openProcDir(t, root), newProcessCache(root, nil)
	for _, pid := range []int{3, 1001, 1002, 1003} {
		require.Nil(t, cache.get(dir, pid), "process %d", pid)
		_, known := (&Process{PID: pid, root: root}).UID()
		require.False(t, known, "uid of process %d", pid)
	}
}

// What was read is kept, also when the process has gone.
func TestProcessIsReadOnce(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	read, unread := &Process{PID: 1002, root: root}, &Process{PID: 1002, root: root}
	read.Exe()
	read.Cmdline()
	read.UID()
	require.NoError(t, os.RemoveAll(filepath.Join(root, "1002")))

	require.Equal(t, "/usr/sbin/nginx", read.Exe())
	require.Equal(t, []string{"nginx: worker process"}, read.Cmdline())
	uid, known := read.UID()
	require.Equal(t, uint32(33), uid)
	require.True(t, known)

	require.Equal(t, "", unread.Exe())
	require.Equal(t, []string{}, unread.Cmdline())
	_, known = unread.UID()
	require.False(t, known)
}

func TestProcessCache(t *testing.T) {
	root := t.TempDir()
	writeStat := func(pid int, name string, startTime int) {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Join(root, strconv.Itoa(pid)), 0o755))
		content := fmt.Sprintf("%d (%s) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d 0\n", pid, name, startTime)
		require.NoError(t, os.WriteFile(filepath.Join(root, strconv.Itoa(pid), "stat"), []byte(content), 0o600))
	}
	writeStat(7, "a", 100)
	writeStat(8, "b", 100)
	dir, cache := openProcDir(t, root), newProcessCache(root, nil)

	cache.begin()
	seven, eight := cache.get(dir, 7), cache.get(dir, 8)
	require.Same(t, seven, cache.get(dir, 7), "asked again in the same scan")
	cache.end()

	cache.begin()
	require.Same(t, seven, cache.get(dir, 7), "asked again in the next scan")
	cache.end()
	require.Len(t, cache.processes, 1, "processes that nobody asks for are forgotten")

	cache.begin()
	require.NotSame(t, eight, cache.get(dir, 8), "forgotten")
	writeStat(7, "a", 101)
	require.NotSame(t, seven, cache.get(dir, 7), "another process with the same pid")
	require.Equal(t, uint64(101), cache.get(dir, 7).StartTime)
	seven = cache.get(dir, 7)
	writeStat(7, "c", 101)
	require.NotSame(t, seven, cache.get(dir, 7), "the process became another program")
	require.Equal(t, "c", cache.get(dir, 7).Name)
	cache.end()

	cache.begin()
	require.NoError(t, os.RemoveAll(filepath.Join(root, "7")))
	require.Nil(t, cache.get(dir, 7))
	cache.end()
	require.Empty(t, cache.processes)
}

func TestProcessCacheDoesNotAllocate(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	dir, cache := openProcDir(t, root), newProcessCache(root, nil)
	allocs := testing.AllocsPerRun(10, func() {
		cache.begin()
		if cache.get(dir, 1001) == nil {
			t.Fatal("no process")
		}
		cache.end()
	})
	require.Zero(t, allocs)
}

func FuzzParseStat(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte) {
		stat, err := parseStat(content)
		if err != nil {
			require.Equal(t, procStat{}, stat, "an error or a value")
			return
		}
		require.True(t, bytes.Contains(content, fmt.Appendf(nil, "(%s)", stat.name)))
		again, err := parseStat(fmt.Appendf(nil, "7 (%s) S 1 7 7 0 -1 %d 1 2 3 4 5 6 7 8 20 0 1 0 %d", stat.name, stat.flags, stat.startTime))
		require.NoError(t, err)
		require.Equal(t, stat, again)
	})
}

func FuzzParseStatusUID(f *testing.F) {
	f.Fuzz(func(t *testing.T, status []byte) {
		uid, err := parseStatusUID(status)
		if err != nil {
			require.Zero(t, uid, "an error or a value")
			return
		}
		// The same as the plainest way to find it.
		at := strings.Index("\n"+string(status), "\nUid:")
		require.GreaterOrEqual(t, at, 0)
		line, _, _ := strings.Cut(string(status)[at:], "\n")
		require.Equal(t, uint64(uid), mustParse(t, strings.Fields(line[len("Uid:"):])[1]))
	})
}

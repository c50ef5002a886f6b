package netstat

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

const (
	smallTree  = "testdata/proc/small"
	brokenTree = "testdata/proc/broken"
)

func openProcDir(t *testing.T, root string) *procfs.Dir {
	t.Helper()
	dir := new(procfs.Dir)
	require.NoError(t, dir.Open(root))
	t.Cleanup(dir.Close)
	return dir
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

// What was read of a process is kept, even after the process has ended.
func TestProcessIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := proctree.Materialize(t, smallTree)
		read, unread := &Process{PID: 1002, root: root}, &Process{PID: 1002, root: root}
		read.Exe()
		read.Cmdline()
		read.UID()
		require.NoError(t, os.RemoveAll(filepath.Join(root, "1002")))

		for range 3 {
			require.Equal(t, "/usr/sbin/nginx", read.Exe())
			require.Equal(t, []string{"nginx: worker process"}, read.Cmdline())
			uid, known := read.UID()
			require.Equal(t, uint32(33), uid)
			require.True(t, known)

			require.Equal(t, "", unread.Exe())
			require.Equal(t, []string{}, unread.Cmdline())
			_, known = unread.UID()
			require.False(t, known)
			time.Sleep(time.Minute)
		}
	})
}

// writeProcess makes a process with a name and a command line.
func writeProcess(t *testing.T, root string, pid int, name, cmdline string) *Process {
	t.Helper()
	const startTime = 100
	dir := filepath.Join(root, strconv.Itoa(pid))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	stat := fmt.Appendf(nil, "%d (%s) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d 0\n", pid, name, startTime)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "stat"), stat, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cmdline"), []byte(cmdline), 0o600))
	return &Process{PID: pid, StartTime: startTime, Name: name, root: root}
}

func TestFullName(t *testing.T) {
	const cut = "victoria-metric"
	fits := strings.Repeat("m", maxFileName)
	for _, test := range []struct {
		what, name, cmdline, want string
	}{
		{"path", cut, "/usr/bin/victoria-metrics\x00-retentionPeriod\x0012\x00", "victoria-metrics"},
		{"no path", cut, "victoria-metrics\x00", "victoria-metrics"},
		{"relative path", cut, "./bin/victoria-metrics\x00-x/victoria-metric-of-another\x00", "victoria-metrics"},
		{"no NUL at the end, as setproctitle(3) leaves it", cut, "victoria-metrics: worker", "victoria-metrics: worker"},
		{"name of 15 bytes", "fifteen-bytes-x", "/bin/fifteen-bytes-x\x00", "fifteen-bytes-x"},
		{"name of 14 bytes", "victoria-metri", "/usr/bin/victoria-metrics\x00", "victoria-metri"},
		{"name of 16 bytes of a kernel thread", "victoria-metrics", "victoria-metrics-x\x00", "victoria-metrics"},
		{"kernel thread", "kworker/u9:1-rp", "", "kworker/u9:1-rp"},
		{"cut in a character", "victoria-m\xc3\xa9tr\xc3", "/opt/victoria-m\xc3\xa9tr\xc3\xaeque\x00", "victoria-m\xc3\xa9tr\xc3\xaeque"},
		{"interpreter", "certificate-ren", "/usr/bin/python3\x00/usr/bin/certificate-renewal\x00", "certificate-ren"},
		{"name set with PR_SET_NAME", "a-thread's-name", "/usr/bin/victoria-metrics\x00", "a-thread's-name"},
		{"slashes at the end", cut, "/usr/bin/victoria-metrics//\x00", "victoria-metrics"},
		{"slashes only", cut, "///\x00", cut},
		{"name in a directory", cut, "/victoria-metrics/bin\x00", cut},
		{"shorter", cut, "/usr/bin/victoria\x00", cut},
		{"empty argument", cut, "\x00victoria-metrics\x00", cut},
		{"any bytes", cut, "/\x01\xff/victoria-metrics,a=b \n\x7f\xff\\\x00", "victoria-metrics,a=b \n\x7f\xff\\"},
		{"longest file name", "mmmmmmmmmmmmmmm", "/" + fits + "\x00", fits},
		{"longer than a file name", "mmmmmmmmmmmmmmm", "/" + fits + "m\x00", "mmmmmmmmmmmmmmm"},
		{"longest path", cut, strings.Repeat("/", maxPath-1-len("victoria-metrics")) + "victoria-metrics\x00", "victoria-metrics"},
		{"longer than a path", cut, strings.Repeat("/", maxPath-len("victoria-metrics-")) + "victoria-metrics-x\x00", cut},
	} {
		t.Run(test.what, func(t *testing.T) {
			p := writeProcess(t, t.TempDir(), 7, test.name, test.cmdline)
			require.Equal(t, test.want, p.FullName())
			require.Equal(t, test.name, p.Name)
			require.Nil(t, p.cmdline, "the first bytes are not the command line")
		})
	}
}

// The result is the name, or a file name in the command line that begins with it.
func FuzzCompleteName(f *testing.F) {
	for _, cmdline := range []string{
		"", "/usr/bin/victoria-metrics\x00-x\x00", "victoria-metrics: worker", "\x00victoria-metrics\x00", "//victoria-metrics//\x00", "///",
		"/victoria-metrics/bin\x00", "victoria-metric\xff\n", strings.Repeat("/", maxPath-len("victoria-metrics-")) + "victoria-metrics-x",
		"victoria-metric" + strings.Repeat("s", maxFileName),
	} {
		f.Add("victoria-metric", []byte(cmdline))
	}
	f.Fuzz(func(t *testing.T, name string, cmdline []byte) {
		full := completeName(name, cmdline)
		if full == name {
			return
		}
		require.True(t, strings.HasPrefix(full, name))
		require.LessOrEqual(t, len(full), maxFileName)
		require.NotContains(t, full, "/")
		require.NotContains(t, full, "\x00")
		require.Contains(t, string(cmdline), full)
		again := completeName(name, append([]byte("/bin/"+full), 0))
		require.Equal(t, full, again)
	})
}

// The full name is kept, even after the process has ended.
func TestFullNameIsReadOnce(t *testing.T) {
	const cut = "victoria-metric"
	root := t.TempDir()
	p := writeProcess(t, root, 7, cut, "")
	require.Equal(t, cut, p.FullName(), "execve(2) has not finished")
	writeProcess(t, root, 7, cut, "victoria-metrics\x00")
	require.Equal(t, "victoria-metrics", p.FullName())
	writeProcess(t, root, 7, cut, "victoria-metrics-b\x00")
	unread := &Process{PID: 7, StartTime: 99, Name: cut, root: root}
	require.Equal(t, cut, unread.FullName(), "the command line is that of another process with the same pid")
	ended := &Process{PID: 8, StartTime: 100, Name: cut, root: root}
	require.Equal(t, cut, ended.FullName())
	writeProcess(t, root, 8, cut, "victoria-metrics\x00")
	require.Equal(t, cut, ended.FullName(), "not read again")
	require.NoError(t, os.RemoveAll(root))
	require.Equal(t, "victoria-metrics", p.FullName())
	require.Zero(t, testing.AllocsPerRun(10, func() { p.FullName() }))
}

// The full name of a process whose name is not cut costs nothing.
func TestFullNameDoesNotRead(t *testing.T) {
	p := &Process{PID: 7, Name: "nginx", root: t.TempDir()}
	require.Zero(t, testing.AllocsPerRun(10, func() {
		if p.FullName() != "nginx" {
			t.Fatal("wrong")
		}
	}))
}

// writeStatus sets the user of a process.
func writeStatus(t *testing.T, root string, pid int, uid uint32) {
	t.Helper()
	dir := filepath.Join(root, strconv.Itoa(pid))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "status"), fmt.Appendf(nil, "Uid:\t0\t%d\t0\t0\n", uid), 0o600))
}

// The user of a process is read again after minUIDAge at the earliest, and not that of all processes at once.
func TestUIDIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 300
		root := t.TempDir()
		var processes []*Process
		setUsers := func(uid uint32) {
			for pid := range count {
				writeStatus(t, root, pid, uid)
			}
		}
		have := func(uid uint32) (n int) {
			for _, p := range processes {
				is, known := p.UID()
				require.True(t, known)
				if is == uid {
					n++
				}
			}
			return n
		}
		setUsers(1)
		for pid := range count {
			processes = append(processes, &Process{PID: pid, root: root})
		}
		require.Equal(t, count, have(1))
		setUsers(2)
		time.Sleep(minUIDAge - 1)
		require.Zero(t, have(2), "read too soon")
		for uid := uint32(2); uid < 6; uid++ { // each at its own time
			setUsers(uid)
			before := 0
			for range 4 {
				time.Sleep((maxUIDAge - minUIDAge) / 4)
				now := have(uid)
				require.Less(t, now-before, count/2, "all are read at once")
				before = now
			}
			time.Sleep(maxUIDAge)
			require.Equal(t, count, have(uid))
		}
	})
}

// If the user cannot be read, the known one stays, and is read again as soon as possible.
func TestUIDIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		status := filepath.Join(root, "7", "status")
		p := &Process{PID: 7, root: root}
		is := func(want uint32, isKnown bool) {
			t.Helper()
			for range 2 {
				uid, known := p.UID()
				require.Equal(t, isKnown, known)
				require.Equal(t, want, uid)
			}
		}
		require.NoError(t, os.MkdirAll(status, 0o755)) // a directory can be opened, but not read
		is(0, false)
		require.NoError(t, os.Remove(status))
		writeStatus(t, root, 7, 1)
		is(1, true)
		require.NoError(t, os.Remove(status))
		require.NoError(t, os.Mkdir(status, 0o755))
		time.Sleep(maxUIDAge)
		is(1, true)
		require.NoError(t, os.Remove(status))
		writeStatus(t, root, 7, 2)
		is(2, true)

		require.NoError(t, os.Remove(status)) // with hidepid, it is read again after a while
		time.Sleep(maxUIDAge)
		is(2, true)
		writeStatus(t, root, 7, 3)
		time.Sleep(minUIDAge - 1)
		is(2, true)
		time.Sleep(maxUIDAge)
		is(3, true)
	})
}

// The owner of a connection is the process that initiated it, and not a later process with the same pid.
func TestProcessOfConnect(t *testing.T) {
	root := t.TempDir()
	cache := newProcessCache(root, nil)
	cache.keepsPast = true
	initiatedBy := func(startTime uint64, uid uint32) *bpf.Connect {
		return &bpf.Connect{Initiator: bpf.Process{
			PID: 7, StartBootTime: startTime * 10_000_000, UID: uid, Comm: [16]byte{'b', 'e', 'f', 'o', 'r', 'e'},
		}}
	}
	cache.begin()
	younger := cache.see(7, 200, []byte("younger"))
	older := cache.ofConnect(initiatedBy(100, 33))
	require.NotSame(t, younger, older)
	require.Equal(t, []any{7, uint64(100), "before"}, []any{older.PID, older.StartTime, older.Name})
	require.Same(t, older, cache.ofConnect(initiatedBy(100, 33)))
	require.Same(t, younger, cache.ofConnect(initiatedBy(200, 33)))
	require.NotSame(t, older, cache.ofConnect(initiatedBy(101, 33)), "earlier start time")
	cache.end()
	cache.begin()
	cache.end() // neither has a socket now
	require.Same(t, older, cache.ofConnect(initiatedBy(100, 33)), "kept for a while")
	require.Same(t, younger, cache.ofConnect(initiatedBy(200, 33)))
	require.Equal(t, "younger", younger.Name, "the name as last seen")
}

// The user of the initiator is its current one, else the last one seen, else the one at the time of the connect.
func TestUIDOfConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		cache := newProcessCache(root, nil)
		of := func(pid, uid uint32) uint32 {
			cache.begin()
			defer cache.end()
			id, known := cache.ofConnect(&bpf.Connect{Initiator: bpf.Process{PID: pid, UID: uid}}).UID()
			require.True(t, known)
			return id
		}
		require.Equal(t, uint32(33), of(1, 33), "the process has ended")
		writeStatus(t, root, 2, 44)
		require.Equal(t, uint32(44), of(2, 0), "the user has changed since")
		require.NoError(t, os.RemoveAll(filepath.Join(root, "2")))
		require.Equal(t, uint32(44), of(2, 0), "the user as last seen")

		time.Sleep(maxUIDAge) // with hidepid, the user comes from connects
		require.Equal(t, uint32(55), of(2, 55))

		cache.begin()
		p := cache.see(3, 0, []byte("held a socket"))
		p.setUID(66, cache.now)
		cache.end()
		cache.processes[3] = p
		require.Equal(t, uint32(66), of(3, 0), "the user as the scan saw it")
	})
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
	require.Len(t, cache.processes, 1, "unused processes are forgotten")

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

func TestProcessCacheBootClock(t *testing.T) {
	root := t.TempDir()
	require.Zero(t, newProcessCache(root, nil).clock, "kernel without time namespaces")
	require.NoError(t, os.Mkdir(filepath.Join(root, "self"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "self", "timens_offsets"), []byte("monotonic 3 0\nboottime 5 0\n"), 0o600))
	require.Equal(t, procfs.BootClock(5e9), newProcessCache(root, nil).clock)
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
		require.Equal(t, want, p.Cgroup(), "kept after the end of process %d", pid)
	}
	for _, pid := range []int{1001, 1002} {
		require.Empty(t, (&Process{PID: pid, root: brokenTree}).Cgroup())
	}
}

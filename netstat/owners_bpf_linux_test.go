//go:build amd64 || arm64

package netstat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
	"github.com/procnetstat/procnetstat/netstat/internal/bpf"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// holders are the expected pids that hold each socket, by inode.
type holders map[uint64][]int

func (h holders) set(s testnet.Socket, pids ...int) { h[s.Inode] = pids }

// setAll sets the holder of all sockets that have an inode.
func (h holders) setAll(pid int, sockets ...testnet.Socket) {
	for _, s := range sockets {
		if s.Inode != 0 {
			h.set(s, pid)
		}
	}
}

// owner describes a process by the values that both /proc/<pid>/stat and the owner of a socket have.
func owner(pid int, name string, startTime uint64) string {
	return fmt.Sprintf("%d %q since %d", pid, name, startTime)
}

// processFromProc describes a process by its comm and the 22nd column of its stat.
func processFromProc(t *testing.T, pid int) string {
	t.Helper()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	require.NoError(t, err)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	columns := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	startTime, err := strconv.ParseUint(columns[22-3], 10, 64)
	require.NoError(t, err)
	return owner(pid, strings.TrimSuffix(string(comm), "\n"), startTime)
}

func (h holders) describe(t *testing.T) map[uint64][]string {
	t.Helper()
	words := map[uint64][]string{}
	for inode, pids := range h {
		slices.Sort(pids)
		for _, pid := range pids {
			words[inode] = append(words[inode], processFromProc(t, pid))
		}
	}
	return words
}

// scanOwners returns the owners of every socket that has an inode, in the order of Owners.
func scanOwners(t *testing.T, s *Scanner) map[uint64][]string {
	t.Helper()
	found := map[uint64][]string{}
	mustScan(t, s, func(s *Socket) struct{} {
		if s.Inode == 0 {
			require.Empty(t, s.Owners())
			return struct{}{}
		}
		found[s.Inode] = nil
		for _, p := range s.Owners() {
			found[s.Inode] = append(found[s.Inode], owner(p.PID, p.Name, p.StartTime))
		}
		return struct{}{}
	})
	return found
}

// requireOwners requires the owners of these sockets; there may be others.
func requireOwners(t *testing.T, want, found map[uint64][]string) {
	t.Helper()
	for inode, owners := range want {
		require.Contains(t, found, inode)
		require.Equal(t, owners, found[inode], "socket %d", inode)
	}
}

// newBPFScanner returns a scanner that finds owners by BPF.
func newBPFScanner(t *testing.T, config ScannerConfig) *Scanner {
	t.Helper()
	config.OwnerMethod = OwnersBPF
	config.Warn = func(err error) {
		if strings.HasPrefix(err.Error(), walksInstead) {
			t.Error(err)
		}
	}
	s := newScanner(t, config)
	require.Equal(t, OwnersBPF, s.Stats().OwnerMethod)
	return s
}

var oddNames = []string{
	"two words", "(a) b", ") S 1 (", "a\nb", "x\xff\xfey", `back\slash`, "tab\t\x1b", "kworker/0:1",
	"fifteen_bytes_x", "more_than_fifteen",
}

// The BPF iterator, the walk of procfs, ss and the test agree on the owners of all sockets.
func TestOwnersAgree(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		want, anywhere := holders{}, netip.AddrPort{}

		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} { // TIME_WAIT and orphans too
			want.setAll(os.Getpid(), testnet.States(t, network).Sockets...)
		}
		for _, load := range []*testnet.Load{testnet.UDP(t), testnet.Raw(t), testnet.Ping(t)} {
			want.setAll(os.Getpid(), load.Sockets...)
		}
		for _, s := range testnet.Unix(t) {
			want[s.Inode] = []int{os.Getpid()}
		}

		master := testnet.Start(t, testnet.Process{Name: "master"})
		shared := master.Listen("tcp4", anywhere, 16)
		workers := master.Fork(8)
		client := testnet.Start(t, testnet.Process{Name: "client"})
		want.setAll(client.PID, client.Connect(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), shared.Local.Port()), 8)...)
		pids := []int{master.PID}
		for _, worker := range workers {
			pids = append(pids, worker.PID)
			want.setAll(worker.PID, worker.Accept(shared, 1)...)
		}
		want.set(shared, pids...)

		older, younger := testnet.Start(t, testnet.Process{Name: "older"}), testnet.Start(t, testnet.Process{Name: "younger"})
		duplicated := older.Listen("tcp6", anywhere, 5)
		for range 3 {
			older.Dup(duplicated)
		}
		want.set(duplicated, older.PID)
		passed := younger.Listen("tcp4", anywhere, 5)
		younger.Pass(passed, older)
		want.set(passed, older.PID, younger.PID)
		handedOver := younger.Listen("tcp4", anywhere, 5)
		younger.Pass(handedOver, older)
		younger.Close(handedOver)
		want.set(handedOver, older.PID)
		workers[3].Pass(shared, older) // its pid is between those of other holders
		workers[5].Pass(shared, younger)
		want.set(shared, append(pids, older.PID, younger.PID)...)
		workers[0].Dup(shared)

		inFlight, held := younger.UDP("udp4", anywhere, anywhere), younger.UDP("udp6", anywhere, anywhere)
		younger.PutInFlight(inFlight)
		younger.Close(inFlight)
		want.set(inFlight)
		younger.PutInFlight(held)
		want.set(held, younger.PID)

		user := testnet.Start(t, testnet.Process{Name: "the user's", UID: 65534})
		listener := user.Listen("tcp6", netip.MustParseAddrPort("[::1]:0"), 5)
		want.setAll(user.PID, listener, user.Connect(listener.Local, 1)[0], user.Accept(listener, 1)[0], user.UDP("udp6", anywhere, anywhere))

		var odd []*testnet.Proc
		for _, name := range oddNames {
			p := testnet.Start(t, testnet.Process{Name: name})
			want.setAll(p.PID, p.UDP("udp4", anywhere, anywhere))
			odd = append(odd, p)
		}

		bpfScanner := newBPFScanner(t, ScannerConfig{Transports: allTransports})
		walk := newScanner(t, ScannerConfig{Transports: allTransports, OwnerMethod: OwnersProcfs})
		agree := func(t *testing.T) {
			t.Helper()
			words := want.describe(t)
			for range 3 {
				byBPF, byWalk := scanOwners(t, bpfScanner), scanOwners(t, walk)
				requireOwners(t, words, byBPF)
				require.Equal(t, byWalk, byBPF)
				require.Zero(t, bpfScanner.Stats().Denied)
			}
		}
		agree(t)
		t.Run("ss", func(t *testing.T) { requireOwnersOfSS(t, bpfScanner) })
		t.Run("renamed", func(t *testing.T) {
			for i, p := range odd {
				p.Rename(oddNames[(i+1)%len(oddNames)])
			}
			master.Rename("MASTER")
			agree(t)
		})
		t.Run("stopped", func(t *testing.T) {
			older.Stop()
			delete(want, duplicated.Inode)
			delete(want, handedOver.Inode)
			want.set(passed, younger.PID)
			want.set(shared, append(pids, younger.PID)...)
			agree(t)
			require.NotContains(t, bpfScanner.finder.(*bpfOwners).processes.processes, older.PID, "forgotten")
		})
	})
}

// requireOwnersOfSS compares pids only, because ss cuts off some names.
func requireOwnersOfSS(t *testing.T, s *Scanner) {
	t.Helper()
	want, found := map[uint64][]int{}, map[uint64][]int{}
	for _, r := range testnet.SS(t, "-t", "-u", "-x", "-p") {
		if r.Inode == 0 {
			require.Empty(t, r.Processes)
			continue
		}
		pids := []int{}
		for _, p := range r.Processes {
			pids = append(pids, p.PID)
		}
		slices.Sort(pids)
		want[r.Inode] = slices.Compact(pids)
	}
	mustScan(t, s, func(s *Socket) struct{} {
		if s.Inode != 0 && s.Transport != TransportRaw && s.Transport != TransportICMP {
			found[s.Inode] = []int{}
			for _, p := range s.Owners() {
				found[s.Inode] = append(found[s.Inode], p.PID)
			}
		}
		return struct{}{}
	})
	require.Equal(t, want, found)
}

// The sockets in the own descriptor table of a thread belong to its process. They are in /proc/<pid>/task/<tid>/fd only, as
// /proc/<pid>/fd has the table of the main thread. ss does not read them.
func TestOwnersOfThreadWithDescriptors(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		before := testnet.BindUDP(t)
		other := testnet.Start(t, testnet.Process{Name: "other"})
		want := holders{}
		want.setAll(other.PID, other.UDP("udp4", netip.AddrPort{}, netip.AddrPort{}))
		words := want.describe(t)
		type thread struct {
			id    int
			inode uint64
		}
		threads, end, ended := make(chan thread), make(chan struct{}), make(chan struct{})
		for range 2 {
			testnet.StartThread(other.PID, 20, func() {
				defer func() { ended <- struct{}{} }()
				name := append([]byte("thread"), 0)
				assert.NoError(t, unix.Unshare(unix.CLONE_FILES))
				assert.NoError(t, unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0))
				threads <- thread{unix.Gettid(), testnet.BindUDP(t)}
				<-end
			})
		}
		first, second := <-threads, <-threads
		after := testnet.BindUDP(t)

		self := []string{processFromProc(t, os.Getpid())}
		bpfScanner := newBPFScanner(t, ScannerConfig{})
		walk := newScanner(t, ScannerConfig{OwnerMethod: OwnersProcfs})
		for range 3 {
			for _, inode := range []uint64{before, first.inode, second.inode, after} {
				words[inode] = self
			}
			require.Equal(t, words, scanOwners(t, bpfScanner))
			require.Equal(t, words, scanOwners(t, walk))
		}
		finder := bpfScanner.finder.(*bpfOwners)
		require.Len(t, finder.processes.processes, bpfScanner.Stats().Processes, "a process counts once")
		sockets, visits := readIterator(t, finder)
		others := func(inode uint64) bool { return inode != before }
		require.Len(t, slices.DeleteFunc(slices.Clone(sockets[os.Getpid()]), others), 3, "one for each descriptor table")
		if min(first.id, second.id) > other.PID { // unless pids wrapped
			require.Equal(t, 2, visits[os.Getpid()], "before and after the other process")
		}
		close(end)
		<-ended
		<-ended
	})
}

// A process whose main thread has ended is a zombie with an empty /proc/<pid>/fd, but its other threads hold its sockets, and
// each of them shows all.
func TestOwnersWithoutMainThread(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		p := testnet.Start(t, testnet.Process{Name: "head/less"}) // its other threads are named head_less
		sockets := []testnet.Socket{
			p.UDP("udp4", netip.AddrPort{}, netip.AddrPort{}), p.Listen("tcp6", netip.AddrPort{}, 5),
		}
		p.EndMainThread()
		sockets = append(sockets, p.UDP("udp6", netip.AddrPort{}, netip.AddrPort{}))
		want := holders{}
		want.setAll(p.PID, sockets...)

		bpfScanner := newBPFScanner(t, ScannerConfig{})
		for range 3 {
			require.Equal(t, want.describe(t), scanOwners(t, bpfScanner))
		}
		walk := newScanner(t, ScannerConfig{OwnerMethod: OwnersProcfs})
		for range 3 {
			require.Equal(t, want.describe(t), scanOwners(t, walk))
		}
	})
}

// newIterator is newBPFOwners for a test.
func newIterator(t *testing.T) *bpfOwners {
	t.Helper()
	finder, err := newBPFOwners(newProcessCache("/proc", nil))
	require.NoError(t, err)
	t.Cleanup(finder.close)
	return finder.(*bpfOwners)
}

// readIterator returns the inodes of each process as the BPF program writes them, and the number of records for it.
func readIterator(t *testing.T, w *bpfOwners) (inodes map[int][]uint64, visits map[int]int) {
	t.Helper()
	inodes, visits = map[int][]uint64{}, map[int]int{}
	from, err := w.owners.Start()
	require.NoError(t, err)
	defer from.Close()
	require.NoError(t, w.owners.Each(t.Context(), from, func(p *bpf.Process, of []uint64) {
		inodes[int(p.PID)] = append(inodes[int(p.PID)], of...)
		visits[int(p.PID)]++
	}))
	return inodes, visits
}

// startReaders starts processes that inherit the files and wait until they are stopped or the test ends. It returns when all have
// started.
func startReaders(t *testing.T, processes int, files ...*os.File) (stop func()) {
	t.Helper()
	wait, end, err := os.Pipe()
	require.NoError(t, err)
	const script = `i=0; while [ $i -lt "$1" ]; do (read -r _) <&3 & i=$((i+1)); done; echo; wait`
	cmd := exec.Command("sh", "-c", script, "sh", strconv.Itoa(processes))
	cmd.ExtraFiles = append([]*os.File{wait}, files...)
	cmd.Stderr = os.Stderr
	started, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	stop = func() {
		_ = end.Close() // they read EOF
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	_ = wait.Close()
	_, err = io.ReadFull(started, make([]byte, 1))
	require.NoError(t, err)
	return stop
}

// roomForFiles returns how many descriptors this process may have, up to a limit.
func roomForFiles(t *testing.T, most int) int {
	t.Helper()
	const besides = 200
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	return int(min(limit.Cur-besides, uint64(most)))
}

// The output of the program fills the 32 KiB buffer of the kernel many times. Each scan moves the place of the overflow by 8
// bytes, so that it is once at each place of a record.
func TestOwnersOverflowBuffer(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		const (
			processes = 1000
			shared    = 5
			process   = 40 // bytes, of struct process in owners.c
			shifts    = (process + 8*shared) / 8
		)
		many := roomForFiles(t, 16_000)
		if many < 15_000 {
			testnet.SkipOrFail(t, fmt.Sprintf("requires a limit of 15,200 open files, which is %d", many))
		}
		for range many / 2 {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			defer unix.Close(pair[0])
			defer unix.Close(pair[1])
		}
		var files []*os.File
		for len(files) < shared {
			socket, _ := openSocket(t)
			files = append(files, socket)
		}
		held := fdInode(t, int(files[0].Fd()))

		var (
			want   map[int][]uint64
			mover  *testnet.Proc
			socket testnet.Socket
		)
		for isFirst := false; !isFirst; {
			mover = testnet.Start(t, testnet.Process{Name: "mover"})
			socket = mover.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})
			stop := startReaders(t, processes, files...)
			want = walkFor(t, func(pid int, inodes []uint64) bool {
				return pid == os.Getpid() || pid == mover.PID || slices.Contains(inodes, held)
			})
			require.Len(t, want, processes+3, "with the shell, the mover and this process")
			isFirst = true
			for pid := range want {
				isFirst = isFirst && (pid >= mover.PID || pid == os.Getpid())
			}
			if !isFirst { // pids wrapped
				stop()
				mover.Stop()
			}
		}
		require.GreaterOrEqual(t, len(want[os.Getpid()]), 15_000)

		iterators := []*bpfOwners{newIterator(t), newIterator(t)}
		for scan := range 2 * shifts {
			inodes, visits := readIterator(t, iterators[scan%2])
			for pid, of := range want {
				slices.Sort(inodes[pid])
				if !slices.Equal(of, inodes[pid]) { // require.Equal would print all of them
					t.Fatalf("scan %d: process %d has %d sockets, want %d", scan, pid, len(inodes[pid]), len(of))
				}
				if visits[pid] != 1 {
					t.Fatalf("scan %d: process %d has %d records", scan, pid, visits[pid])
				}
			}
			mover.Dup(socket)
			want[mover.PID] = append(want[mover.PID], socket.Inode) // its only socket
		}

		var byBPF, byWalk ownerTable
		_, err := iterators[0].refresh(t.Context(), &byBPF)
		require.NoError(t, err)
		finder := newFDWalk(newProcessCache("/proc", nil))
		defer finder.close()
		_, err = finder.refresh(t.Context(), &byWalk)
		require.NoError(t, err)
		require.Equal(t, holdersIn(&byWalk, want), holdersIn(&byBPF, want))
	})
}

// walkFor returns the sockets of the wanted processes from the links in procfs.
func walkFor(t *testing.T, wanted func(pid int, inodes []uint64) bool) map[int][]uint64 {
	t.Helper()
	walk := procfs.NewSocketWalk("/proc")
	defer walk.Close()
	found := map[int][]uint64{}
	require.NoError(t, walk.Each(t.Context(), func(pid int, inodes []uint64, _ error) {
		if wanted(pid, inodes) {
			found[pid] = slices.Sorted(slices.Values(inodes))
		}
	}))
	return found
}

// holdersIn returns the holders that the table has for the sockets of the processes.
func holdersIn(table *ownerTable, processes map[int][]uint64) map[uint64]string {
	found := map[uint64]string{}
	for _, inodes := range processes {
		for _, inode := range inodes {
			if _, again := found[inode]; again {
				continue
			}
			var text []byte
			for _, p := range table.appendOwners(nil, inode) {
				text = fmt.Appendf(text, "%d %s %d, ", p.PID, p.Name, p.StartTime)
			}
			found[inode] = string(text)
		}
	}
	return found
}

// hideBTF hides the BTF of the kernel from this thread, which ends with the test.
func hideBTF(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNS))
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for _, dir := range []string{"/sys/kernel/btf", "/boot", "/lib/modules", "/usr/lib/modules", "/usr/lib/debug"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); !errors.Is(err, unix.ENOENT) {
			require.NoError(t, err)
		}
	}
}

const (
	walksInstead = "BPF owner lookup unavailable ("
	costsMore    = "); falling back to /proc, which costs more"
	notPermitted = "unsupported operation: operation not permitted"
)

// requireReadable requires that a warning is one short line.
func requireReadable(t *testing.T, warning string) {
	t.Helper()
	require.NotContains(t, warning, "\n")
	require.Less(t, len(warning), 300)
	require.NotContains(t, warning, "processed", "the log of the verifier")
	t.Log(warning)
}

// Without BPF the links in procfs are read, with one warning that has the reason.
func TestOwnersFallBack(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		tree := proctree.Materialize(t, smallTree)
		missing := filepath.Join(t.TempDir(), "missing")
		want := holders{}
		roots := testnet.Start(t, testnet.Process{Name: "root's"})
		ofRoot := roots.Listen("tcp4", netip.AddrPort{}, 5)
		want.set(ofRoot, roots.PID)
		nobodys := testnet.Start(t, testnet.Process{Name: "nobody's", UID: 65534, GID: 65534})
		want.set(nobodys.Listen("tcp6", netip.AddrPort{}, 5), nobodys.PID)
		all := want.describe(t)
		ownOnly := maps.Clone(all)
		ownOnly[ofRoot.Inode] = nil

		nobody := func(keep ...uint) func(*testing.T) {
			return func(t *testing.T) { t.Helper(); testnet.BecomeNobody(t, keep...) }
		}
		without := func(capabilities ...uint) func(*testing.T) {
			return func(t *testing.T) { t.Helper(); dropCapabilities(t, capabilities) }
		}
		forbidden := func(errno unix.Errno, command ...int) func(*testing.T) {
			return func(t *testing.T) { t.Helper(); testnet.Forbid(t, unix.SYS_BPF, errno, command...) }
		}
		instead := regexp.QuoteMeta(walksInstead)
		insteadOf := regexp.QuoteMeta(costsMore) + "$"
		refused := "^" + instead + "the BPF program requires CAP_BPF and CAP_PERFMON: " + notPermitted + insteadOf
		lacks := "^" + instead + "the BPF program requires Linux 5.11 with BTF: unsupported operation: "
		for _, test := range []struct {
			name    string
			before  func(*testing.T)
			config  ScannerConfig
			warning string // regular expression; empty: none
			want    map[uint64][]string
		}{
			{"nobody", nobody(), ScannerConfig{}, refused, ownOnly},
			{"nobody with CAP_BPF", nobody(unix.CAP_BPF), ScannerConfig{}, refused, ownOnly},
			{"nobody with CAP_PERFMON", nobody(unix.CAP_PERFMON), ScannerConfig{}, refused, ownOnly},
			{"root without CAP_BPF", without(unix.CAP_BPF, unix.CAP_SYS_ADMIN), ScannerConfig{}, refused, all},
			{"root without CAP_PERFMON", without(unix.CAP_PERFMON, unix.CAP_SYS_ADMIN), ScannerConfig{}, refused, all},
			{"seccomp", forbidden(unix.EPERM), ScannerConfig{}, refused, all},
			{
				"seccomp forbids attaching", forbidden(unix.EPERM, unix.BPF_LINK_CREATE), ScannerConfig{},
				"^" + instead + "attaching the BPF program requires CAP_BPF and CAP_PERFMON: " + notPermitted + insteadOf, all,
			},
			{"kernel without BPF", forbidden(unix.ENOSYS), ScannerConfig{}, lacks + ".*: function not implemented" + insteadOf, all},
			{"kernel without BTF", hideBTF, ScannerConfig{}, lacks + ".*: no BTF found for kernel version .*: not supported" + insteadOf, all},
			{"copy of a proc file system", nil, ScannerConfig{ProcRoot: tree}, "", nil},
			{"no proc file system", nil, ScannerConfig{ProcRoot: missing}, "", nil},
		} {
			t.Run(test.name, func(t *testing.T) {
				if test.before != nil {
					test.before(t)
				}
				var warnings []string
				test.config.Warn = func(err error) {
					if !strings.HasPrefix(err.Error(), "the kernel has no udp sockets") { // without a proc file system
						warnings = append(warnings, err.Error())
					}
				}
				s := newScanner(t, test.config)
				for range 3 {
					if test.want != nil {
						require.Equal(t, test.want, scanOwners(t, s))
					} else {
						scan(s, inode)
					}
					require.Equal(t, OwnersProcfs, s.Stats().OwnerMethod)
				}
				if test.warning == "" {
					require.Empty(t, warnings)
					return
				}
				require.Len(t, warnings, 1)
				requireReadable(t, warnings[0])
				require.Regexp(t, test.warning, warnings[0])
			})
		}
		for _, test := range []struct {
			name   string
			before func(*testing.T)
			root   string
			err    string
		}{
			{"nobody", nobody(), "/proc", "the BPF program requires CAP_BPF and CAP_PERFMON: " + notPermitted},
			{"copy of a proc file system", nil, tree, tree + " is not of the initial PID namespace, whose pids BPF programs see: " +
				"unsupported operation"},
			{"no proc file system", nil, missing, missing + " is not of the initial PID namespace, whose pids BPF programs see: " +
				"unsupported operation"},
		} {
			t.Run("required/"+test.name, func(t *testing.T) {
				if test.before != nil {
					test.before(t)
				}
				_, err := NewScanner(ScannerConfig{ProcRoot: test.root, OwnerMethod: OwnersBPF})
				require.EqualError(t, err, `owners "bpf" is required: `+test.err)
			})
		}
		t.Run("again", func(t *testing.T) { // no restriction remains
			require.Equal(t, all, scanOwners(t, newBPFScanner(t, ScannerConfig{})))
		})
	})
}

// requireFallBackFrom scans a proc file system whose pids are not those of the initial PID namespace.
func requireFallBackFrom(t *testing.T, root string, want map[uint64][]string) {
	t.Helper()
	var warnings []string
	s := newScanner(t, ScannerConfig{ProcRoot: root, Warn: func(err error) { warnings = append(warnings, err.Error()) }})
	for range 3 {
		require.Equal(t, want, scanOwners(t, s))
		require.Equal(t, OwnersProcfs, s.Stats().OwnerMethod)
	}
	require.Len(t, warnings, 1)
	requireReadable(t, warnings[0])
	const foreign = " is not of the initial PID namespace, whose pids BPF programs see: unsupported operation"
	require.Equal(t, walksInstead+root+foreign+costsMore, warnings[0])
	_, err := NewScanner(ScannerConfig{ProcRoot: root, OwnerMethod: OwnersBPF})
	require.EqualError(t, err, `owners "bpf" is required: `+root+foreign)
}

// In a container pids differ from those of the initial PID namespace, unless the proc file system of the host is mounted.
func TestOwnersInPIDNamespace(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		p := testnet.Start(t, testnet.Process{Name: "contained"})
		want := holders{}
		listener := p.Listen("tcp4", netip.AddrPort{}, 5)
		want.set(listener, p.PID)
		requireFallBackFrom(t, "/proc", want.describe(t))

		require.NoError(t, unix.Unmount("/proc", unix.MNT_DETACH))
		var pid int
		for name, target := range links(t, "/proc/[0-9]*/fd/*") {
			if target == fmt.Sprintf("socket:[%d]", listener.Inode) {
				_, err := fmt.Sscanf(name, "/proc/%d/", &pid)
				require.NoError(t, err)
			}
		}
		require.NotEqual(t, p.PID, pid)
		want.set(listener, pid)
		requireFallBackFrom(t, "/proc", want.describe(t))
	})
}

// links reads all links that match a pattern.
func links(t *testing.T, pattern string) map[string]string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	require.NoError(t, err)
	targets := map[string]string{}
	for _, name := range names {
		targets[name], _ = os.Readlink(name) // it may have vanished
	}
	return targets
}

// The proc file system of a container is read from outside.
func TestOwnersOfPIDNamespace(t *testing.T) {
	testnet.Isolate(t, func() {
		socket, inode := openSocket(t)
		require.NoError(t, unix.Bind(int(socket.Fd()), &unix.SockaddrInet4{}))
		cmd := exec.Command("sh", "-c", "mount -t proc proc /proc && echo && exec cat")
		cmd.ExtraFiles = []*os.File{socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
		stdin, err := cmd.StdinPipe()
		require.NoError(t, err)
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		defer func() {
			_ = stdin.Close()
			_ = cmd.Wait()
		}()
		_, err = io.ReadFull(stdout, make([]byte, 1))
		require.NoError(t, err)

		_, err = stdin.Write([]byte("\n"))
		require.NoError(t, err)
		_, err = io.ReadFull(stdout, make([]byte, 1)) // cat has started
		require.NoError(t, err)
		outside := processFromProc(t, cmd.Process.Pid)
		inside := "1" + strings.TrimPrefix(outside, strconv.Itoa(cmd.Process.Pid))
		require.Contains(t, inside, `1 "cat" since `)
		requireFallBackFrom(t, filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "root", "proc"), map[uint64][]string{inode: {inside}})
	})
}

// After its thread has dropped the capabilities, a scanner continues or falls back once, depending on the kernel.
func TestOwnersAfterCapabilitiesWereDropped(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		p := testnet.Start(t, testnet.Process{Name: "server"})
		want := holders{}
		want.set(p.Listen("tcp4", netip.AddrPort{}, 5), p.PID)
		words := want.describe(t)
		for name, refuse := range map[string]func(*testing.T){
			"capabilities": func(t *testing.T) {
				t.Helper()
				dropCapabilities(t, []uint{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN})
			},
			"seccomp": func(t *testing.T) { t.Helper(); testnet.Forbid(t, unix.SYS_BPF, unix.EPERM) },
			"hidden":  func(t *testing.T) { t.Helper(); testnet.Forbid(t, unix.SYS_BPF, unix.ENOENT) },
		} {
			t.Run(name, func(t *testing.T) {
				var warnings []string
				before := openDescriptors(t)
				s := newScanner(t, ScannerConfig{Warn: func(err error) { warnings = append(warnings, err.Error()) }})
				require.Equal(t, words, scanOwners(t, s))
				require.Equal(t, OwnersBPF, s.Stats().OwnerMethod)
				refuse(t)
				for range 3 {
					require.Equal(t, words, scanOwners(t, s))
				}
				if name == "capabilities" && s.Stats().OwnerMethod == OwnersBPF {
					require.Empty(t, warnings)
					return
				}
				require.Equal(t, OwnersProcfs, s.Stats().OwnerMethod)
				require.Len(t, warnings, 1)
				requireReadable(t, warnings[0])
				if name == "hidden" {
					require.Contains(t, warnings[0], "starting the BPF iterator requires Linux 5.11 with BTF: ")
				} else {
					require.Equal(t, walksInstead+"starting the BPF iterator requires CAP_BPF and CAP_PERFMON: "+notPermitted+costsMore, warnings[0])
				}
				require.Len(t, openDescriptors(t), len(before)+2, "the netlink socket and /proc")
			})
		}
	})
}

// serviceEnv has the owners that the process started by TestOwnersOfServiceUser must find.
const serviceEnv = "NETSTAT_TEST_SERVICE"

// A user with only CAP_BPF and CAP_PERFMON, as with AmbientCapabilities= of systemd, finds the owners of all sockets, including
// those of root.
func TestOwnersOfServiceUser(t *testing.T) {
	if want, isService := os.LookupEnv(serviceEnv); isService {
		require.Equal(t, 65534, os.Geteuid())
		s := newBPFScanner(t, ScannerConfig{Transports: allTransports})
		for range 3 {
			require.Equal(t, want, fmt.Sprint(scanOwners(t, s)))
			require.Zero(t, s.Stats().Denied)
		}
		mustScan(t, s, func(s *Socket) struct{} {
			for _, p := range s.Owners() {
				_, known := p.UID()
				require.True(t, known)
				require.NotEmpty(t, p.Cmdline())
				require.Empty(t, p.Exe(), "requires CAP_SYS_PTRACE")
			}
			return struct{}{}
		})
		return
	}
	testnet.Isolate(t, func() {
		testnet.RequireBPF(t)
		master := testnet.Start(t, testnet.Process{Name: "root's"})
		want := holders{}
		shared := master.Listen("tcp4", netip.AddrPort{}, 5)
		want.set(shared, master.PID, master.Fork(1)[0].PID)
		other := testnet.Start(t, testnet.Process{Name: "another's", UID: 1234})
		want.set(other.UDP("udp6", netip.AddrPort{}, netip.AddrPort{}), other.PID)

		t.Run("thread", func(t *testing.T) {
			testnet.BecomeNobody(t, unix.CAP_BPF, unix.CAP_PERFMON)
			s := newBPFScanner(t, ScannerConfig{Transports: allTransports})
			for range 3 {
				require.Equal(t, want.describe(t), scanOwners(t, s))
				require.Zero(t, s.Stats().Denied)
			}
		})
		program, err := os.Open("/proc/self/exe") // nobody may not traverse its path
		require.NoError(t, err)
		defer program.Close()
		cmd := exec.Command("/proc/self/fd/3", "-test.run=^"+t.Name()+"$")
		cmd.ExtraFiles = []*os.File{program}
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), serviceEnv+"="+fmt.Sprint(want.describe(t)), "GOCOVERDIR="+os.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
			AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON},
		}
		output, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", output)
		require.Contains(t, string(output), "PASS")
	})
}

// bpfMappings counts the mappings of BPF maps in this process.
func bpfMappings(t *testing.T) int {
	t.Helper()
	mappings, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	return strings.Count(string(mappings), "bpf")
}

// Close releases all descriptors, including programs, maps and links, and the memory of maps.
func TestOwnersReleaseResources(t *testing.T) {
	testnet.RequireBPF(t)
	const times = 30
	mustScan(t, newBPFScanner(t, ScannerConfig{}), inode) // opens what stays open
	before, memory := openDescriptors(t), bpfMappings(t)
	t.Run("closed", func(t *testing.T) {
		for range times {
			s, err := NewScanner(ScannerConfig{OwnerMethod: OwnersBPF})
			require.NoError(t, err)
			mustScan(t, s, inode)
			require.Greater(t, len(openDescriptors(t)), len(before)+1, "a program and a link")
			require.NoError(t, s.Close())
		}
		require.Equal(t, before, openDescriptors(t))
		require.Equal(t, memory, bpfMappings(t))
	})
	t.Run("failed", func(t *testing.T) {
		for i := range times {
			_, err := NewScanner(ScannerConfig{OwnerMethod: OwnersBPF, Source: 9})
			require.EqualError(t, err, "Source(9) is not a source")
			_, err = NewScanner(ScannerConfig{OwnerMethod: OwnerMethod(9 + i)})
			require.ErrorContains(t, err, "is not an owner method")
		}
		require.Equal(t, before, openDescriptors(t))
	})
	t.Run("out of descriptors", func(t *testing.T) {
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		ends := map[string]int{}
		for room := range 12 { // descriptors run out at a different step each time
			less := unix.Rlimit{Cur: limitFor(t, room), Max: limit.Max}
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &less))
			s, err := NewScanner(ScannerConfig{})
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
			if err != nil {
				require.EqualError(t, err, "opening a sock_diag socket: too many open files")
				ends["no scanner"]++
			} else {
				ends[s.Stats().OwnerMethod.String()]++
				require.NoError(t, s.Close())
			}
			require.Equal(t, before, openDescriptors(t), "with room for %d", room)
		}
		require.Len(t, ends, 3, "%v", ends)
	})
	for name, refuse := range map[string]func(*testing.T){
		"not permitted": func(t *testing.T) {
			t.Helper()
			dropCapabilities(t, []uint{unix.CAP_PERFMON, unix.CAP_SYS_ADMIN})
		},
		"not attached": func(t *testing.T) { t.Helper(); testnet.Forbid(t, unix.SYS_BPF, unix.EPERM, unix.BPF_LINK_CREATE) },
	} {
		t.Run(name, func(t *testing.T) {
			refuse(t)
			for range times / 3 {
				_, err := NewScanner(ScannerConfig{OwnerMethod: OwnersBPF})
				require.ErrorContains(t, err, "CAP_BPF")
				s, err := NewScanner(ScannerConfig{})
				require.NoError(t, err)
				require.Equal(t, OwnersProcfs, s.Stats().OwnerMethod)
				require.NoError(t, s.Close())
			}
			require.Equal(t, before, openDescriptors(t))
			require.Equal(t, memory, bpfMappings(t))
		})
	}
}

// limitFor returns the RLIMIT_NOFILE that leaves room for this many more files.
func limitFor(t *testing.T, room int) (limit uint64) {
	t.Helper()
	taken := map[string]bool{}
	for _, line := range openDescriptors(t) {
		number, _, _ := strings.Cut(line, " ")
		taken[number] = true
	}
	for ; room > 0 || taken[strconv.FormatUint(limit, 10)]; limit++ {
		if !taken[strconv.FormatUint(limit, 10)] {
			room--
		}
	}
	return limit
}

// cacheOf returns the process cache of a finder, or nil.
func cacheOf(finder ownerFinder) *processCache {
	switch finder := finder.(type) {
	case *fdWalk:
		return finder.processes
	case *bpfOwners:
		return finder.processes
	}
	return nil
}

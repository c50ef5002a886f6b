package netstat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
)

// withoutFreeDescriptors runs f while this process cannot open files.
func withoutFreeDescriptors(t *testing.T, f func()) {
	t.Helper()
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	f()
}

// If the process or the host is out of descriptors, a scan reports what it could not read. The next scan with descriptors is
// complete.
func TestScannerOutOfDescriptors(t *testing.T) {
	testnet.Isolate(t, func() {
		p := testnet.Start(t, testnet.Process{Name: "holder"})
		listener := p.Listen("tcp4", netip.AddrPort{}, 5)
		want := []string{fmt.Sprintf("%d %d/holder", listener.Inode, p.PID)}
		for _, method := range ownerMethods {
			for _, source := range []Source{SourceNetlink, SourceProcfs} {
				s := newScanner(t, ScannerConfig{
					OwnerMethod: method, Source: source, Warn: func(err error) { t.Error("warned of", err) },
				})
				look := func() (sockets []string, errs []error) {
					return scan(s, func(s *Socket) string { return fmt.Sprintf("%d %s", s.Inode, ownersOf(s)) })
				}
				for name, without := range map[string]struct {
					errno unix.Errno
					run   func(func())
				}{
					"EMFILE": {unix.EMFILE, func(f func()) { withoutFreeDescriptors(t, f) }},
					"ENFILE": {unix.ENFILE, func(f func()) { // root is exempt from the limit of the host
						testnet.Failing(t, f, testnet.Fails(unix.SYS_OPENAT, unix.ENFILE),
							testnet.Fails(unix.SYS_BPF, unix.ENFILE), testnet.Fails(unix.SYS_SOCKET, unix.ENFILE))
					}},
				} {
					t.Run(fmt.Sprintf("%s, owners %s, source %s", name, method, source), func(t *testing.T) {
						var sockets []string
						var errs []error
						without.run(func() { sockets, errs = look() })
						for _, err := range errs {
							require.ErrorIs(t, err, without.errno)
						}
						if source == SourceNetlink {
							require.Equal(t, []string{fmt.Sprintf("%d ", listener.Inode)}, sockets)
							require.Len(t, errs, 1, "the owners")
						} else {
							require.Empty(t, sockets)
							require.Len(t, errs, 3, "the owners, tcp and udp")
						}
						require.Equal(t, method, s.Stats().OwnerMethod, "not replaced because of that")
						sockets, errs = look()
						require.Empty(t, errs)
						require.Equal(t, want, sockets)
					})
				}
			}
		}
	})
}

// Attributes of a process that could not be read for lack of descriptors are read at the next call.
func TestProcessOutOfDescriptors(t *testing.T) {
	testnet.SkipIfShort(t)
	p := testnet.Start(t, testnet.Process{Name: "asked", Args: []string{"an argument"}, UID: 65534})
	of := &Process{PID: p.PID, root: "/proc"}
	ask := func() (answers []string) {
		uid, known := of.UID()
		return []string{of.Exe(), strings.Join(of.Cmdline(), " "), of.Cgroup(), fmt.Sprint(uid, known)}
	}
	nothing := []string{"", "", "", "0 false"}
	var got []string
	withoutFreeDescriptors(t, func() { got = ask() })
	require.Equal(t, nothing[1:], got[1:], "reading a link takes no descriptor")
	of.exe = nil
	testnet.Failing(t, func() { got = ask() },
		testnet.Fails(unix.SYS_OPENAT, unix.ENFILE), testnet.Fails(unix.SYS_READLINKAT, unix.ENOMEM))
	require.Equal(t, nothing, got)
	for range 2 {
		got = ask()
		require.Equal(t, "asked", filepath.Base(got[0]))
		require.True(t, strings.HasSuffix(got[1], "asked an argument"), got[1])
		require.True(t, strings.HasPrefix(got[2], "/"), got[2])
		require.Equal(t, "65534 true", got[3])
		p.Stop() // the values are kept
	}
}

// A full name that could not be read for lack of a resource is read at the next call.
func TestFullNameOutOfDescriptors(t *testing.T) {
	testnet.SkipIfShort(t)
	p := testnet.Start(t, testnet.Process{Name: "victoria-metrics"})
	of := &Process{PID: p.PID, Name: "victoria-metric", root: "/proc"}
	withoutFreeDescriptors(t, func() { require.Equal(t, "victoria-metric", of.FullName()) })
	for _, errno := range []unix.Errno{unix.ENFILE, unix.ENOMEM} {
		testnet.Failing(t, func() { require.Equal(t, "victoria-metric", of.FullName()) }, testnet.Fails(unix.SYS_OPENAT, errno))
	}
	require.Equal(t, "victoria-metrics", of.FullName())
	p.Stop()
	require.Equal(t, "victoria-metrics", of.FullName())
}

// The end of the context stops the owner lookup.
func TestOwnersContextEnds(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "1", "fd"), 0o755))
	require.NoError(t, os.Symlink("socket:[1]", filepath.Join(root, "1", "fd", "3")))
	s := newFakeScanner(t, ScannerConfig{ProcRoot: root}, &fakeDiag{})
	ctx, cancel := context.WithCancel(t.Context())
	s.finder = cancelingFinder{s.finder, cancel}
	var errs []error
	for socket, err := range s.Sockets(ctx) {
		require.Nil(t, socket)
		errs = append(errs, err)
	}
	require.Equal(t, []error{context.Canceled}, errs, "reported once")
}

// cancelingFinder cancels the context before it looks up owners.
type cancelingFinder struct {
	ownerFinder
	cancel context.CancelFunc
}

func (f cancelingFinder) refresh(ctx context.Context, table *ownerTable) (ownerStats, error) {
	f.cancel()
	return f.ownerFinder.refresh(ctx, table)
}

// A scan after Close returns an error and opens nothing.
func TestScanAfterClose(t *testing.T) {
	testnet.SkipIfShort(t)
	for _, config := range []ScannerConfig{
		{}, {Closed: ClosedRequired, Namespaces: []string{NamespaceAll}}, {Source: SourceProcfs, OwnerMethod: OwnersProcfs}, {OwnerMethod: OwnersOff},
	} {
		s, err := NewScanner(config)
		require.NoError(t, err)
		mustScan(t, s, inode)
		require.NoError(t, s.Close())
		before := openDescriptors(t)
		for range 2 {
			sockets, errs := scan(s, inode)
			require.Empty(t, sockets)
			require.Len(t, errs, 1)
			require.ErrorIs(t, errs[0], os.ErrClosed)
			require.NoError(t, s.Close(), "second Close")
		}
		require.Equal(t, before, openDescriptors(t))
	}
}

// Closing the scanner in a loop ends the loop with an error.
func TestCloseInScan(t *testing.T) {
	testnet.Isolate(t, func() {
		l := listenIPv4(t)
		client, server := l.open()
		defer reset(t, client, server)
		_ = mustScan(t, newScanner(t, ScannerConfig{}), inode) // opens what the runtime keeps open
		before := openDescriptors(t)
		for _, config := range []ScannerConfig{
			{Closed: ClosedRequired}, {Namespaces: []string{NamespaceAll}}, {Source: SourceProcfs, OwnerMethod: OwnersProcfs}, {OwnerMethod: OwnersOff},
		} {
			s, err := NewScanner(config)
			require.NoError(t, err)
			sockets, errs := scan(s, func(*Socket) error { return s.Close() })
			require.Equal(t, []error{nil}, sockets)
			require.Len(t, errs, 1)
			require.ErrorIs(t, errs[0], os.ErrClosed)
			require.Equal(t, before, openDescriptors(t))
		}
	})
}

// A table is cut off at each byte. All complete rows before the cut are handed out, with at most one error.
func TestScannerTableCutOff(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	for _, transport := range []Transport{TransportTCP, TransportUDP, TransportUnix} {
		t.Run(transport.String(), func(t *testing.T) {
			for _, other := range tables[transport][1:] {
				require.NoError(t, os.Remove(filepath.Join(root, other)))
			}
			table := filepath.Join(root, tables[transport][0])
			content, err := os.ReadFile(table)
			require.NoError(t, err)
			s := newScanner(t, ScannerConfig{ProcRoot: root, Transports: []Transport{transport}, OwnerMethod: OwnersOff, UnixPaths: true})
			row := func(s *Socket) string { return describe(s, fieldsAll) + s.Path }
			whole := mustScan(t, s, row)
			var complete []string // from the rows before the cut
			for end := range content {
				require.NoError(t, os.WriteFile(table, content[:end], 0o600))
				sockets, errs := scan(s, row)
				require.GreaterOrEqual(t, len(sockets), len(complete), "cut at %d", end)
				require.True(t, slices.Equal(complete, sockets[:len(complete)]), "cut at %d: %v", end, sockets)
				require.LessOrEqual(t, len(sockets)+len(errs), len(complete)+1, "cut at %d", end)
				for _, err := range errs {
					require.ErrorContains(t, err, table)
				}
				if end > 0 && content[end-1] == '\n' {
					require.Empty(t, errs, "cut at %d", end)
					complete = sockets
				}
			}
			require.Equal(t, whole[:len(complete)], complete)
			require.NoError(t, os.WriteFile(table, content, 0o600))
		})
	}
}

// A new process with the pid of an ended one is another process.
func TestProcessReusesPID(t *testing.T) {
	testnet.IsolatePIDs(t, func() {
		s := newScanner(t, ScannerConfig{OwnerMethod: OwnersProcfs})
		find := func(of testnet.Socket) (found *Process) {
			mustScan(t, s, func(s *Socket) struct{} {
				if s.Inode == of.Inode && len(s.Owners()) == 1 {
					found = s.Owners()[0]
				}
				return struct{}{}
			})
			require.NotNil(t, found)
			return found
		}
		first := testnet.Start(t, testnet.Process{Name: "worker", Args: []string{"the first"}})
		before := find(first.UDP("udp4", netip.AddrPort{}, netip.AddrPort{}))
		require.Equal(t, "the first", before.Cmdline()[1])
		unread := &Process{PID: before.PID, StartTime: before.StartTime, Name: before.Name, root: "/proc"}

		first.Stop()
		time.Sleep(20 * time.Millisecond) // the resolution of start times is 10 ms
		require.NoError(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", strconv.AppendInt(nil, int64(first.PID-1), 10), 0))
		second := testnet.Start(t, testnet.Process{Name: "worker", Args: []string{"the second"}, UID: 65534})
		require.Equal(t, first.PID, second.PID)
		after := find(second.UDP("udp4", netip.AddrPort{}, netip.AddrPort{}))
		require.NotSame(t, before, after)
		require.Equal(t, "the second", after.Cmdline()[1])
		require.Equal(t, "the first", before.Cmdline()[1])

		require.Empty(t, unread.Cmdline(), "its process has ended")
		require.Empty(t, unread.Exe())
		require.Empty(t, unread.Cgroup())
		_, known := unread.UID()
		require.False(t, known)
	})
}

// A process has as many descriptors as the hard limit allows, up to 100,000.
func TestSlowManyDescriptors(t *testing.T) {
	testnet.SkipUnlessSlow(t)
	testnet.Isolate(t, func() {
		const maxDescriptors = 100_000
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		raised := unix.Rlimit{Cur: min(limit.Max, maxDescriptors+1000), Max: limit.Max}
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &raised))
		n := int(raised.Cur) - 500
		t.Logf("%d descriptors in a process, which may have %d", n, limit.Max)
		for range n / 2 {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			defer func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) }()
		}
		for _, method := range ownerMethods {
			s := newScanner(t, ScannerConfig{OwnerMethod: method, Transports: []Transport{TransportUnix}})
			owned := 0
			mustScan(t, s, func(s *Socket) struct{} {
				if len(s.Owners()) == 1 && s.Owners()[0].PID == os.Getpid() {
					owned++
				}
				return struct{}{}
			})
			require.GreaterOrEqual(t, owned, n/2*2, method)
			require.Less(t, owned, n+100, method)
		}
	})
}

// A process in a fake proc file system has 100,000 descriptors, more than the hard limit of most hosts. Every second one is a
// socket.
func TestSlowHundredThousandDescriptors(t *testing.T) {
	testnet.SkipUnlessSlow(t)
	const descriptors = 100_000
	root := t.TempDir()
	fds := filepath.Join(root, "7", "fd")
	require.NoError(t, os.MkdirAll(fds, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "7", "stat"), []byte("7 (many) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 5 0\n"), 0o600))
	for fd := range descriptors {
		target := fmt.Sprintf("socket:[%d]", 1+fd)
		if fd%2 == 1 {
			target = "/var/log/a file"
		}
		require.NoError(t, os.Symlink(target, filepath.Join(fds, strconv.Itoa(fd))))
	}
	walk := newFDWalk(newProcessCache(root, nil))
	defer walk.close()
	for range 2 {
		var table ownerTable
		_, err := walk.refresh(t.Context(), &table)
		require.NoError(t, err)
		require.Equal(t, descriptors/2, table.inUse)
		for _, inode := range []uint64{1, 3, descriptors - 1} {
			require.Equal(t, 7, table.first(inode).PID)
		}
		require.Nil(t, table.first(2))
	}
}

// The kernel numbers sockets with 32 bits. After the highest number it continues with 1, which may be in use.
func TestInodeNumbersWrap(t *testing.T) {
	root := t.TempDir()
	for pid, inodes := range map[string][]string{
		"7": {"4294967294", "4294967295", "1"},
		"8": {"4294967297", "2"}, // 1 in 32 bits
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, pid, "fd"), 0o755))
		for fd, inode := range inodes {
			require.NoError(t, os.Symlink("socket:["+inode+"]", filepath.Join(root, pid, "fd", strconv.Itoa(fd))))
		}
		stat := pid + " (p" + pid + ") S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 5 0\n"
		require.NoError(t, os.WriteFile(filepath.Join(root, pid, "stat"), []byte(stat), 0o600))
	}
	s := newFakeScanner(t, ScannerConfig{ProcRoot: root}, &fakeDiag{dumps: []fakeDump{
		tcpConnections: {payloads: tcpMessages(1<<32-2, 1<<32-1, 0, 1, 2, 3)},
	}})
	require.Equal(t, []string{"4294967294 7/p7", "4294967295 7/p7", "0 ", "1 7/p7 8/p8", "2 8/p8", "3 "},
		mustScan(t, s, func(s *Socket) string { return fmt.Sprintf("%d %s", s.Inode, ownersOf(s)) }))
}

// A process can have any of its memory shown as its command line.
func TestCmdlineWithoutEnd(t *testing.T) {
	testnet.Isolate(t, func() {
		const length = 2 * maxCmdline
		memory, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		require.NoError(t, err)
		for i := range memory {
			memory[i] = 'x'
		}
		memory[length-1] = 0 // otherwise the kernel takes it for a title of setproctitle(3)
		if err := showAsCmdline(t, memory); errors.Is(err, unix.EINVAL) {
			testnet.SkipOrFail(t, "replacing the command line requires a kernel with CONFIG_CHECKPOINT_RESTORE")
		} else {
			require.NoError(t, err)
		}
		cmdline := (&Process{PID: os.Getpid(), root: "/proc"}).Cmdline()
		require.Len(t, cmdline, 1)
		require.Len(t, cmdline[0], maxCmdline)
		name := strings.Repeat("x", maxComm)
		require.Equal(t, name, (&Process{PID: os.Getpid(), Name: name, root: "/proc"}).FullName())
	})
}

// showAsCmdline sets memory as the command line of this process, and leaves everything else unchanged: struct prctl_mm_map
// (include/uapi/linux/prctl.h). It requires no privileges.
func showAsCmdline(t *testing.T, memory []byte) error {
	t.Helper()
	stat, err := os.ReadFile("/proc/self/stat")
	require.NoError(t, err)
	columns := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')'):])) // columns[1] is column 3
	column := func(number int) uint64 {
		v, err := strconv.ParseUint(columns[number-2], 10, 64)
		require.NoError(t, err)
		return v
	}
	const startCode, endCode, startStack, startData, endData, startBrk, envStart, envEnd = 26, 27, 28, 45, 46, 47, 50, 51 // proc_pid_stat(5)
	brk, _, _ := unix.RawSyscall(unix.SYS_BRK, 0, 0, 0)
	at := uint64(uintptr(unsafe.Pointer(&memory[0])))
	mm := struct {
		code, data [2]uint64
		brk        [2]uint64
		startStack uint64
		arg, env   [2]uint64
		auxv       uint64
		auxvSize   uint32
		exeFD      int32
	}{
		code: [2]uint64{column(startCode), column(endCode)}, data: [2]uint64{column(startData), column(endData)},
		brk: [2]uint64{column(startBrk), uint64(brk)}, startStack: column(startStack),
		arg: [2]uint64{at, at + uint64(len(memory))}, env: [2]uint64{column(envStart), column(envEnd)}, exeFD: -1,
	}
	return unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP, uintptr(unsafe.Pointer(&mm)), unsafe.Sizeof(mm), 0)
}

// Command lines of 64 KiB that contain every byte.
func TestSlowCmdlineOfEveryByte(t *testing.T) {
	testnet.SkipUnlessSlow(t)
	var all []byte
	for b := 1; b < 256; b++ {
		all = append(all, byte(b))
	}
	args := []string{string(all), "", strings.Repeat(string(all), 64<<10/len(all)), "end"}
	p := testnet.Start(t, testnet.Process{Name: "long", Args: args})
	cmdline := (&Process{PID: p.PID, root: "/proc"}).Cmdline()
	require.Equal(t, args, cmdline[1:])
	require.Greater(t, len(strings.Join(cmdline, "\x00")), 64<<10)
}

// Names of processes that contain every byte.
func TestSlowProcessNamesOfEveryByte(t *testing.T) {
	testnet.SkipUnlessSlow(t)
	testnet.Isolate(t, func() {
		own, err := os.ReadFile("/proc/self/comm")
		require.NoError(t, err)
		defer func() { require.NoError(t, os.WriteFile("/proc/self/comm", own, 0)) }()
		socket, inode := openSocket(t)
		require.NoError(t, unix.Bind(int(socket.Fd()), &unix.SockaddrInet4{}))
		var scanners []*Scanner
		for _, method := range ownerMethods {
			scanners = append(scanners, newScanner(t, ScannerConfig{OwnerMethod: method}))
		}
		for first := 1; first < 256; first += 15 {
			var name []byte
			for b := first; b < min(first+15, 256); b++ {
				name = append(name, byte(b))
			}
			slices.Reverse(name) // a closing parenthesis before an opening one
			require.NoError(t, os.WriteFile("/proc/self/comm", name, 0))
			for _, s := range scanners {
				names := map[uint64]string{}
				mustScan(t, s, func(s *Socket) struct{} {
					names[s.Inode] = s.Owners()[0].Name
					return struct{}{}
				})
				require.Equal(t, string(name), names[inode])
			}
		}
	})
}

// Names of unix sockets that contain every byte. In procfs a newline ends a name, and the rest can look like the row of another
// socket. Netlink has no such ambiguity.
func TestSlowUnixNamesOfEveryByte(t *testing.T) {
	testnet.SkipUnlessSlow(t)
	testnet.Isolate(t, func() {
		const longest = 106
		var names []string
		bind := func(name string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			t.Cleanup(func() { _ = unix.Close(fd) })
			require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + name}), "%q", name)
			names = append(names, "@"+strings.ReplaceAll(name, "\x00", "@"))
		}
		for first := 0; first < 256; first += longest {
			var name []byte
			for b := first; b < min(first+longest, 256); b++ {
				name = append(name, byte(b))
			}
			bind(string(name))
		}
		const forgedInode uint64 = 4_000_000_001
		bind(fmt.Sprintf("\n0000000000000000: 00000002 00000000 00010000 0001 01 %d /forged", forgedInode))

		look := func(source Source) (paths []string, inodes []uint64) {
			s := newScanner(t, ScannerConfig{Transports: []Transport{TransportUnix}, Source: source, UnixPaths: true})
			mustScan(t, s, func(s *Socket) struct{} {
				paths, inodes = append(paths, s.Path), append(inodes, s.Inode)
				return struct{}{}
			})
			return paths, inodes
		}
		paths, inodes := look(SourceNetlink)
		require.ElementsMatch(t, names, paths)
		require.NotContains(t, inodes, forgedInode)

		paths, inodes = look(SourceProcfs)
		for i, name := range names {
			names[i], _, _ = strings.Cut(name, "\n")
		}
		require.ElementsMatch(t, append(names, "/forged"), paths)
		require.Contains(t, inodes, forgedInode)
	})
}

// If many sockets were opened after the owner lookup, it is repeated.
func TestScannerRepeatsOwnerLookup(t *testing.T) {
	testnet.Isolate(t, func() {
		p := testnet.Start(t, testnet.Process{Name: "opener"})
		open := func(n int) {
			for range n {
				p.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})
			}
		}
		open(200)
		for _, method := range ownerMethods {
			s := newScanner(t, ScannerConfig{OwnerMethod: method, Transports: []Transport{TransportUDP}})
			finder := &hookedFinder{ownerFinder: s.finder}
			s.finder = finder
			look := func(opened, looks int) (unowned int) {
				t.Helper()
				finder.looks, finder.before = 0, func() { open(opened) }
				mustScan(t, s, func(s *Socket) struct{} {
					if len(s.Owners()) == 0 {
						unowned++
					}
					return struct{}{}
				})
				require.Equal(t, looks, finder.looks)
				return unowned
			}
			sockets := func() int { return len(testnet.SS(t, "-u")) }
			require.Zero(t, look(0, 1))
			require.Equal(t, 1, look(1, 1), "too few for a second lookup")
			before := sockets()
			require.Zero(t, look(20, 2))
			require.Equal(t, before+20, s.Stats().Sockets)

			finder.blind = true
			require.Equal(t, before+20, look(0, 2))
			require.Equal(t, before+20, look(0, 1), "the same sockets without owners cause no second lookup")
			require.Equal(t, before+40, look(20, 2), "new ones do")
			require.Equal(t, before+40, look(0, 1))
			finder.blind = false
			require.Zero(t, look(0, 1))
			require.Zero(t, look(20, 2))
		}
	})
}

// Sockets that are buffered for a second owner lookup are not read again from another source when the dump fails.
func TestScannerBuffersThenFails(t *testing.T) {
	diag := &fakeDiag{dumps: []fakeDump{tcpConnections: {payloads: tcpMessages(1<<32-2, 1<<32-3), err: errors.ErrUnsupported}}}
	s := newFakeScanner(t, ScannerConfig{ProcRoot: "/proc", OwnerMethod: OwnersProcfs, Transports: []Transport{TransportTCP}}, diag)
	inodes, errs := scan(s, inode)
	require.Equal(t, []uint64{1<<32 - 2, 1<<32 - 3}, inodes)
	require.Equal(t, []string{"reading tcp sockets by sock_diag: unsupported operation"}, messages(errs))
	require.Equal(t, 2, s.Stats().Sockets)

	// If no owners are found, as without privileges, the number of buffered sockets is limited.
	diag.dumps = []fakeDump{tcpConnections: {payloads: slices.Repeat(tcpMessages(1<<32-2), maxLate+1000)}}
	inodes, errs = scan(s, inode)
	require.Empty(t, errs)
	require.Len(t, inodes, maxLate+1000)
	require.Len(t, s.late.held, maxLate)
}

// hookedFinder is an ownerFinder that calls before after the first lookup of a scan.
type hookedFinder struct {
	ownerFinder
	before func()
	looks  int
	blind  bool // finds no owners
}

func (f *hookedFinder) refresh(ctx context.Context, table *ownerTable) (ownerStats, error) {
	stats, err := f.ownerFinder.refresh(ctx, table)
	if f.looks++; f.looks == 1 {
		f.before()
	}
	if f.blind {
		table.clear()
	}
	return stats, err
}

// FuzzOwnerTable compares the table with a map.
func FuzzOwnerTable(f *testing.F) {
	f.Add([]byte{1, 1, 2, 1, 1, 0, 0, 200, 3}, uint8(20))
	f.Fuzz(func(t *testing.T, steps []byte, shift uint8) {
		var table ownerTable
		for range 2 {
			table.clear()
			want := map[uint32][]int{}
			inode := uint32(0)
			for i, step := range steps {
				p := &Process{PID: 1 + int(step%7)}
				inode += uint32(step) << (shift % 32)
				inodes := []uint64{uint64(inode), uint64(inode) | 1<<40, uint64(i % 3)}
				table.add(p, inodes)
				for _, inode := range inodes {
					if key := uint32(inode); key != 0 && !slices.Contains(want[key], p.PID) {
						want[key] = append(want[key], p.PID)
						slices.Sort(want[key])
					}
				}
			}
			for inode, pids := range want {
				var got []int
				for _, p := range table.appendOwners(nil, uint64(inode)) {
					got = append(got, p.PID)
				}
				require.Equal(t, pids, got)
				require.Equal(t, pids[0], table.first(uint64(inode)).PID)
			}
			require.Nil(t, table.first(0))
			require.Equal(t, len(want), table.inUse)
		}
	})
}

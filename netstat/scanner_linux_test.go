package netstat

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
)

var allTransports = []Transport{TransportTCP, TransportUDP, TransportUDPLite, TransportRaw, TransportICMP, TransportUnix}

// mustScan is scan without errors.
func mustScan[T any](t *testing.T, s *Scanner, visit func(*Socket) T) []T {
	t.Helper()
	seen, errs := scan(s, visit)
	require.Empty(t, errs)
	return seen
}

// file returns the name of the socket's table in /proc/net.
func file(s *Socket) string {
	if s.Family == FamilyIPv6 {
		return s.Transport.String() + "6"
	}
	return s.Transport.String()
}

// toTestnet converts a socket to the type of testnet.
func toTestnet(s *Socket) testnet.Socket {
	of := testnet.Socket{
		Protocol: file(s), State: s.State.String(), Local: s.Local, Remote: s.Remote,
		UID: s.UID, Inode: s.Inode, Cookie: s.Cookie, RecvQ: s.RecvQueue, SendQ: s.SendQueue,
	}
	if s.Has(FieldAcceptQueue) {
		of.RecvQ, of.SendQ = s.AcceptQueue, s.AcceptQueueLimit
	}
	if s.Transport != TransportTCP {
		of.Drops = s.Drops
	}
	if s.Inode == 0 {
		of.UID, of.Cookie = 0, 0
	}
	return of
}

// owners lists processes as 12/name, by pid.
func owners[T any](processes []T, pid func(T) int, name func(T) string) string {
	processes = slices.Clone(processes)
	slices.SortFunc(processes, func(a, b T) int { return cmp.Compare(pid(a), pid(b)) })
	processes = slices.CompactFunc(processes, func(a, b T) bool { return pid(a) == pid(b) })
	var text []string
	for _, p := range processes {
		text = append(text, fmt.Sprintf("%d/%s", pid(p), name(p)))
	}
	return strings.Join(text, " ")
}

func ownersOf(s *Socket) string {
	return owners(s.Owners(), func(p *Process) int { return p.PID }, func(p *Process) string { return p.Name })
}

func ownersOfRow(r testnet.Row) string {
	return owners(r.Processes, func(p testnet.RowProcess) int { return p.PID }, func(p testnet.RowProcess) string { return p.Name })
}

// everySocket opens sockets of every kind and in every state, some of them in the process of another user.
func everySocket(t *testing.T) (inet []testnet.Socket, unixSockets []testnet.UnixSocket) {
	t.Helper()
	for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
		load := testnet.States(t, network)
		for _, state := range []string{
			"ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING",
		} {
			require.NotEmpty(t, load.In(state), state)
		}
		inet = append(inet, load.Sockets...)
	}
	inet = append(inet, testnet.UDP(t).Sockets...)
	if load, ok := testnet.UDPLite(t); ok {
		inet = append(inet, load.Sockets...)
	}
	inet = append(inet, testnet.Raw(t).Sockets...)
	inet = append(inet, testnet.Ping(t).Sockets...)

	user := testnet.Start(t, testnet.Process{Name: "the user's", UID: 65534})
	listener := user.Listen("tcp6", netip.MustParseAddrPort("[::1]:0"), 5)
	client := user.Connect(listener.Local, 1)
	inet = append(inet, listener, client[0], user.Accept(listener, 1)[0], user.UDP("udp4", netip.AddrPort{}, netip.AddrPort{}))
	return inet, testnet.Unix(t)
}

// Netlink, procfs, ss and the load agree on every socket.
func TestSourcesAgree(t *testing.T) {
	testnet.Isolate(t, func() {
		load, unixLoad := everySocket(t)
		config := ScannerConfig{Transports: allTransports, TCPInfo: true}
		netlink := newScanner(t, config)
		config.Source = SourceProcfs
		procfs := newScanner(t, config)

		t.Run("load by netlink", func(t *testing.T) { requireLoad(t, load, netlink) })
		t.Run("load by procfs", func(t *testing.T) {
			for i := range load {
				load[i].Cookie = 0
				if load[i].State == "LISTEN" {
					load[i].SendQ = 0 // the accept queue limit
				}
			}
			requireLoad(t, load, procfs)
		})
		t.Run("unix load", func(t *testing.T) {
			for _, s := range []*Scanner{netlink, procfs} {
				requireUnixLoad(t, unixLoad, s)
			}
		})
		t.Run("one another", func(t *testing.T) {
			common := func(s *Socket) string {
				of := *s
				if of.State == TCPSynRecv || of.Transport == TransportUnix {
					of.UID = 0 // differs between sources, see Socket.UID
				}
				if of.Transport == TransportUnix {
					of.RecvQueue, of.SendQueue = 0, 0
				}
				var fields Field
				switch of.Transport {
				case TransportTCP:
					fields = FieldAcceptQueue
				case TransportUnix: // procfs has no queues
				default:
					fields = FieldDrops
				}
				return describe(&of, fields)
			}
			require.ElementsMatch(t, mustScan(t, procfs, common), mustScan(t, netlink, common))
		})
		t.Run("ss", func(t *testing.T) { requireSS(t, netlink) })
		t.Run("ss unix", func(t *testing.T) { requireSSUnix(t, netlink) })
		t.Run("stats", func(t *testing.T) {
			for _, s := range []*Scanner{netlink, procfs} {
				seen := mustScan(t, s, inode)
				stats := s.Stats()
				require.Len(t, seen, len(load)+len(unixLoad))
				require.Equal(t, len(seen), stats.Sockets)
				require.GreaterOrEqual(t, stats.Processes, 2, "this process and the user's, and those of other namespaces")
				require.Zero(t, stats.Interrupted)
				require.Contains(t, []OwnerMethod{OwnersBPF, OwnersProcfs}, stats.OwnerMethod, "the best available")
			}
			require.Equal(t, SourceMixed, netlink.Stats().Source, "netlink lacks ping sockets")
			require.Equal(t, SourceProcfs, procfs.Stats().Source)
		})
	})
}

// requireLoad compares the IP sockets, and their number in each state, with the load.
func requireLoad(t *testing.T, load []testnet.Socket, s *Scanner) {
	t.Helper()
	var seen []testnet.Socket
	states, wantStates := map[string]int{}, map[string]int{}
	mustScan(t, s, func(s *Socket) struct{} {
		if s.Family == FamilyUnix {
			return struct{}{}
		}
		states[file(s)+" "+s.State.String()]++
		of := toTestnet(s)
		if s.Transport == TransportRaw || s.Transport == TransportICMP {
			of.Cookie = 0
		}
		seen = append(seen, of)
		if s.Inode == 0 {
			require.Empty(t, s.Owners(), "%+v", of)
		} else {
			require.NotEmpty(t, s.Owners(), "%+v", of)
		}
		return struct{}{}
	})
	load = slices.Clone(load)
	for i, of := range load {
		wantStates[of.Protocol+" "+of.State]++
		if strings.HasPrefix(of.Protocol, "raw") || strings.HasPrefix(of.Protocol, "icmp") {
			load[i].Cookie = 0 // some kernels lack them in sock_diag
		}
	}
	require.Equal(t, wantStates, states)
	require.ElementsMatch(t, load, seen)
}

func requireUnixLoad(t *testing.T, load []testnet.UnixSocket, s *Scanner) {
	t.Helper()
	want, seen := map[uint64]string{}, map[uint64]string{}
	for _, of := range load {
		want[of.Inode] = of.State
	}
	mustScan(t, s, func(s *Socket) struct{} {
		if s.Family == FamilyUnix {
			seen[s.Inode] = s.State.String()
			require.Equal(t, os.Getpid(), s.Owners()[0].PID)
		}
		return struct{}{}
	})
	require.Equal(t, want, seen)
}

// requireSS compares all fields of TCP and UDP sockets with ss. It repeats the comparison because a client may retry to connect
// to a full accept queue meanwhile, which adds a drop.
func requireSS(t *testing.T, s *Scanner) {
	t.Helper()
	var want, seen []string
	for range 10 {
		want, seen = linesOfSS(t), linesOfScan(t, s)
		slices.Sort(want)
		slices.Sort(seen)
		if slices.Equal(want, seen) {
			break
		}
	}
	require.Equal(t, want, seen)
}

func lineOfSS(of testnet.Socket, cookie uint64, uid, drops uint32, owners string) string {
	of.Cookie, of.UID, of.Drops = cookie, uid, drops
	return fmt.Sprintf("%+v owners: %s", of, owners)
}

func linesOfSS(t *testing.T) (lines []string) {
	t.Helper()
	for _, r := range testnet.SS(t, "-t", "-u", "-m", "-p") {
		of := testnet.Socket{
			Protocol: r.Netid, State: r.State, Local: r.Local, Remote: r.Remote, RecvQ: r.RecvQ, SendQ: r.SendQ, Inode: r.Inode,
		}
		if r.Local.Addr().Is6() {
			of.Protocol += "6"
		}
		drops := r.Drops
		if r.Netid == "tcp" && r.State != "LISTEN" {
			drops = 0
		}
		lines = append(lines, lineOfSS(of, r.Cookie, r.UID, drops, ownersOfRow(r)))
	}
	return lines
}

func linesOfScan(t *testing.T, s *Scanner) (lines []string) {
	t.Helper()
	mustScan(t, s, func(s *Socket) struct{} {
		if s.Transport == TransportTCP || s.Transport == TransportUDP {
			lines = append(lines, lineOfSS(toTestnet(s), s.Cookie, s.UID, s.Drops, ownersOf(s)))
		}
		return struct{}{}
	})
	return lines
}

func requireSSUnix(t *testing.T, s *Scanner) {
	t.Helper()
	line := func(inode uint64, state string, recv, send uint32, owners string) string {
		return fmt.Sprintln(inode, state, recv, send, owners)
	}
	var want []string
	for _, r := range testnet.SS(t, "-x", "-p") {
		want = append(want, line(r.Inode, r.State, r.RecvQ, r.SendQ, ownersOfRow(r)))
	}
	var seen []string
	mustScan(t, s, func(s *Socket) struct{} {
		if s.Family == FamilyUnix {
			recv, send := s.RecvQueue, s.SendQueue
			if s.Has(FieldAcceptQueue | FieldAcceptQueueLimit) {
				require.Zero(t, recv|send)
				recv, send = s.AcceptQueue, s.AcceptQueueLimit
			}
			seen = append(seen, line(s.Inode, s.State.String(), recv, send, ownersOf(s)))
		}
		return struct{}{}
	})
	require.ElementsMatch(t, want, seen)
}

func TestScannerOverflow(t *testing.T) {
	testnet.Isolate(t, func() {
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			t.Run(network, func(t *testing.T) {
				listener := testnet.Overflow(t, network).Sockets[0].Inode
				s := newScanner(t, ScannerConfig{Transports: []Transport{TransportTCP}, Source: SourceNetlink, OwnerMethod: OwnersOff})
				drops := func() uint32 {
					var drops []uint32
					mustScan(t, s, func(s *Socket) struct{} {
						if s.Inode == listener {
							require.True(t, s.Has(FieldAcceptQueue|FieldAcceptQueueLimit|FieldDrops))
							require.EqualValues(t, testnet.OverflowQueued, s.AcceptQueue)
							require.EqualValues(t, testnet.OverflowBacklog, s.AcceptQueueLimit)
							drops = append(drops, s.Drops)
						}
						return struct{}{}
					})
					require.Len(t, drops, 1)
					return drops[0]
				}
				first := drops()
				require.GreaterOrEqual(t, first, uint32(testnet.OverflowOffered-testnet.OverflowQueued))
				require.Eventually(t, func() bool { return drops() > first }, 10*time.Second, 100*time.Millisecond)
			})
		}
	})
}

func TestScannerSharedListener(t *testing.T) {
	testnet.Isolate(t, func() {
		const workers = 8
		master := testnet.Start(t, testnet.Process{Name: "master"})
		listener := master.Listen("tcp4", netip.AddrPort{}, 5)
		pids := []int{master.PID}
		for _, worker := range master.Fork(workers) {
			pids = append(pids, worker.PID)
		}
		slices.Sort(pids)
		for _, source := range []Source{SourceNetlink, SourceProcfs} {
			s := newScanner(t, ScannerConfig{Source: source})
			sockets := mustScan(t, s, func(s *Socket) []int {
				require.Equal(t, listener.Inode, s.Inode)
				var pids []int
				for _, p := range s.Owners() {
					require.Equal(t, "master", p.Name)
					pids = append(pids, p.PID)
				}
				return pids
			})
			require.Equal(t, [][]int{pids}, sockets)
		}
	})
}

func TestScannerTCPInfo(t *testing.T) {
	testnet.Isolate(t, func() {
		const sent = 5000
		p := testnet.Start(t, testnet.Process{Name: "both"})
		listener := p.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 5)
		client := p.Connect(listener.Local, 1)[0]
		server := p.Accept(listener, 1)[0]
		p.Send(client, sent)
		p.Receive(server, sent)

		s := newScanner(t, ScannerConfig{Source: SourceNetlink, TCPInfo: true, OwnerMethod: OwnersOff})
		info := map[uint64]TCPInfo{}
		mustScan(t, s, func(s *Socket) struct{} {
			require.Equal(t, s.Inode != listener.Inode, s.Has(FieldTCPInfo|FieldTCPBytes|FieldTCPSegs))
			info[s.Inode] = s.TCP
			return struct{}{}
		})
		require.EqualValues(t, sent+1, info[client.Inode].BytesAcked, "BytesAcked includes the SYN")
		require.EqualValues(t, sent, info[server.Inode].BytesReceived)
		require.Greater(t, info[client.Inode].RTT, uint32(0))
		require.LessOrEqual(t, info[client.Inode].MinRTT, info[client.Inode].RTT)

		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		require.NoError(t, unix.Connect(fd, &unix.SockaddrInet4{Port: int(listener.Local.Port()), Addr: [4]byte{127, 0, 0, 1}}))
		want, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		require.NoError(t, err)
		own, seen := fdInode(t, fd), 0
		mustScan(t, s, func(s *Socket) struct{} {
			if s.Inode == own {
				seen++
				s.TCP.LastDataSent, s.TCP.LastDataRecv = 0, 0 // they grow: see TestScannerStalls
				require.Equal(t, TCPInfo{
					RTT: want.Rtt, RTTVar: want.Rttvar, MinRTT: want.Min_rtt, CWnd: want.Snd_cwnd, SndMSS: want.Snd_mss,
					BytesAcked: want.Bytes_acked, BytesReceived: want.Bytes_received,
					SegsOut: want.Segs_out, SegsIn: want.Segs_in, RetransSegs: want.Total_retrans,
				}, s.TCP)
			}
			return struct{}{}
		})
		require.Equal(t, 1, seen)

		s = newScanner(t, ScannerConfig{Source: SourceNetlink, OwnerMethod: OwnersOff})
		mustScan(t, s, func(s *Socket) struct{} {
			require.False(t, s.Has(FieldTCPInfo))
			require.Zero(t, s.TCP)
			return struct{}{}
		})
	})
}

// TestScannerStalls: what limits connections is what ss -i reports of them, before and after the scan.
func TestScannerStalls(t *testing.T) {
	testnet.Isolate(t, func() {
		p := testnet.Start(t, testnet.Process{Name: "both"})
		listener := p.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 5)
		ends := p.Connect(listener.Local, 2)
		p.Send(ends[0], 100)
		blocked, err := net.Dial("tcp4", listener.Local.String())
		require.NoError(t, err)
		defer blocked.Close()
		go func() { _, _ = blocked.Write(make([]byte, 32<<20)) }() // nobody reads: limited by the receive window
		fields := []string{"lastsnd", "lastrcv", "busy", "rwnd_limited", "sndbuf_limited", "notsent", "rcv_ooopack", "dsack_dups"}
		bySS := func() map[uint64][]uint64 { // by inode; the times in milliseconds; what is 0 is not shown
			values := map[uint64][]uint64{}
			for _, row := range testnet.SS(t, "-t", "-i", "state", "established") {
				if row.Inode == 0 { // not accepted
					continue
				}
				for _, field := range fields {
					var value uint64
					if m := regexp.MustCompile(`\s` + field + `:(\d+)`).FindStringSubmatch(row.Line); m != nil {
						value, err = strconv.ParseUint(m[1], 10, 64)
						require.NoError(t, err)
					}
					values[row.Inode] = append(values[row.Inode], value)
				}
			}
			return values
		}
		s := newScanner(t, ScannerConfig{Source: SourceNetlink, TCPInfo: true, OwnerMethod: OwnersOff})
		var before, after, got map[uint64][]uint64
		isLimited := func(values []uint64) bool { return values[3] > 100 && values[5] > 0 }
		require.Eventually(t, func() bool {
			before, got = bySS(), map[uint64][]uint64{}
			return slices.ContainsFunc(slices.Collect(maps.Values(before)), isLimited)
		}, 10*time.Second, time.Millisecond)
		mustScan(t, s, func(s *Socket) struct{} {
			require.Equal(t, s.Inode != listener.Inode, s.Has(FieldTCPLimits|FieldTCPDSACKDups|FieldTCPRcvOOOPack))
			if i := &s.TCP; s.Inode != listener.Inode && s.Inode != 0 {
				const ms = 1000 // microseconds
				got[s.Inode] = []uint64{
					uint64(i.LastDataSent), uint64(i.LastDataRecv), i.BusyTime / ms, i.RwndLimited / ms, i.SndbufLimited / ms,
					uint64(i.NotsentBytes), uint64(i.RcvOOOPack), uint64(i.DSACKDups),
				}
			}
			return struct{}{}
		})
		after = bySS()
		require.Len(t, after, 3)
		for inode := range after {
			for i, field := range fields {
				require.LessOrEqual(t, before[inode][i], got[inode][i], field)
				require.LessOrEqual(t, got[inode][i], after[inode][i], field)
			}
		}
	})
}

func fdInode(t *testing.T, fd int) uint64 {
	t.Helper()
	var stat unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &stat))
	return stat.Ino
}

func TestScannerInterface(t *testing.T) {
	testnet.Isolate(t, func() {
		lo, err := net.InterfaceByName("lo")
		require.NoError(t, err)
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		require.NoError(t, unix.BindToDevice(fd, "lo"))
		require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{}))
		s := newScanner(t, ScannerConfig{Source: SourceNetlink})
		require.Equal(t, []uint32{uint32(lo.Index)}, mustScan(t, s, func(s *Socket) uint32 { return s.Interface }))
		require.Equal(t, "lo", testnet.SS(t, "-u")[0].Interface)
	})
}

func TestScannerCgroup(t *testing.T) {
	testnet.Isolate(t, func() {
		cgroup := filepath.Join(cgroup2(t), "netstat-test")
		err := os.Mkdir(cgroup, 0o755)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			testnet.SkipOrFail(t, err.Error())
		}
		require.NoError(t, err)
		p := testnet.Start(t, testnet.Process{Name: "in cgroup", Cgroup: cgroup})
		defer func() {
			p.Stop()
			assert.NoError(t, os.Remove(cgroup))
		}()
		p.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})
		p.Listen("tcp4", netip.AddrPort{}, 5)

		var stat unix.Stat_t
		require.NoError(t, unix.Stat(cgroup, &stat))
		s := newScanner(t, ScannerConfig{Source: SourceNetlink})
		require.Equal(t, []uint64{stat.Ino, stat.Ino}, mustScan(t, s, func(s *Socket) uint64 { return s.CgroupID }))
	})
}

// cgroup2 returns the mount point of the cgroup2 file system.
func cgroup2(t *testing.T) string {
	t.Helper()
	mounts, err := os.Open("/proc/self/mounts")
	require.NoError(t, err)
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		if columns := strings.Fields(lines.Text()); len(columns) > 2 && columns[2] == "cgroup2" {
			return columns[1]
		}
	}
	testnet.SkipOrFail(t, "no cgroup2 file system is mounted")
	return ""
}

// rawDump returns the error of a kernel without raw sockets in sock_diag.
func rawDump(t *testing.T) error {
	t.Helper()
	conn, err := new(sockdiag.Opener).Open()
	require.NoError(t, err)
	defer conn.Close()
	request := sockdiag.Request{Family: sockdiag.AFInet, Protocol: sockdiag.ProtocolRaw, States: sockdiag.StatesAll}
	_, err = conn.Dump(t.Context(), request, func([]byte) bool { return true })
	return err
}

// Without raw_diag, raw sockets are read from /proc/net. Ping sockets are always read from there.
func TestScannerRaw(t *testing.T) {
	testnet.Isolate(t, func() {
		load := slices.Concat(testnet.Raw(t).Sockets, testnet.Ping(t).Sockets)
		var warned []string
		s := newScanner(t, ScannerConfig{
			Transports: []Transport{TransportRaw, TransportICMP},
			Warn:       func(err error) { warned = append(warned, err.Error()) },
		})
		want := SourceMixed
		if rawDump(t) != nil {
			want = SourceProcfs
		}
		for range 3 {
			requireLoad(t, load, s)
			require.Equal(t, want, s.Stats().Source)
		}
		if rawDump(t) == nil {
			require.Empty(t, warned)
		} else {
			require.Equal(t, []string{"reading raw sockets from /proc/net: sock_diag is unavailable for this transport: " +
				"unsupported operation: no such file or directory (module raw_diag)"}, warned)
		}
	})
}

// A loop that stops within a dump of many buffers does not affect the next scan.
func TestScannerStopsInDump(t *testing.T) {
	testnet.Isolate(t, func() {
		const connections = 1000
		testnet.ConnectedPairs(t, 1, connections)
		s := newScanner(t, ScannerConfig{Source: SourceNetlink, Transports: []Transport{TransportTCP}, TCPInfo: true})
		for range 3 {
			left := 10
			for _, err := range s.Sockets(t.Context()) {
				require.NoError(t, err)
				if left--; left == 0 {
					break
				}
			}
			require.Equal(t, 10, s.Stats().Sockets)
			require.Len(t, mustScan(t, s, inode), 2*connections+1)
		}
	})
}

func openDescriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		// The descriptor of this directory is closed.
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name())); err == nil {
			names = append(names, entry.Name()+" "+target)
		}
	}
	return names
}

func TestScannerCloseReleasesDescriptors(t *testing.T) {
	testnet.SkipIfShort(t)
	_ = mustScan(t, newScanner(t, ScannerConfig{}), inode) // opens what the runtime keeps open
	before := openDescriptors(t)
	for _, source := range []Source{SourceAuto, SourceProcfs} {
		for _, stop := range []bool{false, true} {
			s, err := NewScanner(ScannerConfig{Source: source, Transports: allTransports})
			require.NoError(t, err)
			for _, err := range s.Sockets(t.Context()) {
				require.NoError(t, err)
				if stop {
					break
				}
			}
			require.Greater(t, len(openDescriptors(t)), len(before))
			require.NoError(t, s.Close())
			require.Equal(t, before, openDescriptors(t))
		}
	}
	_, err := NewScanner(ScannerConfig{Source: 9})
	require.Error(t, err)
	require.Equal(t, before, openDescriptors(t))
}

func TestNewScannerOutOfDescriptors(t *testing.T) {
	testnet.SkipIfShort(t)
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: limit.Max}))
	s, err := NewScanner(ScannerConfig{Source: SourceNetlink})
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	require.EqualError(t, err, "opening a sock_diag socket: too many open files")
	require.Nil(t, s)
}

// A process that cannot open netlink sockets, as with RestrictAddressFamilies= of systemd, reads procfs.
func TestScannerWithoutNetlink(t *testing.T) {
	testnet.SkipIfShort(t)
	for _, errno := range []unix.Errno{unix.EAFNOSUPPORT, unix.EPERM} {
		t.Run(errno.Error(), func(t *testing.T) {
			testnet.Forbid(t, unix.SYS_SOCKET, errno, unix.AF_NETLINK)
			var warned []string
			s := newScanner(t, ScannerConfig{
				OwnerMethod: OwnersProcfs, Warn: func(err error) { warned = append(warned, err.Error()) },
			})
			for range 2 {
				mustScan(t, s, inode)
				require.Equal(t, SourceProcfs, s.Stats().Source)
			}
			why := "opening a sock_diag socket: unsupported operation: " + errno.Error()
			require.Equal(t, []string{"netlink unavailable (" + why + "); falling back to /proc/net, which gives fewer fields and costs more"},
				warned)
			_, err := NewScanner(ScannerConfig{Source: SourceNetlink})
			require.EqualError(t, err, `source "netlink" is required: `+why)
		})
	}
}

// Processes that cannot be read are counted, and all sockets are still handed out.
func TestScannerPrivileges(t *testing.T) {
	testnet.Isolate(t, func() {
		user := testnet.Start(t, testnet.Process{Name: "the user's", UID: 65534})
		listener := user.Listen("tcp4", netip.AddrPort{}, 5)
		s := newScanner(t, ScannerConfig{OwnerMethod: OwnersProcfs})
		scanOwners := func(t *testing.T) (owners []string, denied int) {
			t.Helper()
			owners = mustScan(t, s, func(s *Socket) string {
				require.Equal(t, listener.Inode, s.Inode)
				return ownersOf(s)
			})
			return owners, s.Stats().Denied
		}
		owners, deniedToAll := scanOwners(t) // a host can have processes that even root cannot read
		require.Equal(t, []string{fmt.Sprintf("%d/the user's", user.PID)}, owners)

		for name, capabilities := range map[string][]uint{
			"without CAP_SYS_PTRACE":      {unix.CAP_SYS_PTRACE},
			"without CAP_DAC_READ_SEARCH": {unix.CAP_DAC_READ_SEARCH, unix.CAP_DAC_OVERRIDE},
		} {
			t.Run(name, func(t *testing.T) {
				dropCapabilities(t, capabilities)
				owners, denied := scanOwners(t)
				require.Equal(t, []string{""}, owners)
				require.Greater(t, denied, deniedToAll)
			})
		}
	})
}

// dropCapabilities removes capabilities from this thread, which ends with the test.
func dropCapabilities(tb testing.TB, capabilities []uint) {
	tb.Helper()
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	require.NoError(tb, unix.Capget(&header, &sets[0]))
	for _, capability := range capabilities {
		sets[capability/32].Effective &^= 1 << (capability % 32)
	}
	require.NoError(tb, unix.Capset(&header, &sets[0]))
}

func TestScannerSource(t *testing.T) {
	testnet.SkipIfShort(t)
	tree := proctree.Materialize(t, smallTree)
	for _, test := range []struct {
		config ScannerConfig
		want   Source
	}{
		{ScannerConfig{}, SourceNetlink},
		{ScannerConfig{ProcRoot: "/proc"}, SourceNetlink},
		{ScannerConfig{ProcRoot: "/proc/"}, SourceNetlink},
		{ScannerConfig{ProcRoot: tree}, SourceProcfs},
		{ScannerConfig{Source: SourceProcfs}, SourceProcfs},
	} {
		require.Equal(t, test.want, newScanner(t, test.config).Stats().Source, "%+v", test.config)
	}
}

// A process keeps its value as long as it keeps its name.
func TestScannerProcesses(t *testing.T) {
	for _, method := range ownerMethods {
		t.Run(method.String(), func(t *testing.T) { testScannerProcesses(t, method) })
	}
}

func testScannerProcesses(t *testing.T, method OwnerMethod) {
	testnet.Isolate(t, func() {
		if method == OwnersBPF {
			testnet.RequireBPF(t)
		}
		name, err := os.ReadFile("/proc/self/comm")
		require.NoError(t, err)
		defer func() { require.NoError(t, os.WriteFile("/proc/self/comm", name, 0)) }()
		socket, _ := openSocket(t)
		require.NoError(t, unix.Bind(int(socket.Fd()), &unix.SockaddrInet4{}))
		other := testnet.Start(t, testnet.Process{Name: "other"})
		other.UDP("udp4", netip.AddrPort{}, netip.AddrPort{})

		s := newScanner(t, ScannerConfig{OwnerMethod: method})
		find := func() map[int]*Process {
			processes := map[int]*Process{}
			mustScan(t, s, func(s *Socket) struct{} {
				require.Len(t, s.Owners(), 1)
				processes[s.Owners()[0].PID] = s.Owners()[0]
				return struct{}{}
			})
			return processes
		}
		self := os.Getpid()
		first := find()
		require.Len(t, first, 2)
		require.Equal(t, "other", first[other.PID].Name)
		require.NotZero(t, first[self].StartTime)

		second := find()
		require.Same(t, first[self], second[self])
		require.Same(t, first[other.PID], second[other.PID])

		require.NoError(t, os.WriteFile("/proc/self/comm", []byte("new (name)"), 0))
		renamed := find()
		require.NotSame(t, first[self], renamed[self])
		require.Equal(t, "new (name)", renamed[self].Name)
		require.Equal(t, first[self].StartTime, renamed[self].StartTime)
		require.Equal(t, strings.TrimSpace(string(name)), first[self].Name, "a value that was handed out does not change")
		require.Same(t, first[other.PID], renamed[other.PID])

		other.Stop()
		require.Equal(t, []int{self}, slices.Collect(maps.Keys(find())))
	})
}

// Sockets and processes that start and end during a scan cause no errors.
func TestScannerChurn(t *testing.T) {
	testnet.Isolate(t, func() {
		end := make(chan struct{})
		until := func(do func()) (done chan struct{}) {
			done = make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-end:
						return
					default:
						do()
					}
				}
			}()
			return done
		}
		shared, _ := openSocket(t)
		processes := until(func() {
			cmd := exec.Command("true")
			cmd.ExtraFiles = []*os.File{shared}
			assert.NoError(t, cmd.Run())
		})
		sockets := until(func() {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if !assert.NoError(t, err) {
				return
			}
			defer listener.Close()
			for range 20 {
				conn, err := net.Dial("tcp", listener.Addr().String())
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
			}
		})
		scanners := []*Scanner{
			newScanner(t, ScannerConfig{Transports: allTransports, TCPInfo: true}),
			newScanner(t, ScannerConfig{Source: SourceProcfs, Transports: allTransports}),
		}
		_ = mustScan(t, scanners[0], inode)
		denied := scanners[0].Stats().Denied // some hosts deny even root
		for scan := range 10 {
			s := scanners[scan%len(scanners)]
			mustScan(t, s, func(s *Socket) int { return len(s.Owners()) })
			require.Equal(t, denied, s.Stats().Denied, "an ended process does not count as denied")
		}
		close(end)
		<-processes
		<-sockets
	})
}

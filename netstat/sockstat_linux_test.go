package netstat

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/internal/testnet/proctree"
	"github.com/procnetstat/procnetstat/netstat/internal/netns"
)

// The counts follow the sockets of the namespace, and the counts of the host are present.
func TestSockstatLive(t *testing.T) {
	testnet.Isolate(t, func() {
		before, err := ReadSockstat("")
		require.NoError(t, err)
		any4, any6 := netip.AddrPort{}, netip.MustParseAddrPort("[::1]:0")
		proc := testnet.Start(t, testnet.Process{Name: "counted"})
		connectAll(proc) // three IPv4 TCP sockets
		proc.Listen("tcp6", any6, 1)
		proc.UDP("udp4", any4, any4)
		proc.UDP("udp6", any6, any4)
		after, err := ReadSockstat("")
		require.NoError(t, err)

		require.Equal(t, *before.SocketsUsed+6, *after.SocketsUsed)
		require.Equal(t, *before.TCPInUse+3, *after.TCPInUse)
		require.Equal(t, *before.TCP6InUse+1, *after.TCP6InUse)
		require.Equal(t, *before.UDPInUse+1, *after.UDPInUse)
		require.Equal(t, *before.UDP6InUse+1, *after.UDP6InUse)
		require.Zero(t, *after.TCPTimeWait)
		require.Positive(t, *after.TCPAlloc)
		for name, field := range map[string]*uint64{
			"orphan": after.TCPOrphan, "TCP mem": after.TCPMemBytes, "UDP mem": after.UDPMemBytes,
			"RAW": after.RawInUse, "RAW6": after.Raw6InUse, "FRAG": after.FragInUse, "FRAG memory": after.FragMemBytes,
			"FRAG6": after.Frag6InUse, "FRAG6 memory": after.Frag6MemBytes,
		} {
			require.NotNil(t, field, name)
		}
	})
}

// readNstat reads the counters in a network namespace with nstat.
func readNstat(t *testing.T, file string) Counters {
	t.Helper()
	command := exec.Command("nsenter", "--net="+file, "nstat", "-asz")
	command.Env = append(os.Environ(), "NSTAT_HISTORY="+filepath.Join(t.TempDir(), "history"))
	output, err := command.CombinedOutput()
	require.NoError(t, err, "%s", output)
	var c Counters
	for name, field := range map[string]**uint64{
		"TcpExtListenOverflows": &c.TCPListenOverflows, "TcpExtListenDrops": &c.TCPListenDrops,
		"TcpAttemptFails": &c.TCPAttemptFails, "TcpEstabResets": &c.TCPEstabResets, "TcpOutRsts": &c.TCPOutRsts,
		"UdpNoPorts": &c.UDPNoPorts, "UdpRcvbufErrors": &c.UDPRcvbufErrors, "UdpSndbufErrors": &c.UDPSndbufErrors,
		"Udp6NoPorts": &c.UDP6NoPorts, "Udp6RcvbufErrors": &c.UDP6RcvbufErrors, "Udp6SndbufErrors": &c.UDP6SndbufErrors,
	} {
		for line := range strings.Lines(string(output)) {
			if columns := strings.Fields(line); columns[0] == name {
				value, err := strconv.ParseUint(columns[1], 10, 64)
				require.NoError(t, err)
				*field = &value
			}
		}
		require.NotNil(t, *field, "%s in the output of nstat: %s", name, output)
	}
	return c
}

// cause makes n of each event that Counters counts in the network namespace of the calling thread.
func cause(t *testing.T, n int) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		require.NoError(t, err)
	}
	open := func(family, kind int) int {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
		must(err)
		return fd
	}
	to4, to6 := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	nobody4, nobody6 := *to4, *to6
	nobody4.Port, nobody6.Port = 1, 1

	output, err := exec.Command("ip", "link", "set", "lo", "mtu", "1500").CombinedOutput()
	require.NoError(t, err, "%s", output)
	for range n {
		refused := open(unix.AF_INET, unix.SOCK_STREAM)
		require.ErrorIs(t, unix.Connect(refused, &nobody4), unix.ECONNREFUSED)
		must(unix.Close(refused))
	}

	listener := open(unix.AF_INET, unix.SOCK_STREAM)
	must(unix.Bind(listener, to4))
	const backlog = 0
	must(unix.Listen(listener, backlog))
	at, err := unix.Getsockname(listener)
	must(err)
	queued := open(unix.AF_INET, unix.SOCK_STREAM)
	must(unix.Connect(queued, at)) // fills the queue
	var waiting []int
	for range n {
		fd := open(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		require.ErrorIs(t, unix.Connect(fd, at), unix.EINPROGRESS)
		waiting = append(waiting, fd)
	}
	for _, fd := range append(waiting, queued, listener) {
		must(unix.Close(fd)) // closing the listener resets the connection in its queue
	}

	for _, v := range []struct {
		family      int
		any, nobody unix.Sockaddr
	}{{unix.AF_INET, to4, &nobody4}, {unix.AF_INET6, to6, &nobody6}} {
		receiver, sender := open(v.family, unix.SOCK_DGRAM), open(v.family, unix.SOCK_DGRAM)
		must(unix.Bind(receiver, v.any))
		must(unix.SetsockoptInt(receiver, unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
		at, err := unix.Getsockname(receiver)
		must(err)
		for range 10 * n {
			must(unix.Sendto(sender, make([]byte, 1000), 0, at))
			must(unix.Sendto(sender, nil, 0, v.nobody))
		}
		corked := open(v.family, unix.SOCK_DGRAM)
		must(unix.SetsockoptInt(corked, unix.SOL_SOCKET, unix.SO_SNDBUF, 1))
		must(unix.Connect(corked, at))
		failed := 0
		for failed < n {
			if _, err := unix.SendmsgN(corked, make([]byte, 2000), nil, nil, unix.MSG_MORE); err != nil {
				require.ErrorIs(t, err, unix.ENOBUFS)
				failed++
			}
		}
		for _, fd := range []int{receiver, sender, corked} {
			must(unix.Close(fd))
		}
	}
}

// The counters of each network namespace are those of nstat, by both sources, with a process and without.
func TestReadCountersLive(t *testing.T) {
	testnet.Require(t, "nstat", "nsenter", "ip")
	testnet.IsolateMounts(t, func() {
		process := testnet.Start(t, testnet.Process{Name: "one", Netns: true})
		files := []string{netns.ThreadDir + "/ns/net", process.Netns(), testnet.Netns(t, "without")}
		var scanners []*Scanner
		for _, source := range []Source{SourceNetlink, SourceProcfs} {
			s, _ := newNamespaceScanner(t, source, NamespaceAll)
			scanners = append(scanners, s)
		}
		for i, file := range files {
			_, err := netns.Enter(file, 0, func() error { cause(t, i+1); return nil })
			require.NoError(t, err)
		}
		for i, file := range files {
			want := readNstat(t, file)
			n := uint64(i + 1)
			require.Equal(t, 10*n, *want.UDPNoPorts)
			require.Equal(t, 10*n, *want.UDP6NoPorts)
			require.Equal(t, n, *want.UDPSndbufErrors)
			require.Equal(t, n, *want.UDP6SndbufErrors)
			require.GreaterOrEqual(t, *want.TCPListenOverflows, n)
			require.GreaterOrEqual(t, *want.TCPListenDrops, n)
			require.GreaterOrEqual(t, *want.TCPAttemptFails, n)
			require.GreaterOrEqual(t, *want.TCPOutRsts, n+1, "of the refused, and of the connection in the queue")
			require.Positive(t, *want.TCPEstabResets)
			require.Positive(t, *want.UDPRcvbufErrors)
			require.Positive(t, *want.UDP6RcvbufErrors)
			inode := netns.Inode(file)
			for _, s := range scanners {
				mustScan(t, s, func(*Socket) int { return 0 })
				found := 0
				for _, namespace := range s.Namespaces() {
					if namespace.Inode == inode {
						got, err := namespace.ReadCounters()
						require.NoError(t, err)
						require.Equal(t, want, got)
						found++
					}
				}
				require.Equal(t, 1, found)
			}
		}
		process.Stop()
		for _, namespace := range scanners[0].Namespaces() {
			if namespace.PID == process.PID {
				_, err := namespace.ReadCounters()
				require.ErrorIs(t, err, fs.ErrNotExist)
				require.ErrorContains(t, err, "the counters of protocols of network namespace")
			}
		}
	})
}

func sysctl(t *testing.T, file string, assignments ...string) {
	t.Helper()
	output, err := exec.Command("nsenter", append([]string{"--net=" + file, "sysctl", "-qw"}, assignments...)...).CombinedOutput()
	require.NoError(t, err, "%s", output)
}

// The first namespace has all limits, and they are the kernel's.
func TestReadLimitsLive(t *testing.T) {
	l, err := ReadLimits("")
	require.NoError(t, err)
	for field, name := range map[**uint64]string{
		&l.TCPOrphans: "tcp_max_orphans", &l.TCPMemBytes: "tcp_mem", &l.TCPTimeWait: "tcp_max_tw_buckets",
	} {
		content, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if err != nil { // the test is in a container
			require.Nil(t, *field, name)
			continue
		}
		columns := strings.Fields(string(content))
		value, err := strconv.ParseUint(columns[len(columns)-1], 10, 64)
		require.NoError(t, err)
		if name == "tcp_mem" {
			value *= uint64(os.Getpagesize())
		}
		require.Equal(t, value, **field, name)
	}
	require.Positive(t, *l.LocalPorts)
}

// The limits of each network namespace are its own, and are read again after a minute.
func TestScannerLimits(t *testing.T) {
	testnet.Require(t, "nsenter", "sysctl")
	testnet.IsolateMounts(t, func() {
		inEachSource(t, func(t *testing.T, source Source) {
			process := testnet.Start(t, testnet.Process{Name: "one", Netns: true})
			files := []string{netns.ThreadDir + "/ns/net", process.Netns(), testnet.Netns(t, "without-"+source.String())}
			set := func(i int, ports uint64) {
				t.Helper()
				sysctl(t, files[i], fmt.Sprintf("net.ipv4.ip_local_port_range=20000 %d", 20000+ports-1),
					fmt.Sprintf("net.ipv4.tcp_max_tw_buckets=%d", 2*ports))
			}
			w := &warnings{}
			s := newScanner(t, ScannerConfig{
				Source: source, Namespaces: []string{NamespaceAll}, OwnerMethod: OwnersOff, Limits: true,
				Warn: func(err error) { w.texts = append(w.texts, err.Error()) },
			})
			c := setClock(s)
			read := func() (limits []uint64, namespaces []*Namespace) {
				t.Helper()
				mustScan(t, s, func(*Socket) int { return 0 })
				for _, file := range files {
					for _, n := range s.Namespaces() {
						if n.Inode != netns.Inode(file) {
							continue
						}
						l := n.Limits()
						require.Nil(t, l.TCPOrphans, "of the host")
						require.Nil(t, l.TCPMemBytes, "of the host")
						limits = append(limits, *l.LocalPorts, *l.TCPTimeWait)
						namespaces = append(namespaces, n)
					}
				}
				return limits, namespaces
			}
			set(0, 1000)
			set(1, 2000)
			set(2, 3000)
			limits, before := read()
			require.Equal(t, []uint64{1000, 2000, 2000, 4000, 3000, 6000}, limits)

			c.Time = c.Add(limitsInterval)
			limits, after := read()
			require.Equal(t, []uint64{1000, 2000, 2000, 4000, 3000, 6000}, limits)
			require.Equal(t, before, after)
			for i := range before {
				require.Same(t, before[i], after[i], "nothing has changed")
			}

			set(0, 1100)
			set(1, 2100)
			set(2, 3100)
			c.Time = c.Add(limitsInterval - 1)
			limits, _ = read()
			require.Equal(t, []uint64{1000, 2000, 2000, 4000, 3000, 6000}, limits)
			c.Time = c.Add(1)
			limits, _ = read()
			require.Equal(t, []uint64{1100, 2200, 2100, 4200, 3100, 6200}, limits)
			require.EqualValues(t, 1000, *before[0].Limits().LocalPorts, "a Namespace is immutable")

			var every []string // second port: a list of 100,000 bytes
			for port := 20001; port < 60000; port += 2 {
				every = append(every, strconv.Itoa(port))
			}
			_, err := netns.Enter(files[1], 0, func() error {
				return os.WriteFile("/proc/sys/net/ipv4/ip_local_reserved_ports", []byte(strings.Join(every, ",")), 0o600)
			})
			require.NoError(t, err)
			c.Time = c.Add(limitsInterval)
			limits, _ = read()
			require.Equal(t, []uint64{1100, 2200, 1050, 4200, 3100, 6200}, limits)
			require.Empty(t, w.take())
		})
	})
}

// A reader that may not enter a namespace does not know its limits, and is not warned of that.
func TestScannerLimitsRefused(t *testing.T) {
	testnet.Isolate(t, func() {
		process := testnet.Start(t, testnet.Process{Name: "one", Netns: true})
		t.Run("nobody", func(t *testing.T) {
			testnet.BecomeNobody(t)
			var warned [2][]string
			for i, withLimits := range []bool{false, true} {
				s := newScanner(t, ScannerConfig{
					Namespaces: []string{NamespaceSelf, strconv.Itoa(process.PID)}, OwnerMethod: OwnersOff, Limits: withLimits,
					Warn: func(err error) { warned[i] = append(warned[i], err.Error()) },
				})
				c := setClock(s)
				for range 2 {
					mustScan(t, s, func(*Socket) int { return 0 })
					namespaces := s.Namespaces()
					require.Len(t, namespaces, 2)
					require.Equal(t, withLimits, namespaces[0].Limits().LocalPorts != nil)
					require.Equal(t, Limits{}, namespaces[1].Limits())
					c.Time = c.Add(limitsInterval)
				}
			}
			require.Equal(t, warned[0], warned[1])
		})
	})
}

// A copy of a proc file system has the limits of its namespace; what is wrong in it is reported once.
func TestScannerLimitsOfCopy(t *testing.T) {
	root := proctree.Materialize(t, smallTree)
	require.NoError(t, os.WriteFile(filepath.Join(root, "sys/net/ipv4/tcp_mem"), []byte("many\n"), 0o600))
	var warned []string
	s := newScanner(t, ScannerConfig{
		ProcRoot: root, OwnerMethod: OwnersOff, Limits: true, Warn: func(err error) { warned = append(warned, err.Error()) },
	})
	c := setClock(s)
	for range 2 {
		mustScan(t, s, func(*Socket) int { return 0 })
		require.True(t, s.Namespaces()[0].Limits().equal(Limits{
			TCPOrphans: new(uint64(8192)), TCPTimeWait: new(uint64(4096)), LocalPorts: new(uint64(28212)),
		}))
		c.Time = c.Add(limitsInterval)
	}
	require.Equal(t, []string{"network namespace self: " + root + `/sys/net/ipv4/tcp_mem: "many": not a number`}, warned)
}

package netstat

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// Sockstat has the kernel's socket counts, from sockstat_seq_show (net/ipv4/proc.c) and sockstat6_seq_show (net/ipv6/proc.c). A
// field is nil if the kernel does not report it. Some counts are per network namespace, others per host.
type Sockstat struct {
	SocketsUsed *uint64 // sockets of all families; namespace

	TCPInUse    *uint64 // IPv4 TCP sockets, TIME_WAIT excluded; namespace
	TCPOrphan   *uint64 // TCP sockets without a process, TIME_WAIT excluded; host
	TCPTimeWait *uint64 // TCP sockets in TIME_WAIT; namespace
	TCPAlloc    *uint64 // allocated TCP sockets in any state; host
	TCPMemBytes *uint64 // memory of TCP buffers in bytes; host

	UDPInUse     *uint64 // IPv4 UDP sockets; namespace
	UDPMemBytes  *uint64 // memory of UDP buffers in bytes; host
	UDPLiteInUse *uint64 // IPv4 UDP-Lite sockets; namespace
	RawInUse     *uint64 // IPv4 raw sockets; namespace
	FragInUse    *uint64 // incomplete IPv4 packets; namespace
	FragMemBytes *uint64 // memory of their fragments in bytes; namespace

	// The same for IPv6; namespace.
	TCP6InUse, UDP6InUse, UDPLite6InUse, Raw6InUse, Frag6InUse, Frag6MemBytes *uint64
}

// ReadSockstat reads <procRoot>/net/sockstat and sockstat6, of the network namespace of the process; an empty procRoot is
// "/proc". Without IPv6 there is no sockstat6, which is not an error. With an error it returns the counts of the other file.
func ReadSockstat(procRoot string) (Sockstat, error) {
	procRoot = orProc(procRoot)
	var s Sockstat
	err := s.read(filepath.Join(procRoot, "net", "sockstat"))
	err6 := s.read(filepath.Join(procRoot, "net", "sockstat6"))
	if errors.Is(err6, fs.ErrNotExist) {
		err6 = nil
	}
	return s, errors.Join(err, err6)
}

func (s *Sockstat) read(path string) error {
	parsed := *s
	err := readCounts(path, "socket counts", func(content []byte) (line int, err error) {
		return parsed.parse(content, uint64(os.Getpagesize()))
	})
	if err == nil {
		*s = parsed
	}
	return err
}

// parse sets the counts of a file. With an error it returns the line number, and s is invalid.
func (s *Sockstat) parse(content []byte, pageSize uint64) (line int, err error) {
	return procfs.ParseSockstat(content, func(name, key []byte, value uint64) error {
		field, unit := s.field(name, key, pageSize)
		if field == nil {
			return nil // not known to this package
		}
		if value > ^uint64(0)/unit {
			return procfs.ErrRange
		}
		*field = new(value * unit)
		return nil
	})
}

// field returns the field of a count and its unit; nil for an unknown count.
func (s *Sockstat) field(name, key []byte, pageSize uint64) (field **uint64, unit uint64) {
	switch string(name) + " " + string(key) {
	case "sockets used":
		return &s.SocketsUsed, 1
	case "TCP inuse":
		return &s.TCPInUse, 1
	case "TCP orphan":
		return &s.TCPOrphan, 1
	case "TCP tw":
		return &s.TCPTimeWait, 1
	case "TCP alloc":
		return &s.TCPAlloc, 1
	case "TCP mem":
		return &s.TCPMemBytes, pageSize
	case "UDP inuse":
		return &s.UDPInUse, 1
	case "UDP mem":
		return &s.UDPMemBytes, pageSize
	case "UDPLITE inuse":
		return &s.UDPLiteInUse, 1
	case "RAW inuse":
		return &s.RawInUse, 1
	case "FRAG inuse":
		return &s.FragInUse, 1
	case "FRAG memory":
		return &s.FragMemBytes, 1
	case "TCP6 inuse":
		return &s.TCP6InUse, 1
	case "UDP6 inuse":
		return &s.UDP6InUse, 1
	case "UDPLITE6 inuse":
		return &s.UDPLite6InUse, 1
	case "RAW6 inuse":
		return &s.Raw6InUse, 1
	case "FRAG6 inuse":
		return &s.Frag6InUse, 1
	case "FRAG6 memory":
		return &s.Frag6MemBytes, 1
	default:
		return nil, 0
	}
}

// Counters are events that the kernel has counted in a network namespace since the namespace began, from snmp_seq_show and
// netstat_seq_show (net/ipv4/proc.c) and snmp6_seq_show (net/ipv6/proc.c). A field is nil if the kernel does not report it. On
// 32-bit kernels they start again at 0 after 2^32.
type Counters struct {
	// TCP, IPv4 and IPv6 together.
	TCPListenOverflows *uint64 // connections that a full accept queue refused
	TCPListenDrops     *uint64 // connections and SYNs that a listening socket dropped for any reason, TCPListenOverflows included
	TCPAttemptFails    *uint64 // connections that ended in SYN_SENT or SYN_RECV
	TCPEstabResets     *uint64 // connections that ended at once in ESTABLISHED or CLOSE_WAIT
	TCPOutRsts         *uint64 // segments sent with RST

	// UDP without UDP-Lite, IPv4.
	UDPNoPorts      *uint64 // datagrams for a port without a socket
	UDPRcvbufErrors *uint64 // datagrams that the full receive buffer of a socket dropped
	UDPSndbufErrors *uint64 // datagrams that were not sent for lack of buffer memory

	// The same for IPv6.
	UDP6NoPorts, UDP6RcvbufErrors, UDP6SndbufErrors *uint64
}

// numCounters is the number of fields of Counters.
const numCounters = 11

// ReadCounters reads <procRoot>/net/snmp, netstat and snmp6, of the network namespace of the process; an empty procRoot is "/proc".
// Without IPv6 there is no snmp6, which is not an error. With an error it returns the counters of the other files.
func ReadCounters(procRoot string) (Counters, error) {
	procRoot = orProc(procRoot)
	var c Counters
	values := make([]uint64, 0, numCounters)
	read := func(name string, parse func(content []byte, c *Counters) (line int, err error)) error {
		parsed := c
		err := readCounts(filepath.Join(procRoot, "net", name), "counters of protocols", func(content []byte) (line int, err error) {
			return parse(content, &parsed)
		})
		if err == nil {
			c = parsed
		}
		return err
	}
	place := func(field **uint64, text []byte) error {
		if field == nil {
			return nil // not known to this package
		}
		value, err := procfs.ParseCount(text)
		values = append(values, value)
		*field = &values[len(values)-1]
		return err
	}
	groups := func(content []byte, c *Counters) (line int, err error) {
		return procfs.ParseSNMP(content, func(name, key, text []byte) error { return place(c.field(name, key), text) })
	}
	err := errors.Join(read("snmp", groups), read("netstat", groups))
	err6 := read("snmp6", func(content []byte, c *Counters) (line int, err error) {
		return procfs.ParseSNMP6(content, func(key, text []byte) error { return place(c.field6(key), text) })
	})
	if errors.Is(err6, fs.ErrNotExist) {
		err6 = nil
	}
	return c, errors.Join(err, err6)
}

// field returns the field of a counter in snmp or netstat; nil for an unknown one.
func (c *Counters) field(name, key []byte) **uint64 {
	switch string(name) {
	case "TcpExt":
		switch string(key) {
		case "ListenOverflows":
			return &c.TCPListenOverflows
		case "ListenDrops":
			return &c.TCPListenDrops
		}
	case "Tcp":
		switch string(key) {
		case "AttemptFails":
			return &c.TCPAttemptFails
		case "EstabResets":
			return &c.TCPEstabResets
		case "OutRsts":
			return &c.TCPOutRsts
		}
	case "Udp":
		switch string(key) {
		case "NoPorts":
			return &c.UDPNoPorts
		case "RcvbufErrors":
			return &c.UDPRcvbufErrors
		case "SndbufErrors":
			return &c.UDPSndbufErrors
		}
	}
	return nil
}

// field6 returns the field of a counter in snmp6; nil for an unknown one.
func (c *Counters) field6(key []byte) **uint64 {
	switch string(key) {
	case "Udp6NoPorts":
		return &c.UDP6NoPorts
	case "Udp6RcvbufErrors":
		return &c.UDP6RcvbufErrors
	case "Udp6SndbufErrors":
		return &c.UDP6SndbufErrors
	default:
		return nil
	}
}

// Limits are what the kernel allows to a network namespace. A field is nil if the kernel does not show it there: namespaces other
// than the first one do not show TCPOrphans and TCPMemBytes, which hold for the host (net/ipv4/sysctl_net_ipv4.c).
type Limits struct {
	TCPOrphans  *uint64 // net.ipv4.tcp_max_orphans: TCP sockets without a process; compare with Sockstat.TCPOrphan
	TCPMemBytes *uint64 // the third of net.ipv4.tcp_mem, in bytes: memory of TCP buffers; compare with Sockstat.TCPMemBytes
	TCPTimeWait *uint64 // net.ipv4.tcp_max_tw_buckets: TCP sockets in TIME_WAIT; compare with Sockstat.TCPTimeWait
	// LocalPorts is the number of ports that the kernel chooses from for a connection: those in net.ipv4.ip_local_port_range that
	// net.ipv4.ip_local_reserved_ports does not reserve. Each remote endpoint can be connected to from each of them.
	LocalPorts *uint64
}

// ReadLimits reads files in <procRoot>/sys/net/ipv4; an empty procRoot is "/proc". Whatever the proc file system, the kernel
// shows the network namespace of the thread that reads (fs/proc/proc_sysctl.c). A file that is absent or not readable leaves its
// field nil. With an error it returns the limits of the other files.
func ReadLimits(procRoot string) (Limits, error) {
	s := sysctls{dir: filepath.Join(orProc(procRoot), "sys", "net", "ipv4")}
	l := Limits{
		TCPOrphans:  s.last("tcp_max_orphans", 1, 1),
		TCPMemBytes: s.last("tcp_mem", 3, uint64(os.Getpagesize())),
		TCPTimeWait: s.last("tcp_max_tw_buckets", 1, 1),
		LocalPorts:  s.localPorts(),
	}
	return l, s.failed
}

// equal reports whether the limits are the same.
func (l Limits) equal(other Limits) bool {
	same := func(a, b *uint64) bool { return a == b || a != nil && b != nil && *a == *b }
	return same(l.TCPOrphans, other.TCPOrphans) && same(l.TCPMemBytes, other.TCPMemBytes) &&
		same(l.TCPTimeWait, other.TCPTimeWait) && same(l.LocalPorts, other.LocalPorts)
}

// sysctls reads the sysctls in a directory.
type sysctls struct {
	dir    string
	failed error
}

// read returns nil for a file that is absent or not readable.
func (s *sysctls) read(name string) []byte {
	content, err := readSysctl(filepath.Join(s.dir, name))
	if err != nil && !isAbsent(err) {
		s.failed = errors.Join(s.failed, fmt.Errorf("reading the limits: %w", err))
	}
	if err != nil {
		return nil
	}
	return content
}

// value returns the value unless there is an error.
func (s *sysctls) value(name string, value uint64, err error) *uint64 {
	if err != nil {
		s.failed = errors.Join(s.failed, fmt.Errorf("%s: %w", filepath.Join(s.dir, name), err))
		return nil
	}
	return &value
}

// last returns the last of n numbers, which has the unit.
func (s *sysctls) last(name string, n int, unit uint64) *uint64 {
	content := s.read(name)
	if content == nil {
		return nil
	}
	numbers := make([]uint64, n)
	err := procfs.ParseSysctl(content, numbers)
	value := numbers[n-1]
	if err == nil && value > ^uint64(0)/unit {
		err = procfs.ErrRange
	}
	return s.value(name, value*unit, err)
}

func (s *sysctls) localPorts() *uint64 {
	const name = "ip_local_port_range"
	content := s.read(name)
	if content == nil {
		return nil
	}
	count, err := procfs.CountLocalPorts(content, s.read("ip_local_reserved_ports"))
	return s.value(name, count, err)
}

// readSysctl reads a sysctl with one call: the kernel returns nothing after the first one (proc_do_large_bitmap, kernel/sysctl.c).
func readSysctl(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	const mostPorts = 6 << 15 // bytes of the longest list: every second port
	for _, size := range []int{4 << 10, mostPorts} {
		buf := make([]byte, size)
		n, err := file.ReadAt(buf, 0)
		if n < size {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return buf[:n], err
		}
	}
	return nil, fmt.Errorf("%s: is longer than %d bytes", path, mostPorts)
}

// countBuffers hold files of counts while they are parsed: a gather can read thousands.
var countBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// readCounts reads a file of counts and parses it. With an error parse returns the number of the line.
func readCounts(path, what string, parse func(content []byte) (line int, err error)) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the %s: %w", what, err)
	}
	defer file.Close()
	buf := countBuffers.Get().(*[16 << 10]byte) //nolint:forcetypeassert // nothing else is put there
	defer countBuffers.Put(buf)
	content := buf[:0]
	for {
		n, err := file.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the %s: %w", what, err)
		}
		content = slices.Grow(content, 1)
	}
	if line, err := parse(content); err != nil {
		return fmt.Errorf("%s:%d: %w", path, line, err)
	}
	return nil
}

func orProc(procRoot string) string {
	if procRoot == "" {
		return "/proc"
	}
	return procRoot
}

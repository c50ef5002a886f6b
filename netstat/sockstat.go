package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
	if procRoot == "" {
		procRoot = "/proc"
	}
	var s Sockstat
	err := s.read(filepath.Join(procRoot, "net", "sockstat"))
	err6 := s.read(filepath.Join(procRoot, "net", "sockstat6"))
	if errors.Is(err6, fs.ErrNotExist) {
		err6 = nil
	}
	return s, errors.Join(err, err6)
}

func (s *Sockstat) read(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the socket counts: %w", err)
	}
	parsed := *s
	if line, err := parsed.parse(content, uint64(os.Getpagesize())); err != nil {
		return fmt.Errorf("%s:%d: %w", path, line, err)
	}
	*s = parsed
	return nil
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

package netstat

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// Sockstat is what the kernel counts of its sockets: all of it costs no more than reading two short files. A field is nil
// if the kernel does not report it.
//
// The kernel counts some of it for the network namespace, and some for the host, whichever namespace asks.
type Sockstat struct {
	SocketsUsed *uint64 // sockets of all families: of the namespace

	TCPInUse    *uint64 // IPv4 TCP sockets, without TIME_WAIT: of the namespace
	TCPOrphan   *uint64 // TCP sockets that no process holds any more, without TIME_WAIT: of the host
	TCPTimeWait *uint64 // TCP sockets in TIME_WAIT: of the namespace
	TCPAlloc    *uint64 // TCP sockets that there is memory for, bound or not: of the host
	TCPMemBytes *uint64 // memory of TCP's buffers: of the host

	UDPInUse     *uint64 // IPv4 UDP sockets: of the namespace
	UDPMemBytes  *uint64 // memory of UDP's buffers: of the host
	UDPLiteInUse *uint64 // IPv4 UDP-Lite sockets: of the namespace
	RawInUse     *uint64 // IPv4 raw sockets: of the namespace
	FragInUse    *uint64 // IPv4 packets that are not complete: of the namespace
	FragMemBytes *uint64 // memory of their fragments: of the namespace

	// The same for IPv6, all of the namespace.
	TCP6InUse, UDP6InUse, UDPLite6InUse, Raw6InUse, Frag6InUse, Frag6MemBytes *uint64
}

// ReadSockstat reads <procRoot>/net/sockstat and sockstat6, "/proc" if empty, of the network namespace of the process. A
// kernel without IPv6 has no sockstat6. On an error it returns what could be read.
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

// parse sets the counts of a file. On an error it returns the line, and s is not to be used.
func (s *Sockstat) parse(content []byte, pageSize uint64) (line int, err error) {
	return procfs.ParseSockstat(content, func(name, key []byte, value uint64) error {
		field, unit := s.field(name, key, pageSize)
		if field == nil {
			return nil // of another kernel
		}
		if value > ^uint64(0)/unit {
			return procfs.ErrRange
		}
		*field = new(value * unit)
		return nil
	})
}

// field returns where a count belongs, and what it is to be multiplied with; nil if it belongs nowhere.
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

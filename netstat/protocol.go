package netstat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// ProcRoot is the path of the proc file system that [Protocol.Connections] reads, or of a copy of one. Every call uses the value
// that it has at the start of the call.
var ProcRoot = "/proc"

// Protocol is a table of sockets in the proc file system.
type Protocol struct {
	// Name is the name of the protocol, as netstat(8) prints it.
	Name string
	// RelPath is the path of the table, relative to ProcRoot.
	RelPath string
}

// The tables of IP sockets: see proc_pid_net(5). The port of a raw socket is its IP protocol number, that of an ICMP socket the
// identifier of its echo requests (RFC 792).
var (
	TCP      = &Protocol{"tcp", "net/tcp"}
	TCP6     = &Protocol{"tcp6", "net/tcp6"}
	UDP      = &Protocol{"udp", "net/udp"}
	UDP6     = &Protocol{"udp6", "net/udp6"}
	UDPLite  = &Protocol{"udplite", "net/udplite"} // not in every kernel
	UDPLite6 = &Protocol{"udplite6", "net/udplite6"}
	Raw      = &Protocol{"raw", "net/raw"}
	Raw6     = &Protocol{"raw6", "net/raw6"}
	ICMP     = &Protocol{"icmp", "net/icmp"}
	ICMP6    = &Protocol{"icmp6", "net/icmp6"}
)

// Connections reads the table, finds the processes behind the sockets, and returns the sockets in the table's order.
//
// The error is [fs.ErrNotExist] if the kernel has no such table. An invalid row causes an error with the file and the line; the
// other rows are returned too. Processes whose descriptors cannot be read are skipped without an error.
func (p *Protocol) Connections() ([]*Connection, error) {
	root := ProcRoot
	connections, err := p.readTable(filepath.Join(root, p.RelPath))
	if !slices.ContainsFunc(connections, func(c *Connection) bool { return c.Inode != 0 }) {
		return connections, err
	}
	var owners ownerTable
	owners.clear()
	walk := procfs.NewSocketWalk(root)
	defer walk.Close()
	walkErr := walk.Each(context.Background(), func(pid int, inodes []uint64, _ error) {
		if len(inodes) > 0 {
			owners.add(&Process{PID: pid, root: root}, inodes)
		}
	})
	for _, c := range connections {
		if process := owners.first(c.Inode); process != nil {
			c.Pid, c.Exe, c.Cmdline = process.PID, process.Exe(), process.Cmdline()
		}
	}
	return connections, errors.Join(err, walkErr)
}

// readTable reads the sockets in the file, without their processes.
func (p *Protocol) readTable(path string) ([]*Connection, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the %s table: %w", p.Name, err)
	}
	defer file.Close()

	var (
		rows        procfs.RowReader
		connections []*Connection
		broken      errorSummary
		users       = map[uint32]string{}
	)
	err = rows.Each(file, func(line int, text []byte, err error) bool {
		c := &Connection{Cmdline: []string{}, Protocol: p}
		if err == nil {
			err = c.parse(text, users)
		}
		if err != nil {
			broken.add(fmt.Errorf("%s:%d: %w", path, line, err))
			return true
		}
		connections = append(connections, c)
		return true
	})
	if errors.Is(err, procfs.ErrNoContent) {
		return nil, fmt.Errorf("reading the %s table: %s has no content", p.Name, path) // the text of version 1
	}
	if err != nil {
		return connections, fmt.Errorf("reading %s: %w", path, err)
	}
	return connections, broken.err()
}

// parse fills c from a row. users caches the texts of user ids.
func (c *Connection) parse(text []byte, users map[uint32]string) error {
	var row procfs.InetRow
	// Connection has no drops. TCP rows have another number in that column.
	if err := row.ParseWithDrops(text, hostOrder); err != nil {
		return err
	}
	userID, known := users[row.UID]
	if !known {
		userID = strconv.FormatUint(uint64(row.UID), 10)
		users[row.UID] = userID
	}
	c.UserID, c.Inode, c.State = userID, row.Inode, TCPState(row.State)
	c.IP, c.RemoteIP = net.IP(row.Local.Addr().AsSlice()), net.IP(row.Remote.Addr().AsSlice())
	c.Port, c.RemotePort = int(row.Local.Port()), int(row.Remote.Port())
	c.TransmitQueue, c.ReceiveQueue = uint64(row.TxQueue), uint64(row.RxQueue)
	return nil
}

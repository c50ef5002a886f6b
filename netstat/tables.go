package netstat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// errStopped means that the caller ended the iteration.
var errStopped = errors.New("stopped")

// each fills s.socket with each socket of the transport and calls handOut, or calls it with the error of a socket that could
// not be decoded. It stops with errStopped when handOut returns false.
func (s *Scanner) each(ctx context.Context, transport Transport, handOut func(error) bool) error {
	if s.namespaces.sourceOf(s.reading, transport) == SourceNetlink {
		err := s.eachFromNetlink(ctx, transport, handOut)
		if !errors.Is(err, errNoDiag) {
			s.used[SourceNetlink] = true
			s.fallbacks.markAvailable(fallbackTransports[transport])
			return err
		}
		if s.config.Source == SourceNetlink {
			return requiredError("source", SourceNetlink.String(), s.noModule(transport, err))
		}
		s.namespaces.noDiag[transport] = true
		s.fallbacks.markUnavailable(fallbackTransports[transport], fmt.Errorf("reading %s sockets from /proc/net: %w", transport,
			s.noModule(transport, err)))
	}
	if s.config.Source == SourceNetlink {
		return requiredError("source", SourceNetlink.String(), s.reading.errNoNetlink())
	}
	s.used[SourceProcfs] = true
	return s.eachFromProcfs(ctx, transport, handOut)
}

// tables are the files in the proc file system that contain the sockets of a transport.
var tables = map[Transport][]string{
	TransportTCP:     {TCP.RelPath, TCP6.RelPath},
	TransportUDP:     {UDP.RelPath, UDP6.RelPath},
	TransportUDPLite: {UDPLite.RelPath, UDPLite6.RelPath},
	TransportRaw:     {Raw.RelPath, Raw6.RelPath},
	TransportICMP:    {ICMP.RelPath, ICMP6.RelPath},
	TransportUnix:    {"net/unix"},
}

// eachFromProcfs implements each with the tables in the proc file system.
func (s *Scanner) eachFromProcfs(ctx context.Context, transport Transport, handOut func(error) bool) error {
	s.socket.NetNS = s.reading.Inode
	if s.reading.Self {
		s.socket.NetNS = s.procNetNS
	}
	var failed [2]error // of each table one, though both passes may fail
	for _, pass := range s.rowOrder.passes(transport) {
		for i, table := range tables[transport] {
			err := s.eachFromTable(ctx, transport, table, pass, handOut)
			switch {
			case err == nil:
			case errors.Is(err, errStopped), errors.Is(err, errNamespaceGone), ctx.Err() != nil:
				return err
			case errors.Is(err, fs.ErrNotExist) && i > 0: // a kernel without IPv6
			case errors.Is(err, fs.ErrNotExist) && transport != TransportTCP:
				s.fallbacks.warnOnce(table, fmt.Errorf("the kernel has no %s sockets: %w", transport, err))
			default:
				failed[i] = err
			}
		}
	}
	return errors.Join(failed[:]...)
}

func (s *Scanner) eachFromTable(ctx context.Context, transport Transport, table string, pass rowPass, handOut func(error) bool) error {
	file, err := s.namespaces.openTable(s.reading, table)
	if err != nil {
		return fmt.Errorf("opening the %s table: %w", transport, err)
	}
	defer file.Close()
	path := file.Name()

	var broken errorSummary
	stopped, sawOthers := false, false
	const checkEvery = 1024 // rows
	err = s.rows.Each(file, func(line int, text []byte, err error) bool {
		if line%checkEvery == 0 && ctx.Err() != nil {
			return false
		}
		if err == nil {
			err = s.socket.parseRow(text, transport)
		}
		if errors.Is(err, procfs.ErrNotUnixRow) {
			return true
		}
		if err != nil {
			broken.add(fmt.Errorf("%s:%d: %w", path, line, err))
			return true
		}
		if transport == TransportTCP {
			listens := s.socket.State == TCPListen
			s.rowOrder.broken = s.rowOrder.broken || listens && sawOthers
			sawOthers = sawOthers || !listens
			if !pass.yields(listens) {
				return true
			}
		}
		if transport == TransportUnix && s.config.UnixPaths {
			s.socket.Path = s.paths.get(procfs.ParseUnixPath(text))
		}
		if transport == TransportICMP && s.sawPing(s.socket.Inode) {
			return true
		}
		stopped = !handOut(nil)
		return !stopped
	})
	switch {
	case stopped:
		return errStopped
	case err != nil:
		return fmt.Errorf("reading %s: %w", path, err)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if err := broken.err(); err != nil && pass != passListening && !handOut(err) { // once, though both passes find the rows
		return errStopped
	}
	s.rowOrder.read = s.rowOrder.read || transport == TransportTCP
	return nil
}

// hostOrder is the byte order of this host: binary.LittleEndian or binary.BigEndian. /proc/net prints addresses as words of it.
var hostOrder = func() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}()

// parseRow fills s from a row, without its path. After an error s is invalid.
func (s *Socket) parseRow(text []byte, transport Transport) (err error) {
	switch transport {
	case TransportUnix:
		var row procfs.UnixRow
		if err = row.Parse(text); err == nil {
			s.setUnixRow(&row)
		}
	case TransportTCP:
		var row procfs.InetRow
		if err = row.Parse(text, hostOrder); err == nil {
			s.setInetRow(transport, &row)
		}
	default:
		var row procfs.InetRow
		if err = row.ParseWithDrops(text, hostOrder); err == nil {
			s.setInetRow(transport, &row)
		}
	}
	return err
}

func (s *Socket) setInetRow(transport Transport, row *procfs.InetRow) {
	family := FamilyIPv6
	if row.Local.Addr().Is4() {
		family = FamilyIPv4
	}
	s.reset(transport, family)
	s.Local, s.Remote, s.State, s.UID, s.Inode = row.Local, row.Remote, TCPState(row.State), row.UID, row.Inode
	s.setQueues(row.RxQueue, row.TxQueue)
	if row.HasDrops {
		s.Drops = row.Drops
		s.fields |= FieldDrops
	}
}

func (s *Socket) setUnixRow(row *procfs.UnixRow) {
	s.reset(TransportUnix, FamilyUnix)
	s.Inode = row.Inode
	switch {
	case row.Flags&procfs.SOAcceptCon != 0:
		s.State = TCPListen
	case row.State == procfs.SSConnecting || row.State == procfs.SSConnected:
		s.State = TCPEstablished
	default:
		s.State = TCPClose
	}
}

// sawPing reports whether the ping socket was yielded before. The kernel lists a ping socket in the tables of both families if
// one of the other family has the same identifier: ping_get_next (net/ipv4/ping.c) does not check the family.
func (s *Scanner) sawPing(inode uint64) bool {
	if slices.Contains(s.pings, inode) {
		return true
	}
	s.pings = append(s.pings, inode)
	return false
}

// rowOrder is what is known of the order of rows in the tables of TCP sockets. Linux writes listening sockets first
// (tcp_seq_start, net/ipv4/tcp_ipv4.c). A copy of a proc file system promises no order, and neither does a kernel that imitates
// Linux, as gVisor, whose proc file system is mounted too.
type rowOrder struct {
	isCopy  bool
	read    bool // a table was read to its end
	checked bool // in an earlier scan
	broken  bool // in a table a listening socket came after another one
}

// nextScan starts a scan.
func (o *rowOrder) nextScan() { o.checked = o.read }

// passes returns the passes over the tables of a transport. The order matters only for TCP. The first scan reads the listening
// sockets in a pass of their own, because it cannot know the order before.
func (o *rowOrder) passes(transport Transport) []rowPass {
	if transport != TransportTCP || !o.isCopy && o.checked && !o.broken {
		return onePass
	}
	return twoPasses
}

// rowPass is a pass over a table.
type rowPass uint8

const (
	passAll       rowPass = iota // yields all sockets
	passListening                // only those that listen
	passOthers                   // the others
)

var onePass, twoPasses = []rowPass{passAll}, []rowPass{passListening, passOthers}

// yields reports whether the pass yields a socket that listens, or one that does not.
func (p rowPass) yields(listens bool) bool { return p == passAll || listens == (p == passListening) }

package netstat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// errStopped says that the caller wanted no more sockets.
var errStopped = errors.New("stopped")

// each fills s.socket with one socket of the transport after the other and calls handOut, which may return false to
// stop; or calls it with the error of a socket that could not be decoded.
func (s *Scanner) each(ctx context.Context, transport Transport, handOut func(error) bool) error {
	s.socket.Namespace = s.reading
	if s.SourceOf(s.reading, transport) == SourceNetlink {
		err := s.eachOfNetlink(ctx, transport, handOut)
		if !errors.Is(err, errNoDiag) {
			s.used[SourceNetlink] = true
			s.fallbacks.restore(fallbackTransports[transport])
			return err
		}
		if s.config.Source == SourceNetlink {
			return requiredError("source", SourceNetlink.String(), s.noModule(transport, err))
		}
		s.noDiag[transport] = true
		s.fallbacks.refuse(fallbackTransports[transport], fmt.Errorf("reading %s sockets from /proc/net: %w", transport,
			s.noModule(transport, err)))
	}
	if s.config.Source == SourceNetlink {
		return requiredError("source", SourceNetlink.String(), s.reading.errNoNetlink())
	}
	s.used[SourceProcfs] = true
	return s.eachOfProcfs(ctx, transport, handOut)
}

// tables names the files in the proc file system that together give all sockets of a transport.
var tables = map[Transport][]string{
	TransportTCP:     {TCP.RelPath, TCP6.RelPath},
	TransportUDP:     {UDP.RelPath, UDP6.RelPath},
	TransportUDPLite: {UDPLite.RelPath, UDPLite6.RelPath},
	TransportRaw:     {Raw.RelPath, Raw6.RelPath},
	TransportICMP:    {ICMP.RelPath, ICMP6.RelPath},
	TransportUnix:    {"net/unix"},
}

// eachOfProcfs is each for the tables in the proc file system.
func (s *Scanner) eachOfProcfs(ctx context.Context, transport Transport, handOut func(error) bool) error {
	s.socket.NetNS = s.reading.Inode
	if s.reading.Self {
		s.socket.NetNS = s.procNetNS
	}
	var failed []error
	for i, table := range tables[transport] {
		err := s.eachOfTable(ctx, transport, table, handOut)
		switch {
		case err == nil:
		case errors.Is(err, errStopped), errors.Is(err, errNamespaceGone), ctx.Err() != nil:
			return err
		case errors.Is(err, fs.ErrNotExist) && i > 0: // a kernel without IPv6
		case errors.Is(err, fs.ErrNotExist) && transport != TransportTCP:
			s.fallbacks.say(table, fmt.Errorf("the kernel has no %s sockets: %w", transport, err))
		default:
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (s *Scanner) eachOfTable(ctx context.Context, transport Transport, table string, handOut func(error) bool) error {
	file, err := s.namespaces.openTable(s.reading, table)
	if err != nil {
		return fmt.Errorf("opening the %s table: %w", transport, err)
	}
	defer file.Close()
	path := file.Name()

	var broken brokenRows
	stopped := false
	const checkEvery = 1024 // rows
	err = s.rows.each(file, func(line int, text []byte, err error) bool {
		if line%checkEvery == 0 && ctx.Err() != nil {
			return false
		}
		if err == nil && transport == TransportUnix {
			err = parseUnixRow(text, &s.socket)
			if s.config.UnixPaths {
				s.socket.Path = parseUnixPath(text)
			}
		} else if err == nil {
			err = parseInetRow(text, transport, hostOrder, &s.socket)
		}
		if errors.Is(err, errNotUnixRow) {
			return true
		}
		if err != nil {
			broken.add(path, line, err)
			return true
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
	if err := broken.err(); err != nil && !handOut(err) {
		return errStopped
	}
	return nil
}

// sawPing tells whether the ping socket was handed out before. The kernel shows a ping socket in the tables of both
// families if one of the other family has the same identifier: ping_get_next (net/ipv4/ping.c) does not look at the family.
func (s *Scanner) sawPing(inode uint64) bool {
	if slices.Contains(s.pings, inode) {
		return true
	}
	s.pings = append(s.pings, inode)
	return false
}

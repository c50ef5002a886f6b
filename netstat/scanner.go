package netstat

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// Source is the kernel interface that the sockets are read from.
type Source uint8

// The sources of sockets.
const (
	// SourceAuto uses sock_diag(7), and /proc/net where the kernel refuses that, for each namespace and transport. It
	// retries sock_diag every five minutes. A copy of a proc file system is read as one.
	SourceAuto Source = iota
	// SourceNetlink requires sock_diag(7): [NewScanner] fails without it.
	SourceNetlink
	// SourceProcfs reads the tables in /proc/net.
	SourceProcfs
	// SourceMixed is only a result, in [ScanStats]: some tables came from sock_diag, others from /proc/net.
	SourceMixed
)

var sourceNames = [...]string{SourceAuto: "auto", SourceNetlink: "netlink", SourceProcfs: "procfs", SourceMixed: "mixed"}

// String returns the source's name, and Source(n) for an invalid number.
func (s Source) String() string { return enumName("Source", s, sourceNames[:]) }

// MarshalText returns the source's name.
func (s Source) MarshalText() ([]byte, error) { return marshalEnum("Source", s, sourceNames[:]) }

// UnmarshalText sets the source by its name: auto, netlink or procfs.
func (s *Source) UnmarshalText(name []byte) error {
	return unmarshalEnum(s, name, sourceNames[:SourceMixed])
}

// ScannerConfig configures a [Scanner]. The zero value reads the TCP and UDP sockets of the own network namespace and looks up their
// owners, by the best methods that work.
type ScannerConfig struct {
	// ProcRoot is the proc file system to read; "/proc" if empty.
	ProcRoot string
	// Namespaces are the network namespaces to read: NamespaceSelf, NamespaceHost, NamespaceAll, names in /run/netns, and
	// pids; NamespaceSelf if empty. Every scan resolves them anew. Those that do not exist or cannot be read are reported to
	// Warn.
	Namespaces []string
	// Transports to read, in this order; TCP and UDP if empty.
	Transports []Transport
	// Source of the sockets.
	Source Source
	// OwnerMethod is the method of finding the processes that hold the sockets.
	OwnerMethod OwnerMethod
	// TCPInfo requests Socket.TCP, which makes the kernel's answers two to three times as long.
	TCPInfo bool
	// UnixPaths requests Socket.Path, which allocates for each unix socket that has one.
	UnixPaths bool
	// TCPFilter skips TCP connections that do not match; with sock_diag the kernel applies it. Nil matches all. Listening
	// sockets and those of other transports are not filtered.
	TCPFilter *Filter
	// Closed requests the TCP sockets that the kernel has destroyed since the last scan: see "Closed sockets" in the package
	// documentation.
	Closed ClosedMode
	// Warn, if not nil, is called once for each thing that the scanner falls back from or lacks: a source, a table, a
	// privilege. It is called again only if the thing has worked meanwhile.
	Warn func(error)
}

// Scanner reads the sockets of network namespaces repeatedly. It keeps netlink sockets, buffers and processes from scan to scan. It
// must be closed. It is not safe for concurrent use.
//
// Its own namespace is that of the thread that called NewScanner with sock_diag, and that of the process with /proc/net.
type Scanner struct {
	config     ScannerConfig
	namespaces namespaces
	reading    *trackedNamespace
	used       [len(sourceNames)]bool // sources of the tables of this scan
	openDiag   func() (diagConn, error)
	// bytecode is config.TCPFilter for the kernel; nil: the scanner applies the filter.
	bytecode []byte
	rows     procfs.RowReader
	pings    []uint64 // inodes of the ping sockets of a scan; few

	procNetNS uint64 // inode number of the network namespace of /proc/net

	finder    ownerFinder
	processes *processCache
	owners    ownerTable
	connects  connects
	budget    *closedBudget
	current   currentSocket
	socket    Socket
	late      lateSockets
	live      bool // the proc file system is mounted, not a copy

	fallbacks *fallbacks
	stats     ScanStats
	isClosed  bool
}

// ScanStats are the statistics of a scan.
type ScanStats struct {
	Source      Source      // source of the tables; SourceMixed if they differ
	OwnerMethod OwnerMethod // method that was used
	Sockets     int         // live sockets returned
	Processes   int         // processes that hold a socket
	Denied      int         // processes whose descriptors cannot be read for want of a capability
	ClosedLost  int         // TCP sockets destroyed since the last scan whose events were lost
	Interrupted int         // tables that changed during the dump (NLM_F_DUMP_INTR): sockets may be missing
}

// TableError is the error of reading the sockets of one transport in one network namespace. Some of them may have been returned.
type TableError struct {
	Namespace *Namespace
	Transport Transport
	Err       error
}

func (e *TableError) Error() string {
	if e.Namespace == nil || e.Namespace.Self {
		return e.Err.Error()
	}
	return fmt.Sprintf("network namespace %s: %v", e.Namespace, e.Err)
}

// Unwrap returns Err.
func (e *TableError) Unwrap() error { return e.Err }

// NewScanner returns a scanner. What the kernel refuses or lacks is reported to config.Warn, replaced by the next best method, and
// retried every five minutes. It fails only for an invalid configuration, a required method that does not work, and exhausted
// resources (EMFILE, ENOMEM).
func NewScanner(config ScannerConfig) (*Scanner, error) {
	if config.ProcRoot == "" {
		config.ProcRoot = "/proc"
	}
	if len(config.Transports) == 0 {
		config.Transports = []Transport{TransportTCP, TransportUDP}
	}
	config.Transports = slices.Clone(config.Transports)
	if config.Namespaces = slices.Clone(config.Namespaces); len(config.Namespaces) == 0 {
		config.Namespaces = []string{NamespaceSelf}
	}
	if err := config.check(); err != nil {
		return nil, err
	}
	s := &Scanner{config: config, live: procfs.IsMounted(config.ProcRoot), fallbacks: newFallbacks(config.Warn)}
	s.openDiag = diagOpener(s.prefetchOwners)
	s.bytecode = config.TCPFilter.bytecode()
	s.budget = newClosedBudget(maxClosed)
	s.processes = newProcessCache(config.ProcRoot, s.fallbacks.warnOnce)
	s.socket.scan = &s.current
	err := s.openFinder()
	if err == nil {
		err = s.openNamespaces()
	}
	if err == nil && config.Source == SourceNetlink {
		err = s.requireNetlink()
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	s.warnOfHidden()
	return s, nil
}

// check validates the configuration.
func (c *ScannerConfig) check() error {
	for i, transport := range c.Transports {
		if tables[transport] == nil {
			return fmt.Errorf("%s is not a transport", transport)
		}
		if slices.Contains(c.Transports[:i], transport) {
			return fmt.Errorf("transport %s is given twice", transport)
		}
	}
	for _, name := range c.Namespaces {
		if err := CheckNamespace(name); err != nil {
			return fmt.Errorf("network namespace %w", err)
		}
	}
	if int(c.OwnerMethod) >= len(ownerMethodNames) {
		return fmt.Errorf("%s is not an owner method", c.OwnerMethod)
	}
	if c.Source >= SourceMixed {
		return fmt.Errorf("%s is not a source", c.Source)
	}
	if c.Source == SourceNetlink && !procfs.IsMounted(c.ProcRoot) {
		return requiredError("source", SourceNetlink.String(),
			fmt.Errorf("sock_diag reads the running kernel, but %s is not its proc file system", c.ProcRoot))
	}
	return c.checkClosed()
}

// Close releases the resources of the scanner. It can be called repeatedly. A scan after it yields [os.ErrClosed].
func (s *Scanner) Close() error {
	if s.isClosed {
		return nil
	}
	s.isClosed = true
	s.finder.close()
	s.namespaces.close()
	s.connects.Close()
	return nil
}

// Stats returns the statistics of the last scan.
func (s *Scanner) Stats() ScanStats { return s.stats }

// Namespaces returns the network namespaces of the last scan in the order in which it read them.
func (s *Scanner) Namespaces() []*Namespace {
	read := make([]*Namespace, len(s.namespaces.known))
	for i, n := range s.namespaces.known {
		read[i] = s.namespaces.handOut(n)
	}
	return read
}

// Sockets looks up the owners, then iterates over the sockets by namespace and transport. Each step fills the same [Socket].
// Listening TCP sockets come before connections: with sock_diag before all, with /proc/net before those of their family. Other
// sockets without an owner come last in their namespace. If they are many, they were probably opened since the lookup, and Sockets
// looks up the owners again.
//
// With ScannerConfig.Closed the closed sockets of a namespace follow its live ones, those that never had a peer first. Those of a
// namespace that has ended come first of all.
//
// An error has a nil socket. It is a [*TableError] for the sockets of a transport, another error for the owners or for a socket that
// cannot be decoded. The loop can continue with what works. The error of ctx is the last one, and so is [os.ErrClosed] after Close.
func (s *Scanner) Sockets(ctx context.Context) iter.Seq2[*Socket, error] {
	return func(yieldTo func(*Socket, error) bool) {
		yield := func(socket *Socket, err error) bool {
			if !yieldTo(socket, err) {
				return false
			}
			if s.isClosed { // in the loop
				yieldTo(nil, errScannerClosed)
				return false
			}
			return true
		}
		if s.isClosed {
			yieldTo(nil, errScannerClosed)
			return
		}
		s.stats = ScanStats{Source: s.stats.Source, OwnerMethod: s.stats.OwnerMethod}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
			return
		}
		s.used = [len(s.used)]bool{}
		defer s.noteSource()
		s.retryRefused()
		errNamespaces, errOwners := s.namespaces.find(), s.findOwners(ctx)
		s.late.looked = errOwners != nil
		if errors.Is(errOwners, ctx.Err()) { // the last, as below
			errOwners = nil
		}
		for _, err := range []error{errNamespaces, errOwners} {
			if err != nil && !yield(nil, err) {
				return
			}
		}
		if !s.handOutEnded(ctx, yield) {
			return
		}
		if err := s.namespaces.enterFound(); err != nil && !yield(nil, err) {
			return
		}
		handOut := func(err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			if s.isFiltered(&s.socket) {
				return true
			}
			if s.live && s.current.table != nil && s.late.hold(&s.socket) {
				return true
			}
			s.stats.Sockets++
			return yield(&s.socket, nil)
		}
		for _, s.reading = range slices.Clone(s.namespaces.known) {
			namespace := s.namespaces.handOut(s.reading)
			s.socket.Namespace = namespace
			s.pings = s.pings[:0]
			s.late.begin(s.stats.Sockets)
		transports:
			for _, transport := range s.config.Transports {
				err := ctx.Err()
				if err == nil {
					err = s.each(ctx, transport, handOut)
				}
				switch {
				case err == nil:
				case errors.Is(err, errNamespaceGone):
					s.namespaces.forget(s.reading)
					break transports
				case errors.Is(err, errStopped):
					return
				case errors.Is(err, ctx.Err()):
					yield(nil, err)
					return
				case !yield(nil, &TableError{namespace, transport, err}):
					return
				}
			}
			if !s.handOutLate(ctx, yield) || !s.handOutClosed(ctx, s.reading, namespace, yield) {
				return
			}
		}
	}
}

// isFiltered reports whether config.TCPFilter skips the socket. It does not repeat what the kernel has filtered.
func (s *Scanner) isFiltered(socket *Socket) bool {
	if s.config.TCPFilter == nil || socket.Transport != TransportTCP || socket.State == TCPListen {
		return false
	}
	byKernel := s.bytecode != nil && s.namespaces.sourceOf(s.reading, TransportTCP) == SourceNetlink
	return !byKernel && !s.config.TCPFilter.Match(socket)
}

var errScannerClosed = fmt.Errorf("scanning the sockets: %w", os.ErrClosed)

// noteSource sets ScanStats.Source.
func (s *Scanner) noteSource() {
	switch {
	case s.used[SourceNetlink] && s.used[SourceProcfs]:
		s.stats.Source = SourceMixed
	case s.used[SourceProcfs]:
		s.stats.Source = SourceProcfs
	case s.used[SourceNetlink]:
		s.stats.Source = SourceNetlink
	}
}

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
	// SourceAuto uses SourceNetlink where it works and SourceProcfs otherwise, separately for each namespace and transport. It
	// retries netlink every five minutes. A copy of a proc file system is always read with SourceProcfs.
	SourceAuto Source = iota
	// SourceNetlink dumps the tables with sock_diag(7). [NewScanner] fails if sock_diag does not work.
	SourceNetlink
	// SourceProcfs reads the tables in /proc/net.
	SourceProcfs
	// SourceMixed appears only in [ScanStats]: some tables came from netlink and others from procfs.
	SourceMixed
)

var sourceNames = [...]string{SourceAuto: "auto", SourceNetlink: "netlink", SourceProcfs: "procfs", SourceMixed: "mixed"}

// String returns the source's name, or Source(n) for an invalid value.
func (s Source) String() string { return enumName("Source", s, sourceNames[:]) }

// MarshalText returns the source's name. It fails for an invalid value.
func (s Source) MarshalText() ([]byte, error) { return marshalEnum("Source", s, sourceNames[:]) }

// UnmarshalText sets the source by its name: "auto", "netlink" or "procfs". Any other name is an error.
func (s *Source) UnmarshalText(name []byte) error {
	return unmarshalEnum(s, name, sourceNames[:SourceMixed])
}

// ScannerConfig configures a [Scanner]. The zero value reads the TCP and UDP sockets of the reader's own network namespace, with
// the cheapest source and owner method that work.
type ScannerConfig struct {
	// ProcRoot is the mount point of the proc file system to read, or a copy of one; "/proc" if empty.
	ProcRoot string
	// Namespaces are the network namespaces to read: NamespaceSelf, NamespaceHost, NamespaceAll, names in /run/netns, and
	// pids; NamespaceSelf if empty. Every scan looks them up again. Warn is called for a namespace that does not exist or
	// cannot be read.
	Namespaces []string
	// Transports are the transports to read, in this order; TCP and UDP if empty.
	Transports []Transport
	// Source of the sockets.
	Source Source
	// OwnerMethod selects how the scanner finds the processes that hold the sockets.
	OwnerMethod OwnerMethod
	// TCPInfo requests Socket.TCP, which makes the kernel's messages two to three times as long.
	TCPInfo bool
	// UnixPaths requests Socket.Path. The scanner keeps the strings of up to 65,536 names from scan to scan.
	UnixPaths bool
	// TCPFilter drops the TCP connections that it does not match; nil drops none. With sock_diag the kernel runs the filter.
	// Listening sockets and other transports are never dropped.
	TCPFilter *Filter
	// Limits requests [Namespace.Limits]. Scans read them at most once a minute: the kernel shows them only to a thread that has
	// entered the namespace.
	Limits bool
	// Closed adds the TCP sockets that the kernel has destroyed since the last scan: see "Closed sockets" in the package
	// documentation.
	Closed ClosedMode
	// Warn, if not nil, is called once for each feature that is unavailable: a source that the scanner replaced by another, a
	// table that the kernel does not have, a missing privilege. It is called again if the feature worked in between. Calls come
	// from within NewScanner, a scan, or a method of [Process].
	Warn func(error)
}

// Scanner reads the sockets of network namespaces repeatedly. It keeps its netlink sockets, its buffers and its processes from
// scan to scan. It is not safe for concurrent use. Call Close when done.
//
// The reader's own namespace is with netlink that of the thread that called NewScanner, with procfs that of the process.
type Scanner struct {
	config     ScannerConfig
	namespaces namespaces
	reading    *trackedNamespace
	used       [len(sourceNames)]bool // sources of the tables that this scan has read
	openDiag   func() (diagConn, error)
	// bytecode is config.TCPFilter compiled for the kernel; nil: only Filter.Match runs.
	bytecode []byte
	rows     procfs.RowReader
	rowOrder rowOrder
	paths    pathTable
	pings    []uint64 // inodes of the ping sockets of a namespace; there are few

	procNetNS uint64 // inode of the network namespace that /proc/net shows

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

// ScanStats describes a scan.
type ScanStats struct {
	Source      Source      // source of the tables; SourceMixed if there were several
	OwnerMethod OwnerMethod // method used
	Sockets     int         // sockets returned, closed ones excluded
	Processes   int         // processes that hold a socket
	Denied      int         // processes whose descriptors could not be read for lack of privilege; 0 with OwnersBPF
	ClosedLost  int         // destroyed TCP sockets that were lost since the last scan: a buffer was full
	Initiators  bool        // a BPF program records attempts to connect: see [Socket.Initiator], [Socket.Attempt]
	Interrupted int         // tables that changed during the dump (NLM_F_DUMP_INTR): sockets may be missing or repeated
	// AttemptsLost is the number of failed attempts to connect, and of connections that were reset or timed out, that were lost since
	// the last scan: a buffer was full. It counts those of all network namespaces of the host.
	AttemptsLost int
}

// TableError is the error of a table of sockets that could not be read, or not completely.
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

// NewScanner returns a scanner. It replaces a source or owner method that is not permitted or not available by the next one,
// calls config.Warn, and retries every five minutes. It fails for an invalid configuration, for a source or owner method that the
// configuration names and that does not work, and for exhausted resources (EMFILE, ENOMEM).
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
	s.rowOrder.isCopy = !s.live
	s.openDiag = diagOpener(s.prefetchOwners)
	s.bytecode = config.TCPFilter.bytecode()
	s.budget = newClosedBudget(maxClosed)
	s.processes = newProcessCache(config.ProcRoot, s.fallbacks.warnOnce)
	s.current.connects, s.current.processes = &s.connects, s.processes
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
	s.warnIfHidden()
	return s, nil
}

// check returns an error if the configuration is invalid.
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

// Close releases the scanner's resources; it always returns nil. Further calls do nothing. A scan after Close yields an error
// that is [os.ErrClosed].
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

// Stats describes the last scan.
func (s *Scanner) Stats() ScanStats { return s.stats }

// Namespaces returns the network namespaces that the last scan has read, in the order in which it read them, in their state after
// the scan.
func (s *Scanner) Namespaces() []*Namespace {
	read := make([]*Namespace, len(s.namespaces.known))
	for i, n := range s.namespaces.known {
		read[i] = s.namespaces.handOut(n)
	}
	return read
}

// Sockets looks up the owners and then iterates over the sockets, namespace by namespace and transport by transport. All
// iterations fill the same [Socket].
//
// Listening TCP sockets precede the connections of their namespace: with netlink and from a copy of a proc file system all of
// them, from /proc/net those of the same family. Linux writes /proc/net in this order, other kernels may not: the first scan
// reads the listening sockets in a pass of their own, and every scan checks the order. Once it is found broken, all scans take
// two passes; only the scan that finds it, unless it is the first, can yield a listening socket late.
//
// Sockets that do not listen and have no known owner come last in their namespace. If there are many of these, Sockets looks up
// the owners again, as most of these sockets were opened after the first lookup.
//
// With [ScannerConfig].Closed the closed TCP sockets of a namespace follow its live sockets: first those that never had a peer,
// then the others, each in the order of their destruction. Closed sockets of a namespace that has ended come before all others.
//
// An error means that one part failed; its socket is nil. It is a [*TableError] for a table, and another error for the owners or
// for a socket that could not be decoded. The caller may continue: the other parts follow. The error of ctx and [os.ErrClosed]
// end the iteration.
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
		s.stats = ScanStats{Source: s.stats.Source, OwnerMethod: s.stats.OwnerMethod, Initiators: s.stats.Initiators}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
			return
		}
		s.used = [len(s.used)]bool{}
		s.paths.nextScan()
		s.rowOrder.nextScan()
		defer s.setSource()
		defer func() { s.stats.AttemptsLost = s.connects.takeLost() }()
		s.retryRefused()
		errNamespaces, errOwners := s.namespaces.find(), s.findOwners(ctx)
		s.late.lookedUp = errOwners != nil
		if errors.Is(errOwners, ctx.Err()) { // yielded below, as the last error
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
		s.namespaces.refreshLimits()
		handOut := func(err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			if s.filteredOut(&s.socket) {
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
			s.reading.devices.nextScan()
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

// filteredOut reports whether config.TCPFilter drops the socket. If the kernel has run the filter, it is not run again.
func (s *Scanner) filteredOut(socket *Socket) bool {
	if s.config.TCPFilter == nil || socket.Transport != TransportTCP || socket.State == TCPListen {
		return false
	}
	byKernel := s.bytecode != nil && s.namespaces.sourceOf(s.reading, TransportTCP) == SourceNetlink
	return !byKernel && !s.config.TCPFilter.Match(socket)
}

var errScannerClosed = fmt.Errorf("scanning the sockets: %w", os.ErrClosed)

// setSource sets the source in the statistics of the scan.
func (s *Scanner) setSource() {
	switch {
	case s.used[SourceNetlink] && s.used[SourceProcfs]:
		s.stats.Source = SourceMixed
	case s.used[SourceProcfs]:
		s.stats.Source = SourceProcfs
	case s.used[SourceNetlink]:
		s.stats.Source = SourceNetlink
	}
}

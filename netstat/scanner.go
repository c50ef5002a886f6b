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

// Source is where the sockets are read from.
type Source uint8

// The sources of sockets.
const (
	// SourceAuto is the first of SourceNetlink and SourceProcfs that works, for each namespace and transport. What was
	// refused is tried again every five minutes. A copy of a proc file system is read by SourceProcfs.
	SourceAuto Source = iota
	// SourceNetlink asks the kernel through sock_diag(7), and is required: [NewScanner] fails where that does not work.
	SourceNetlink
	// SourceProcfs reads the tables in /proc/net.
	SourceProcfs
	// SourceMixed is what [ScanStats] says where some tables came from netlink and others from procfs.
	SourceMixed
)

var sourceNames = [...]string{SourceAuto: "auto", SourceNetlink: "netlink", SourceProcfs: "procfs", SourceMixed: "mixed"}

// String returns the source's name, and Source(n) for a number that is not a source.
func (s Source) String() string { return enumName("Source", s, sourceNames[:]) }

// MarshalText returns the source's name.
func (s Source) MarshalText() ([]byte, error) { return marshalEnum("Source", s, sourceNames[:]) }

// UnmarshalText sets the source to the one with the name; "mixed" is not one to ask for.
func (s *Source) UnmarshalText(name []byte) error {
	return unmarshalEnum(s, name, sourceNames[:SourceMixed])
}

// ScannerConfig says what a [Scanner] reads. The zero value reads the TCP and UDP sockets in the best way that works.
type ScannerConfig struct {
	// ProcRoot is the proc file system to read; "/proc" if empty.
	ProcRoot string
	// Namespaces are the network namespaces to read: NamespaceSelf, NamespaceHost, NamespaceAll, names in /run/netns, and
	// pids; NamespaceSelf if empty. They are looked for in every scan. One that is not there, or may not be read, is said
	// to Warn.
	Namespaces []string
	// Transports to read, in this order; TCP and UDP if empty.
	Transports []Transport
	// Source of the sockets.
	Source Source
	// OwnerMethod is the way to find the processes behind the sockets.
	OwnerMethod OwnerMethod
	// TCPInfo asks for Socket.TCP, which makes the answers of the kernel two to three times as long.
	TCPInfo bool
	// UnixPaths asks for Socket.Path, which makes garbage for each unix socket that has one.
	UnixPaths bool
	// TCPFilter leaves out the TCP connections that the filter does not want, by the kernel itself where it is asked
	// through sock_diag; nil wants all. Listening sockets and those of other transports are handed out in any case.
	TCPFilter *Filter
	// Closed asks for the TCP sockets that the kernel has destroyed since the scan before as well: see "Closed sockets" in the
	// package's documentation.
	Closed ClosedMode
	// Warn is called with each thing that the scanner has to do without, once, and again if it worked meanwhile: a source that had to be replaced, a
	// table that the kernel does not have, what may not be read of processes. Nil: nobody is told.
	Warn func(error)
}

// Scanner reads the sockets of network namespaces, again and again: it keeps its netlink sockets, its buffers and what it
// knows of the processes. It is not for concurrent use. It must be closed.
//
// Its own namespace is from netlink that of the thread that called NewScanner, from procfs that of the process.
type Scanner struct {
	config     ScannerConfig
	namespaces namespaces
	reading    *trackedNamespace
	used       [len(sourceNames)]bool // sources of the tables of this scan
	openDiag   func() (diagConn, error)
	// bytecode is config.Connections for the kernel; nil if it is to be done here.
	bytecode []byte
	rows     procfs.RowReader
	pings    []uint64 // inodes of the ping sockets of a scan, which are few

	procNetNS uint64 // the network namespace that /proc/net tells of

	finder    ownerFinder
	processes *processCache
	owners    ownerTable
	connects  connects
	budget    *closedBudget
	current   currentSocket
	socket    Socket
	late      lateSockets
	live      bool // the proc file system is none that stays as it is

	fallbacks *fallbacks
	stats     ScanStats
	isClosed  bool
}

// ScanStats tells how a scan went.
type ScanStats struct {
	Source      Source      // that the tables were read from; SourceMixed if not all from the same
	OwnerMethod OwnerMethod // that was used
	Sockets     int         // sockets handed out, without closed ones
	Processes   int         // processes that hold a socket
	Denied      int         // processes whose descriptors may not be read: a capability is missing
	ClosedLost  int         // TCP sockets that were destroyed since the scan before, and that the kernel had no room to tell of
	Interrupted int         // tables that changed while they were dumped (NLM_F_DUMP_INTR): sockets may be missing
}

// TableError says that the sockets of a transport in a network namespace could not be read, or not all of them.
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

// Unwrap returns what went wrong.
func (e *TableError) Unwrap() error { return e.Err }

// NewScanner returns a scanner. Whatever is not permitted or not there is replaced by the next best and reported to
// config.Warn, and tried again every five minutes. It fails for an invalid configuration, where a source or a way to find owners
// that the configuration names does not work, and for exhausted resources (EMFILE, ENOMEM).
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
	s.processes = newProcessCache(config.ProcRoot, s.fallbacks.say)
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

// check tells what is wrong with a configuration.
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

// Close gives back what the scanner holds. It can be called again; a scan after it yields [os.ErrClosed].
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

// Stats tells how the last scan went.
func (s *Scanner) Stats() ScanStats { return s.stats }

// Namespaces returns the network namespaces that the last scan has read, in their order, as they are after it.
func (s *Scanner) Namespaces() []*Namespace {
	read := make([]*Namespace, len(s.namespaces.known))
	for i, n := range s.namespaces.known {
		read[i] = s.namespaces.handOut(n)
	}
	return read
}

// Sockets looks up the owners and then goes through the sockets, namespace by namespace, and transport by transport;
// listening TCP sockets come before connections: from netlink before all, from procfs before those of their family. Each step
// fills the same [Socket]. Sockets that do not listen, and of which no process was known then, come last in their namespace: if
// they are many, the owners are looked up once more, as most of these sockets have been opened since.
//
// If ScannerConfig.Closed asks for them, the TCP sockets that were destroyed in a namespace until then follow, in their order, but
// those that never had a peer first. Those of a namespace that has ended come before all.
//
// An error stands for a part that failed, and its socket is nil: a [*TableError] for the sockets of a transport, another
// for the owners or for a socket that could not be decoded. The loop may go on: the parts that work follow. The end of
// ctx is an error, and the last; so is [os.ErrClosed], after Close.
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
			if s.leavesOut(&s.socket) {
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

// leavesOut tells whether the socket is a connection that config.Connections does not want. Where the kernel runs the filter
// it is not looked at again.
func (s *Scanner) leavesOut(socket *Socket) bool {
	if s.config.TCPFilter == nil || socket.Transport != TransportTCP || socket.State == TCPListen {
		return false
	}
	byKernel := s.bytecode != nil && s.namespaces.sourceOf(s.reading, TransportTCP) == SourceNetlink
	return !byKernel && !s.config.TCPFilter.Match(socket)
}

var errScannerClosed = fmt.Errorf("scanning the sockets: %w", os.ErrClosed)

// noteSource sets the source that the scan has read.
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

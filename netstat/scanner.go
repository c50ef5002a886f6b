package netstat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
)

// Source is where the sockets are read from.
type Source uint8

// The sources of sockets.
const (
	// SourceAuto is netlink, unless ScannerConfig.ProcRoot is not a proc file system but a copy of one.
	SourceAuto Source = iota
	// SourceNetlink asks the kernel through sock_diag(7). What it has no module for is read from procfs.
	SourceNetlink
	// SourceProcfs reads the tables in /proc/net.
	SourceProcfs
)

var sourceNames = [...]string{SourceAuto: "auto", SourceNetlink: "netlink", SourceProcfs: "procfs"}

// String returns the source's name, and Source(n) for a number that is no source.
func (s Source) String() string { return enumName("Source", int(s), sourceNames[:]) }

// ParseSource returns the source with the name.
func ParseSource(name string) (Source, error) {
	i, err := parseEnum(name, sourceNames[:])
	return Source(i), err
}

// ParseTransport returns the transport with the name.
func ParseTransport(name string) (Transport, error) {
	i, err := parseEnum(name, transportNames[1:])
	return Transport(i + 1), err
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
	// Owners is the way to find the processes behind the sockets.
	Owners OwnerMethod
	// TCPInfo asks for Socket.TCP, which makes the answers of the kernel two to three times as long.
	TCPInfo bool
	// UnixPaths asks for Socket.Path, which makes garbage for each unix socket that has one.
	UnixPaths bool
	// Connections leaves out the TCP connections that the filter does not want, by the kernel itself where it is asked
	// through sock_diag; nil wants all. Listening sockets and those of other transports are handed out in any case.
	Connections *Filter
	// Closed asks for the TCP sockets that the kernel has destroyed since the scan before as well: see "Closed sockets" in the
	// package's documentation.
	Closed ClosedMode
	// Warn is called with each thing that the scanner has to do without, once: a source that had to be replaced, a
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
	reading    *Namespace
	noDiag     map[Transport]bool
	// bytecode is config.Connections for the kernel; nil if it is to be done here.
	bytecode []byte
	rows     rowReader
	pings    []uint64 // inodes of the ping sockets of a scan, which are few

	procNetNS uint64 // the network namespace that /proc/net tells of

	finder   ownerFinder
	owners   ownerTable
	connects connectRecorder // nil: it is not noted who begins connections
	socket   Socket
	late     lateSockets
	live     bool // the proc file system is none that stays as it is

	warned map[string]bool
	stats  ScanStats
}

// ScanStats tells how a scan went.
type ScanStats struct {
	Source      Source      // that was read; SourceNetlink also where some tables came from procfs
	Owners      OwnerMethod // that was used
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

// diagConn is the netlink socket, for tests to replace.
type diagConn interface {
	dump(ctx context.Context, r dumpRequest, message func(payload []byte) bool) (interrupted bool, err error)
	Close() error
}

// NewScanner returns a scanner. Whatever is not permitted or not there is replaced by the next best and said to
// config.Warn; an error is a configuration that says nothing, or a host that has run out of something.
func NewScanner(config ScannerConfig) (*Scanner, error) {
	if config.ProcRoot == "" {
		config.ProcRoot = "/proc"
	}
	if len(config.Transports) == 0 {
		config.Transports = []Transport{TransportTCP, TransportUDP}
	}
	for i, transport := range config.Transports {
		if tables[transport] == nil {
			return nil, fmt.Errorf("%s is no transport", transport)
		}
		if slices.Contains(config.Transports[:i], transport) {
			return nil, fmt.Errorf("transport %s is given twice", transport)
		}
	}
	config.Transports = slices.Clone(config.Transports)
	s := &Scanner{config: config, noDiag: map[Transport]bool{TransportICMP: true}, warned: map[string]bool{}}
	s.bytecode = config.Connections.bytecode()
	s.live = isProcfs(config.ProcRoot)
	if len(config.Namespaces) == 0 {
		s.config.Namespaces = []string{NamespaceSelf}
	}
	for _, name := range config.Namespaces {
		if err := ParseNamespace(name); err != nil {
			return nil, fmt.Errorf("network namespace %w", err)
		}
	}
	if int(config.Owners) >= len(ownerMethodNames) {
		return nil, fmt.Errorf("%s is no way to find owners", config.Owners)
	}
	if int(config.Source) >= len(sourceNames) {
		return nil, fmt.Errorf("%s is no source", config.Source)
	}
	if err := s.checkClosed(); err != nil {
		return nil, err
	}
	s.openFinder()
	if err := s.openNamespaces(); err != nil {
		_ = s.Close()
		return nil, err
	}
	s.warnOfHidden()
	return s, nil
}

// warnOfHidden says so if the proc file system hides processes from the reader: see hidepid in proc(5). Otherwise the stat of
// process 1, which is always there, is open to all.
func (s *Scanner) warnOfHidden() {
	root := s.config.ProcRoot
	if s.config.Owners == OwnersNone && s.namespaces.static() || !isProcfs(root) {
		return
	}
	if _, err := os.ReadFile(filepath.Join(root, "1", "stat")); isAbsent(err) {
		s.warn("hidepid", fmt.Errorf("%s is mounted with hidepid, and hides processes with their users, executables, command "+
			"lines, cgroups and network namespaces: seeing all of them takes CAP_SYS_PTRACE, or the group that the mount "+
			"option gid names: %w", root, err))
	}
}

// openNamespaces opens a netlink socket in the reader's own namespace, and makes ready to find others.
func (s *Scanner) openNamespaces() error {
	root := s.config.ProcRoot
	self := &Namespace{Self: true, PID: os.Getpid(), Source: SourceProcfs, root: root, procDir: root}
	s.namespaces = namespaces{
		root: root, wanted: slices.Clone(s.config.Namespaces), self: self,
		byInode: map[uint64]*Namespace{}, byTable: map[uint64]*Namespace{}, coming: s.fetchOwners, warn: s.warn,
	}
	if s.namespaces.static() {
		s.namespaces.known = []*Namespace{self}
	}
	if s.config.Source == SourceNetlink || s.config.Source == SourceAuto && isProcfs(root) {
		if err := s.openDiag(self); err != nil {
			return err
		}
	}
	s.namespaces.withDiag = self.diag != nil
	if err := s.hearClosed(self); err != nil {
		return err
	}
	s.namespaces.identifySelf()
	s.procNetNS = netNSOf(filepath.Join(self.procDir, "self"))
	if _, err := os.Lstat(filepath.Join(self.procDir, "net")); errors.Is(err, fs.ErrNotExist) && isProcfs(self.procDir) {
		self.procDir = filepath.Join(self.procDir, "self") // it is mounted with subset=pid
	}
	s.stats.Source = self.Source
	return nil
}

// openFinder sets the way to find owners.
func (s *Scanner) openFinder() {
	switch s.config.Owners {
	case OwnersNone:
		s.finder, s.stats.Owners = noOwners{}, OwnersNone
		return
	case OwnersAuto, OwnersBPF:
		if s.config.Owners == OwnersAuto && !isProcfs(s.config.ProcRoot) {
			break // no kernel's pids are those of a copy
		}
		finder, err := newBPFOwners(s.config.ProcRoot, s.warn)
		if err == nil {
			s.finder, s.stats.Owners = finder, OwnersBPF
			s.socket.table = &s.owners
			return
		}
		s.warnNoBPF(err)
	}
	s.walkForOwners()
}

// walkForOwners has the owners found by reading the links in procfs.
func (s *Scanner) walkForOwners() {
	s.finder, s.stats.Owners = newFDWalk(s.config.ProcRoot, s.warn), OwnersProcfs
	s.socket.table = &s.owners
	s.keepPast()
}

func (s *Scanner) warnNoBPF(err error) {
	s.warn("bpf", fmt.Errorf("finding the owners of sockets by reading procfs, which costs more: %w", err))
}

// findOwners fills the table of owners.
func (s *Scanner) findOwners(ctx context.Context) error {
	found, err := s.finder.refresh(ctx, &s.owners)
	if s.stats.Owners == OwnersBPF && errors.Is(err, errors.ErrUnsupported) { // a capability that was given up since
		s.warnNoBPF(err)
		s.finder.close()
		s.walkForOwners()
		found, err = s.finder.refresh(ctx, &s.owners)
	}
	s.stats.Processes, s.stats.Denied = found.processes, found.denied
	return err
}

func (s *Scanner) openDiag(self *Namespace) error {
	diag, err := openDiagSocket(s.fetchOwners)
	if errors.Is(err, errors.ErrUnsupported) {
		s.warn("sock_diag", fmt.Errorf("reading the sockets from procfs, which tells less and costs more: %w", err))
		return nil
	}
	if err != nil {
		return err
	}
	self.diag, self.Source = diag, SourceNetlink
	return nil
}

// fetchOwners has the owners of the socket in a message fetched from memory.
func (s *Scanner) fetchOwners(message []byte) {
	if inode, ok := inodeInMsg(message); ok {
		s.owners.fetch(inode)
	}
}

// Close gives back what the scanner holds.
func (s *Scanner) Close() error {
	s.finder.close()
	s.namespaces.close()
	s.closeConnects()
	return nil
}

// Stats tells how the last scan went.
func (s *Scanner) Stats() ScanStats { return s.stats }

// Namespaces returns the network namespaces that the last scan has read, in their order.
func (s *Scanner) Namespaces() []*Namespace { return s.namespaces.known }

// SourceOf tells where the sockets of the transport come from in a namespace.
func (s *Scanner) SourceOf(n *Namespace, transport Transport) Source {
	if n.Source == SourceProcfs || s.noDiag[transport] {
		return SourceProcfs
	}
	return SourceNetlink
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
// ctx is an error, and the last.
func (s *Scanner) Sockets(ctx context.Context) iter.Seq2[*Socket, error] {
	return func(yield func(*Socket, error) bool) {
		s.stats = ScanStats{Source: s.stats.Source, Owners: s.stats.Owners}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
			return
		}
		errNamespaces, errOwners := s.namespaces.refresh(), s.findOwners(ctx)
		s.late.looked = errOwners != nil
		if errors.Is(errOwners, ctx.Err()) { // the last, as below
			errOwners = nil
		}
		for _, err := range []error{errNamespaces, errOwners} {
			if err != nil && !yield(nil, err) {
				return
			}
		}
		s.stats.Source = s.namespaces.source()
		if !s.handOutEnded(ctx, yield) {
			return
		}
		handOut := func(err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			if s.leavesOut(&s.socket) {
				return true
			}
			if s.live && s.socket.table != nil && s.late.hold(&s.socket) {
				return true
			}
			s.stats.Sockets++
			return yield(&s.socket, nil)
		}
		for _, s.reading = range slices.Clone(s.namespaces.known) {
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
				case !yield(nil, &TableError{s.reading, transport, err}):
					return
				}
			}
			if !s.handOutLate(ctx, yield) || !s.handOutClosed(ctx, s.reading, yield) {
				return
			}
		}
	}
}

// leavesOut tells whether the socket is a connection that config.Connections does not want. Where the kernel runs the filter
// it is not looked at again.
func (s *Scanner) leavesOut(socket *Socket) bool {
	if s.config.Connections == nil || socket.Transport != TransportTCP || socket.State == TCPListen {
		return false
	}
	byKernel := s.bytecode != nil && s.SourceOf(s.reading, TransportTCP) == SourceNetlink
	return !byKernel && !s.config.Connections.Wants(socket)
}

// each fills s.socket with one socket of the transport after the other and calls handOut, which may return false to
// stop; or calls it with the error of a socket that could not be decoded.
func (s *Scanner) each(ctx context.Context, transport Transport, handOut func(error) bool) error {
	s.socket.Namespace = s.reading
	if s.SourceOf(s.reading, transport) == SourceProcfs {
		return s.eachOfProcfs(ctx, transport, handOut)
	}
	err := s.eachOfNetlink(ctx, transport, handOut)
	if !errors.Is(err, errNoDiag) {
		return err
	}
	s.noDiag[transport] = true
	s.warn("sock_diag "+transport.String(), fmt.Errorf(
		"reading %s sockets from /proc/net: %w (module %s)", transport, err, diagModules[transport]))
	return s.eachOfProcfs(ctx, transport, handOut)
}

var errNoDiag = errors.New("the kernel does not offer them through sock_diag")

// diagModules are the kernel modules that answer for the transports.
var diagModules = map[Transport]string{
	TransportTCP:     "tcp_diag",
	TransportUDP:     "udp_diag",
	TransportUDPLite: "udp_diag",
	TransportRaw:     "raw_diag",
	TransportUnix:    "unix_diag",
}

// eachOfNetlink is each for sock_diag. errNoDiag says that there is none for the transport, and that no socket was handed
// out.
func (s *Scanner) eachOfNetlink(ctx context.Context, transport Transport, handOut func(error) bool) error {
	s.socket.NetNS = s.reading.Inode
	message := func(payload []byte) bool {
		if transport == TransportUnix {
			return handOut(decodeUnixMsg(payload, &s.socket))
		}
		return handOut(decodeInetMsg(payload, transport, &s.socket))
	}
	var failed []error
	seen := func() int { return s.stats.Sockets + len(s.late.held) }
	before := seen()
	for _, request := range s.requests(transport) {
		interrupted, err := s.reading.diag.dump(ctx, request, message)
		if interrupted {
			s.stats.Interrupted++
		}
		switch {
		case err == nil:
		case errors.Is(err, errStopped), ctx.Err() != nil:
			return err
		case errors.Is(err, errors.ErrUnsupported) && seen() == before && failed == nil:
			return fmt.Errorf("%w: %w", errNoDiag, err)
		default:
			failed = append(failed, fmt.Errorf("reading %s sockets by sock_diag: %w", request, err))
		}
		if errors.Is(err, errNoAnswer) {
			break // every further request would wait as long
		}
	}
	return errors.Join(failed...)
}

// requests returns the dumps that together give all sockets of the transport. Those of listening sockets go first: it
// costs nothing, as the kernel keeps them in a table of their own.
func (s *Scanner) requests(transport Transport) []dumpRequest {
	switch transport {
	case TransportUnix:
		return []dumpRequest{{transport: transport, family: FamilyUnix, states: statesAll, paths: s.config.UnixPaths}}
	case TransportTCP:
		return []dumpRequest{
			{transport: transport, states: statesListen, memInfo: true},
			{transport: transport, states: statesConnected, tcpInfo: s.config.TCPInfo, bytecode: s.bytecode},
		}
	default:
		return []dumpRequest{
			{transport: transport, family: FamilyIPv4, states: statesAll, memInfo: true},
			{transport: transport, family: FamilyIPv6, states: statesAll, memInfo: true},
		}
	}
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
			s.warn(table, fmt.Errorf("the kernel has no %s sockets: %w", transport, err))
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

// warn says what the scanner has to do without, the first time.
func (s *Scanner) warn(what string, err error) {
	if s.warned[what] {
		return
	}
	s.warned[what] = true
	if s.config.Warn != nil {
		s.config.Warn(err)
	}
}

package netstat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/procnetstat/procnetstat/netstat/internal/netns"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

// warnIfHidden warns if the proc file system hides processes from the reader: see hidepid in proc(5). Process 1 always exists,
// and without hidepid any user can read its stat.
func (s *Scanner) warnIfHidden() {
	root := s.config.ProcRoot
	if s.config.OwnerMethod == OwnersOff && s.namespaces.static() || !procfs.IsMounted(root) {
		return
	}
	if _, err := os.ReadFile(filepath.Join(root, "1", "stat")); isAbsent(err) {
		s.fallbacks.warnOnce("hidepid", fmt.Errorf("proc file system %s is mounted with hidepid; other users' processes, with "+
			"their executables, command lines, cgroups and network namespaces, are hidden; reading them requires CAP_SYS_PTRACE or "+
			"the group of mount option gid: %w", root, err))
	}
}

// openNamespaces opens the netlink sockets in the reader's own namespace and prepares the search for others.
func (s *Scanner) openNamespaces() error {
	root := s.config.ProcRoot
	s.namespaces = namespaces{
		root: root, wanted: s.config.Namespaces,
		byInode: map[uint64]*trackedNamespace{}, byTable: map[uint64]*trackedNamespace{}, openDiag: s.openDiag, fallbacks: s.fallbacks,
		requireDiag: s.config.Source == SourceNetlink, withLimits: s.config.Limits,
	}
	s.namespaces.noDiag[TransportICMP] = true // sock_diag has no ping sockets
	self := s.namespaces.newNamespace()
	self.Self, self.PID, self.procDir = true, os.Getpid(), root
	s.namespaces.self = self
	if s.namespaces.static() {
		s.namespaces.known = []*trackedNamespace{self}
	}
	if err := s.openSelf(); err != nil {
		return err
	}
	s.namespaces.identifySelf()
	s.procNetNS = netns.Of(filepath.Join(self.procDir, "self"))
	if _, err := os.Lstat(filepath.Join(self.procDir, "net")); errors.Is(err, fs.ErrNotExist) && procfs.IsMounted(self.procDir) {
		self.procDir = filepath.Join(self.procDir, "self") // it is mounted with subset=pid
	}
	s.stats.Source = SourceProcfs
	if self.diag != nil {
		s.stats.Source = SourceNetlink
	}
	return nil
}

// openSelf opens the netlink sockets in the reader's own namespace, unless procfs is its source.
func (s *Scanner) openSelf() error {
	self := s.namespaces.self
	if s.config.Source == SourceProcfs || !s.live {
		return s.subscribeSelf()
	}
	diag, err := s.openDiag()
	if errors.Is(err, errors.ErrUnsupported) {
		if s.config.Source == SourceNetlink {
			return requiredError("source", SourceNetlink.String(), err)
		}
		s.fallbacks.markUnavailable(fallbackDiag, fmt.Errorf("netlink unavailable (%w); falling back to /proc/net, which gives "+
			"fewer fields and costs more", err))
		return s.subscribeSelf()
	}
	if err != nil {
		return err
	}
	s.fallbacks.markAvailable(fallbackDiag)
	self.diag, s.namespaces.withDiag = diag, true
	return s.subscribeSelf()
}

// requireNetlink returns an error if a table of the configured namespaces cannot be read with sock_diag.
func (s *Scanner) requireNetlink() error {
	for _, transport := range s.config.Transports {
		if transport == TransportICMP {
			return requiredError("source", SourceNetlink.String(), errors.New("sock_diag does not support icmp sockets"))
		}
		request := s.requests(transport)[0]
		request.States = 0
		_, err := s.namespaces.self.diag.Dump(context.Background(), request, func([]byte) bool { return true })
		if errors.Is(err, errors.ErrUnsupported) {
			return requiredError("source", SourceNetlink.String(), s.noModule(transport, err))
		}
		if err != nil {
			return fmt.Errorf("reading %s sockets by sock_diag: %w", requested(transport, request), err)
		}
	}
	err := s.namespaces.find()
	if err == nil {
		err = s.namespaces.enterFound()
	}
	if err != nil {
		return err
	}
	for _, n := range s.namespaces.known {
		if n.entry == entryRefused {
			err := requiredError("source", SourceNetlink.String(), n.errNoNetlink())
			return &TableError{s.namespaces.handOut(n), s.config.Transports[0], err}
		}
	}
	return nil
}

// noModule adds the name of the kernel module to the error.
func (s *Scanner) noModule(transport Transport, err error) error {
	return fmt.Errorf("%w (module %s)", err, diagModules[transport])
}

// openFinder sets the owner method.
func (s *Scanner) openFinder() error {
	s.finder, s.stats.OwnerMethod = noOwners{}, OwnersOff
	switch s.config.OwnerMethod {
	case OwnersOff:
		return nil
	case OwnersProcfs:
		s.useFDWalk()
		return nil
	case OwnersAuto:
		if !s.live { // a copy has pids of another kernel
			s.useFDWalk()
			return nil
		}
	case OwnersBPF:
	}
	return s.openBPF()
}

// openBPF uses BPF for the owner lookup, and procfs if BPF is unavailable and not required.
func (s *Scanner) openBPF() error {
	finder, err := newBPFOwners(s.processes)
	if err == nil {
		s.fallbacks.markAvailable(fallbackBPF)
		s.setFinder(finder, OwnersBPF)
		return nil
	}
	if s.config.OwnerMethod == OwnersBPF {
		return requiredError("owners", OwnersBPF.String(), err)
	}
	s.refuseBPF(err)
	if s.stats.OwnerMethod != OwnersProcfs {
		s.useFDWalk()
	}
	return nil
}

func (s *Scanner) setFinder(finder ownerFinder, method OwnerMethod) {
	if s.finder != nil {
		s.finder.close()
	}
	s.finder, s.stats.OwnerMethod, s.current.table = finder, method, &s.owners
}

// useFDWalk uses the links in procfs for the owner lookup.
func (s *Scanner) useFDWalk() { s.setFinder(newFDWalk(s.processes), OwnersProcfs) }

func (s *Scanner) refuseBPF(err error) {
	s.fallbacks.markUnavailable(fallbackBPF,
		fmt.Errorf("BPF owner lookup unavailable (%w); falling back to /proc, which costs more", err))
}

// retryRefused retries the unavailable features that are due. The next scan retries what fails for another reason.
func (s *Scanner) retryRefused() {
	s.fallbacks.startScan()
	for _, transport := range s.config.Transports {
		if s.fallbacks.retryDue(fallbackTransports[transport]) {
			s.namespaces.noDiag[transport] = false // the next dump shows whether it works
		}
	}
	if s.fallbacks.retryDue(fallbackBPF) {
		_ = s.openBPF() // returns an error only if BPF is required, and then NewScanner has failed
	}
	if s.namespaces.subscribe != nil && (s.fallbacks.retryDue(fallbackBPF) || s.fallbacks.retryDue(fallbackConnects)) {
		s.openConnects()
	}
	self := s.namespaces.self
	what, open := "", func() error { return nil }
	switch {
	case self.diag == nil && s.fallbacks.retryDue(fallbackDiag):
		what, open = fallbackDiag, s.openSelf
	case self.diag != nil && self.closed == nil && s.fallbacks.retryDue(fallbackClosed):
		what, open = fallbackClosed, s.subscribeSelf
	}
	if what == "" || self.Inode == 0 || self.Inode != netns.Of(netns.ThreadDir) { // this thread is in another namespace now
		return
	}
	if err := open(); err != nil {
		if self.diag != nil { // sock_diag works, the subscription failed
			what = fallbackClosed
		}
		s.fallbacks.markUnavailable(what, err)
	}
}

// findOwners refills the table of owners.
func (s *Scanner) findOwners(ctx context.Context) error {
	s.current.next() // the table no longer covers the last socket of the previous scan
	found, err := s.finder.refresh(ctx, &s.owners)
	if s.config.OwnerMethod == OwnersAuto && s.stats.OwnerMethod == OwnersBPF && errors.Is(err, errors.ErrUnsupported) {
		s.refuseBPF(err) // the process has dropped a capability
		s.useFDWalk()
		found, err = s.finder.refresh(ctx, &s.owners)
	}
	s.stats.Processes, s.stats.Denied = found.processes, found.denied
	return err
}

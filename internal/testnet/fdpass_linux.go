package testnet

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Dup duplicates a descriptor of the socket (dup(2)). Close does not close the duplicate.
func (p *Proc) Dup(s Socket) {
	p.tb.Helper()
	p.do(request{Op: opDup, Inodes: []uint64{s.Inode}})
}

// Pass sends a descriptor of the socket to another process in the same network namespace (SCM_RIGHTS). Then both hold the socket.
func (p *Proc) Pass(s Socket, to *Proc) {
	p.tb.Helper()
	to.do(request{Op: opInbox})
	p.do(request{Op: opPass, Inodes: []uint64{s.Inode}, N: to.PID})
	to.do(request{Op: opTake})
}

// PutInFlight sends a descriptor of the socket to a Unix socket that never receives it. In flight, the descriptor keeps the socket open,
// and is in the descriptor table of no process.
func (p *Proc) PutInFlight(s Socket) {
	p.tb.Helper()
	p.do(request{Op: opPutInFlight, Inodes: []uint64{s.Inode}})
}

func dup(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return fmt.Errorf("duplicating a descriptor: %w", err)
	}
	return nil
}

// inboxAddr returns the address of the Unix socket at which a process receives descriptors.
func inboxAddr(pid int) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: fmt.Sprintf("@testnet-inbox-%d", pid)}
}

func (h *helper) openInbox() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, inboxAddr(unix.Getpid()))
	}
	if err != nil {
		return fmt.Errorf("opening an inbox: %w", err)
	}
	h.inbox = fd
	return nil
}

func pass(fd, pid int) error {
	from, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("passing a descriptor: %w", err)
	}
	defer unix.Close(from)
	if err := unix.Sendmsg(from, []byte{0}, unix.UnixRights(fd), inboxAddr(pid), 0); err != nil {
		return fmt.Errorf("passing a descriptor to process %d: %w", pid, err)
	}
	return nil
}

func (h *helper) take(end time.Time) (Socket, error) {
	defer func() {
		_ = unix.Close(h.inbox)
		h.inbox = -1
	}()
	if err := poll(h.inbox, unix.POLLIN, end); err != nil {
		return Socket{}, fmt.Errorf("waiting for a descriptor: %w", err)
	}
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(h.inbox, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC) //nolint:dogsled // recvmsg has them
	if err != nil {
		return Socket{}, fmt.Errorf("receiving a descriptor: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err == nil && len(messages) != 1 {
		err = fmt.Errorf("%d control messages", len(messages))
	}
	var fds []int
	if err == nil {
		fds, err = unix.ParseUnixRights(&messages[0])
	}
	if err != nil {
		return Socket{}, fmt.Errorf("receiving a descriptor: %w", err)
	}
	return h.register(fds[0], nil)
}

func putInFlight(fd int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0)
	}
	if err != nil {
		return fmt.Errorf("putting a descriptor in flight: %w", err)
	}
	return nil
}

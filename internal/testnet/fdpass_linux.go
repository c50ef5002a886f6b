package testnet

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Dup makes the process hold the socket by one descriptor more (dup(2)), which stays open when the socket is closed.
func (p *Proc) Dup(s Socket) {
	p.tb.Helper()
	p.do(request{Op: opDup, Inodes: []uint64{s.Inode}})
}

// Pass sends a descriptor of the socket to another process in the same network namespace (SCM_RIGHTS): both hold it then.
func (p *Proc) Pass(s Socket, to *Proc) {
	p.tb.Helper()
	to.do(request{Op: opInbox})
	p.do(request{Op: opPass, Inodes: []uint64{s.Inode}, N: to.PID})
	to.do(request{Op: opTake})
}

// Post puts a descriptor of the socket into the queue of a pair of unix sockets of the process, where it stays: it keeps the
// socket open, and is held by nobody.
func (p *Proc) Post(s Socket) {
	p.tb.Helper()
	p.do(request{Op: opPutInFlight, Inodes: []uint64{s.Inode}})
}

func dup(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return fmt.Errorf("duplicating a descriptor: %w", err)
	}
	return nil
}

// inboxOf is the address of the unix socket that the process receives descriptors at.
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
		err = errors.New("there is none")
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
		return fmt.Errorf("posting a descriptor: %w", err)
	}
	return nil
}

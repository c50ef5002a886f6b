package netstat

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// diagSocket is a netlink socket of NETLINK_SOCK_DIAG. It stays in the network namespace that it was made in.
type diagSocket struct {
	fd       int
	sequence uint32
	request  []byte
	answer   [64 << 10]byte // the kernel fills at most 32 KiB at a time (netlink_dump, net/netlink/af_netlink.c)
	pending  bool           // the answer to the last request has not been read to its end

	// coming, if set, is called with the payload of each answer that was received at once, before the first of them is
	// handed out.
	coming func(payload []byte)
}

var _ diagConn = (*diagSocket)(nil)

// answerTimeout bounds the wait for the kernel, which answers at once: it fills the buffer while it is read.
const answerTimeout = 5 * time.Second

func openDiagSocket(coming func(payload []byte)) (diagConn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening a sock_diag socket: %w", notSupported(err))
	}
	timeout := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("setting the timeout of a sock_diag socket: %w", err)
	}
	return &diagSocket{fd: fd, coming: coming}, nil
}

func (d *diagSocket) Close() error {
	fd := d.fd
	d.fd = -1 // the number is soon another file's
	return unix.Close(fd)
}

// dump asks for sockets and calls message with the payload of each answer, until message returns false; the error is
// errStopped then.
func (d *diagSocket) dump(ctx context.Context, r dumpRequest, message func(payload []byte) bool) (interrupted bool, err error) {
	if d.pending { // the kernel takes no second request before
		if _, err := d.read(ctx, func([]byte) bool { return true }); err != nil && d.pending {
			return false, err
		}
	}
	d.sequence++
	d.request = r.appendTo(d.request[:0], d.sequence)
	if err := unix.Sendto(d.fd, d.request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, notSupported(err)
	}
	d.pending = true
	return d.read(ctx, message)
}

// read reads the answer to its end.
func (d *diagSocket) read(ctx context.Context, message func(payload []byte) bool) (interrupted bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return interrupted, err
		}
		n, err := unix.Read(d.fd, d.answer[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return interrupted, fmt.Errorf("%w in %s", errNoAnswer, answerTimeout)
		}
		if err != nil {
			return interrupted, err
		}
		if d.coming != nil {
			_, _, _ = eachAnswer(d.answer[:n], d.sequence, func(payload []byte) bool {
				d.coming(payload)
				return true
			})
		}
		done, intr, err := eachAnswer(d.answer[:n], d.sequence, message)
		interrupted = interrupted || intr
		if done {
			d.pending = false
		}
		if done || err != nil {
			return interrupted, err
		}
	}
}

// errnoError returns the error that the kernel answered with.
func errnoError(number int) error { return notSupported(unix.Errno(number)) }

// notSupported marks the errors by which a kernel says that it cannot, or that we may not: ENOENT without the module for
// the protocol (sock_diag_rcv_msg), EPROTONOSUPPORT without sock_diag.
func notSupported(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT),
		errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return err
}

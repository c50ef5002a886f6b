package netstat

import (
	"context"
	"encoding/binary"
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
	stalled  bool           // nothing more of it comes by itself
	patience time.Duration  // how long the kernel may be silent

	// coming, if set, is called with the payload of each answer that was received at once, before the first of them is
	// handed out.
	coming func(payload []byte)
}

var _ diagConn = (*diagSocket)(nil)

const (
	// answerTimeout bounds the wait for the kernel, which answers at once: it fills the buffer while it is read.
	answerTimeout = 5 * time.Second
	// waitTurn is how long to wait before the context is looked at, and for a kernel that has been silent before.
	waitTurn = 100 * time.Millisecond
)

func openDiagSocket(coming func(payload []byte)) (diagConn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening a sock_diag socket: %w", notSupported(err))
	}
	timeout := unix.NsecToTimeval(waitTurn.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("setting the timeout of a sock_diag socket: %w", err)
	}
	return &diagSocket{fd: fd, patience: answerTimeout, coming: coming}, nil
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
		if err := d.nudge(); err != nil {
			return false, err
		}
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

// nudge has the kernel go on with an answer that has stalled. It fills the next buffer when one was read: where it had no memory
// for that (ENOBUFS), there is none to read, and it would stay silent for ever. An acknowledgment is one, which is not of the dump.
func (d *diagSocket) nudge() error {
	if !d.stalled {
		return nil
	}
	const nothing, acknowledge, sequence = 1, 0x4, 0 // NLMSG_NOOP, NLM_F_ACK; no dump has this number
	header := binary.NativeEndian.AppendUint32(nil, nlmsgHeaderLen)
	header = binary.NativeEndian.AppendUint16(header, nothing)
	header = binary.NativeEndian.AppendUint16(header, nlmFlagRequest|acknowledge)
	header = binary.NativeEndian.AppendUint32(header, sequence)
	header = append(header, 0, 0, 0, 0)
	return unix.Sendto(d.fd, header, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// read reads the answer to its end.
func (d *diagSocket) read(ctx context.Context, message func(payload []byte) bool) (interrupted bool, err error) {
	patience := d.patience
	if d.stalled {
		patience = min(patience, waitTurn)
	}
	for waiting := time.Now(); ; waiting = time.Now() {
		n, err := d.readBuffer(ctx, waiting, patience)
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
			d.pending, d.stalled = false, false
		}
		if done || err != nil {
			return interrupted, err
		}
	}
}

// readBuffer reads what the kernel sends at once. It can be woken any number of times before there is something: the wait is
// measured from when it began. How it ended, if not well, says nothing of the rest of the answer: see nudge.
func (d *diagSocket) readBuffer(ctx context.Context, began time.Time, patience time.Duration) (n int, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := unix.Read(d.fd, d.answer[:])
		switch {
		case err == nil && n == 0:
			return 0, errShortMessage
		case err == nil:
			return n, nil
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN):
			d.stalled = true
			return 0, err
		case time.Since(began) >= patience:
			d.stalled = true
			return 0, fmt.Errorf("%w in %s", errNoAnswer, patience)
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

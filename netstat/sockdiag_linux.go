package netstat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// diagSocket asks the kernel for dumps through NETLINK_SOCK_DIAG. It stays in the network namespace that it was opened in.
type diagSocket struct {
	conn     kernelConn
	last     exchange // the last request
	request  []byte
	pending  bool          // the answer to the last request has not been read to its end
	stalled  bool          // nothing more of it comes by itself
	patience time.Duration // how long the kernel may be silent

	// prefetch, if set, is called with the payload of each answer that was received at once, before the first of them is
	// handed out.
	prefetch func(payload []byte)
}

// kernelConn exchanges messages with the kernel.
type kernelConn interface {
	send(request []byte) error
	// receive returns what the kernel sends at once; it is valid until the next call. It waits at most waitTurn: EAGAIN.
	// errForeignMessage stands for what others send.
	receive() ([]byte, error)
	close() error
}

var (
	_ diagConn   = (*diagSocket)(nil)
	_ kernelConn = (*dumpConn)(nil)
)

const (
	// answerTimeout bounds the wait for the kernel, which answers at once: it fills the buffer while it is read.
	answerTimeout = 5 * time.Second
	// waitTurn is how long to wait before the context is looked at, and for a kernel that has been silent before.
	waitTurn = 100 * time.Millisecond
	// answerRoom is for what the kernel sends at once: at most 32 KiB (netlink_dump, net/netlink/af_netlink.c).
	answerRoom = 64 << 10
)

// diagOpener returns a function that opens a diagSocket in the network namespace of the calling thread. All of them share one
// buffer, so that only one can be read at a time.
func diagOpener(prefetch func(payload []byte)) func() (diagConn, error) {
	var answers *netlinkBatch
	return func() (diagConn, error) {
		if answers == nil {
			answers = newNetlinkBatch(1, answerRoom)
		}
		return openDiagSocket(answers, prefetch)
	}
}

func openDiagSocket(answers *netlinkBatch, prefetch func(payload []byte)) (diagConn, error) {
	socket, err := openNetlink(0)
	if err != nil {
		return nil, err
	}
	timeout := unix.NsecToTimeval(waitTurn.Nanoseconds())
	if err := unix.SetsockoptTimeval(socket.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		_ = socket.close()
		return nil, fmt.Errorf("setting the timeout of a sock_diag socket: %w", err)
	}
	return &diagSocket{
		conn: &dumpConn{socket, answers}, last: exchange{port: socket.port, sequence: rand.Uint32()}, //nolint:gosec // no secret
		patience: answerTimeout, prefetch: prefetch,
	}, nil
}

// dumpConn receives one message at a time into a buffer that it shares with others.
type dumpConn struct {
	*netlinkSocket
	answers *netlinkBatch
}

func (c *dumpConn) receive() ([]byte, error) {
	if _, err := c.netlinkSocket.receive(c.answers, 0); err != nil {
		return nil, err
	}
	return c.answers.message(0)
}

func (d *diagSocket) Close() error { return d.conn.close() }

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
	d.last.sequence = nextSequence(d.last.sequence)
	d.request = r.appendTo(d.request[:0], d.last.sequence)
	if err := d.conn.send(d.request); err != nil {
		return false, notSupported(err)
	}
	d.pending = true
	return d.read(ctx, message)
}

// nudgeSequence is the sequence number of a request that is no dump.
const nudgeSequence = 0

func nextSequence(last uint32) uint32 {
	if last++; last != nudgeSequence {
		return last
	}
	return nudgeSequence + 1
}

// nudge has the kernel go on with an answer that has stalled. It fills the next buffer when one was read: where it had no memory
// for that (ENOBUFS), there is none to read, and it would stay silent for ever. An acknowledgment is one, which is not of the dump.
func (d *diagSocket) nudge() error {
	if !d.stalled {
		return nil
	}
	const nothing, acknowledge = 1, 0x4 // NLMSG_NOOP, NLM_F_ACK
	header := binary.NativeEndian.AppendUint32(nil, nlmsgHeaderLen)
	header = binary.NativeEndian.AppendUint16(header, nothing)
	header = binary.NativeEndian.AppendUint16(header, nlmFlagRequest|acknowledge)
	header = binary.NativeEndian.AppendUint32(header, nudgeSequence)
	header = append(header, 0, 0, 0, 0)
	return d.conn.send(header)
}

// read reads the answer to its end.
func (d *diagSocket) read(ctx context.Context, message func(payload []byte) bool) (interrupted bool, err error) {
	patience := d.patience
	if d.stalled {
		patience = min(patience, waitTurn)
	}
	for waiting := time.Now(); ; waiting = time.Now() {
		b, err := d.receive(ctx, waiting, patience)
		if err != nil {
			return interrupted, err
		}
		if d.prefetch != nil {
			_, _, _ = eachAnswer(b, d.last, func(payload []byte) bool {
				d.prefetch(payload)
				return true
			})
		}
		done, intr, err := eachAnswer(b, d.last, message)
		interrupted = interrupted || intr
		if done {
			d.pending, d.stalled = false, false
		}
		if done || err != nil {
			return interrupted, err
		}
	}
}

// receive receives what the kernel sends at once. The wait can be interrupted any number of times, by signals and by messages of
// others: it is measured from when it began. How it ended, if not well, says nothing of the rest of the answer: see nudge.
func (d *diagSocket) receive(ctx context.Context, began time.Time, patience time.Duration) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := d.conn.receive()
		goesOn := errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) || errors.Is(err, errForeignMessage)
		switch {
		case err == nil && len(b) == 0:
			return nil, errShortMessage
		case err == nil:
			return b, nil
		case !goesOn:
			d.stalled = true
			return nil, err
		case time.Since(began) >= patience:
			d.stalled = true
			return nil, fmt.Errorf("%w in %s", errNoAnswer, patience)
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

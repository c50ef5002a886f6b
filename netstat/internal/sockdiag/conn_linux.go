package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// Conn asks the kernel for dumps. It stays in the network namespace that it was opened in.
type Conn struct {
	conn     kernelConn
	last     Exchange // the last request
	request  []byte
	pending  bool          // the answer to the last request has not been read to its end
	stalled  bool          // the kernel does not continue the answer by itself
	timeout  time.Duration // how long to wait for the kernel
	prefetch func(payload []byte)
}

// kernelConn exchanges messages with the kernel.
type kernelConn interface {
	send(request []byte) error
	// receive returns what the kernel sends at once; it is valid until the next call. After pollInterval without a message it
	// returns EAGAIN, for a message that another process sent errNotFromKernel.
	receive() ([]byte, error)
	close() error
}

var _ kernelConn = (*dumpSocket)(nil)

const (
	// answerTimeout bounds the wait for the kernel, which answers at once: it fills the buffer while it is read.
	answerTimeout = 5 * time.Second
	// pollInterval is how often the context is checked, and the timeout for a kernel that has been silent before.
	pollInterval = 100 * time.Millisecond
	// answerSize is enough for what the kernel sends at once: at most 32 KiB (netlink_dump, net/netlink/af_netlink.c).
	answerSize = 64 << 10
)

// Opener opens connections that share one receive buffer: only one dump can be read at a time.
type Opener struct {
	// Prefetch, if set, is called with each payload that was received at once, before the first of them is handed out.
	Prefetch func(payload []byte)

	answers *batch
}

// Open opens a connection in the network namespace of the calling thread.
func (o *Opener) Open() (*Conn, error) {
	if o.answers == nil {
		o.answers = newBatch(1, answerSize)
	}
	socket, err := openSocket(0)
	if err != nil {
		return nil, err
	}
	timeout := unix.NsecToTimeval(pollInterval.Nanoseconds())
	if err := unix.SetsockoptTimeval(socket.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		_ = socket.close()
		return nil, fmt.Errorf("setting the timeout of a sock_diag socket: %w", err)
	}
	return &Conn{
		conn:    &dumpSocket{socket, o.answers},
		last:    Exchange{Port: socket.port, Sequence: rand.Uint32()}, //nolint:gosec // no secret
		timeout: answerTimeout, prefetch: o.Prefetch,
	}, nil
}

// dumpSocket receives one message at a time into a buffer that it shares with others.
type dumpSocket struct {
	*socket
	answers *batch
}

func (s *dumpSocket) receive() ([]byte, error) {
	if _, err := s.socket.receive(s.answers, 0); err != nil {
		return nil, err
	}
	return s.answers.message(0)
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.close() }

// Dump asks for sockets and calls socket with the payload of each answer, until it returns false; the error is ErrStopped then.
// interrupted says that the table changed meanwhile (NLM_F_DUMP_INTR): sockets may be missing or doubled. An error that is
// errors.ErrUnsupported says that the kernel does not have such sockets in sock_diag, or does not permit the request.
func (c *Conn) Dump(ctx context.Context, r Request, socket func(payload []byte) bool) (interrupted bool, err error) {
	if c.pending { // the kernel takes no second request before
		if err := c.resume(); err != nil {
			return false, err
		}
		if _, err := c.read(ctx, func([]byte) bool { return true }); err != nil && c.pending {
			return false, err
		}
	}
	c.last.Sequence = nextSequence(c.last.Sequence)
	c.request = r.appendTo(c.request[:0], c.last.Sequence)
	if err := c.conn.send(c.request); err != nil {
		return false, notSupported(err)
	}
	c.pending = true
	return c.read(ctx, socket)
}

// resumeSequence is the sequence number of the request that resume sends. No dump has it.
const resumeSequence = 0

func nextSequence(last uint32) uint32 {
	if last++; last != resumeSequence {
		return last
	}
	return resumeSequence + 1
}

// resume has the kernel continue an answer that has stalled. The kernel fills the next buffer when one was read: if it had no
// memory for that (ENOBUFS), there is none to read, and it would stay silent for ever. So resume asks for an acknowledgment,
// which is a buffer to read that is not part of the dump.
func (c *Conn) resume() error {
	if !c.stalled {
		return nil
	}
	request := appendHeader(nil, typeNoop, flagRequest|flagAck, resumeSequence)
	setLength(request)
	return c.conn.send(request)
}

// read reads the answer to its end.
func (c *Conn) read(ctx context.Context, socket func(payload []byte) bool) (interrupted bool, err error) {
	timeout := c.timeout
	if c.stalled {
		timeout = min(timeout, pollInterval)
	}
	for start := time.Now(); ; start = time.Now() {
		b, err := c.receive(ctx, start, timeout)
		if err != nil {
			return interrupted, err
		}
		if c.prefetch != nil {
			_, _, _ = EachAnswer(b, c.last, func(payload []byte) bool {
				c.prefetch(payload)
				return true
			})
		}
		done, intr, err := EachAnswer(b, c.last, socket)
		interrupted = interrupted || intr
		if done {
			c.pending, c.stalled = false, false
		}
		if done || err != nil {
			return interrupted, err
		}
	}
}

// receive receives what the kernel sends at once. Signals and messages of other processes can interrupt the wait any number of
// times, so the timeout counts from start. After an error the kernel may not continue the answer: see resume.
func (c *Conn) receive(ctx context.Context, start time.Time, timeout time.Duration) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := c.conn.receive()
		interrupted := errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) || errors.Is(err, errNotFromKernel)
		switch {
		case err == nil && len(b) == 0:
			return nil, ErrShort
		case err == nil:
			return b, nil
		case !interrupted:
			c.stalled = true
			return nil, err
		case time.Since(start) >= timeout:
			c.stalled = true
			return nil, fmt.Errorf("%w in %s", ErrNoAnswer, timeout)
		}
	}
}

package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// Conn dumps the tables of the network namespace in which it was opened.
type Conn struct {
	conn     kernelConn
	last     Exchange // the last request
	request  []byte
	pending  bool          // the last answer was not read to its end
	stalled  bool          // the kernel does not continue the answer without resume
	timeout  time.Duration // for an answer of the kernel
	prefetch func(payload []byte)
}

// kernelConn exchanges messages with the kernel.
type kernelConn interface {
	send(request []byte) error
	// receive returns the next datagram of the kernel, which is valid until the next call. It returns EAGAIN after pollInterval
	// without a datagram, and errNotFromKernel for a datagram of another process.
	receive() ([]byte, error)
	deviceName(name []byte, index uint32) ([]byte, error)
	close() error
}

var _ kernelConn = (*dumpSocket)(nil)

const (
	// answerTimeout is the timeout for an answer. The kernel normally answers within the system call.
	answerTimeout = 5 * time.Second
	// pollInterval is the interval for checking the context, and the timeout after a first timeout.
	pollInterval = 100 * time.Millisecond
	// answerSize exceeds the largest datagram of the kernel in bytes: 32 KiB (netlink_dump, net/netlink/af_netlink.c).
	answerSize = 64 << 10
)

// Opener opens connections that share one receive buffer: only one dump can run at a time.
type Opener struct {
	// Prefetch, if set, is called with all payloads of a datagram before Dump passes on the first of them.
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

// dumpSocket receives one datagram at a time into the shared buffer.
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

// AppendDeviceName appends the name of the network device with the index in the network namespace of the connection. The error is
// ENODEV if there is none.
func (c *Conn) AppendDeviceName(name []byte, index uint32) ([]byte, error) {
	return c.conn.deviceName(name, index)
}

// Dump requests sockets and calls socket with the payload of each. If that returns false, Dump returns ErrStopped. interrupted
// means that the table changed meanwhile (NLM_F_DUMP_INTR): sockets may be missing or repeated. The error is
// errors.ErrUnsupported if sock_diag does not support the sockets or the request is not permitted.
func (c *Conn) Dump(ctx context.Context, r Request, socket func(payload []byte) bool) (interrupted bool, err error) {
	if c.pending { // the kernel rejects a second request during a dump
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

// resumeSequence is the sequence number of the request of resume. Dumps do not use it.
const resumeSequence = 0

func nextSequence(last uint32) uint32 {
	if last++; last != resumeSequence {
		return last
	}
	return resumeSequence + 1
}

// resume makes the kernel continue a stalled answer. The kernel fills the next buffer when one is read (netlink_recvmsg,
// net/netlink/af_netlink.c). After a failed allocation (ENOBUFS) there is no buffer to read, and the dump would never continue.
// The acknowledgment that resume requests is such a buffer.
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

// receive returns the next datagram. The timeout counts from start, because signals and messages of other processes can interrupt
// the wait any number of times. After an error the answer can be stalled: see resume.
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

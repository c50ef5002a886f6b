package sockdiag

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

// openConn returns a connection that is closed when the test ends.
func openConn(t *testing.T) *Conn {
	t.Helper()
	conn, err := new(Opener).Open()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// fakeKernel is the peer of a Conn: it receives the requests, and what it sends answers the next request.
type fakeKernel struct {
	t  *testing.T
	fd int
}

// pairConn is one end of a socket pair that replaces the netlink socket. Its port ID is 0.
type pairConn struct {
	fd     int
	buffer [answerSize]byte
}

var _ kernelConn = (*pairConn)(nil)

func (c *pairConn) send(request []byte) error { return unix.Sendto(c.fd, request, 0, nil) }

func (c *pairConn) deviceName(name []byte, _ uint32) ([]byte, error) { return name, unix.ENODEV }

func (c *pairConn) receive() ([]byte, error) {
	n, err := unix.Read(c.fd, c.buffer[:])
	return c.buffer[:max(n, 0)], err
}

func (c *pairConn) close() error { return unix.Close(c.fd) }

// newFakeKernel returns a Conn with a fake kernel. A SOCK_SEQPACKET socket preserves message boundaries like netlink, and ignores
// the destination address.
func newFakeKernel(t *testing.T) (*Conn, fakeKernel) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	d := &Conn{conn: &pairConn{fd: fds[0]}, last: Exchange{Port: sockdiagtest.Port}, timeout: 100 * time.Millisecond}
	k := fakeKernel{t, fds[1]}
	t.Cleanup(func() {
		require.NoError(t, d.Close())
		require.NoError(t, unix.Close(k.fd))
	})
	deadline := unix.NsecToTimeval((10 * time.Second).Nanoseconds()) // if no request arrives
	require.NoError(t, unix.SetsockoptTimeval(k.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &deadline))
	timeout := unix.NsecToTimeval(int64(10 * time.Millisecond))
	require.NoError(t, unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	return d, k
}

// send sends messages in one buffer.
func (k fakeKernel) send(messages ...[]byte) {
	k.t.Helper()
	require.NoError(k.t, unix.Send(k.fd, bytes.Join(messages, nil), 0))
}

// requests returns the sequence numbers of the received requests, and 0 for each that requests only an acknowledgment.
func (k fakeKernel) requests() []uint32 {
	k.t.Helper()
	var sequences []uint32
	buf := make([]byte, 1000)
	for {
		n, _, err := unix.Recvfrom(k.fd, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return sequences
		}
		require.NoError(k.t, err)
		m, rest, err := nextMessage(buf[:n])
		require.NoError(k.t, err)
		require.Empty(k.t, rest)
		sequence := m.exchange().Sequence
		if sequence == 0 {
			require.Equal(k.t, []uint16{unix.NLMSG_NOOP, unix.NLM_F_REQUEST | unix.NLM_F_ACK}, []uint16{m.kind(), m.flags()})
			require.Len(k.t, m, headerLen)
		} else {
			require.EqualValues(k.t, typeTCP, m.kind())
		}
		sequences = append(sequences, sequence)
	}
}

// errnoAnswer returns a message that ends a dump with an error.
func errnoAnswer(kind uint16, sequence uint32, errno unix.Errno) []byte {
	return answer(kind, 0, sequence, u32s(uint32(-int32(errno))))
}

func socketAnswer(sequence uint32, text string) []byte {
	return answer(typeTCP, 0x2, sequence, []byte(text))
}

func endAnswer(sequence uint32) []byte {
	return answer(typeDone, 0x2, sequence, u32s(0))
}

// dump returns the payloads of an answer.
func dump(ctx context.Context, d *Conn) (payloads []string, interrupted bool, err error) {
	interrupted, err = d.Dump(ctx, Request{Protocol: ProtocolTCP}, func(payload []byte) bool {
		payloads = append(payloads, string(payload))
		return true
	})
	return payloads, interrupted, err
}

func TestConnDump(t *testing.T) {
	d, kernel := newFakeKernel(t)
	kernel.send(socketAnswer(1, "one!"), socketAnswer(1, "two!"))
	kernel.send(answer(typeTCP, 0x2|flagDumpIntr, 1, []byte("three")))
	kernel.send(socketAnswer(1, "four"))
	kernel.send(endAnswer(1))
	kernel.send(socketAnswer(2, "five"), endAnswer(2))

	payloads, interrupted, err := dump(t.Context(), d)
	require.NoError(t, err)
	require.True(t, interrupted)
	require.Equal(t, []string{"one!", "two!", "three", "four"}, payloads)

	payloads, interrupted, err = dump(t.Context(), d)
	require.NoError(t, err)
	require.False(t, interrupted)
	require.Equal(t, []string{"five"}, payloads)
	require.Equal(t, []uint32{1, 2}, kernel.requests())
}

func TestConnErrors(t *testing.T) {
	for _, test := range []struct {
		errno       unix.Errno
		unsupported bool
	}{
		{unix.ENOENT, true}, // the protocol has no module
		{unix.EPERM, true},
		{unix.EACCES, true},
		{unix.EOPNOTSUPP, true},
		{unix.EPROTONOSUPPORT, true},
		{unix.EAFNOSUPPORT, true},
		{unix.EINVAL, false},
		{unix.ENOMEM, false},
		{unix.Errno(5000), false},
	} {
		for _, kind := range []uint16{typeError, typeDone} {
			t.Run(fmt.Sprintf("%d by message %d", test.errno, kind), func(t *testing.T) {
				d, kernel := newFakeKernel(t)
				kernel.send(socketAnswer(1, "one!"), errnoAnswer(kind, 1, test.errno))
				kernel.send(socketAnswer(2, "two!"), endAnswer(2))
				payloads, _, err := dump(t.Context(), d)
				require.ErrorIs(t, err, test.errno)
				require.Equal(t, test.unsupported, errors.Is(err, errors.ErrUnsupported))
				require.Equal(t, []string{"one!"}, payloads)

				payloads, _, err = dump(t.Context(), d)
				require.NoError(t, err)
				require.Equal(t, []string{"two!"}, payloads)
			})
		}
	}
}

// If an answer was not read completely, the rest is drained before the next request.
func TestConnDrains(t *testing.T) {
	stop := func([]byte) bool { return false }
	for _, test := range []struct {
		name string
		rest func(fakeKernel)
	}{
		{"to its end", func(k fakeKernel) { k.send(socketAnswer(1, "two!")); k.send(endAnswer(1)) }},
		{"to its error", func(k fakeKernel) { k.send(errnoAnswer(typeError, 1, unix.ENOMEM)) }},
		{"to its end without a number", func(k fakeKernel) { k.send(answer(typeError, 0, 1, nil)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, kernel := newFakeKernel(t)
			kernel.send(socketAnswer(1, "one!"))
			test.rest(kernel)
			kernel.send(socketAnswer(2, "three"), endAnswer(2))
			_, err := d.Dump(t.Context(), Request{}, stop)
			require.Equal(t, ErrStopped, err)
			require.Equal(t, []uint32{1}, kernel.requests())

			payloads, interrupted, err := dump(t.Context(), d)
			require.NoError(t, err)
			require.False(t, interrupted)
			require.Equal(t, []string{"three"}, payloads)
			require.Equal(t, []uint32{2}, kernel.requests())
		})
	}
}

func TestConnSilentKernel(t *testing.T) {
	d, kernel := newFakeKernel(t)
	for range 2 { // the second dump first waits for the answer to the first request
		_, _, err := dump(t.Context(), d)
		require.ErrorIs(t, err, ErrNoAnswer)
		require.EqualError(t, err, "no answer from the kernel in 100ms")
	}
	require.Equal(t, []uint32{1, 0}, kernel.requests())

	kernel.send(endAnswer(1))
	kernel.send(socketAnswer(2, "one!"), endAnswer(2))
	payloads, _, err := dump(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, []string{"one!"}, payloads)
	require.Equal(t, []uint32{0, 2}, kernel.requests())
}

func TestConnTruncatedMessage(t *testing.T) {
	d, kernel := newFakeKernel(t)
	whole := socketAnswer(1, "two!")
	kernel.send(socketAnswer(1, "one!"), whole[:len(whole)-1])
	kernel.send(endAnswer(1))
	kernel.send(endAnswer(2))
	payloads, _, err := dump(t.Context(), d)
	require.ErrorIs(t, err, ErrShort)
	require.Equal(t, []string{"one!"}, payloads)
	payloads, _, err = dump(t.Context(), d)
	require.NoError(t, err)
	require.Empty(t, payloads)
}

func TestConnContext(t *testing.T) {
	d, kernel := newFakeKernel(t)
	kernel.send(socketAnswer(1, "one!"), socketAnswer(1, "two!"))
	kernel.send(socketAnswer(1, "three"), endAnswer(1))
	kernel.send(socketAnswer(2, "four"), endAnswer(2))
	ctx, cancel := context.WithCancel(t.Context())
	var payloads []string
	_, err := d.Dump(ctx, Request{}, func(payload []byte) bool {
		payloads = append(payloads, string(payload))
		cancel()
		return true
	})
	require.Equal(t, context.Canceled, err)
	require.Equal(t, []string{"one!", "two!"}, payloads, "the rest of the buffer is handed out")

	_, _, err = dump(ctx, d)
	require.Equal(t, context.Canceled, err)
	payloads, _, err = dump(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, []string{"four"}, payloads)
}

func TestConnClosedTwice(t *testing.T) {
	testnet.SkipIfShort(t)
	conn, err := new(Opener).Open()
	require.NoError(t, err)
	number := dumpSocketOf(conn).fd
	require.NoError(t, conn.Close())
	require.NoError(t, unix.Dup3(0, number, unix.O_CLOEXEC), "another file takes the number")
	require.ErrorIs(t, conn.Close(), unix.EBADF)
	require.NoError(t, unix.Close(number), "still open")
	_, err = conn.Dump(t.Context(), Request{Protocol: ProtocolTCP}, func([]byte) bool { return true })
	require.ErrorIs(t, err, unix.EBADF)
}

// openDescriptors returns the numbers of this process's descriptors.
func openDescriptors(t *testing.T) (numbers []string) {
	t.Helper()
	dir, err := os.Open("/proc/self/fd")
	require.NoError(t, err)
	defer dir.Close()
	numbers, err = dir.Readdirnames(-1)
	require.NoError(t, err)
	slices.Sort(numbers)
	return numbers
}

// A socket that cannot be configured is closed.
func TestConnIsClosedOnError(t *testing.T) {
	testnet.SkipIfShort(t)
	before := openDescriptors(t)
	for _, test := range []struct {
		call uintptr
		want string
	}{
		{unix.SYS_SOCKET, "opening a sock_diag socket: no buffer space available"},
		{unix.SYS_CONNECT, "connecting a sock_diag socket to the kernel: no buffer space available"},
		{unix.SYS_GETSOCKNAME, "connecting a sock_diag socket to the kernel: no buffer space available"},
		{unix.SYS_SETSOCKOPT, "setting the timeout of a sock_diag socket: no buffer space available"},
	} {
		var err error
		testnet.Failing(t, func() { _, err = new(Opener).Open() }, testnet.Fails(test.call, unix.ENOBUFS))
		require.EqualError(t, err, test.want)
		require.Equal(t, before, openDescriptors(t), test.want)
	}
}

// foreignConn inserts messages of other processes between those of the kernel.
type foreignConn struct {
	*pairConn
	foreign int // messages of others before the kernel's next one
}

func (c *foreignConn) receive() ([]byte, error) {
	if c.foreign > 0 {
		c.foreign--
		return nil, errNotFromKernel
	}
	c.foreign = 3
	return c.pairConn.receive()
}

// Messages of other processes are skipped, and however many there are, a silent kernel times out.
func TestConnSkipsForeignMessages(t *testing.T) {
	d, kernel := newFakeKernel(t)
	d.conn = &foreignConn{d.conn.(*pairConn), 2}
	kernel.send(socketAnswer(1, "one!"))
	kernel.send(socketAnswer(1, "two!"), endAnswer(1))
	payloads, _, err := dump(t.Context(), d)
	require.NoError(t, err)
	require.Equal(t, []string{"one!", "two!"}, payloads)

	d.conn.(*foreignConn).foreign = 1 << 30
	start := time.Now()
	_, _, err = dump(t.Context(), d)
	require.ErrorIs(t, err, ErrNoAnswer)
	require.Less(t, time.Since(start), 5*time.Second)
}

// record returns an answer of the kernel.
func record(t *testing.T, request Request) (recorded []byte, to Exchange) {
	t.Helper()
	socket := dumpSocketOf(openConn(t))
	to = Exchange{socket.port, 1}
	require.NoError(t, socket.send(request.appendTo(nil, to.Sequence)))
	for {
		b, err := socket.receive()
		require.NoError(t, err)
		recorded = append(recorded, b...)
		done, interrupted, err := EachAnswer(b, to, func([]byte) bool { return true })
		require.False(t, interrupted, "try again")
		require.NoError(t, err)
		if done {
			return recorded, to
		}
	}
}

// dumpSocketOf returns the netlink socket of a Conn.
func dumpSocketOf(c *Conn) *dumpSocket { return c.conn.(*dumpSocket) }

// update makes TestRecordCaptures replace the captures.
var update = flag.Bool("update-sockdiag", false, "record the answers of this kernel in testdata")

// TestRecordCaptures records the captures if the flag -update-sockdiag is set:
//
//	go test ./netstat/internal/sockdiag -run TestRecordCaptures -update-sockdiag
//	go test ./netstat -run TestCaptures -update-sockdiag
//
// TestSourcesAgree in netstat compares decoded answers with loads and with ss.
func TestRecordCaptures(t *testing.T) {
	testnet.Isolate(t, func() {
		for _, network := range []string{"tcp4", "tcp6", "tcp4in6"} {
			testnet.States(t, network)
		}
		testnet.Overflow(t, "tcp4")
		testnet.UDP(t)
		testnet.Unix(t)
		user := testnet.Start(t, testnet.Process{Name: "user", UID: 65534})
		user.Connect(user.Listen("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0), 5).Local, 1)
		user.UDP("udp6", netip.AddrPort{}, netip.AddrPort{})

		if *update {
			time.Sleep(500 * time.Millisecond) // until some segments have been retransmitted
		}
		for name, request := range captures {
			recorded, to := record(t, request)
			require.Less(t, len(recorded), 64<<10, name)
			require.Positive(t, parseCapture(t, recorded, to, request), name)
			if *update {
				require.NoError(t, os.WriteFile(captureFile(name), recorded, 0o644))
			}
		}
	})
}

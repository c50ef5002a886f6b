package sockdiag

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// openForger returns a netlink socket that can send to those of other processes, which takes CAP_NET_ADMIN.
func openForger(t *testing.T) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(fd)) })
	return fd
}

func destination(port uint32) *unix.SockaddrNetlink {
	return &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port}
}

// The kernel refuses messages of other processes to our connected socket.
func TestNetlinkRefusesOthers(t *testing.T) {
	testnet.Isolate(t, func() {
		forger := openForger(t)
		for _, flags := range []int{0, unix.SOCK_NONBLOCK} {
			s, err := openSocket(flags)
			require.NoError(t, err)
			err = unix.Sendto(forger, endAnswer(1), 0, destination(s.port))
			require.Equal(t, unix.ECONNREFUSED, err)
			_, err = s.receive(newBatch(1, 100), unix.MSG_DONTWAIT)
			require.Equal(t, unix.EAGAIN, err)
			require.NoError(t, s.close())
		}
	})
}

// A message counts only if the kernel sent it and it was not truncated.
func TestNetlinkBatch(t *testing.T) {
	testnet.Isolate(t, func() {
		// Others can send to this socket: it is not connected to the kernel.
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		require.NoError(t, err)
		s := &socket{fd: fd}
		defer s.close()
		require.NoError(t, unix.Bind(fd, destination(0)))
		name, err := unix.Getsockname(fd)
		require.NoError(t, err)
		s.port = name.(*unix.SockaddrNetlink).Pid

		forged := answer(typeDone, 0, 9, u32s(0))
		ask := func(sequence uint32) {
			t.Helper()
			require.NoError(t, s.send((&Request{Protocol: ProtocolTCP}).appendTo(nil, sequence)))
		}
		batch := newBatch(3, 64)
		receive := func() int {
			t.Helper()
			n, err := s.receive(batch, unix.MSG_DONTWAIT)
			require.NoError(t, err)
			return n
		}
		forger := openForger(t)
		ask(1)
		require.NoError(t, unix.Sendto(forger, forged, 0, destination(s.port)))
		require.Equal(t, 2, receive())
		b, err := batch.message(0)
		require.NoError(t, err)
		m, rest, err := nextMessage(b)
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Equal(t, []any{uint16(typeDone), Exchange{s.port, 1}}, []any{m.kind(), m.exchange()})
		_, err = batch.message(1)
		require.Equal(t, errNotFromKernel, err)

		ask(2)
		require.Equal(t, 1, receive())
		_, err = batch.message(0)
		require.NoError(t, err, "nothing of earlier messages remains")

		_ = testnet.States(t, "tcp4")
		require.NoError(t, s.send((&Request{Protocol: ProtocolTCP, States: StatesAll}).appendTo(nil, 3)))
		require.Positive(t, receive())
		_, err = batch.message(0)
		require.Equal(t, errTruncated, err)
		require.NoError(t, unix.Sendto(forger, make([]byte, 100), 0, destination(s.port)))
		for { // until all are read
			n := receive()
			_, err = batch.message(n - 1)
			if !errors.Is(err, errTruncated) {
				break
			}
		}
		require.Equal(t, errNotFromKernel, err, "even if the message is truncated")
	})
}

// Sequence numbers are unpredictable, and never that of an acknowledgment request.
func TestSequences(t *testing.T) {
	require.EqualValues(t, 1, nextSequence(1<<32-1))
	require.EqualValues(t, 8, nextSequence(7))
	first := map[uint32]bool{}
	for range 8 {
		conn, err := new(Opener).Open()
		require.NoError(t, err)
		first[conn.last.Sequence] = true
		require.NoError(t, conn.Close())
	}
	require.Greater(t, len(first), 6)
}

func TestDeviceName(t *testing.T) {
	testnet.Isolate(t, func() {
		conn, err := new(Opener).Open()
		require.NoError(t, err)
		name, err := conn.AppendDeviceName([]byte("%"), 1)
		require.NoError(t, err)
		require.Equal(t, "%lo", string(name))
		for _, index := range []uint32{0, 2, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
			name, err = conn.AppendDeviceName(name[:1], index)
			require.ErrorIs(t, err, unix.ENODEV, index)
			require.Equal(t, "%", string(name))
		}
		require.Zero(t, testing.AllocsPerRun(100, func() { name, _ = conn.AppendDeviceName(name[:0], 1) }))
		require.NoError(t, conn.Close())
		_, err = conn.AppendDeviceName(nil, 1)
		require.ErrorIs(t, err, unix.EBADF)
	})
}

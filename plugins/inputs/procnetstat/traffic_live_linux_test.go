package procnetstat

import (
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// pipeline sends from one process to another.
type pipeline struct {
	*testing.T
	sender, receiver *testnet.Proc
	listener         testnet.Socket
}

// twoEnds is the two ends of one of its connections.
type twoEnds struct{ from, to testnet.Socket }

func newPipeline(t *testing.T) *pipeline {
	p := &pipeline{T: t, sender: testnet.Start(t, testnet.Process{Name: "sender"}), receiver: testnet.Start(t, testnet.Process{Name: "receiver"})}
	p.listener = p.receiver.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
	return p
}

func (p *pipeline) connect() twoEnds {
	return twoEnds{p.sender.Connect(p.listener.Local, 1)[0], p.receiver.Accept(p.listener, 1)[0]}
}

// send sends n bytes and waits until they are acknowledged.
func (p *pipeline) send(c twoEnds, n int) {
	p.Helper()
	const atOnce = 500_000
	for ; n > 0; n -= atOnce {
		p.sender.Send(c.from, min(n, atOnce))
		p.receiver.Receive(c.to, min(n, atOnce))
	}
	p.drain()
}

// drain waits until all that was sent is acknowledged.
func (p *pipeline) drain() {
	p.Helper()
	eventually(p, func() bool {
		return !slices.ContainsFunc(testnet.SS(p.T, "-t", "state", "established"), func(row testnet.Row) bool { return row.SendQ > 0 })
	})
}

func (p *pipeline) close(c twoEnds) {
	p.sender.Close(c.from)
	p.receiver.Close(c.to)
}

// TestBytesOfLongAndShortConnections: the counter never goes back, and ends exactly, with what connections sent that lived wholly
// between two gathers. A plugin that starts late counts what is sent from then on.
func TestBytesOfLongAndShortConnections(t *testing.T) {
	testnet.Isolate(t, func() {
		const each, short = 1_000_000, 50
		const synFIN, fin = 2, 1 // count as bytes
		p := newPipeline(t)
		long := p.connect()
		p.send(long, each) // before the plugin starts

		l, late := start(t, ""), (*live)(nil)
		var acked, received int64
		gather := func() {
			g := l.gather()
			of := g.one("procnetstat_process", "process_name=sender")
			require.GreaterOrEqual(t, of["tcp_bytes_acked"], acked, "a counter does not go back")
			acked = of["tcp_bytes_acked"]
			of = g.one("procnetstat_process", "process_name=receiver")
			require.GreaterOrEqual(t, of["tcp_bytes_received"], received)
			received = of["tcp_bytes_received"]
			if late != nil {
				late.gather()
			}
		}
		gather()
		require.Zero(t, acked, "what was before the start is not replayed")
		require.Zero(t, received)

		var sent, sentLate int64
		for i := range short {
			if i == short/2 {
				late = start(t, "")
				require.Zero(t, late.gather().one("procnetstat_process", "process_name=sender")["tcp_bytes_acked"])
			}
			p.send(long, each)
			c := p.connect()
			p.send(c, each)
			sent += 2 * each
			if late != nil {
				sentLate += 2 * each
			}
			if i%5 != 0 { // else it lives between two gathers
				gather()
			}
			p.close(c)
		}
		require.Equal(t, int64(100_000_000), sent)
		require.Eventually(t, func() bool { // the kernel reports the last ones a little later
			gather()
			return received == sent+short*fin
		}, 5*time.Second, 10*time.Millisecond)
		require.Equal(t, sent+short*synFIN, acked)
		ackedLate := late.gather().one("procnetstat_process", "process_name=sender")["tcp_bytes_acked"]
		require.Equal(t, sentLate+short/2*synFIN, ackedLate)

		t.Run("restart", func(t *testing.T) {
			l.plugin.Stop()
			require.NoError(t, l.plugin.Start(nil))
			l.T, p.T = t, t
			require.Zero(t, l.gather().one("procnetstat_process", "process_name=sender")["tcp_bytes_acked"])
			p.send(long, 1000)
			require.Equal(t, int64(1000), l.gather().one("procnetstat_process", "process_name=sender")["tcp_bytes_acked"])
		})
	})
}

// TestReconnectedSocket: a process can end a connection and make another with the same socket, whose counters then restart,
// under the same cookie.
func TestReconnectedSocket(t *testing.T) {
	testnet.Isolate(t, func() {
		p := newPipeline(t)
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(client)
		to := &unix.SockaddrInet4{Port: int(p.listener.Local.Port()), Addr: p.listener.Local.Addr().As4()}
		send := func(n int) {
			_, err := unix.Write(client, make([]byte, n))
			require.NoError(t, err)
			p.receiver.Receive(p.receiver.Accept(p.listener, 1)[0], n)
			p.drain()
		}
		require.NoError(t, unix.Connect(client, to))
		send(100_000)
		l := start(t, `measurements = ["remote"]`)
		before := l.gather().one("procnetstat_remote")

		disconnect := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		require.NoError(t, connectRaw(client, &disconnect))
		require.NoError(t, unix.Connect(client, to))
		send(500)
		after := l.gather().one("procnetstat_remote")
		require.Equal(t, int64(501), after["tcp_bytes_acked"]-before["tcp_bytes_acked"], "500 bytes and a SYN")
		require.Less(t, after["tcp_segs_out"]-before["tcp_segs_out"], int64(10))
		require.Less(t, after["tcp_segs_in"]-before["tcp_segs_in"], int64(10))
	})
}

func connectRaw(fd int, to *unix.RawSockaddr) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(to)), unsafe.Sizeof(*to))
	if errno != 0 {
		return errno
	}
	return nil
}

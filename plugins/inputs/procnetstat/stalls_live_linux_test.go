package procnetstat

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat"
)

// transfer is a connection whose client writes without end.
type transfer struct {
	port           string // of the server
	client, server net.Conn
}

// startTransfer connects and begins to write. Sizes of buffers of 0 are the default.
func startTransfer(t *testing.T, sendBuffer, receiveBuffer int) *transfer {
	t.Helper()
	control := func(option, size int) func(string, string, syscall.RawConn) error {
		return func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) {
				err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
				if size != 0 {
					err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, size))
				}
			}), err)
		}
	}
	listens := net.ListenConfig{Control: control(unix.SO_RCVBUF, receiveBuffer)}
	listener, err := listens.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	d := &transfer{port: strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)}
	dials := net.Dialer{Control: control(unix.SO_SNDBUF, sendBuffer)}
	d.client, err = dials.DialContext(t.Context(), "tcp4", listener.Addr().String())
	require.NoError(t, err)
	d.server, err = listener.Accept()
	require.NoError(t, err)
	t.Cleanup(d.close)
	go func() {
		for data := make([]byte, 1<<20); ; {
			if _, err := d.client.Write(data); err != nil {
				return
			}
		}
	}()
	return d
}

// read begins to read all that arrives.
func (d *transfer) read() { go func() { _, _ = io.Copy(io.Discard, d.server) }() }

func (d *transfer) close() {
	_, _ = d.client.Close(), d.server.Close()
}

// limitedBy says what limits a sender, by the fields of the set stalls.
func limitedBy(fields map[string]int64) string {
	busy := fields["tcp_busy_us"]
	switch isLarge := func(field string) bool { return fields[field] > busy/4 }; {
	case busy < 200_000:
		return "too early"
	case isLarge("tcp_rwnd_limited_us"):
		return "reader"
	case isLarge("tcp_sndbuf_limited_us"):
		return "send buffer"
	case (fields["tcp_rto"] > 0 || !has(fields, "tcp_rto")) && fields["tcp_retrans_segs"] > 0: // Linux 6.7 has tcp_rto
		return "loss"
	default:
		return "network"
	}
}

// TestWhatLimitsSenders: a sender limited by a slow reader, one by its send buffer and one by loss are told apart.
func TestWhatLimitsSenders(t *testing.T) {
	testnet.Isolate(t, func() {
		testnet.Require(t, "nft", "tc", "ip")
		// One segment in a packet, as the kernel otherwise fills the buffer with one packet, whatever its size.
		run(t, "ip", "link", "set", "lo", "mtu", "1500", "gso_max_segs", "1", "gso_max_size", "1500")
		l := start(t, "measurements = [\"remote\", \"process\"]\ndetails = [\"traffic\", \"stalls\"]")
		l.gather()
		var last gathered
		of := func(d *transfer) map[string]int64 { return last.one("procnetstat_remote", "remote_port="+d.port) }
		await := func(d *transfer, want string) {
			t.Helper()
			defer func() { t.Logf("%s: %v", want, of(d)) }()
			eventually(t, func() bool {
				last = l.gather()
				return limitedBy(of(d)) == want
			})
		}

		slowReader := startTransfer(t, 0, 4096)
		await(slowReader, "reader")
		require.Positive(t, of(slowReader)["tcp_notsent_bytes"])

		run(t, "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "8mbit", "burst", "4kb", "limit", "1mb")
		smallBuffer := startTransfer(t, 4096, 0)
		smallBuffer.read()
		await(smallBuffer, "send buffer")
		require.NoError(t, smallBuffer.client.Close()) // the last part counts too, and then the series stays
		run(t, "tc", "qdisc", "del", "dev", "lo", "root")

		lossy := startTransfer(t, 0, 0)
		lossy.read()
		run(t, "nft", "add table inet loss")
		run(t, "nft", "add chain inet loss in { type filter hook input priority 0; }")
		run(t, "nft", fmt.Sprintf("add rule inet loss in tcp dport %s numgen random mod 100 < 40 drop", lossy.port))
		await(lossy, "loss")
		require.Equal(t, "reader", limitedBy(of(slowReader)))
		require.Zero(t, of(slowReader)["tcp_rto"]+of(slowReader)["tcp_sndbuf_limited_us"])
		require.Positive(t, last.one("procnetstat_process")["tcp_rcv_ooopack"], "at the other end")
	})
}

// TestIdleConnections: an established connection without data for idle_after is idle, in all measurements and at both ends, until it
// has data in either direction.
func TestIdleConnections(t *testing.T) {
	testnet.Isolate(t, func() {
		server, client := testnet.Start(t, testnet.Process{Name: "server"}), testnet.Start(t, testnet.Process{Name: "client"})
		listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), 16)
		const options = "measurements = [\"host\", \"process\", \"listener\", \"cgroup\", \"remote\", \"client\"]\ndetails = [\"stalls\"]\n"
		short, long := start(t, options+`idle_after = "50ms"`), start(t, options+`idle_after = "1h"`)
		ends, accepted := client.Connect(listener.Local, 3), server.Accept(listener, 3)
		client.Close(ends[2]) // neither FIN_WAIT2 nor CLOSE_WAIT is established
		await(t, "ESTABLISHED", slices.Concat(ends[:2], accepted[:2])...)
		eventually(t, func() bool { return short.gather().one("procnetstat")["tcp_idle"] == 4 })
		g := short.gather()
		for _, series := range []struct {
			measurement string
			tags        []string
		}{
			{"procnetstat_process", []string{"process_name=server"}},
			{"procnetstat_process", []string{"process_name=client"}},
			{"procnetstat_listener", []string{"protocol=tcp"}},
			{"procnetstat_remote", nil},
			{"procnetstat_client", nil},
		} {
			require.EqualValues(t, 2, g.one(series.measurement, series.tags...)["tcp_idle"], "%s %v", series.measurement, series.tags)
		}
		require.EqualValues(t, 4, g.sum("procnetstat_cgroup")["tcp_idle"])
		require.Zero(t, long.gather().one("procnetstat")["tcp_idle"])
		eventually(t, func() bool { // sending counts at one end and receiving at the other
			client.Send(ends[0], 1)
			return short.gather().one("procnetstat")["tcp_idle"] == 2
		})
		eventually(t, func() bool { return short.gather().one("procnetstat")["tcp_idle"] == 4 })
	})
}

// tcpFieldsOfKernel returns the fields of connections that this kernel has, by the length of its struct tcp_info.
func tcpFieldsOfKernel(t *testing.T) netstat.Field {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	var info [1024]byte
	length := uint32(len(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	require.Zero(t, errno)
	fields := ^netstat.Field(0)
	if length < 242 { // Linux 6.7
		fields &^= netstat.FieldTCPTotalRTO
	}
	return fields
}

// TestFieldsThatKernelLacks: a field that connections do not have is absent from then on, also in a namespace without connections.
func TestFieldsThatKernelLacks(t *testing.T) {
	testnet.Isolate(t, func() {
		l := start(t, "measurements = [\"host\"]\ndetails = [\"stalls\"]")
		require.True(t, has(l.gather().one("procnetstat"), "tcp_rto"))
		l.plugin.kernelFields &^= netstat.FieldTCPTotalRTO // as if an older kernel had been asked for connections
		fields := l.gather().one("procnetstat")
		require.False(t, has(fields, "tcp_rto"))
		require.True(t, has(fields, "tcp_rcv_ooopack"))
	})
}

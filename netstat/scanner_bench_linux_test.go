package netstat

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag"
	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

// growingPair starts a server and a client. With each call of grow they connect until the network namespace has that many TCP
// sockets, including the listener.
func growingPair(tb testing.TB) (grow func(sockets int)) {
	tb.Helper()
	const batch = 1000 // connections, less than the backlog
	server, client := testnet.Start(tb, testnet.Process{Name: "server"}), testnet.Start(tb, testnet.Process{Name: "client"})
	listener := server.Listen("tcp4", netip.MustParseAddrPort("127.0.0.1:0"), batch)
	connections := 0
	return func(sockets int) {
		for want := (sockets - 1) / 2; connections < want; {
			n := min(want-connections, batch)
			client.Connect(listener.Local, n)
			server.Accept(listener, n)
			connections += n
		}
	}
}

// readAll scans once and looks up the owners of each socket.
func readAll(tb testing.TB, s *Scanner) (sockets, owners int) {
	tb.Helper()
	for socket, err := range s.Sockets(context.Background()) {
		if err != nil {
			tb.Fatal(err)
		}
		sockets++
		owners += len(socket.Owners())
	}
	return sockets, owners
}

// A scan allocates nothing per socket: the same bound holds for 50 and for 500 sockets.
func TestScannerAllocates(t *testing.T) {
	testnet.Isolate(t, func() {
		grow := growingPair(t)
		for _, size := range []int{50, 500} {
			grow(size)
			for _, config := range []ScannerConfig{
				{Source: SourceNetlink, TCPInfo: true},
				{Source: SourceNetlink, OwnerMethod: OwnersProcfs},
				{Source: SourceNetlink, OwnerMethod: OwnersOff},
				{Source: SourceProcfs},
			} {
				t.Run(fmt.Sprintf("%d sockets, %s, owners %s", size, config.Source, config.OwnerMethod), func(t *testing.T) {
					const maxAllocs = 30
					s := newScanner(t, config)
					sockets, owners := readAll(t, s)
					require.InDelta(t, size, sockets, 2)
					if config.OwnerMethod == OwnersOff {
						require.Zero(t, owners)
					} else {
						require.Equal(t, sockets, owners)
					}
					allocs := math.Inf(1)
					for attempt := 0; allocs > maxAllocs && attempt < 10; attempt++ { // the host may start processes meanwhile
						allocs = min(allocs, allocsPerScan(s, func() { readAll(t, s) }))
					}
					require.LessOrEqual(t, allocs, float64(maxAllocs))
				})
			}
		}
	})
}

// allocsPerScan returns the allocations of one scan, less those for processes that the host has started since the scan before.
func allocsPerScan(s *Scanner, scan func()) float64 {
	const perProcess = 10 // an upper bound
	processes := func() map[int]*Process {
		if cache := cacheOf(s.finder); cache != nil {
			return maps.Clone(cache.processes)
		}
		return nil
	}
	before := processes()
	allocs := testing.AllocsPerRun(1, scan)
	for pid, process := range processes() {
		if before[pid] != process {
			allocs -= perProcess
		}
	}
	return allocs
}

func BenchmarkScanner(b *testing.B) {
	testnet.Isolate(b, func() {
		grow := growingPair(b)
		for _, size := range []int{100, 2000, 20000} {
			grow(size)
			for _, bench := range []struct {
				name   string
				config ScannerConfig
			}{
				{"netlink", ScannerConfig{Source: SourceNetlink}},
				{"netlink_tcpinfo", ScannerConfig{Source: SourceNetlink, TCPInfo: true}},
				{"procfs", ScannerConfig{Source: SourceProcfs}},
			} {
				for _, owners := range []OwnerMethod{OwnersOff, OwnersBPF, OwnersProcfs} {
					bench.config.OwnerMethod = owners
					b.Run(fmt.Sprintf("%s/owners=%s/sockets=%d", bench.name, owners, size), func(b *testing.B) {
						if owners == OwnersBPF {
							testnet.RequireBPF(b)
						}
						s := newScanner(b, bench.config)
						readAll(b, s)
						b.ReportAllocs()
						for b.Loop() {
							readAll(b, s)
						}
						reportPer(b, "socket", size)
					})
				}
			}
		}
	})
}

// firstAnswer returns the first message of a capture about a socket in the state.
func firstAnswer(b *testing.B, capture string, state TCPState) []byte {
	b.Helper()
	for _, payload := range readCapture(b, capture) {
		var s Socket
		require.NoError(b, decode(&s, payload, captures[capture]))
		if s.State == state {
			return payload
		}
	}
	b.Fatal("it is not there")
	return nil
}

// without removes an attribute from an inet_diag_msg, as if it had not been requested.
func without(b *testing.B, payload []byte, unwanted uint16) []byte {
	b.Helper()
	m, err := sockdiag.ParseInet(payload)
	require.NoError(b, err)
	rest := slices.Clone(payload[:72])
	attributes := m.Attributes()
	for attributes.Next() {
		if attributes.Type != unwanted {
			rest = append(rest, attribute(attributes.Type, attributes.Value)...)
		}
	}
	require.NoError(b, attributes.Err())
	require.Less(b, len(rest), len(payload))
	return rest
}

// BenchmarkDecode decodes recorded messages: one message, and a full buffer.
func BenchmarkDecode(b *testing.B) {
	connection := firstAnswer(b, "tcp-connected", TCPEstablished)
	for _, bench := range []struct {
		name      string
		transport Transport
		payload   []byte
	}{
		{"listener", TransportTCP, firstAnswer(b, "tcp-listen", TCPListen)},
		{"connection", TransportTCP, without(b, connection, sockdiag.InetInfo)},
		{"connection_info", TransportTCP, connection},
		{"udp", TransportUDP, firstAnswer(b, "udp4", TCPClose)},
		{"unix", TransportUnix, firstAnswer(b, "unix", TCPEstablished)},
	} {
		var s Socket
		decode := func(payload []byte) bool { return decode(&s, payload, bench.transport) == nil }
		b.Run("message/"+bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.payload)))
			b.ReportAllocs()
			for b.Loop() {
				if !decode(bench.payload) {
					b.Fatal("not decoded")
				}
			}
		})
		b.Run("buffer/"+bench.name, func(b *testing.B) {
			const sequence, room = 1, 32 << 10 // netlink_dump, net/netlink/af_netlink.c
			one := answer(20, 0, sequence, bench.payload)
			to := sockdiag.Exchange{Port: sockdiagtest.Port, Sequence: sequence}
			sockets := room / len(one)
			buffer := bytes.Repeat(one, sockets)
			b.SetBytes(int64(len(buffer)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := sockdiag.EachAnswer(buffer, to, decode); err != nil {
					b.Fatal(err)
				}
			}
			reportPer(b, "socket", sockets)
		})
	}
}

// BenchmarkRows reads and parses tables of /proc/net.
func BenchmarkRows(b *testing.B) {
	for _, table := range []struct {
		name, header, row string
		parse             func(text []byte, s *Socket) error
	}{
		{
			"tcp", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
			"%4d: 0100007F:1F90 0200007F:C350 01 00000000:00000000 02:000A7D8C 00000000  1000        0 %d 2 0000000000000000 20 4 30 10 -1\n",
			func(text []byte, s *Socket) error { return s.parseRow(text, TransportTCP) },
		},
		{
			"tcp6", "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
			"%4d: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000200007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 %d 1 0000000000000000 20 4 0 10 -1\n",
			func(text []byte, s *Socket) error { return s.parseRow(text, TransportTCP) },
		},
		{
			"unix", "Num       RefCount Protocol Flags    Type St Inode Path\n",
			"%016x: 00000003 00000000 00000000 0001 03 %d /run/systemd/journal/stdout\n",
			func(text []byte, s *Socket) error { return s.parseRow(text, TransportUnix) },
		},
	} {
		for _, rows := range []int{1, 1000, 100_000} {
			b.Run(fmt.Sprintf("%s/rows=%d", table.name, rows), func(b *testing.B) {
				text := []byte(table.header)
				for i := range rows {
					text = fmt.Appendf(text, table.row, i, 100_000+i)
				}
				var (
					reader procfs.RowReader
					socket Socket
					from   bytes.Reader
					seen   int
				)
				row := func(_ int, text []byte, err error) bool {
					if err == nil {
						err = table.parse(text, &socket)
					}
					seen++
					return err == nil
				}
				read := func() {
					seen = 0
					from.Reset(text)
					if err := reader.Each(&from, row); err != nil || seen != rows {
						b.Fatalf("%d rows, error %v", seen, err)
					}
				}
				read() // allocates the buffer
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					read()
				}
				reportPer(b, "row", rows)
				require.Equal(b, uint64(100_000+rows-1), socket.Inode)
			})
		}
	}
}

package netstat

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// crowd makes TCP sockets in steps: with each call there are so many of them in the namespace, which two processes a step
// hold.
func crowd(tb testing.TB) (grow func(sockets int)) {
	tb.Helper()
	made := 0
	return func(sockets int) {
		connections := (sockets - made - 1) / 2 // and the listener
		testnet.Crowd(tb, 1, connections)
		made += 2*connections + 1
	}
}

// readAll is what a reader of every field does, Owners included.
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

// A scan makes as much garbage for 2,000 sockets as for 100: next to none.
func TestScannerAllocates(t *testing.T) {
	testnet.Isolate(t, func() {
		grow := crowd(t)
		for _, size := range []int{100, 2000} {
			grow(size)
			for _, config := range []ScannerConfig{
				{Source: SourceNetlink, TCPInfo: true},
				{Source: SourceNetlink, Owners: OwnersNone},
				{Source: SourceProcfs},
			} {
				t.Run(fmt.Sprintf("%d sockets, %s, owners %s", size, config.Source, config.Owners), func(t *testing.T) {
					const most = 30
					s := newScanner(t, config)
					sockets, owners := readAll(t, s)
					require.InDelta(t, size, sockets, 2)
					if config.Owners == OwnersNone {
						require.Zero(t, owners)
					} else {
						require.Equal(t, sockets, owners)
					}
					require.LessOrEqual(t, fewestAllocs(func() { readAll(t, s) }), float64(most))
				})
			}
		}
	})
}

// fewestAllocs is testing.AllocsPerRun on a host where processes come and go, which are new to the scanner.
func fewestAllocs(f func()) float64 {
	fewest := testing.AllocsPerRun(3, f)
	for range 4 {
		fewest = min(fewest, testing.AllocsPerRun(3, f))
	}
	return fewest
}

func BenchmarkScanner(b *testing.B) {
	testnet.Isolate(b, func() {
		grow := crowd(b)
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
				for _, owners := range []OwnerMethod{OwnersNone, OwnersProcfs} {
					bench.config.Owners = owners
					b.Run(fmt.Sprintf("%s/owners=%s/sockets=%d", bench.name, owners, size), func(b *testing.B) {
						s := newScanner(b, bench.config)
						readAll(b, s)
						b.ReportAllocs()
						for b.Loop() {
							readAll(b, s)
						}
						b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/socket")
					})
				}
			}
		}
	})
}

// BenchmarkDecode is a scan without the kernel: the answers are the captures.
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"tcp-listen", "tcp-connected", "udp4", "unix"} {
		b.Run(name, func(b *testing.B) {
			capture, transport := readCapture(b, name), captures[name].transport
			first, _, err := nextMessage(capture)
			require.NoError(b, err)
			var s Socket
			decode := func(payload []byte) bool {
				if transport == TransportUnix {
					err = decodeUnixMsg(payload, &s)
				} else {
					err = decodeInetMsg(payload, transport, &s)
				}
				return err == nil
			}
			b.SetBytes(int64(len(capture)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := eachAnswer(capture, first.sequence, decode); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

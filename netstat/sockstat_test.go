package netstat

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat/internal/procfs"
)

func TestReadSockstat(t *testing.T) {
	s, err := ReadSockstat(smallTree)
	require.NoError(t, err)
	page := uint64(os.Getpagesize())
	require.Equal(t, Sockstat{
		SocketsUsed: new(uint64(34)),
		TCPInUse:    new(uint64(7)), TCPOrphan: new(uint64(4)), TCPTimeWait: new(uint64(2)), TCPAlloc: new(uint64(15)),
		TCPMemBytes: new(3 * page),
		UDPInUse:    new(uint64(2)), UDPMemBytes: new(2 * page),
		UDPLiteInUse: new(uint64(1)), RawInUse: new(uint64(1)), FragInUse: new(uint64(0)), FragMemBytes: new(uint64(0)),
		TCP6InUse: new(uint64(6)), UDP6InUse: new(uint64(3)), UDPLite6InUse: new(uint64(1)), Raw6InUse: new(uint64(1)),
		Frag6InUse: new(uint64(0)), Frag6MemBytes: new(uint64(0)),
	}, s)
}

func TestReadSockstatErrors(t *testing.T) {
	s, err := ReadSockstat(brokenTree)
	require.EqualError(t, err, brokenTree+"/net/sockstat:1: \"used\" has no value\n"+brokenTree+"/net/sockstat6:1: file has no content")
	require.Equal(t, Sockstat{}, s)

	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Join(root, "net"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, "net", name), []byte(content), 0o600))
	}
	_, err = ReadSockstat(root)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, filepath.Join(root, "net", "sockstat"))

	write("sockstat", "sockets: used 5\n")
	s, err = ReadSockstat(root)
	require.NoError(t, err, "kernel without IPv6")
	require.Equal(t, Sockstat{SocketsUsed: new(uint64(5))}, s)

	write("sockstat6", "TCP6: inuse 1\nUDP6: inuse x\n")
	s, err = ReadSockstat(root)
	require.ErrorIs(t, err, procfs.ErrSyntax)
	require.EqualError(t, err, filepath.Join(root, "net", "sockstat6")+`:2: inuse "x": not a number`)
	require.Equal(t, Sockstat{SocketsUsed: new(uint64(5))}, s, "values that could be read")
}

func TestParseSockstat(t *testing.T) {
	for _, test := range []struct {
		name, content string
		want          Sockstat
	}{
		{"page size", "TCP: mem 3\nUDP: mem 1\nFRAG: memory 7\n",
			Sockstat{TCPMemBytes: new(uint64(3 << 16)), UDPMemBytes: new(uint64(1 << 16)), FragMemBytes: new(uint64(7))}},
		{"old kernel", "sockets: used 9\nTCP: inuse 1\n", Sockstat{SocketsUsed: new(uint64(9)), TCPInUse: new(uint64(1))}},
		{"new kernel", "TCP: inuse 1 more 2 orphan 3\nMPTCP: inuse 5\n", Sockstat{TCPInUse: new(uint64(1)), TCPOrphan: new(uint64(3))}},
		{"key of another line", "RAW: orphan 3\n", Sockstat{}},
		{"no counts", "TCP:\n", Sockstat{}},
		{"no line end", "sockets: used 18446744073709551615", Sockstat{SocketsUsed: new(uint64(1<<64 - 1))}},
		{"below 0 for a moment", "sockets: used -3\n", Sockstat{SocketsUsed: new(uint64(0))}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s Sockstat
			_, err := s.parse([]byte(test.content), 1<<16)
			require.NoError(t, err)
			require.Equal(t, test.want, s)
		})
	}
}

func TestSockstatOutOfRange(t *testing.T) {
	var s Sockstat
	line, err := s.parse([]byte("TCP: inuse 1\nTCP: mem 4503599627370496\n"), 4096)
	require.EqualError(t, err, `mem "4503599627370496": out of range`)
	require.Equal(t, 2, line)
}

// Every count has its own field, named after it.
func TestSockstatFields(t *testing.T) {
	var s Sockstat
	places := map[**uint64]bool{}
	for _, line := range []string{
		"sockets used", "TCP inuse orphan tw alloc mem", "UDP inuse mem", "UDPLITE inuse", "RAW inuse", "FRAG inuse memory",
		"TCP6 inuse", "UDP6 inuse", "UDPLITE6 inuse", "RAW6 inuse", "FRAG6 inuse memory",
	} {
		name, keys, _ := strings.Cut(line, " ")
		for key := range strings.FieldsSeq(keys) {
			place, _ := s.field([]byte(name), []byte(key), 1)
			require.NotNil(t, place, "%s %s", name, key)
			require.False(t, places[place], "%s %s", name, key)
			places[place] = true
		}
	}
	require.Len(t, places, reflect.TypeFor[Sockstat]().NumField())
}

func TestReadCounters(t *testing.T) {
	c, err := ReadCounters(smallTree)
	require.NoError(t, err)
	require.Equal(t, Counters{
		TCPListenOverflows: new(uint64(9)), TCPListenDrops: new(uint64(10)), TCPAttemptFails: new(uint64(3)),
		TCPEstabResets: new(uint64(5)), TCPOutRsts: new(uint64(2)),
		UDPNoPorts: new(uint64(6)), UDPRcvbufErrors: new(uint64(7)), UDPSndbufErrors: new(uint64(8)),
		UDP6NoPorts: new(uint64(11)), UDP6RcvbufErrors: new(uint64(12)), UDP6SndbufErrors: new(uint64(13)),
	}, c)
	require.Equal(t, numCounters, reflect.TypeFor[Counters]().NumField())
}

// A file that cannot be read leaves out its counters, and no others.
func TestReadCountersErrors(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(root, "net", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	c, err := ReadCounters(root)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, filepath.Join(root, "net", "snmp"))
	require.ErrorContains(t, err, filepath.Join(root, "net", "netstat"))
	require.Equal(t, Counters{}, c)

	write("snmp", "Tcp: OutRsts\nTcp: 18446744073709551615\n")
	write("netstat", "TcpExt: New ListenDrops\nTcpExt: 1.5 3\nMPTcpExt: ListenDrops\nMPTcpExt: 9\n")
	c, err = ReadCounters(root)
	require.NoError(t, err, "kernel without IPv6 and some counters")
	want := Counters{TCPOutRsts: new(uint64(1<<64 - 1)), TCPListenDrops: new(uint64(3))}
	require.Equal(t, want, c)

	path := write("snmp6", "Udp6NoPorts 1\nUdp6SndbufErrors x\n")
	c, err = ReadCounters(root)
	require.EqualError(t, err, path+`:2: Udp6SndbufErrors "x": not a number`)
	require.Equal(t, want, c)

	path = write("snmp6", "Udp6NoPorts 1\nUdp6SndbufErrors 12")
	c, err = ReadCounters(root)
	require.EqualError(t, err, path+":2: the line has no end")
	require.Equal(t, want, c)

	write("snmp6", "Udp6NoPorts 1\nUdp6NoPorts 2\n"+strings.Repeat("Icmp6New 1\n", 10_000)+"Udp6SndbufErrors 5\n")
	c, err = ReadCounters(root)
	require.NoError(t, err, "longer than the buffer")
	want.UDP6NoPorts, want.UDP6SndbufErrors = new(uint64(2)), new(uint64(5))
	require.Equal(t, want, c)
}

func TestReadLimits(t *testing.T) {
	l, err := ReadLimits(smallTree)
	require.NoError(t, err)
	require.Equal(t, Limits{
		TCPOrphans: new(uint64(8192)), TCPMemBytes: new(87048 * uint64(os.Getpagesize())), TCPTimeWait: new(uint64(4096)),
		LocalPorts: new(uint64(28232 - 10 - 10)),
	}, l)
	require.True(t, l.equal(l))
	again, _ := ReadLimits(smallTree)
	require.True(t, l.equal(again))
	fields := reflect.ValueOf(&again).Elem()
	for i := range fields.NumField() {
		again, _ = ReadLimits(smallTree)
		fields.Field(i).Set(reflect.ValueOf(new(uint64(1))))
		require.False(t, l.equal(again))
		fields.Field(i).SetZero()
		require.False(t, l.equal(again))
	}
}

// What is absent is unknown; what is wrong is an error, and unknown too.
func TestReadLimitsErrors(t *testing.T) {
	root := t.TempDir()
	l, err := ReadLimits(root)
	require.NoError(t, err)
	require.Equal(t, Limits{}, l)

	dir := filepath.Join(root, "sys", "net", "ipv4")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	write := func(name, content string) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	write("ip_local_port_range", "1024 1033\n")
	write("tcp_max_orphans", "-5\n")
	l, err = ReadLimits(root)
	require.NoError(t, err)
	require.Equal(t, Limits{TCPOrphans: new(uint64(0)), LocalPorts: new(uint64(10))}, l)

	write("ip_local_reserved_ports", "1024,x\n")
	write("tcp_mem", "1 2 18446744073709551615\n")
	write("tcp_max_tw_buckets", "")
	l, err = ReadLimits(root)
	require.EqualError(t, err, dir+"/tcp_mem: out of range\n"+dir+"/tcp_max_tw_buckets: the line has no end\n"+
		dir+`/ip_local_port_range: "x": not a number`)
	require.Equal(t, Limits{TCPOrphans: new(uint64(0))}, l)

	require.NoError(t, os.Remove(filepath.Join(dir, "tcp_mem")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "tcp_mem"), 0o755))
	_, err = ReadLimits(root)
	require.ErrorContains(t, err, "reading the limits: read "+dir+"/tcp_mem: is a directory")

	write("tcp_max_tw_buckets", strings.Repeat(" ", 1<<20)+"7\n")
	_, err = ReadLimits(root)
	require.ErrorContains(t, err, "tcp_max_tw_buckets: is longer than 196608 bytes")
}

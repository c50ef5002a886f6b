package netstat

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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
	require.NoError(t, err, "a kernel without IPv6")
	require.Equal(t, Sockstat{SocketsUsed: new(uint64(5))}, s)

	write("sockstat6", "TCP6: inuse 1\nUDP6: inuse x\n")
	s, err = ReadSockstat(root)
	require.ErrorIs(t, err, errNoNumber)
	require.EqualError(t, err, filepath.Join(root, "net", "sockstat6")+`:2: inuse "x": not a number`)
	require.Equal(t, Sockstat{SocketsUsed: new(uint64(5))}, s, "what could be read")
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

func TestParseSockstatErrors(t *testing.T) {
	for _, test := range []struct {
		content string
		line    int
		want    string
	}{
		{"", 1, "file has no content"},
		{"\n", 1, `"" has no colon`},
		{"sockets: used 1\ngarbage\n", 2, `"garbage" has no colon`},
		{"sockets: used 1\n\n", 2, `"" has no colon`},
		{"TCP: inuse 1 orphan\n", 1, `"orphan" has no value`},
		{"TCP: inuse x\n", 1, `inuse "x": not a number`},
		{"TCP: inuse --1\n", 1, `inuse "--1": not a number`},
		{"TCP: inuse -\n", 1, `inuse "-": not a number`},
		{"TCP: inuse 18446744073709551616\n", 1, `inuse "18446744073709551616": out of range`},
		{"TCP: inuse -9223372036854775808\n", 1, `inuse "-9223372036854775808": out of range`}, // not with a sum of ints
		{"TCP: inuse 1\nTCP: mem 4503599627370496\n", 2, `mem "4503599627370496": out of range`},
		{"NEW: what 1.5\n", 1, `what "1.5": not a number`},
	} {
		var s Sockstat
		line, err := s.parse([]byte(test.content), 4096)
		require.EqualError(t, err, test.want)
		require.Equal(t, test.line, line)
	}
}

// Every count has a place of its own, which the names tell.
func TestSockstatFields(t *testing.T) {
	var s Sockstat
	places := map[**uint64]bool{}
	for _, line := range []string{
		"sockets used", "TCP inuse orphan tw alloc mem", "UDP inuse mem", "UDPLITE inuse", "RAW inuse", "FRAG inuse memory",
		"TCP6 inuse", "UDP6 inuse", "UDPLITE6 inuse", "RAW6 inuse", "FRAG6 inuse memory",
	} {
		name, keys, _ := strings.Cut(line, " ")
		for key := range strings.FieldsSeq(keys) {
			place, _ := s.field(name, key, 1)
			require.NotNil(t, place, "%s %s", name, key)
			require.False(t, places[place], "%s %s", name, key)
			places[place] = true
		}
	}
	require.Len(t, places, reflect.TypeFor[Sockstat]().NumField())
}

// An error or counts that were in the file.
func FuzzParseSockstat(f *testing.F) {
	f.Fuzz(func(t *testing.T, content []byte) {
		var s Sockstat
		line, err := s.parse(content, 1)
		if err != nil {
			require.Positive(t, line)
			require.LessOrEqual(t, line, strings.Count(string(content), "\n")+1)
			return
		}
		require.Zero(t, line)
		for _, field := range reflect.ValueOf(s).Fields() {
			if count, _ := field.Interface().(*uint64); count != nil && *count != 0 {
				require.Contains(t, string(content), strconv.FormatUint(*count, 10))
			}
		}
	})
}

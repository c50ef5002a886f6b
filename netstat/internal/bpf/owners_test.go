//go:build amd64 || arm64

package bpf

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// recordOf returns what the program writes for a process.
func recordOf(pid int, name string, inodes ...uint64) []byte {
	b := binary.NativeEndian.AppendUint64(nil, 0)
	b = binary.NativeEndian.AppendUint64(b, uint64(pid)*100*hundredth)
	b = binary.NativeEndian.AppendUint32(b, uint32(pid))
	b = binary.NativeEndian.AppendUint32(b, uint32(1000+pid)) // the user
	var comm [16]byte
	copy(comm[:], name)
	b = append(b, comm[:]...)
	for _, inode := range inodes {
		b = binary.NativeEndian.AppendUint64(b, inode)
	}
	return b
}

const hundredth = 10_000_000 // of a second, in ns

// readRecords returns one line per visit.
func readRecords(records *ownerRecords, from io.Reader) (visited []string, err error) {
	err = records.each(context.Background(), from, func(p *Process, inodes []uint64) {
		if p.UID != 1000+p.PID {
			visited = append(visited, fmt.Sprintf("user %d", p.UID))
		}
		visited = append(visited, fmt.Sprintf("%d %q since %d: %d", p.PID, p.Name(), p.StartBootTime/hundredth, inodes))
	})
	return visited, err
}

func TestOwnerRecords(t *testing.T) {
	const maxInode = 1<<64 - 1
	for name, test := range map[string]struct {
		stream []byte
		want   []string
		err    error
	}{
		"nothing": {nil, nil, nil},
		"one":     {recordOf(1, "init", 7), []string{`1 "init" since 100: [7]`}, nil},
		"names": {
			slices.Concat(recordOf(1, "", 1), recordOf(2, "123456789012345", 2), recordOf(3, "1234567890123456", 3), recordOf(4, "a\xff\n", 4)),
			[]string{
				`1 "" since 100: [1]`, `2 "123456789012345" since 200: [2]`, `3 "1234567890123456" since 300: [3]`,
				`4 "a\xff\n" since 400: [4]`,
			}, nil,
		},
		"many":       {recordOf(9, "x", 1, 2, 2, maxInode), []string{fmt.Sprintf(`9 "x" since 900: [1 2 2 %d]`, uint64(maxInode))}, nil},
		"no sockets": {slices.Concat(recordOf(1, "a"), recordOf(2, "b", 3)), []string{`2 "b" since 200: [3]`}, nil},
		"twice": {
			slices.Concat(recordOf(1, "a", 1), recordOf(1, "a", 2), recordOf(2, "b", 3), recordOf(1, "a", 4)),
			[]string{`1 "a" since 100: [1]`, `1 "a" since 100: [2]`, `2 "b" since 200: [3]`, `1 "a" since 100: [4]`}, nil,
		},
		"biggest pid":   {recordOf(1<<22, "a", 1), []string{`4194304 "a" since 419430400: [1]`}, nil},
		"cut inode":     {recordOf(1, "a", 1, 2)[:processLen+15], []string{`1 "a" since 100: [1]`}, io.ErrUnexpectedEOF},
		"cut process":   {slices.Concat(recordOf(1, "a", 1), recordOf(2, "b")[:39]), []string{`1 "a" since 100: [1]`}, io.ErrUnexpectedEOF},
		"cut at once":   {recordOf(1, "a")[:1], nil, io.ErrUnexpectedEOF},
		"no process":    {binary.NativeEndian.AppendUint64(nil, 5), nil, errNoProcess},
		"process 0":     {slices.Concat(recordOf(1, "a", 1), recordOf(0, "b", 2), recordOf(3, "c", 3)), []string{`1 "a" since 100: [1]`}, errNoProcess},
		"zeros":         {make([]byte, 2*processLen), nil, nil},
		"only a header": {recordOf(1, "a"), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var records ownerRecords // reused: it keeps nothing of a stream
			read := func(from io.Reader, how string, args ...any) {
				t.Helper()
				visited, err := readRecords(&records, from)
				require.Equal(t, test.err, err, how, args)
				require.Equal(t, test.want, visited, how, args)
			}
			read(bytes.NewReader(test.stream), "at once")
			read(iotest.DataErrReader(bytes.NewReader(test.stream)), "with the end")
			for size := range 50 {
				read(&chunkReader{b: test.stream, size: size + 1}, "in pieces of %d", size+1)
				read(&chunkReader{b: test.stream, size: size + 1, between: unix.EAGAIN}, "in pieces of %d, EAGAIN between", size+1)
			}
			for i := range test.stream {
				read(io.MultiReader(bytes.NewReader(test.stream[:i]), bytes.NewReader(test.stream[i:])), "in two at %d", i)
			}
		})
	}
}

// chunkReader returns size bytes per read, and an error between reads.
type chunkReader struct {
	b       []byte
	size    int
	between error
	odd     bool
}

func (p *chunkReader) Read(b []byte) (int, error) {
	if p.odd = !p.odd; p.odd && p.between != nil {
		return 0, &os.PathError{Op: "read", Path: "bpf_iter", Err: p.between}
	}
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:min(p.size, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

// Records before an error are visited, and do not leak into the next read.
func TestOwnerRecordsError(t *testing.T) {
	failure := errors.New("out of memory")
	stream := slices.Concat(recordOf(1, "a", 1, 2), recordOf(2, "b", 3, 4), recordOf(3, "c"))
	want := []string{`1 "a" since 100: [1 2]`, `2 "b" since 200: [3 4]`}
	var records ownerRecords
	for at := range len(stream) + 1 {
		visited, err := readRecords(&records, io.MultiReader(bytes.NewReader(stream[:at]), iotest.ErrReader(failure)))
		require.Equal(t, failure, err, "at %d", at)
		switch first, second := processLen+16, 2*(processLen+16); {
		case at < processLen+8:
			require.Empty(t, visited, "at %d", at)
		case at < first:
			require.Equal(t, []string{`1 "a" since 100: [1]`}, visited, "at %d", at)
		case at >= second:
			require.Equal(t, want, visited, "at %d", at)
		default:
			require.Equal(t, want[0], visited[0], "at %d", at)
		}
		visited, err = readRecords(&records, bytes.NewReader(recordOf(9, "next", 9)))
		require.NoError(t, err)
		require.Equal(t, []string{`9 "next" since 900: [9]`}, visited, "after an error at %d", at)
	}
}

// A stream that is longer than the buffer.
func TestOwnerRecordsLong(t *testing.T) {
	const processes, each = 500, 40
	var stream []byte
	want := map[uint32][]uint64{}
	for pid := range uint32(processes) {
		pid++
		for i := range uint64(each) {
			want[pid] = append(want[pid], uint64(pid)<<32|i+1)
		}
		stream = append(stream, recordOf(int(pid), "name", want[pid]...)...)
	}
	var records ownerRecords
	require.Greater(t, len(stream), 2*len(records.buf))
	for _, from := range []io.Reader{
		bytes.NewReader(stream), iotest.HalfReader(bytes.NewReader(stream)), &chunkReader{b: stream, size: 32<<10 - 24},
	} {
		got := map[uint32][]uint64{}
		require.NoError(t, records.each(t.Context(), from, func(p *Process, inodes []uint64) { got[p.PID] = slices.Clone(inodes) }))
		require.Equal(t, want, got)
	}
}

// The result does not depend on the size of reads, an error is one of two, and every inode of a complete stream is visited with
// its process.
func FuzzOwnerRecords(f *testing.F) {
	f.Add([]byte{}, uint8(1))
	f.Add(recordOf(1, "a", 1, 2), uint8(7))
	f.Add(slices.Concat(recordOf(1, "a", 1), recordOf(2, "b")[:39]), uint8(39))
	f.Add(binary.NativeEndian.AppendUint64(nil, 5), uint8(8))
	f.Add([]byte("0what ev0er it is0"), uint8(40))
	var records ownerRecords
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		if len(data) > 4<<10 {
			return
		}
		whole, wholeErr := readRecords(&records, bytes.NewReader(data))
		inPieces, err := readRecords(&records, &chunkReader{b: data, size: int(size) + 1, between: unix.EAGAIN})
		require.Equal(t, wholeErr, err)
		require.Equal(t, whole, inPieces)
		require.Contains(t, []error{nil, io.ErrUnexpectedEOF, errNoProcess}, err)

		// A digit starts a process, and each other byte is one of its sockets.
		var stream []byte
		var want []string
		for i := 0; i < len(data); i++ {
			if data[i] < '0' || data[i] > '9' {
				continue
			}
			pid, name, inodes := i+1, string(data[i]), []uint64(nil)
			for ; i+1 < len(data) && (data[i+1] < '0' || data[i+1] > '9'); i++ {
				inodes = append(inodes, uint64(data[i+1])<<56|uint64(i+1))
			}
			stream = append(stream, recordOf(pid, name, inodes...)...)
			if len(inodes) > 0 {
				want = append(want, fmt.Sprintf("%d %q since %d: %d", pid, name, 100*pid, inodes))
			}
		}
		visited, err := readRecords(&records, &chunkReader{b: stream, size: int(size) + 1})
		require.NoError(t, err)
		require.Equal(t, want, visited)
	})
}

// The end of the context ends the read.
func TestOwnerRecordsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	records := &ownerRecords{}
	require.ErrorIs(t, records.each(ctx, bytes.NewReader(nil), nil), context.Canceled)
}

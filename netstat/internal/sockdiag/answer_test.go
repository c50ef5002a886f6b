package sockdiag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/procnetstat/procnetstat/netstat/internal/sockdiag/sockdiagtest"
)

func TestEachAnswer(t *testing.T) {
	const ours, foreign = 7, 6
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	socket := func(text string) []byte { return answer(typeByFamily, 0x2, ours, []byte(text)) }
	end := answer(typeDone, 0x2, ours, u32s(0))
	for _, test := range []struct {
		name        string
		b           []byte
		want        []string
		done        bool
		interrupted bool
	}{
		{name: "nothing"},
		{name: "sockets", b: join(socket("one"), socket("two!")), want: []string{"one", "two!"}},
		{name: "the end", b: join(socket("one"), end), want: []string{"one"}, done: true},
		{name: "an end without a number", b: answer(typeDone, 0, ours, nil), done: true},
		{name: "an acknowledgement", b: answer(typeError, 0, ours, u32s(0, 0, 0, 0, 0)), done: true},
		{name: "nothing after the end", b: join(end, socket("one")), done: true},
		{name: "answers to earlier requests", want: []string{"one"}, b: join(
			answer(typeByFamily, flagDumpIntr, foreign, []byte("old")),
			answer(typeError, 0, foreign, u32s(1<<32-1)),
			answer(typeDone, 0, foreign, u32s(0)),
			socket("one"))},
		{name: "other messages", b: join(answer(1, 0, ours, nil), answer(4, 0, ours, nil), socket("one")), want: []string{"one"}},
		{name: "interrupted at a socket", b: join(answer(typeByFamily, 0x2|flagDumpIntr, ours, []byte("one")), socket("two")),
			want: []string{"one", "two"}, interrupted: true},
		{name: "interrupted at the end", b: join(socket("one"), answer(typeDone, flagDumpIntr, ours, u32s(0))),
			want: []string{"one"}, done: true, interrupted: true},
		{name: "last message without padding", b: socket("one")[:headerLen+3], want: []string{"one"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			done, interrupted, err := EachAnswer(test.b, Exchange{sockdiagtest.Port, ours}, func(payload []byte) bool {
				got = append(got, string(payload))
				return true
			})
			require.NoError(t, err)
			require.Equal(t, test.want, got)
			require.Equal(t, test.done, done)
			require.Equal(t, test.interrupted, interrupted)
		})
	}
}

func TestEachAnswerErrors(t *testing.T) {
	const ours = 7
	socket := answer(typeByFamily, 0x2|flagDumpIntr, ours, []byte("one!"))
	tooLong := bytes.Clone(socket)
	binary.NativeEndian.PutUint32(tooLong, 1<<32-1)
	tooShort := bytes.Clone(socket)
	binary.NativeEndian.PutUint32(tooShort, headerLen-1)
	for _, test := range []struct {
		name string
		b    []byte
		done bool
	}{
		{"header cut off", socket[:headerLen-1], false},
		{"payload cut off", socket[:len(socket)-1], false},
		{"length out of range", tooLong, false},
		{"length below the header", tooShort, false},
		{"error without a number", answer(typeError, 0, ours, []byte{1, 2, 3}), true},
		{"error without any payload", answer(typeError, 0, ours, nil), true},
		{"end with half a number", answer(typeDone, 0, ours, []byte{1}), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			seen := 0
			b := append(bytes.Clone(socket), test.b...)
			done, interrupted, err := EachAnswer(b, Exchange{sockdiagtest.Port, ours}, func([]byte) bool {
				seen++
				return true
			})
			require.ErrorIs(t, err, ErrShort)
			require.Equal(t, test.done, done)
			require.True(t, interrupted, "messages before the error count")
			require.Equal(t, 1, seen)
		})
	}
	t.Run("stopped", func(t *testing.T) {
		two := append(bytes.Clone(socket), socket...)
		done, _, err := EachAnswer(two, Exchange{sockdiagtest.Port, ours}, func([]byte) bool { return false })
		require.Equal(t, ErrStopped, err)
		require.False(t, done)
	})
}

// Answers to requests of other sockets are skipped.
func TestExchange(t *testing.T) {
	const port = sockdiagtest.Port
	ours := Exchange{port, 7}
	for _, m := range []struct {
		port, sequence uint32
		answers        bool
	}{{port, 7, true}, {port, 8, false}, {port + 1, 7, false}, {0, 7, false}, {port, 0, false}} {
		b := answer(typeTCP, 0, m.sequence, []byte("socket"))
		binary.NativeEndian.PutUint32(b[12:], m.port)
		seen := false
		_, _, err := EachAnswer(b, ours, func([]byte) bool { seen = true; return true })
		require.NoError(t, err)
		require.Equal(t, m.answers, seen, m)
		end := answer(typeDone, 0, m.sequence, u32s(0))
		binary.NativeEndian.PutUint32(end[12:], m.port)
		done, _, err := EachAnswer(end, ours, func([]byte) bool { return true })
		require.NoError(t, err)
		require.Equal(t, m.answers, done, m)
	}
}

func TestNotSupportedOtherErrors(t *testing.T) {
	require.NoError(t, notSupported(nil))
	require.Equal(t, syscall.EIO, notSupported(syscall.EIO))
	require.EqualError(t, notSupported(syscall.ENOENT), "unsupported operation: no such file or directory")
}

// A buffer is an error, or all our messages in it are handed out, in order and within bounds.
func FuzzEachAnswer(f *testing.F) {
	for name := range captures {
		content, err := os.ReadFile(captureFile(name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content[:min(len(content), 2000)], uint32(1), uint8(255))
		f.Add(content[max(0, len(content)-500):], uint32(1), uint8(0))
	}
	for _, b := range [][]byte{
		answer(typeError, 0, 1, u32s(1<<32-2)), answer(typeDone, flagDumpIntr, 1, nil), answer(typeError, 0, 1, nil),
	} {
		f.Add(b, uint32(1), uint8(255))
	}
	f.Fuzz(func(t *testing.T, b []byte, sequence uint32, stopAfter uint8) {
		seen, size := 0, 0
		done, interrupted, err := EachAnswer(b, Exchange{sockdiagtest.Port, sequence}, func(payload []byte) bool {
			seen++
			size += headerLen + len(payload)
			return seen <= int(stopAfter)
		})
		require.LessOrEqual(t, size, len(b))
		stopped := seen > int(stopAfter)
		require.Equal(t, stopped, err == ErrStopped) //nolint:errorlint // never wrapped
		if stopped {
			require.Equal(t, int(stopAfter)+1, seen)
			require.False(t, done)
		}
		if interrupted {
			require.NotEmpty(t, b)
		}
		if err == nil && !done { // b consists of messages
			for len(b) > 0 {
				var messageErr error
				_, b, messageErr = nextMessage(b)
				require.NoError(t, messageErr)
			}
		}
	})
}

// events records the calls of a handler.
type events struct {
	cookies []uint64
	errs    []error
}

func (e *events) Destroyed(m InetMessage) { e.cookies = append(e.cookies, m.Cookie()) }
func (e *events) Failed(err error)        { e.errs = append(e.errs, err) }

func destroyed(cookie uint64) []byte {
	return sockdiagtest.Event(sockdiagtest.Inet{
		Family: AFInet, State: 7, Local: "127.0.0.1:5000", Remote: "127.0.0.2:6000", Cookie: cookie,
		Attributes: attribute(InetInfo, make([]byte, 248)),
	}.Bytes())
}

// Events are messages that no request asked for.
func TestEachEvent(t *testing.T) {
	payload := destroyed(7)[headerLen:]
	otherType := destroyed(8)
	binary.NativeEndian.PutUint16(otherType[4:], typeDone)
	var got events
	for _, b := range [][]byte{
		destroyed(1),
		append(destroyed(2), destroyed(3)...),
		otherType,
		answer(typeByFamily, 0, 0, payload), // answers the request of another socket
		answer(typeByFamily, 0, 7, payload),
	} {
		eachEvent(b, &got)
	}
	require.Equal(t, events{cookies: []uint64{1, 2, 3}}, got)
}

// Each truncated event is an error, and the events before it count.
func TestEachEventCutOff(t *testing.T) {
	var got events
	whole := destroyed(1)
	for n := 1; n < len(whole); n++ {
		eachEvent(whole[:n], &got)
	}
	require.Len(t, got.errs, len(whole)-1)
	eachEvent(append(destroyed(2), sockdiagtest.Event(whole[headerLen:][:50])...), &got)
	require.Len(t, got.errs, len(whole))
	for _, err := range got.errs {
		require.ErrorIs(t, err, ErrShort)
	}
	eachEvent(append(sockdiagtest.Event(whole[headerLen:][:50]), destroyed(3)...), &got)
	require.Equal(t, []uint64{2, 3}, got.cookies)
}

func TestEachEventAllocs(t *testing.T) {
	var got counter
	b := append(destroyed(1), destroyed(2)...)
	require.Zero(t, testing.AllocsPerRun(100, func() { eachEvent(b, &got) }))
	require.Equal(t, 2*101, got.sockets)
}

// counter counts the calls of a handler.
type counter struct{ sockets, failed int }

func (c *counter) Destroyed(InetMessage) { c.sockets++ }
func (c *counter) Failed(error)          { c.failed++ }

// A buffer has errors or events, but no more than fit.
func FuzzEachEvent(f *testing.F) {
	f.Add(destroyed(1))
	f.Add(append(destroyed(1), destroyed(2)...))
	f.Add(destroyed(1)[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		var got events
		eachEvent(b, &got)
		require.Equal(t, before, b)
		require.LessOrEqual(t, (len(got.cookies)+len(got.errs))*headerLen, len(b)+headerLen)
		require.LessOrEqual(t, len(got.cookies)*(headerLen+inetMessageLen), len(b))
		for _, err := range got.errs {
			require.False(t, errors.Is(err, errors.ErrUnsupported))
		}
	})
}
